"""Predictions and explanations of a trained network: probabilities, class activation maps, attention, filters.

Used for the report of a job and for pictures of a saved model. Everything is computed on the network's device.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from lstm_fcn.container.artifact import METADATA, WEIGHTS, Metadata, parse_metadata
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.hyperparameters import parse_hyperparameters
from lstm_fcn.container.problem import Scaling
from lstm_fcn.training.evaluate import EVALUATION_BATCH
from lstm_fcn.training.network.model import LSTMFCN, Classifier, ConvBlock, Network, Scaler, join_logits, make_network
from lstm_fcn.training.network.recurrent import AttentionLSTM


def load_classifier(folder: Path) -> tuple[Metadata, Classifier]:
    """Load the model in a folder from `model.json` and `weights.safetensors`.

    Raises:
        UserError: one of the files is missing or damaged, or they do not belong together.
    """
    contents = []
    for name in (METADATA, WEIGHTS):
        try:
            contents.append((folder / name).read_bytes())
        except OSError as error:
            raise UserError(f"{folder} holds no model: {name} cannot be read: {error.strerror}.") from error
    metadata = parse_metadata(contents[0], folder / METADATA)
    settings = parse_hyperparameters(metadata.hyperparameters)
    network = make_network(
        settings, metadata.problem.num_variables, metadata.problem.length, len(metadata.problem.classes)
    )
    classifier = Classifier(Scaler(metadata.problem.scaling), network, metadata.problem.independent).eval()
    try:
        weights = safetensors.torch.load(contents[1])
        own = {name: tensor for name, tensor in weights.items() if name.startswith("network.")}
        network.load_state_dict({name.removeprefix("network."): tensor for name, tensor in own.items()})
    except (SafetensorError, RuntimeError) as error:
        raise UserError(
            f"{folder / WEIGHTS} is damaged or belongs to another model: {str(error).splitlines()[0]}"
        ) from error
    return metadata, classifier


def members_of(network: Network) -> list[LSTMFCN]:
    """The networks of an ensemble, or the single network."""
    return [network] if isinstance(network, LSTMFCN) else [cast(LSTMFCN, member) for member in network.members]


def predict(network: Network, series: Tensor, independent: bool) -> NDArray[np.float32]:
    """Probabilities, float32 `[N, C]`, of scaled series, float32 `[N, M, T]`."""

    def probabilities(part: Tensor) -> Tensor:
        logits = join_logits(network(part), independent).float()
        return logits.sigmoid() if independent else logits.softmax(dim=1)

    return _in_batches(probabilities, series)


def activation_maps(network: Network, series: Tensor, classes: Sequence[int]) -> NDArray[np.float32] | None:
    """How much each time step adds to the logit of a class, float32 `[N, T]`; None without convolutions.

    For an ensemble, the average over its networks (see `LSTMFCN.activation_map`).

    Args:
        network: in evaluation mode.
        series: scaled, float32 `[N, M, T]`.
        classes: the class to explain, for each series.
    """
    members = members_of(network)
    if not len(members[0].fcn):
        return None
    wanted = torch.tensor(classes, dtype=torch.long, device=series.device)

    @torch.no_grad()
    def of_member(member: LSTMFCN) -> Tensor:
        features = cast(Tensor, member.extract(series)[1])
        return member.activation_map(features, wanted).float()

    found: NDArray[np.float32] = torch.stack([of_member(member) for member in members]).mean(dim=0).cpu().numpy()
    return found


class Attended(NamedTuple):
    """Attention of the first attention LSTM of a network, averaged over its steps.

    weights: shares of the input's steps in the context vector, `[N, S]`; each row adds up to 1.
    contexts: each step of the input times its share, `[N, S, F]`; their sum is the context vector.
    over_time: the steps are time steps (no dimension shuffle); otherwise they are variables, and F is time.
    """

    weights: NDArray[np.float32]
    contexts: NDArray[np.float32]
    over_time: bool


def attention(network: Network, series: Tensor) -> Attended | None:
    """Attention to scaled series, float32 `[N, M, T]`; None if the network has no attention LSTM.

    For an ensemble, the attention of its first network.
    """
    member = members_of(network)[0]
    layer = member.recurrent[0] if len(member.recurrent) else None
    if not isinstance(layer, AttentionLSTM):
        return None
    sequence = series if member.dimension_shuffle else series.transpose(1, 2)
    shares = _in_batches(lambda part: layer.attend(part).weights.mean(dim=1), sequence)
    return Attended(shares, shares[:, :, np.newaxis] * sequence.cpu().numpy(), not member.dimension_shuffle)


def filters(network: Network, number: int, series: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The filters of convolution `number` (1, 2 or 3), and their response to one series.

    Returns:
        weights `[filters, width]`, averaged over the input channels; responses after the activation `[filters, T]`.

    Args:
        network: with convolutions, in evaluation mode; for an ensemble, its first network is used.
        number: counted from 1.
        series: scaled, float32 `[M, T]`.
    """
    fcn = members_of(network)[0].fcn
    with torch.no_grad():
        responses = fcn[:number](series[None, :, None, :])[0, :, 0]
    weights = cast(ConvBlock, fcn[number - 1]).conv.weight.detach()[:, :, 0].mean(dim=1)
    return weights.cpu().numpy(), responses.cpu().numpy()


def unscale(series: NDArray[np.float32], scaling: Scaling) -> NDArray[np.float64]:
    """Series `[..., M, T]` in the user's units; unchanged if each was scaled separately, as its scale is not known."""
    if scaling.method != "dataset":
        return series.astype(np.float64)
    mean, std = (np.array(values)[:, np.newaxis] for values in (scaling.mean, scaling.std))
    found: NDArray[np.float64] = series * std + mean
    return found


@torch.no_grad()
def _in_batches(function: Callable[[Tensor], Tensor], series: Tensor) -> NDArray[np.float32]:
    def parts() -> Iterator[Tensor]:
        for part in series.split(EVALUATION_BATCH):  # type: ignore[no-untyped-call]
            yield function(part).cpu()

    found: NDArray[np.float32] = torch.cat(list(parts())).numpy()
    return found
