"""Reading `model.tar.gz`, as SageMaker stores models, without unpacking it to the disk."""

import tarfile
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import IO, cast

from lstm_fcn.container.errors import UserError

SUFFIXES = (".tar.gz", ".tgz", ".tar")
LARGEST_FILE = 4 * 1024**3  # bytes; larger files in an archive are refused


def read_archive(path: Path, names: Collection[str]) -> dict[str, bytes]:
    """The files with these names in a tar archive, in whatever folder of it, after checking every member (T71).

    Raises:
        UserError: the archive is damaged or unsafe, or holds two files of one of these names.
    """
    try:
        with tarfile.open(path) as archive:
            members = _check(archive.getmembers(), names, path)
            return {name: cast(IO[bytes], archive.extractfile(member)).read() for name, member in members.items()}
    except (tarfile.TarError, EOFError, OSError) as error:
        cause = str(error).splitlines()[0].rstrip(":")
        raise UserError(f"{path} is not a complete tar archive: {cause}; the archive was not read.") from error


def _check(members: list[tarfile.TarInfo], names: Collection[str], path: Path) -> dict[str, tarfile.TarInfo]:
    """The wanted members by name."""

    def refuse(problem: str) -> UserError:
        return UserError(f"{path} {problem}; the archive was not read.")

    found: dict[str, tarfile.TarInfo] = {}
    for member in members:
        parts = PurePosixPath(member.name).parts
        if member.name.startswith("/") or ".." in parts:
            raise refuse(f"is unsafe: its member {member.name!r} would be outside of the archive")
        if not (member.isfile() or member.isdir()):
            raise refuse(f"is unsafe: its member {member.name!r} is a link or a device")
        name = parts[-1] if parts else ""
        if member.isfile() and name in names:
            if name in found:
                raise refuse(f"holds several files {name}")
            if member.size > LARGEST_FILE:
                raise refuse(f"holds a file {name} of {member.size} bytes")
            found[name] = member
    return found
