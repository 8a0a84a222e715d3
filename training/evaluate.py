"""Metrics of a network, and the batch statistics that it must have before it is measured."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from training.step import weighted_cross_entropy

EVALUATION_BATCH = 256  # series; larger ones gain nothing on a CPU and take memory on a GPU


def even_batches(order: Tensor, batch_size: int) -> Iterator[Tensor]:
    """Split indices `[N]` into ceil(N / batch_size) batches whose sizes differ by one at most.

    A small last batch would take a full step, and bring batch statistics of its own, on a few series.
    """
    yield from order.tensor_split(math.ceil(len(order) / batch_size))


@torch.no_grad()
def set_exact_batch_norm(
    network: nn.Module, forward: nn.Module, series: Tensor, batch_size: int, enough: Callable[[], bool]
) -> None:
    """Replace the running statistics of batch normalisation by averages over the training set.

    Moving averages lag behind the weights, which after a few hundred steps decides over right and wrong. The
    averages are taken over shuffled batches of the training batch size, without dropout, so that they are
    those that the weights were trained with.

    Args:
        network: whose statistics are set; left in evaluation mode.
        forward: the same network as it shall be called, for its precision.
        series: the scaled training set, float32 `[N, 1, T]`.
        batch_size: as in training.
        enough: asked after each batch; true if the averages over the batches so far must do.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the average of all batches, not a moving one
        norm.train()
    order = torch.randperm(len(series), generator=torch.Generator().manual_seed(0)).to(series.device)
    for batch in even_batches(order, batch_size):
        forward(series[batch])
        if enough():
            break
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


@torch.no_grad()
def evaluate(forward: nn.Module, series: Tensor, labels: Tensor, class_weights: Tensor) -> tuple[float, float]:
    """Mean class-weighted loss and accuracy on scaled series, float32 `[N, 1, T]`, and labels, int64 `[N]`.

    The network behind `forward` is in evaluation mode.
    """
    totals = torch.zeros(2, dtype=torch.float64, device=series.device)
    for start in range(0, len(series), EVALUATION_BATCH):
        logits = forward(series[start : start + EVALUATION_BATCH])
        expected = labels[start : start + EVALUATION_BATCH]
        totals[0] += weighted_cross_entropy(logits, expected, class_weights)
        totals[1] += (logits.argmax(dim=1) == expected).sum()
    loss, accuracy = (totals / len(series)).tolist()
    return loss, accuracy
