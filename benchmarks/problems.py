"""Import the problems of an archive: check them, and write them as training jobs read them.

The archive's problem NAME becomes

    OUTPUT/NAME/training/train.csv    headerless CSV: label, all values of the first variable, all of the second, ...,
    OUTPUT/NAME/test/test.csv         each as long as the longest series of both files; cells are empty where a value is
                                      missing and after the end of a shorter series
    OUTPUT/NAME/problem.json          `Description`
"""

import hashlib
import re
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

import click
import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError
from tqdm import tqdm

from lstm_fcn.benchmarks.archive import ProblemFiles, find_problems
from lstm_fcn.benchmarks.formats import Format, Split, parse
from lstm_fcn.benchmarks.summary import SUMMARY, Declared, find_summary
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.files import check_writable
from lstm_fcn.training.data.labels import sort_classes

DESCRIPTION = "problem.json"
TRAIN = Path("training/train.csv")
TEST = Path("test/test.csv")
Outcome = Literal["imported", "unchanged"]


class Source(BaseModel):
    """A file that a problem was imported from; `path` is relative to the archive."""

    model_config = ConfigDict(frozen=True)

    path: str
    size: int
    sha256: str

    @classmethod
    def of(cls, path: str, content: bytes) -> "Source":
        return cls(path=path, size=len(content), sha256=hashlib.sha256(content).hexdigest())


