"""Import the problems of a UCR or UEA time series archive: check them, and write them as training jobs read them.

    python -m lstm_fcn.benchmarks.archive ARCHIVE OUTPUT [--summary FILE] [--problems NAME ...] [--password TEXT]

ARCHIVE is a folder or a zip file with `…/NAME/NAME_TRAIN.EXT` and `NAME_TEST.EXT`; `benchmarks.formats` lists the
formats. Where a problem comes in several, the first of that list is taken; where in several folders, the one nearest
to the top. Links to folders are not followed. Each problem becomes

    OUTPUT/NAME/training/train.csv    a series in each row, without a header: label, all values of the first variable,
    OUTPUT/NAME/test/test.csv         all of the second, and so on; each up to the longest series of both files, with
                                      empty cells where a series is shorter and where a value is missing
    OUTPUT/NAME/problem.json          `Description`

A problem whose source has not changed is left as it is, so the command can be run again. One that is wrong is refused
with a message, and what OUTPUT has of it stays.
"""

import argparse
import csv
import difflib
import hashlib
import io
import os
import re
import shutil
import sys
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, TextIO

from pydantic import BaseModel, ConfigDict, ValidationError
from tqdm import tqdm

from lstm_fcn.benchmarks.formats import FORMATS, Format, Split, parse
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.files import check_writable
from lstm_fcn.training.data.labels import sort_classes

DESCRIPTION = "problem.json"
TRAIN = Path("training/train.csv")
TEST = Path("test/test.csv")
SUMMARY = "DataSummary.csv"
LARGEST_FILE = 2 * 1024**3  # bytes, unpacked
Outcome = Literal["imported", "unchanged"]

_LENGTH = re.compile(r"(?:([0-9]+)\s*-\s*)?([0-9]+)\s*(?:\(max.*\))?")


class Source(BaseModel):
    """A file that a problem was imported from; `path` is that in the archive."""

    model_config = ConfigDict(frozen=True)

    path: str
    size: int
    sha256: str


class Description(BaseModel):
    """What `problem.json` says of a problem.

    train, test: numbers of series.
    length, shortest: values of the longest series and of the shortest, in each variable.
    classes: labels, in the order in which a model has them.
    missing: values are missing before the end of a series.
    sources: the archive's files, train and test.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    train: int
    test: int
    length: int
    shortest: int
    num_variables: int
    classes: list[str]
    missing: bool
    format: Format
    sources: tuple[Source, Source]


@dataclass(frozen=True)
class Problem:
    """A problem's series; those of `train` and `test` have the same width, that of the longest series."""

    description: Description
    train: Split
    test: Split

    @property
    def unseen(self) -> list[str]:
        """Classes of test series that no training series has."""
        return sort_classes(set(self.test.labels) - set(self.train.labels))


def import_archive(
    archive: Path, output: Path, summary: Path | None = None, names: list[str] | None = None, password: str = ""
) -> int:
    """Import problems, all or those in `names`, and say of each what became of it; returns how many were refused.

    Raises:
        UserError: the archive or the summary as a whole cannot be used; nothing was imported then.
    """
    problems = select(find_problems(archive, password), names)
    declared = _read_declared(archive, summary, password)
    check_writable(output, "output")
    outcomes: Counter[str] = Counter()
    sizes = {problem.name: sum(file.size for file in problem.files) for problem in problems}
    with tqdm(total=sum(sizes.values()), unit="B", unit_scale=True, disable=not sys.stderr.isatty()) as bar:
        for problem in problems:
            bar.set_description(problem.name)
            try:
                outcome, description = import_problem(problem, output, declared)
            except UserError as error:
                outcomes["refused"] += 1
                _say(f"{problem.name}: refused: {error}", sys.stderr)
            else:
                outcomes[outcome] += 1
                _say(f"{problem.name}: {outcome}; {_facts(description)}", sys.stdout)
            bar.update(sizes[problem.name])
    _say(", ".join(f"{outcome} {outcomes[outcome]}" for outcome in ("imported", "unchanged", "refused")), sys.stdout)
    return outcomes["refused"]


