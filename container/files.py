"""Files that are complete or absent, whatever interrupts the writing."""

import contextlib
import os
import tempfile
from pathlib import Path

from lstm_fcn.container.errors import UserError


def write_atomically(*files: tuple[Path, bytes], suffix: str = ".partial") -> None:
    """Write files that appear under their names once all of them are complete and on the disk (T63).

    Each file is written beside its destination, synced and renamed, in the given order. Folders are created.

    Args:
        files: path and content of each.
        suffix: of the temporary names, which start with a dot.

    Raises:
        UserError: a folder cannot be written to, or the disk is full; the earlier files are unchanged.
    """
    partial = {path: path.with_name(f".{path.name}{suffix}") for path, _ in files}
    path = files[0][0]
    try:
        for path, content in files:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial[path].open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for path, temporary in partial.items():
            temporary.replace(path)
    except OSError as error:
        for temporary in partial.values():
            with contextlib.suppress(OSError):
                temporary.unlink()
        raise UserError(f"{path} cannot be written: {error.strerror}.") from error


def check_writable(folder: Path, name: str) -> None:
    """Create a folder and test that it can be written to, so that a long job does not fail at its end.

    Raises:
        UserError: the folder called `name` cannot be written to, and why.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # an anonymous file: other processes may test the same folder
            pass
    except OSError as error:
        raise UserError(f"The {name} folder {folder} cannot be written to: {error.strerror}.") from error