class Description(BaseModel):
    """The content of `problem.json`.

    train, test: numbers of series.
    length, shortest: time steps of the longest and of the shortest series.
    classes: labels, in the order that a model uses.
    missing: whether values are missing before the end of a series.
    sources: the files of the archive, train and test.
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

    def __str__(self) -> str:
        lengths = "-".join(map(str, sorted({self.shortest, self.length})))
        missing = ", missing values" if self.missing else ""
        return (
            f"train {self.train}, test {self.test}, length {lengths}, classes {len(self.classes)}, "
            f"variables {self.num_variables}{missing}"
        )


@dataclass(frozen=True)
class Problem:
    """The series of a problem; `train` and `test` are both padded to the length of the longest series."""

    description: Description
    train: Split
    test: Split


def import_archive(
    archive: Path, output: Path, summary: Path | None = None, names: Sequence[str] = (), password: str = ""
) -> int:
    """Import all problems, or those in `names`, and report each; return the number of refused problems.

    Problems that were imported from the same files before are skipped. A refused problem does not change what `output`
    has of it.

    Raises:
        UserError: the archive or the summary cannot be read; nothing has been imported.
    """
    problems = find_problems(archive, password, names)
    declared = find_summary(archive, summary, password)
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
                _report(f"{problem.name}: refused: {error}", sys.stderr)
            else:
                outcomes[outcome] += 1
                _report(f"{problem.name}: {outcome}; {description}", sys.stdout)
            bar.update(sizes[problem.name])
    _report(", ".join(f"{name} {outcomes[name]}" for name in ("imported", "unchanged", "refused")), sys.stdout)
    return outcomes["refused"]


def import_problem(
    problem: ProblemFiles, output: Path, declared: Mapping[str, Declared] | None = None
) -> tuple[Outcome, Description]:
    """Write a problem to its folder in `output`, unless it is there and its files in the archive have not changed.

    Raises:
        UserError: the problem is invalid, differs from `declared`, or cannot be read or written; nothing was written.
    """
    folder = output / problem.name
    try:
        present = load_description(folder) if folder.exists() else None
        form, sources, contents = _read(problem)
        complete = (folder / TRAIN).is_file() and (folder / TEST).is_file()
        if present is not None and complete and (present.format, present.sources) == (form, sources):
            _check_declared(present, declared)
            return "unchanged", present
        found = _parse(problem.name, form, sources, contents)
        _check_declared(found.description, declared)
        if unseen := sort_classes(set(found.test.labels) - set(found.train.labels)):
            _report(f"{problem.name}: WARNING: test series have classes not in train: {', '.join(unseen)}", sys.stderr)
        _write(found, folder)
    except OSError as error:
        raise UserError(f"{error.filename or folder}: {error.strerror}.") from error
    return "imported", found.description


def read_problem(problem: ProblemFiles) -> Problem:
    """Read and check a problem.

    Raises:
        UserError: a file is missing or invalid; names file, row and column.
    """
    return _parse(problem.name, *_read(problem))


def load_description(folder: Path) -> Description:
    """Read the description of an imported problem.

    Raises:
        UserError: `folder` has no description, or it is damaged.
    """
    path = folder / DESCRIPTION
    try:
        return Description.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(
            f"{folder} is not an imported problem: {DESCRIPTION} cannot be read ({error.strerror}). Move the folder "
            "away, or choose another output folder."
        ) from error
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"])) or "the file"
        raise UserError(f"{path} is damaged: {place}: {fault['msg']}. Remove {folder} and import it again.") from error


# From the archive's files to series


def _read(problem: ProblemFiles) -> tuple[Format, tuple[Source, Source], tuple[bytes, bytes]]:
    form, train, test = problem.choose()
    contents = train.read(), test.read()
    return form, (Source.of(train.path, contents[0]), Source.of(test.path, contents[1])), contents


def _parse(name: str, form: Format, sources: tuple[Source, Source], contents: tuple[bytes, bytes]) -> Problem:
    """The series, checked. Raises `UserError` as `read_problem` does."""
    train, test = (parse(content, form, source.path) for content, source in zip(contents, sources, strict=True))
    train_name, test_name = (Path(source.path).name for source in sources)
    (_, variables, width), (_, test_variables, test_width) = train.series.shape, test.series.shape
    if variables != test_variables:
        raise UserError(f"{train_name} has {variables} variables and {test_name} {test_variables}.")
    if form != "ts" and width != test_width:  # the other formats pad shorter series
        raise UserError(f"{train_name} has {width} values in a row and {test_name} {test_width}.")
    if len(set(train.labels)) < 2:
        raise UserError(f"{train_name} has only one class ({train.labels[0]!r}); at least two are needed.")
    lengths = np.concatenate([train.lengths, test.lengths])
    description = Description(
        name=name,
        train=len(train.labels),
        test=len(test.labels),
        length=int(lengths.max()),
        shortest=int(lengths.min()),
        num_variables=variables,
        classes=sort_classes({*train.labels, *test.labels}),
        missing=train.has_missing or test.has_missing,
        format=form,
        sources=sources,
    )
    return Problem(description, train.resized(description.length), test.resized(description.length))


def _check_declared(found: Description, declared: Mapping[str, Declared] | None) -> None:
    if declared is None:
        return
    counts = declared.get(found.name.lower())
    if counts is None:
        _report(f"{found.name}: WARNING: not in the summary, so its counts are not checked", sys.stderr)
        return
    pairs = [
        ("series in train", found.train, counts.train),
        ("series in test", found.test, counts.test),
        ("classes", len(found.classes), counts.classes),
        ("values in the longest series", found.length, counts.length),
        ("values in the shortest series", found.shortest, counts.shortest),
    ]
    wrong = [f"{number} {what}, not {said}" for what, number, said in pairs if said is not None and number != said]
    if wrong:
        raise UserError(f"the data differ from {counts.source}: {'; '.join(wrong)}.")


# The imported problem


def _write(problem: Problem, folder: Path) -> None:
    """Write all files of a problem, or none: into a temporary folder, which is then renamed. Raises `OSError`."""
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
    """Write each number as the shortest decimal that parses to the same float64."""
    for label, case in zip(split.labels, split.series, strict=True):
        values = ",".join(map(repr, case.ravel().tolist())) + ","
        values = values.replace(".0,", ",").replace("nan", "")[:-1]
        quoted = '"' + label.replace('"', '""') + '"' if re.search('[,"]', label) else label
        file.write(f"{quoted},{values}\n")


def _report(line: str, file: TextIO) -> None:
    """Print a line above the progress bar."""
    tqdm.write(line, file=file)
    file.flush()


# The command


@click.command("import")
@click.argument("archive", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(file_okay=False, path_type=Path))
@click.option("--problem", "names", multiple=True, help="only this problem; may be repeated")
@click.option(
    "--summary",
    type=click.Path(path_type=Path),
    help=f"CSV file with the counts to check  [default: the archive's {SUMMARY}]",
)
@click.option("--password", default="", help="of an encrypted zip file")
def import_command(archive: Path, output: Path, names: Sequence[str], summary: Path | None, password: str) -> int:
    """Import the problems of an archive.

    ARCHIVE is a folder or zip file with problems of the UCR or UEA archive; OUTPUT is the folder for the imported ones.
    Counts, lengths and classes are checked. Problems that have not changed since an earlier import are skipped.
    """
    return UserError.exit_code if import_archive(archive, output, summary, names, password) else 0