def import_problem(
    problem: "ProblemFiles", output: Path, declared: "dict[str, Declared] | None" = None
) -> tuple[Outcome, Description]:
    """Write a problem to its folder in `output`, unless it is there and its source has not changed.

    What is odd but usable is said on standard error.

    Raises:
        UserError: the problem is wrong, is not as `declared`, or cannot be read or written; nothing was written then.
    """
    folder = output / problem.name
    try:
        contents = problem.read()
        present = load_description(folder) if folder.exists() else None
        if present is not None and _is_unchanged(folder, present, contents):
            _check_declared(present, declared)
            return "unchanged", present
        found = contents.parse()
        _check_declared(found.description, declared)
        if found.unseen:
            unseen = ", ".join(found.unseen)
            _say(f"{problem.name}: WARNING: its test series have classes that train lacks: {unseen}", sys.stderr)
        _write(found, folder)
    except OSError as error:
        raise UserError(f"{error.filename or folder}: {error.strerror}.") from error
    return "imported", found.description


def read_problem(problem: "ProblemFiles") -> Problem:
    """The series of a problem, checked.

    Raises:
        UserError: a half of the problem is missing or cannot be read; names file, row and column of what is wrong.
    """
    return problem.read().parse()


def load_description(folder: Path) -> Description:
    """The description of an imported problem.

    Raises:
        UserError: there is none in `folder`, or it is damaged.
    """
    path = folder / DESCRIPTION
    try:
        return Description.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(
            f"{folder} is no imported problem: {DESCRIPTION} cannot be read ({error.strerror}). Move the folder away, "
            "or choose another one for the output."
        ) from error
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"])) or "the file"
        raise UserError(f"{path} is damaged: {place}: {fault['msg']}. Remove {folder} and import it again.") from error


# The files of an archive


@dataclass(frozen=True)
class ArchiveFile:
    """A file in a folder or in a zip file; `path` is that inside."""

    archive: Path
    path: str
    size: int
    password: bytes = b""

    @property
    def parts(self) -> PurePosixPath:
        return PurePosixPath(self.path)

    @property
    def half(self) -> str:
        """`TRAIN` or `TEST`, of a problem's file."""
        return self.parts.stem.rpartition("_")[2]

    def read(self) -> bytes:
        """Its content. Raises `UserError` if it is too large, damaged or outside the archive; `OSError`."""
        if self.size > LARGEST_FILE:
            raise UserError(f"{self.path} has {self.size} bytes; at most {LARGEST_FILE} are read.")
        if self.archive.is_dir():
            path = self.archive / self.path
            if not path.resolve().is_relative_to(self.archive.resolve()):
                raise UserError(f"{self.path} is a link to a file outside {self.archive}; put the file itself there.")
            return path.read_bytes()
        try:
            with zipfile.ZipFile(self.archive) as file:
                return file.read(self.path, self.password or None)
        except (zipfile.BadZipFile, RuntimeError, zlib.error, EOFError) as error:
            raise UserError(f"{self.path} cannot be unpacked from {self.archive}: {error}.") from error


@dataclass(frozen=True)
class ProblemFiles:
    """The files of a problem in an archive: its two halves, or one of them, perhaps in several formats."""

    name: str
    files: tuple[ArchiveFile, ...]

    def read(self) -> "Contents":
        """The content of the best two files. Raises `UserError` if a half is missing, or it is not clear which."""
        pairs: dict[tuple[int, int, str], dict[str, ArchiveFile]] = {}
        for file in self.files:
            folder = file.parts.parent
            rank = list(FORMATS).index(file.parts.suffix), len(folder.parts), str(folder)
            pairs.setdefault(rank, {})[file.half] = file
        whole = sorted(rank for rank, pair in pairs.items() if len(pair) == 2)
        if not whole:
            there = ", ".join(file.path for file in self.files)
            raise UserError(f"it needs a TRAIN and a TEST file of one format in one folder, but has only {there}.")
        if len(whole) > 1 and whole[0][:2] == whole[1][:2]:
            raise UserError(f"it is there twice, in {whole[0][2]} and in {whole[1][2]}; remove one of them.")
        pair = pairs[whole[0]]
        train, test = pair["TRAIN"], pair["TEST"]
        return Contents(self.name, FORMATS[train.parts.suffix], (train, test), (train.read(), test.read()))


