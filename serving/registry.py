"""The names and folders of an endpoint's models, which all workers share."""

import json
import re
import secrets
from pathlib import Path
from typing import NamedTuple

from werkzeug.exceptions import Conflict, NotFound

from lstm_fcn.container import artifact
from lstm_fcn.container.errors import UserError, shorten

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@=+-]{0,254}")


class Place(NamedTuple):
    """Where a model is. `token` differs from that of an earlier model of the same name."""

    token: str
    folder: Path


class Registry:
    """Names and folders of an endpoint's models, in files that all workers share, and that outlive a worker."""

    def __init__(self, folder: Path, root: Path) -> None:
        """Keep the names in `folder`; models must lie below `root`."""
        self._folder, self._root = folder, root.resolve()

    def add(self, name: str, folder: Path) -> None:
        """Register a model.

        Raises:
            UserError: the name has other characters than a file name should have, or the folder is not below the root.
            Conflict: there is a model of this name (S34).
        """
        if not NAME.fullmatch(name):
            raise UserError(
                f"The name {shorten(name)} must have 1 to 255 of the characters A-Z a-z 0-9 _ . @ = + - and not start "
                "with one of the last five."
            )
        if not folder.resolve().is_relative_to(self._root):
            raise UserError(f"The model {name} must lie below {self._root}, not in {folder}.")
        token = secrets.token_hex(8)
        complete = self._folder / f".{token}"
        complete.write_text(json.dumps({"token": token, "folder": str(folder)}))
        try:
            (self._folder / name).hardlink_to(complete)  # no reader sees half a file, and the first writer wins
        except FileExistsError:
            raise Conflict(f"There is already a model {name}; delete it first.") from None
        finally:
            complete.unlink()

    def remove(self, name: str) -> None:
        """Forget a model. Raises `NotFound`."""
        try:
            self._path(name).unlink()
        except FileNotFoundError:
            raise _unknown(name) from None

    def find(self, name: str) -> Place:
        """Where a model is. Raises `NotFound`."""
        try:
            content = json.loads(self._path(name).read_bytes())
        except FileNotFoundError:
            raise _unknown(name) from None
        return Place(content["token"], Path(content["folder"]))

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(path.name for path in self._folder.iterdir() if not path.name.startswith("."))

    def _path(self, name: str) -> Path:
        if not NAME.fullmatch(name):
            raise _unknown(name)
        return self._folder / name


def find_models(root: Path) -> list[Path]:
    """The sub-folders of `root` that hold a model, and whose names are those of models."""
    found = sorted(path.parent for path in root.glob(f"*/{artifact.METADATA}"))
    return [folder for folder in found if NAME.fullmatch(folder.name)]


def _unknown(name: str) -> NotFound:
    return NotFound(f"There is no model {shorten(name)}; GET /models lists those that there are.")
