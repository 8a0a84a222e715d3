"""The files of a UCR or UEA time series archive, which is a folder or a zip file.

A problem called NAME consists of `.../NAME/NAME_TRAIN.EXT` and `.../NAME/NAME_TEST.EXT`; `benchmarks.formats` lists the
formats. If the archive has a problem in several formats, the first of that list is used; if in several folders, the one
nearest to the top. Links to folders are not followed.
"""

import difflib
import os
import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lstm_fcn.benchmarks.formats import FORMATS, Format
from lstm_fcn.container.errors import UserError

MAX_FILE_BYTES = 2 * 1024**3  # uncompressed


@dataclass(frozen=True)
class ArchiveFile:
    """A file of an archive; `path` is relative to the folder or the zip file."""

    archive: Path
    path: str
    size: int
    password: bytes = b""

    @property
    def parts(self) -> PurePosixPath:
        return PurePosixPath(self.path)

    @property
    def half(self) -> str:
        """`TRAIN` or `TEST`, for a problem's file."""
        return self.parts.stem.rpartition("_")[2]

    def read(self) -> bytes:
        """Read the file. Raises `UserError` if it is too large, damaged or outside the archive; `OSError`."""
        if self.size > MAX_FILE_BYTES:
            raise UserError(f"{self.path} has {self.size} bytes; the limit is {MAX_FILE_BYTES}.")
        if self.archive.is_dir():
            path = self.archive / self.path
            if not path.resolve().is_relative_to(self.archive.resolve()):
                raise UserError(
                    f"{self.path} is a link to a file outside {self.archive}. Replace it with a copy of the file."
                )
            return path.read_bytes()
        try:
            with zipfile.ZipFile(self.archive) as file:
                return file.read(self.path, self.password or None)
        except (zipfile.BadZipFile, RuntimeError, zlib.error, EOFError) as error:
            raise UserError(f"{self.path} cannot be unpacked from {self.archive}: {error}.") from error


@dataclass(frozen=True)
class ProblemFiles:
    """All files of one problem in an archive."""

    name: str
    files: tuple[ArchiveFile, ...]

    def choose(self) -> tuple[Format, ArchiveFile, ArchiveFile]:
        """The format, and the training and test file to import.

        Raises:
            UserError: the problem is incomplete, or it is ambiguous which files to use.
        """
        pairs: dict[tuple[int, int, str], dict[str, ArchiveFile]] = {}
        for file in self.files:
            folder = file.parts.parent
            rank = list(FORMATS).index(file.parts.suffix), len(folder.parts), str(folder)
            pairs.setdefault(rank, {})[file.half] = file
        complete = sorted(rank for rank, pair in pairs.items() if len(pair) == 2)
        if not complete:
            found = ", ".join(file.path for file in self.files)
            raise UserError(
                f"a problem needs a TRAIN and a TEST file of the same format in the same folder; found only {found}."
            )
        if len(complete) > 1 and complete[0][:2] == complete[1][:2]:
            raise UserError(
                f"the archive has this problem twice, in {complete[0][2]} and in {complete[1][2]}. Remove one of them."
            )
        pair = pairs[complete[0]]
        return FORMATS[pair["TRAIN"].parts.suffix], pair["TRAIN"], pair["TEST"]


def find_problems(archive: Path, password: str = "", names: Sequence[str] = ()) -> list[ProblemFiles]:
    """The problems of an archive, or only those in `names`, sorted by name. Other files are ignored.

    Raises:
        UserError: the archive cannot be read, the password is wrong, or there is no problem, or none of a given name.
    """
    top = archive.resolve().name if archive.is_dir() else archive.stem
    found: dict[str, list[ArchiveFile]] = {}
    for file in list_files(archive, password):
        name = file.parts.parent.name or top
        is_half = file.parts.stem in (f"{name}_TRAIN", f"{name}_TEST") and file.parts.suffix in FORMATS
        if is_half and name.isprintable() and not name.startswith("."):  # it becomes the name of a folder
            found.setdefault(name, []).append(file)
    if not found:
        raise UserError(f"{archive} has no problems, such as GunPoint/GunPoint_TRAIN.tsv and GunPoint_TEST.tsv.")
    for name in names:
        if name not in found:
            close = difflib.get_close_matches(name, found, n=1)
            advice = f"did you mean {close[0]}?" if close else f"it has {len(found)} others, such as {min(found)}."
            raise UserError(f"The archive has no problem {name}; {advice}")
    return [ProblemFiles(name, tuple(found[name])) for name in sorted(set(names) or found)]


def list_files(archive: Path, password: str = "") -> list[ArchiveFile]:
    """All files of an archive. Raises `UserError` if it cannot be read, or the password is wrong."""
    if archive.is_dir():
        paths = [Path(folder, name) for folder, _, names in os.walk(archive) for name in names]
        files = [path for path in sorted(paths) if path.is_file()]
        return [ArchiveFile(archive, path.relative_to(archive).as_posix(), path.stat().st_size) for path in files]
    try:
        with zipfile.ZipFile(archive) as file:
            members = [info for info in file.infolist() if not info.is_dir()]
            for info in members:
                _check_inside(archive, info.filename)
            _check_password(file, members, password.encode())
    except OSError as error:
        raise UserError(f"{archive} cannot be read: {error.strerror}.") from error
    except zipfile.BadZipFile as error:
        raise UserError(f"{archive} is neither a folder nor a valid zip file: {error}.") from error
    return [ArchiveFile(archive, info.filename, info.file_size, password.encode()) for info in members]


def _check_inside(archive: Path, name: str) -> None:
    """Refuse paths outside the archive: nothing is written there, but such a zip file was made to do harm."""
    parts = re.split(r"[/\\]", name)
    if ".." in parts or parts[0] == "" or ":" in parts[0]:
        raise UserError(f"{archive} contains a path outside the archive ({name!r}). Do not use this file.")


def _check_password(file: zipfile.ZipFile, members: list[zipfile.ZipInfo], password: bytes) -> None:
    encrypted = next((info for info in members if info.flag_bits & 1), None)
    if encrypted is None:
        return
    if not password:
        raise UserError(f"{file.filename} is encrypted. Give its password with --password.")
    try:
        with file.open(encrypted, pwd=password) as member:
            member.read(1)
    except NotImplementedError as error:
        raise UserError(f"{file.filename} uses an encryption that is not supported. Unpack it first.") from error
    except (RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        raise UserError(f"{file.filename} cannot be decrypted: the password is wrong.") from error
