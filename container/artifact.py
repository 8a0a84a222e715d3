"""The model directory: its files, written whole or not at all, checked when loaded."""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from lstm_fcn.container.errors import UserError
from lstm_fcn.container.preprocess import Preprocessing

GRAPH = "model.onnx"
WEIGHTS = "weights.safetensors"
METADATA = "model.json"
SCHEMA_VERSION: Literal[3] = 3


Task = Literal["binary", "multiclass", "multilabel"]


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, int | float) else value


# One number for each variable; before version 3 there was but one.
OfVariables = Annotated[tuple[float, ...], BeforeValidator(_as_tuple)]


class Scaling(BaseModel):
    """How the graph scales series: each variable by the training set's `mean` and `std`, by its own, or not."""

    model_config = ConfigDict(frozen=True)

    method: Literal["dataset", "series", "none"]
    mean: OfVariables = (0.0,)
    std: OfVariables = (1.0,)


class Metadata(BaseModel):
    """What `model.json` says of a model.

    The graph takes `series`, float64 `[batch, num_variables, length]`, as the user has them but for
    `preprocessing`, and returns `probabilities`, float32 `[batch, len(classes)]`; column k belongs to `classes[k]`;
    and `explanation`, float32 `[batch, length]`, the class activation map of the most probable class.

    classes: labels exactly as written; or the names of the columns `y…`, where the data had a header.
    columns: the names of the columns `x…` in the order of the series, variable by variable; None without a header.
    explains: the graph has the output `explanation`; a network without convolutions has none.
    kept: epoch and fine-tuning round whose weights these are.
    curves: of epochs spread over the whole training, what the log says of them.
    Version 1 knew neither header nor preprocessing nor explanation, and called every task multiclass. Version 2 knew
    one variable only.
    """

    model_config = ConfigDict(frozen=True)

    schema_version: Literal[1, 2, 3] = SCHEMA_VERSION
    task: Task = "multiclass"
    classes: list[str]
    columns: list[str] | None = None
    preprocessing: Preprocessing = Preprocessing()
    num_variables: int = 1
    length: int
    explains: bool = True
    scaling: Scaling
    hyperparameters: dict[str, Any]
    metrics: dict[str, float]
    kept: tuple[int, int] = (0, 0)
    curves: list[dict[str, float]] = []
    versions: dict[str, str]
    sha256: dict[str, str] = {}

    @property
    def independent(self) -> bool:
        """Each class has a probability of its own (sigmoid); else they share 1 (softmax)."""
        return are_independent(self.task, self.classes)

    @property
    def has_explanation(self) -> bool:
        """The graph explains its predictions."""
        return self.schema_version > 1 and self.explains


def are_independent(task: Task, classes: Sequence[str]) -> bool:
    """Any number of the classes can hold of a series, not just one of them."""
    return task == "multilabel" or len(classes) == 1


def save(folder: Path, metadata: Metadata, graph: bytes, weights: bytes) -> None:
    """Write the model files; a reader finds the old model or the new one, never a mixture taken for whole.

    Each file is written beside its place, synced and renamed (T63); the metadata, with the checksums of the
    other two, comes last.

    Raises:
        UserError: the folder cannot be written to, or the disk is full.
    """
    files = {GRAPH: graph, WEIGHTS: weights}
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    files[METADATA] = metadata.model_copy(update={"sha256": sums}).model_dump_json(indent=2).encode()
    partial = {name: folder / f".{name}.partial" for name in files}
    try:
        for name, content in files.items():
            write_synced(partial[name], content)
        for name in files:
            partial[name].replace(folder / name)
    except OSError as error:
        for path in partial.values():
            with contextlib.suppress(OSError):
                path.unlink()
        raise UserError(f"The model cannot be written to {folder}: {error.strerror}.") from error


def check_writable(folder: Path, name: str = "model") -> None:
    """Make a folder and try it, so that a long job does not find out at its end.

    Raises:
        UserError: says that the folder called `name` cannot be written to, and why.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # with a name of its own: others may try the folder at this moment
            pass
    except OSError as error:
        raise UserError(f"The {name} folder {folder} cannot be written to: {error.strerror}.") from error


def load(folder: Path) -> tuple[Metadata, bytes]:
    """Metadata and ONNX graph of the model in `folder`; other files there do not matter (S10).

    Raises:
        UserError: the folder holds no model, a damaged one, or one of a later version of this program.
    """
    try:
        text = (folder / METADATA).read_bytes()
        graph = (folder / GRAPH).read_bytes()
    except FileNotFoundError as error:
        found = ", ".join(sorted(path.name for path in folder.iterdir())) if folder.is_dir() else "no such folder"
        raise UserError(
            f"{folder} holds no model: {Path(error.filename).name} is missing (found: {found or 'nothing'}). "
            "Put the files of a training job's model there."
        ) from error
    except OSError as error:
        raise UserError(f"The model in {folder} cannot be read: {error.strerror}.") from error
    metadata = parse_metadata(text, folder / METADATA)
    if hashlib.sha256(graph).hexdigest() != metadata.sha256.get(GRAPH):
        raise UserError(f"{folder / GRAPH} is damaged or of another model: its checksum is not the one in {METADATA}.")
    return metadata, graph


def parse_metadata(text: bytes, path: Path) -> Metadata:
    """The content of a `model.json`, which `path` names in messages. Raises `UserError` as `load` does."""
    try:
        return Metadata.model_validate_json(text)
    except ValidationError as error:
        problem: Mapping[str, Any] = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        if place == "schema_version":
            raise UserError(
                f"{path}: schema version {problem['input']} is not known; this program reads versions 1 "
                f"to {SCHEMA_VERSION}. Use the serving image of the release that trained the model."
            ) from error
        raise UserError(f"{path} is damaged: {place or 'the file'}: {problem['msg']}.") from error


def write_synced(path: Path, content: bytes) -> None:
    """Write a file that is on the disk when this returns. Raises `OSError`."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
