"""Exact batch statistics and metrics of a network."""

from collections.abc import Callable, Iterator
from typing import cast

import torch
from torch import Tensor, nn

from lstm_fcn.training.data.datasets import Dataset
from lstm_fcn.training.distributed import Group
from lstm_fcn.training.network.model import join_logits
from lstm_fcn.training.scores import count_correct, measure_scores
from lstm_fcn.training.step import weighted_loss

EVALUATION_BATCH = 256  # series; larger batches are not faster on a CPU and take memory on a GPU


def even_batches(order: Tensor, count: int) -> Iterator[Tensor]:
    """Split indices `[N]` into `count` batches whose sizes differ by one at most.

    Otherwise a small last batch would make a full step, with batch statistics of only a few series.
    """
    yield from order.tensor_split(count)


@torch.no_grad()
def set_exact_batch_norm(
    network: nn.Module,
    forward: nn.Module,
    training: Dataset,
    batches: int,
    enough: Callable[[], bool],
    group: Group | None = None,
) -> None:
    """Replace the running statistics of batch normalisation by averages over the training set.

    Moving averages lag behind the weights; after few hundred steps the difference changes predictions. The averages are
    taken over shuffled batches of the training batch size, without dropout: what the weights were trained with.

    Args:
        network: the network whose statistics are set; it is left in evaluation mode.
        forward: the same network wrapped for the precision to compute in.
        training: this process's part of the training set.
        batches: number of batches that the training set is split into, as in training.
        enough: asked after each batch whether to stop with the averages so far.
        group: the processes whose statistics are averaged.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # average over all batches instead of a moving average
        norm.train()
    order = torch.randperm(len(training), generator=torch.Generator().manual_seed(0)).to(training.device)
    seen = 0
    for picked in even_batches(order, batches):
        if not len(picked):
            continue
        forward(training.batch(picked)[0])
        seen += 1
        if enough():
            break
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
        if group is not None and group.size > 1:
            _join_statistics(norm, seen, group)


def _join_statistics(norm: nn.modules.batchnorm._BatchNorm, batches: int, group: Group) -> None:
    """Average the statistics over the batches of all processes; this process has seen `batches`."""
    for statistic in (cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)):
        total = group.sum(torch.tensor(float(batches), device=statistic.device)).clamp(min=1)
        statistic.copy_(group.sum(statistic * batches) / total)


@torch.no_grad()
def evaluate(
    forward: Callable[[Tensor], Tensor], data: Dataset, class_weights: Tensor, group: Group, scores: bool = False
) -> dict[str, float]:
    """Measure loss and accuracy over the data of all processes, and with `scores` the other metrics.

    The network in `forward`, which maps series to logits, must be in evaluation mode.
    """
    totals = torch.zeros(3, dtype=torch.float64, device=data.device)
    logits, labels = [], []
    for picked in torch.arange(len(data), device=data.device).split(EVALUATION_BATCH):  # type: ignore[no-untyped-call]
        series, expected = data.batch(picked)
        found = join_logits(forward(series), expected.ndim > 1)
        totals[0] += weighted_loss(found, expected, class_weights)
        totals[1] += count_correct(found, expected)
        totals[2] += len(expected)
        if scores:
            logits.append(found)
            labels.append(expected)
    loss, correct, count = group.sum(totals).tolist()
    metrics = {"loss": loss / count, "accuracy": correct / count}
    if scores:
        empty = data.labels[:0], torch.empty(0, len(class_weights), device=data.device)
        metrics |= measure_scores(torch.cat([*logits, empty[1]]), torch.cat([*labels, empty[0]]), group)
    return metrics