def find_problems(archive: Path, password: str = "") -> list[ProblemFiles]:
    """The problems of an archive, by name; files that belong to none are left out.

    Raises:
        UserError: there is no such folder or zip file, it holds no problem, or the password is wrong.
    """
    top = archive.resolve().name if archive.is_dir() else archive.stem
    found: dict[str, list[ArchiveFile]] = {}
    for file in _list_files(archive, password.encode()):
        name = file.parts.parent.name or top
        is_half = file.parts.stem in (f"{name}_TRAIN", f"{name}_TEST") and file.parts.suffix in FORMATS
        if is_half and name.isprintable() and not name.startswith("."):  # it becomes a folder's name
            found.setdefault(name, []).append(file)
    if not found:
        raise UserError(f"{archive} holds no problem, such as GunPoint/GunPoint_TRAIN.tsv and GunPoint_TEST.tsv.")
    return [ProblemFiles(name, tuple(found[name])) for name in sorted(found)]


def select(problems: list[ProblemFiles], names: list[str] | None) -> list[ProblemFiles]:
    """Those of the `names`, or all. Raises `UserError` for a name that the archive does not have."""
    known = {problem.name: problem for problem in problems}
    for name in names or []:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            advice = f"did you mean {close[0]}?" if close else f"it has {len(known)} others, such as {min(known)}."
            raise UserError(f"The archive has no problem {name}; {advice}")
    return problems if names is None else [problem for problem in problems if problem.name in names]


def _list_files(archive: Path, password: bytes) -> list[ArchiveFile]:
    if archive.is_dir():
        paths = [Path(folder, name) for folder, _, names in os.walk(archive) for name in names]
        files = [path for path in sorted(paths) if path.is_file()]
        return [ArchiveFile(archive, path.relative_to(archive).as_posix(), path.stat().st_size) for path in files]
    try:
        with zipfile.ZipFile(archive) as file:
            members = [info for info in file.infolist() if not info.is_dir()]
            for info in members:
                _check_inside(archive, info.filename)
            _check_password(file, members, password)
    except OSError as error:
        raise UserError(f"{archive} cannot be read: {error.strerror}.") from error
    except zipfile.BadZipFile as error:
        raise UserError(f"{archive} is neither a folder nor a whole zip file: {error}.") from error
    return [ArchiveFile(archive, info.filename, info.file_size, password) for info in members]


def _check_inside(archive: Path, name: str) -> None:
    """Nothing is ever written to a member's path; but a zip file that has such paths was made to do harm."""
    parts = re.split(r"[/\\]", name)
    if ".." in parts or parts[0] == "" or ":" in parts[0]:
        raise UserError(f"{archive} holds a path that leads outside of it ({name!r}); do not use this file.")


