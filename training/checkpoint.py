"""Checkpoints: everything a job needs to resume as if it had not been interrupted. They are not model artifacts.

A checkpoint is one safetensors file. Its header holds the state that is not a tensor, and a checksum over both.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lstm_fcn.container.errors import UserError
from lstm_fcn.container.files import write_atomically
from lstm_fcn.training.distributed import Group

logger = logging.getLogger(__name__)

PREFIX, SUFFIX = "lstm-fcn-", ".safetensors"
FOLDS = "cross-validation-"  # instead of PREFIX, of checkpoints between folds
PARTIAL = ".sagemaker-ignore"  # the platform does not upload files with this suffix (T66)
KEPT = 2  # the latest, and one to fall back to


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name, and the rest of the state as JSON values."""

    tensors: dict[str, Tensor]
    state: dict[str, Any]


class Checkpoints:
    """The checkpoints of one job in a folder. Only the first process of a job reads and writes them (T67)."""

    def __init__(self, folder: Path, fingerprint: Mapping[str, Any], prefix: str = PREFIX) -> None:
        """`fingerprint` describes configuration and data by name; checkpoints with another fingerprint are refused."""
        self.folder = folder
        self.prefix = prefix
        self.fingerprint = json.loads(json.dumps(fingerprint))

    def of_folds(self) -> "Checkpoints":
        """Those between the folds of the job's cross-validation."""
        return Checkpoints(self.folder, self.fingerprint, FOLDS)

    def save(self, name: str, checkpoint: Checkpoint) -> None:
        """Write a checkpoint atomically (T63), and remove those that are no longer needed.

        Args:
            name: sorts after the names of earlier checkpoints.
            checkpoint: its tensors may be on any device.

        Raises:
            UserError: the folder cannot be written to, or the disk is full.
        """
        tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in checkpoint.tensors.items()}
        state = json.dumps({"fingerprint": self.fingerprint, **checkpoint.state})
        content = save(tensors, {"state": state, "sha256": _digest(tensors, state)})
        path = self.folder / f"{self.prefix}{name}{SUFFIX}"
        try:
            write_atomically((path, content), suffix=PARTIAL)
            self._prune(path)
        except UserError as error:
            raise UserError(
                f"Checkpoint: {error} Earlier checkpoints are unchanged; a restarted job resumes from the latest one."
            ) from error

    def load_newest(self) -> Checkpoint | None:
        """The latest checkpoint that is not damaged (T65), or None.

        Raises:
            UserError: it belongs to a job with another configuration or other data.
        """
        for path in self._files():
            try:
                checkpoint = _load(path)
            except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
                logger.warning("WARNING: checkpoint %s is damaged (%s); trying the one before it", path, error)
                continue
            self._refuse_others(path, checkpoint.state.pop("fingerprint"))
            return checkpoint
        return None

    def remove_partial(self) -> None:
        """Remove files that an interrupted `save` has left."""
        for path in self.folder.glob(f".{self.prefix}*{SUFFIX}{PARTIAL}"):
            path.unlink(missing_ok=True)

    def _prune(self, newest: Path) -> None:
        """Keep `newest` and those just before it; later ones were found damaged when the job started."""
        files = self._files()
        before = [path for path in files if path.name <= newest.name]
        for path in files:
            if path not in before[:KEPT]:
                path.unlink()

    def remove_all(self) -> None:
        """Remove all checkpoints of a finished job."""
        for path in self._files():
            path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        """Files of the checkpoints, latest first."""
        return sorted(self.folder.glob(f"{self.prefix}*{SUFFIX}"), reverse=True)

    def _refuse_others(self, path: Path, found: Mapping[str, Any]) -> None:
        different = [name for name in self.fingerprint if found.get(name) != self.fingerprint[name]]
        if not different:
            return
        parts = [
            f"different {name}"
            if name.startswith("data")
            else f"{name}={found.get(name)} instead of {self.fingerprint[name]}"
            for name in different
        ]
        raise UserError(
            f"The checkpoint {path} belongs to another job: it has {'; '.join(parts)}. Restart that job with its "
            f"configuration and data, or empty {self.folder}, or use another folder."
        )


def share(checkpoint: Checkpoint | None, group: Group) -> Checkpoint | None:
    """Send the checkpoint of the first process to all processes."""
    if group.size == 1:
        return checkpoint
    outline = None
    if checkpoint is not None:
        tensors = {name: (list(tensor.shape), str(tensor.dtype)[6:]) for name, tensor in checkpoint.tensors.items()}
        outline = (checkpoint.state, tensors)
    found = group.gather("checkpoint", outline)[0]
    if found is None:
        return None
    state, shapes = found
    received = {}
    for name, (shape, dtype) in shapes.items():
        own = checkpoint.tensors[name] if checkpoint else torch.empty(shape, dtype=getattr(torch, dtype))
        received[name] = group.broadcast(own)
    return Checkpoint(received, state)


def _load(path: Path) -> Checkpoint:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
    if metadata["sha256"] != _digest(tensors, metadata["state"]):
        raise ValueError("its checksum is wrong")
    return Checkpoint(tensors, json.loads(metadata["state"]))


def _digest(tensors: Mapping[str, Tensor], state: str) -> str:
    digest = hashlib.sha256(state.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
