"""What the tests ask of the programs that run in the SDKs' environments, and what both of these use.

Those environments hold nothing of the project's own: only the standard library may be imported here.
"""

import json
import os
import shutil
import socket
import sys
import tarfile
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

ROLE = "arn:aws:iam::111122223333:role/local-mode"  # a full ARN: a name alone would be looked up


@dataclass(frozen=True)
class Order:
    """One program's work, and where the images, the data and the free ports for it are."""

    folder: str  # everything is read and written below it
    train_image: str
    serve_image: str
    hyperparameters: dict[str, str]
    bad_hyperparameters: dict[str, str]
    rows: list[list[float]]  # series to predict; those in batch/ are the same
    transforms: list[tuple[str | None, str | None, str | None]]  # strategy, SplitType and AssembleWith of each
    ports: list[int]  # one for each container that serves

    @property
    def root(self) -> Path:
        return Path(self.folder)

    @property
    def training(self) -> Path:
        return self.root / "training"

    @property
    def batch(self) -> Path:
        return self.root / "batch"

    @property
    def instances(self) -> dict[str, Any]:
        """The series as a JSON request."""
        return {"instances": [{"features": row} for row in self.rows]}

    def write(self) -> Path:
        path = self.root / "order.json"
        path.write_text(json.dumps(asdict(self)))
        return path

    @classmethod
    def read(cls, path: str) -> "Order":
        return cls(**json.loads(Path(path).read_text()))

    def new_folder(self, *names: str) -> Path:
        folder = self.root.joinpath(*names)
        folder.mkdir(parents=True)
        return folder

    def copy_model(self, archive: Path, *names: str) -> str:
        """A copy of a model in a folder of its own, as a URI: the SDK unpacks an archive where it lies."""
        copy = self.new_folder(*names) / "model.tar.gz"
        shutil.copy(archive, copy)
        return copy.as_uri()

    def report(self, found: dict[str, Any]) -> NoReturn:
        """Write what was found and end, also where the SDK has left a server behind whose thread would go on."""
        (self.root / "report.json").write_text(json.dumps(found))
        sys.stdout.flush()
        os._exit(0)


def outcome(job: "Future[dict[str, Any]]") -> dict[str, Any]:
    """What a job has found, or its error: one that fails does not hide the others."""
    error = job.exception()
    return {"raised": repr(error)} if error else job.result()


def archived(archive: Path) -> dict[str, int]:
    """The names in an archive with their permissions."""
    with tarfile.open(archive) as tar:
        return {member.name: member.mode for member in tar.getmembers()}


def failure_text(archive: Path) -> str:
    """The failure file in the archive of a job's output."""
    with tarfile.open(archive) as tar:
        file = tar.extractfile("failure")
        return file.read().decode() if file else ""


def texts(folder: Path) -> dict[str, str]:
    """Every file in a folder."""
    return {path.name: path.read_text() for path in folder.iterdir()}


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