def _check_password(file: zipfile.ZipFile, members: list[zipfile.ZipInfo], password: bytes) -> None:
    encrypted = next((info for info in members if info.flag_bits & 1), None)
    if encrypted is None:
        return
    if not password:
        raise UserError(f"{file.filename} is encrypted; say its password with --password.")
    try:
        with file.open(encrypted, pwd=password) as member:
            member.read(1)
    except NotImplementedError as error:
        raise UserError(f"{file.filename} is encrypted in a way that is not known here; unpack it first.") from error
    except (RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        raise UserError(f"{file.filename} has another password than the one of --password.") from error


# What makes a problem


@dataclass(frozen=True)
class Contents:
    """The bytes of a problem's two files, train and test."""

    name: str
    format: Format
    files: tuple[ArchiveFile, ArchiveFile]
    texts: tuple[bytes, bytes]

    @property
    def sources(self) -> tuple[Source, Source]:
        """The fingerprints of both files."""
        train, test = (
            Source(path=file.path, size=len(text), sha256=hashlib.sha256(text).hexdigest())
            for file, text in zip(self.files, self.texts, strict=True)
        )
        return train, test

    def parse(self) -> Problem:
        """The series, checked. Raises `UserError` as `read_problem` does."""
        train, test = (parse(text, self.format, file.path) for file, text in zip(self.files, self.texts, strict=True))
        self._check(train, test)
        length = max(int(split.lengths.max()) for split in (train, test))
        description = Description(
            name=self.name,
            train=len(train.labels),
            test=len(test.labels),
            length=length,
            shortest=min(int(split.lengths.min()) for split in (train, test)),
            num_variables=train.series.shape[1],
            classes=sort_classes({*train.labels, *test.labels}),
            missing=train.has_missing or test.has_missing,
            format=self.format,
            sources=self.sources,
        )
        return Problem(description, train.resized(length), test.resized(length))

    def _check(self, train: Split, test: Split) -> None:
        """Both files belong together."""
        (_, variables, width), (_, test_variables, test_width) = train.series.shape, test.series.shape
        names = [file.parts.name for file in self.files]
        if variables != test_variables:
            raise UserError(f"{names[0]} has {variables} variables and {names[1]} {test_variables}.")
        if self.format != "ts" and width != test_width:  # the other formats fill up shorter series
            raise UserError(f"{names[0]} has {width} values in a row and {names[1]} {test_width}.")
        if len(set(train.labels)) < 2:
            raise UserError(f"{names[0]} has one class only ({train.labels[0]!r}); at least two are needed.")


# Declared counts


@dataclass(frozen=True)
class Declared:
    """What a summary says of a problem; None where it says nothing. `source` is the summary's name."""

    source: str
    train: int
    test: int
    classes: int
    shortest: int | None
    length: int | None


def read_summary(content: bytes, source: str) -> dict[str, Declared]:
    """The problems of a summary, by their names in lower case.

    It is CSV with the columns name, train, test, class or classes, and length, in any order and among others, as in
    the UCR archive's `DataSummary.csv`. A length is `150`, `7-29`, `455(max; varies)` or `Vary`.

    Raises:
        UserError: names column, or row, of what is wrong.
    """
    rows = csv.DictReader(io.StringIO(content.decode("utf-8-sig", errors="replace")))
    columns = {name.strip().lower().replace("classes", "class"): name for name in rows.fieldnames or []}
    for name in ("name", "train", "test", "class", "length"):
        if name not in columns:
            raise UserError(f"{source} has no column {name}; a summary has name, train, test, class and length.")
    declared = {}
    try:
        for row in rows:
            cells = {name: (row[column] or "").strip() for name, column in columns.items()}
            train, test, classes = (_parse_count(name, cells[name]) for name in ("train", "test", "class"))
            shortest, length = _parse_length(cells["length"])
            declared[cells["name"].lower()] = Declared(source, train, test, classes, shortest, length)
    except (ValueError, csv.Error) as error:
        raise UserError(f"{source}, row {rows.line_num}: {error}.") from error
    return declared


def _parse_count(name: str, text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"{name} is {text!r}; a whole number must be there")
    return int(text)


def _parse_length(text: str) -> tuple[int | None, int | None]:
    """Shortest and longest, where they are said. Raises `ValueError`."""
    if text.lower() in ("", "vary"):
        return None, None
    match = _LENGTH.fullmatch(text)
    if match is None:
        raise ValueError(f"the length {text!r} is none of 150, 7-29, 455(max; varies) and Vary")
    return (int(match[1]) if match[1] else None), int(match[2])


def _read_declared(archive: Path, summary: Path | None, password: str) -> dict[str, Declared] | None:
    """Of the summary given, else of the one in the archive, if it has one."""
    if summary is not None:
        try:
            return read_summary(summary.read_bytes(), str(summary))
        except OSError as error:
            raise UserError(f"The summary {summary} cannot be read: {error.strerror}.") from error
    for file in _list_files(archive, password.encode()):
        if file.path == SUMMARY:
            return read_summary(file.read(), SUMMARY)
    return None


def _check_declared(description: Description, every: dict[str, Declared] | None) -> None:
    """Raises `UserError` that names all counts that are not as declared."""
    if every is None:
        return
    declared = every.get(description.name.lower())
    if declared is None:
        _say(f"{description.name}: WARNING: no summary has it, so its counts are not checked", sys.stderr)
        return
    pairs = [
        ("series in train", description.train, declared.train),
        ("series in test", description.test, declared.test),
        ("classes", len(description.classes), declared.classes),
        ("values in the longest series", description.length, declared.length),
        ("values in the shortest series", description.shortest, declared.shortest),
    ]
    wrong = [f"{found} {what}, not {said}" for what, found, said in pairs if said is not None and found != said]
    if wrong:
        raise UserError(f"it is not as {declared.source} says: {'; '.join(wrong)}.")


# The output


def _is_unchanged(folder: Path, present: Description, contents: Contents) -> bool:
    before, now = ([(source.size, source.sha256) for source in item.sources] for item in (present, contents))
    whole = (folder / TRAIN).is_file() and (folder / TEST).is_file()
    return whole and before == now and present.format == contents.format


def _write(problem: Problem, folder: Path) -> None:
    """All files of a problem, or none: they are written beside their place. Raises `OSError`."""
    partial, replaced = (folder.with_name(f".{folder.name}.{state}") for state in ("partial", "replaced"))
    for leftover in (partial, replaced):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        for path, split in ((TRAIN, problem.train), (TEST, problem.test)):
            (partial / path).parent.mkdir(parents=True)
            with (partial / path).open("w", encoding="utf-8", newline="") as file:
                _write_csv(split, file)
        (partial / DESCRIPTION).write_text(problem.description.model_dump_json(indent=2) + "\n", encoding="utf-8")
        if folder.exists():
            folder.rename(replaced)
        partial.rename(folder)
        shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_csv(split: Split, file: TextIO) -> None:
    """Numbers as the shortest decimals that are read as the same float64."""
    for label, case in zip(split.labels, split.series, strict=True):
        values = ",".join(map(repr, case.ravel().tolist())) + ","
        values = values.replace(".0,", ",").replace("nan", "")[:-1]
        quoted = '"' + label.replace('"', '""') + '"' if re.search('[,"]', label) else label
        file.write(f"{quoted},{values}\n")


def _facts(description: Description) -> str:
    lengths = "-".join(map(str, sorted({description.shortest, description.length})))
    missing = ", missing values" if description.missing else ""
    return (
        f"train {description.train}, test {description.test}, length {lengths}, "
        f"classes {len(description.classes)}, variables {description.num_variables}{missing}"
    )


def _say(line: str, file: TextIO) -> None:
    """Print a line above the progress bar."""
    tqdm.write(line, file=file)
    file.flush()


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=os.environ.get("_LSTM_FCN_COMMAND", "python -m lstm_fcn.benchmarks.archive"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("archive", type=Path, help="folder or zip file")
    parser.add_argument("output", type=Path, help="folder of the imported problems")
    parser.add_argument(
        "--summary", type=Path, help=f"CSV with the counts to expect; by default the archive's {SUMMARY}"
    )
    parser.add_argument("--problems", nargs="+", metavar="NAME", help="only these; by default all")
    parser.add_argument("--password", default="", metavar="TEXT", help="of an encrypted zip file")
    return parser.parse_args()


def main() -> int:
    """Returns 0 if no problem was refused, else 2."""
    given = _parse_arguments()
    try:
        refused = import_archive(given.archive, given.output, given.summary, given.problems, given.password)
    except UserError as error:
        print(f"UserError: {error}", file=sys.stderr)
        return UserError.exit_code
    return UserError.exit_code if refused else 0


if __name__ == "__main__":
    sys.exit(main())
