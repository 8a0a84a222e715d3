"""Continue training from the model of an earlier job: the channel `model` (T70, T71)."""

import hashlib
import logging
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from lstm_fcn.container.artifact import METADATA, WEIGHTS, Metadata, parse_metadata
from lstm_fcn.container.channels import Source
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.hyperparameters import Hyperparameters, parse_hyperparameters
from lstm_fcn.container.problem import Problem
from lstm_fcn.training.network.model import LSTMFCN, Ensemble

logger = logging.getLogger(__name__)

ARCHITECTURE = (
    "recurrent",
    "convolutions",
    "dimension_shuffle",
    "squeeze_excite",
    "ensemble_size",
    "num_layers",
    "hidden_size",
    "filters_1",
    "filters_2",
    "filters_3",
    "kernel_size_1",
    "kernel_size_2",
    "kernel_size_3",
    "views",
    "dilations",
)
LARGEST_FILE = 4 * 1024**3  # bytes; larger files in an archive are refused


@dataclass(frozen=True)
class EarlierModel:
    """The model that a job continues training from."""

    metadata: Metadata
    weights: dict[str, Tensor]
    sha256: str  # of the weights

    def take_architecture(self, settings: Hyperparameters) -> Hyperparameters:
        """The job's settings with the architecture and scaling method of this model; log settings that are replaced."""
        own = parse_hyperparameters(self.metadata.hyperparameters)
        update = {name: getattr(own, name) for name in (*ARCHITECTURE, "scaling")}
        for name, value in update.items():
            if name in settings.model_fields_set and getattr(settings, name) != value:
                alias = name.replace("_", "-")
                logger.warning(
                    "WARNING: ignoring %s=%s: the earlier model uses %s", alias, getattr(settings, name), value
                )
        return settings.model_copy(update=update)

    def carry_over(self, network: LSTMFCN | Ensemble, problem: Problem) -> None:
        """Copy all weights that fit the new data to `network`, and log which.

        The convolutions fit any data with the same number of variables, the recurrent block data of the same length,
        the output layer data with the same classes.

        Raises:
            UserError: the number of variables differs, or the weights do not belong to the metadata.
        """
        own = self.metadata.problem
        if own.num_variables != problem.num_variables:
            raise UserError(
                f"Channel model: the earlier model has num-variables={own.num_variables}, the training data has "
                f"{problem.num_variables}. Set num-variables={own.num_variables} if that is what the rows hold, or "
                "train without the channel model."
            )
        same_classes = (own.classes, own.independent) == (problem.classes, problem.independent)
        same_length = own.length == problem.length
        # The weights were trained with the statistics of the views.
        same_data = same_length and problem.scaling == own.scaling
        kept = {"fcn": True, "recurrent": same_length, "linear": same_classes, "views": same_data}
        state = network.state_dict()
        present = {name: part for name in state for part in kept if f".{part}." in f".{name}"}
        for name, part in present.items():
            if kept[part]:
                state[name] = self._tensor(f"network.{name}", state[name])
        network.load_state_dict(state)
        parts = {part: kept[part] for part in kept if part in present.values() and part != "views"}
        words = {"fcn": "convolutions", "recurrent": "recurrent block", "linear": "output layer"}
        reasons = {
            "recurrent": f"length {problem.length}, was {own.length}",
            "linear": "different classes",
        }
        new = [f"{words[part]} ({reasons[part]})" for part, fits in parts.items() if not fits]
        scaling = "kept" if problem.scaling == own.scaling else "recomputed"
        logger.info(
            "weights kept from the earlier model: %s; new: %s; scaling: %s",
            ", ".join(words[part] for part, fits in parts.items() if fits) or "nothing",
            ", ".join(new) or "nothing",
            scaling,
        )

    def _tensor(self, name: str, like: Tensor) -> Tensor:
        found = self.weights.get(name)
        if found is None or found.shape != like.shape:
            raise UserError(f"Channel model: {WEIGHTS} does not fit {METADATA}: {name} should be {tuple(like.shape)}.")
        return found


def load_earlier(source: Source) -> EarlierModel:
    """Read the model in the channel: its files, or a tar archive of them, which is not unpacked to the disk.

    Raises:
        UserError: there is no model, or it is damaged, unsafe or of another release.
    """
    archives = [path for path in source.files if path.name.endswith((".tar.gz", ".tgz", ".tar"))]
    if len(archives) > 1:
        raise UserError(f"Channel model has {len(archives)} archives; it must hold a single model.")
    if archives:
        files, place = _read_archive(archives[0]), archives[0]
    else:
        files, place = _read_folder(source), source.folder
    for name in (METADATA, WEIGHTS):
        if name not in files:
            raise UserError(
                f"Channel model: {place} holds no {name}. Put the model.tar.gz of an earlier training job there, or "
                "the files from it."
            )
    try:
        metadata = parse_metadata(files[METADATA], place / METADATA)
    except UserError as error:
        raise UserError(f"Channel model: {error}") from error
    sha256 = hashlib.sha256(files[WEIGHTS]).hexdigest()
    if sha256 != metadata.sha256.get(WEIGHTS):
        raise UserError(f"Channel model: {WEIGHTS} in {place} is damaged: its checksum differs from {METADATA}.")
    try:
        weights = safetensors.torch.load(files[WEIGHTS])
    except SafetensorError as error:
        raise UserError(f"Channel model: {WEIGHTS} in {place} cannot be read: {error}.") from error
    logger.info(
        "earlier model: %d classes, length %d, from %s", len(metadata.problem.classes), metadata.problem.length, place
    )
    return EarlierModel(metadata, weights, sha256)


def _read_folder(source: Source) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for path in source.files:
        if path.name in (METADATA, WEIGHTS):
            if path.name in found:
                raise UserError(f"Channel model has several files {path.name}; it must hold a single model.")
            try:
                found[path.name] = path.read_bytes()
            except OSError as error:
                raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    return found


def _read_archive(path: Path) -> dict[str, bytes]:
    """Read the files of the model from the archive, after checking every member (T71)."""

    def refuse(problem: str) -> UserError:
        return UserError(f"Channel model: {path} {problem}; the archive was not read.")

    try:
        with tarfile.open(path) as archive:
            members = _check_members(archive.getmembers(), refuse)
            found = {}
            for name, member in members.items():
                found[name] = cast(IO[bytes], archive.extractfile(member)).read()
            return found
    except (tarfile.TarError, EOFError, OSError) as error:
        raise refuse(f"is not a complete tar archive: {str(error).splitlines()[0].rstrip(':')}") from error


def _check_members(members: list[tarfile.TarInfo], refuse: Callable[[str], UserError]) -> dict[str, tarfile.TarInfo]:
    found: dict[str, tarfile.TarInfo] = {}
    for member in members:
        parts = PurePosixPath(member.name).parts
        if member.name.startswith("/") or ".." in parts:
            raise refuse(f"is unsafe: its member {member.name!r} would be outside of the archive")
        if not (member.isfile() or member.isdir()):
            raise refuse(f"is unsafe: its member {member.name!r} is a link or a device")
        name = parts[-1] if parts else ""
        if member.isfile() and name in (METADATA, WEIGHTS):
            if name in found:
                raise refuse(f"holds several files {name}")
            if member.size > LARGEST_FILE:
                raise refuse(f"holds a file {name} of {member.size} bytes")
            found[name] = member
    return found
