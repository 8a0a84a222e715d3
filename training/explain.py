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
from lstm_fcn.training.network.model import Classifier, ConvBlock, Scaler, make_network
from lstm_fcn.training.network.recurrent import AttentionLSTM
from lstm_fcn.training.ridge import make_kernels


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
    settings, problem = parse_hyperparameters(metadata.hyperparameters), metadata.problem
    network = make_network(settings, problem.num_variables, problem.length, len(problem.classes))
    kernels = make_kernels(settings, problem) if settings.kernel_features else None
    classifier = Classifier(Scaler(problem.scaling), network, problem.independent, kernels).eval()
    try:
        classifier.load_state_dict(safetensors.torch.load(contents[1]))
    except (SafetensorError, RuntimeError) as error:
        raise UserError(
            f"{folder / WEIGHTS} is damaged or belongs to another model: {str(error).splitlines()[-1].strip()}"
        ) from error
    return metadata, classifier


def predict(classifier: Classifier, series: Tensor) -> NDArray[np.float32]:
    """Probabilities, float32 `[N, C]`, of scaled series, float32 `[N, M, T]`."""
    return _in_batches(classifier.probabilities, series)


@torch.no_grad()
def activation_maps(classifier: Classifier, series: Tensor, classes: Sequence[int]) -> NDArray[np.float32] | None:
    """How much each time step adds to the logit of a class, float32 `[N, T]` (see `Classifier.activation_map`).

    Args:
        classifier: in evaluation mode.
        series: scaled, float32 `[N, M, T]`.
        classes: the class to explain, for each series.
    """
    found = classifier.activation_map(series, torch.tensor(classes, dtype=torch.long, device=series.device))
    return None if found is None else found.float().cpu().numpy()


class Attended(NamedTuple):
    """Attention of the first attention LSTM of a network, averaged over its steps.

    weights: shares of the input's steps in the context vector, `[N, S]`; each row adds up to 1.
    contexts: each step of the input times its share, `[N, S, F]`; their sum is the context vector.
    over_time: the steps are time steps (no dimension shuffle); otherwise they are variables, and F is time.
    """

    weights: NDArray[np.float32]
    contexts: NDArray[np.float32]
    over_time: bool


def attention(classifier: Classifier, series: Tensor) -> Attended | None:
    """Attention to scaled series, float32 `[N, M, T]`; None if the network has no attention LSTM.

    For an ensemble, the attention of its first network.
    """
    member = classifier.members[0]
    layer = member.recurrent[0] if len(member.recurrent) else None
    if not isinstance(layer, AttentionLSTM):
        return None
    sequence = member.sequence(member.views(series))
    shares = _in_batches(lambda part: layer.attend(part).weights.mean(dim=1), sequence)
    return Attended(shares, shares[:, :, np.newaxis] * sequence.cpu().numpy(), not member.dimension_shuffle)


def filters(
    classifier: Classifier, number: int, series: Tensor
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
    """The filters of convolution `number` (1, 2 or 3), and their response to one series.

    Returns:
        weights `[filters, width]`, averaged over the input channels; the steps between them `[filters]`; responses
        after the activation `[filters, T]`.

    Args:
        classifier: with convolutions, in evaluation mode; for an ensemble, its first network is used.
        number: counted from 1.
        series: scaled, float32 `[M, T]`.
    """
    member = classifier.members[0]
    fcn = member.fcn
    with torch.no_grad():
        responses = fcn[:number](member.views(series[None])[:, :, None, :])[0, :, 0]
    convs = cast(ConvBlock, fcn[number - 1]).convs
    weights = torch.cat([conv.weight.detach()[:, :, 0].mean(dim=1) for conv in convs])
    dilations = np.repeat([conv.dilation[1] for conv in convs], [conv.out_channels for conv in convs])
    return weights.cpu().numpy(), dilations, responses.cpu().numpy()


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
