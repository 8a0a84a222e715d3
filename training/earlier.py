"""Continue training from the model of an earlier job: the channel `model` (T70, T71)."""

import hashlib
import logging
from dataclasses import dataclass

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from lstm_fcn.container.archive import SUFFIXES, read_archive
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
    archives = [path for path in source.files if path.name.endswith(SUFFIXES)]
    if len(archives) > 1:
        raise UserError(f"Channel model has {len(archives)} archives; it must hold a single model.")
    place = archives[0] if archives else source.folder
    try:
        files = read_archive(place, (METADATA, WEIGHTS)) if archives else _read_folder(source)
        for name in (METADATA, WEIGHTS):
            if name not in files:
                raise UserError(
                    f"{place} holds no {name}. Put the model.tar.gz of an earlier training job there, or the files "
                    "from it."
                )
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
                raise UserError(f"{source.folder} holds several files {path.name}; it must hold a single model.")
            try:
                found[path.name] = path.read_bytes()
            except OSError as error:
                raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    return found
