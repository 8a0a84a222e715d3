"""The model folder: its files, written all or none, checked when loaded."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from lstm_fcn.container.archive import read_archive
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.files import write_atomically
from lstm_fcn.container.problem import Problem

GRAPH = "model.onnx"
WEIGHTS = "weights.safetensors"
METADATA = "model.json"
CARD = "README.md"
SCHEMA_VERSION: Literal[1] = 1
MOST_LISTED = 10  # files that a message names


class Metadata(BaseModel):
    """The content of `model.json`.

    The graph takes `series`, float64 `[batch, num_variables, length]`, preprocessed but not scaled, and returns
    `probabilities`, float32 `[batch, len(classes)]`, where column k belongs to `problem.classes[k]`; and `explanation`,
    float32 `[batch, length]`, the class activation map of the most probable class.

    explains: the graph has the output `explanation`; a network without convolutions has none.
    best_epoch: epoch and round of the saved weights.
    curves: the metrics of epochs spread over the whole training, as in the log.
    sha256: checksums of the other files.
    """

    model_config = ConfigDict(frozen=True)

    schema_version: Literal[1] = SCHEMA_VERSION
    problem: Problem
    explains: bool = True
    hyperparameters: dict[str, Any]
    metrics: dict[str, float]
    best_epoch: tuple[int, int] = (0, 0)
    curves: list[dict[str, float]] = []
    versions: dict[str, str]
    sha256: dict[str, str] = {}


def save(folder: Path, metadata: Metadata, graph: bytes, weights: bytes) -> None:
    """Write the model files; a reader finds the old model or the new one, never a mixture that passes the checks.

    The metadata, with the checksums of graph and weights, comes last. The model card beside them is not needed to load
    the model; a README that is no model card is left alone.

    Raises:
        UserError: the folder cannot be written to, or the disk is full.
    """
    from lstm_fcn.container.card import model_card  # not for readers: it needs the table of hyperparameters

    sums = {GRAPH: hashlib.sha256(graph).hexdigest(), WEIGHTS: hashlib.sha256(weights).hexdigest()}
    text = metadata.model_copy(update={"sha256": sums}).model_dump_json(indent=2).encode()
    contents = {CARD: model_card(metadata).encode(), GRAPH: graph, WEIGHTS: weights, METADATA: text}
    write_atomically(*((folder / name, contents[name]) for name in files_to_write(folder)))


def files_to_write(folder: Path) -> list[str]:
    """Names of a model's files in the order in which they are put into `folder`, without the card if it may not be."""
    from lstm_fcn.container.card import may_be_written

    return [CARD] * may_be_written(folder / CARD) + [GRAPH, WEIGHTS, METADATA]


def load(folder: Path) -> tuple[Metadata, bytes]:
    """Metadata and ONNX graph of the model in `folder`; other files there are ignored (S10).

    Raises:
        UserError: the folder holds no model, a damaged one, or one of another release.
    """
    metadata, files = _read(folder, (METADATA, GRAPH))
    return metadata, files[GRAPH]


def load_all(path: Path) -> tuple[Metadata, bytes, bytes]:
    """Metadata, ONNX graph and weights of the model in a folder or in a tar archive.

    Raises:
        UserError: as `load`, or the archive is unsafe.
    """
    metadata, files = _read(path, (METADATA, GRAPH, WEIGHTS))
    return metadata, files[GRAPH], files[WEIGHTS]


def _read(path: Path, names: Sequence[str]) -> tuple[Metadata, dict[str, bytes]]:
    """The files of a model, whose checksums are right."""
    try:
        if path.is_file():
            files = read_archive(path, names)
        else:
            files = {name: (path / name).read_bytes() for name in names if (path / name).exists()}
    except OSError as error:
        raise UserError(f"The model in {path} cannot be read: {error.strerror}.") from error
    for name in names:
        if name not in files:
            there = sorted(each.name for each in path.iterdir()) if path.is_dir() else sorted(files)
            listed = ", ".join(there[:MOST_LISTED] + ["..."] * (len(there) > MOST_LISTED))
            found = listed or "nothing" if path.exists() else "no such folder"
            raise UserError(
                f"{path} holds no model: {name} is missing (found: {found}). Put the files of a training job's model "
                "there."
            )
    metadata = parse_metadata(files[METADATA], path / METADATA)
    for name in names[1:]:
        if hashlib.sha256(files[name]).hexdigest() != metadata.sha256.get(name):
            raise UserError(
                f"{path / name} is damaged or belongs to another model: its checksum differs from {METADATA}."
            )
    return metadata, files


def parse_metadata(text: bytes, path: Path) -> Metadata:
    """The content of a `model.json`, which `path` names in messages. Raises `UserError` as `load` does."""
    try:
        return Metadata.model_validate_json(text)
    except ValidationError as error:
        problem: Mapping[str, Any] = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        if place == "schema_version":
            raise UserError(
                f"{path}: schema version {problem['input']} is not supported; this release reads version "
                f"{SCHEMA_VERSION}. Use the serving image of the release that trained the model."
            ) from error
        raise UserError(f"{path} is damaged: {place or 'the file'}: {problem['msg']}.") from error
