"""Metrics of a network, and the batch statistics that it must have before it is measured."""

from collections.abc import Callable, Iterator
from typing import cast

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from lstm_fcn.training.data import Dataset
from lstm_fcn.training.distributed import Group
from lstm_fcn.training.model import join_logits
from lstm_fcn.training.step import count_correct, weighted_loss

EVALUATION_BATCH = 256  # series; larger ones gain nothing on a CPU and take memory on a GPU


def even_batches(order: Tensor, count: int) -> Iterator[Tensor]:
    """Split indices `[N]` into `count` batches whose sizes differ by one at most.

    A small last batch would take a full step, and bring batch statistics of its own, on a few series.
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

    Moving averages lag behind the weights, which after a few hundred steps decides over right and wrong. The
    averages are taken over shuffled batches of the training batch size, without dropout, so that they are
    those that the weights were trained with.

    Args:
        network: whose statistics are set; left in evaluation mode.
        forward: the same network as it shall be called, for its precision.
        training: this process's part of the training set.
        batches: how many batches it is split into, as in training.
        enough: asked after each batch; true if the averages over the batches so far must do.
        group: the processes whose averages are joined.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the average of all batches, not a moving one
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
    """The average over the batches of all processes, of which this one has seen some."""
    for statistic in (cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)):
        total = group.sum(torch.tensor(float(batches), device=statistic.device)).clamp(min=1)
        statistic.copy_(group.sum(statistic * batches) / total)


@torch.no_grad()
def evaluate(
    forward: nn.Module, data: Dataset, class_weights: Tensor, group: Group, scores: bool = False
) -> dict[str, float]:
    """Metrics over the parts of all processes: loss and accuracy, and with `scores` the others, too.
    The network behind `forward` is in evaluation mode.
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


def measure_scores(logits: Tensor, labels: Tensor, group: Group) -> dict[str, float]:
    """Balanced accuracy, macro F1 and, where it is defined, AUC; each as scikit-learn defines it.

    None of them if a logit is not a finite number, as of a network that diverged.

    Args:
        logits: float32 `[N, C]`.
        labels: int64 `[N]`; or float32 `[N, C]` of 0 and 1, and then the metrics are means over the C targets.
        group: the processes whose rows count together.
    """
    if group.sum((~logits.isfinite()).sum().double()) > 0:
        return {}
    if labels.ndim > 1 and logits.shape[1] == 1:  # one target is two classes, 0 and 1
        logits, labels = torch.cat([torch.zeros_like(logits), logits], dim=1), labels[:, 0].long()
    metrics = _classes_scores(logits, labels, group) if labels.ndim == 1 else _targets_scores(logits, labels, group)
    if labels.ndim > 1 or logits.shape[1] == 2:
        positive = logits if labels.ndim > 1 else (logits[:, 1:] - logits[:, :1])
        truth = group.gather_rows(labels if labels.ndim > 1 else labels[:, None])
        ranking = group.gather_rows(positive)
        areas = [
            float(roc_auc_score(truth[:, k].numpy(), ranking[:, k].numpy()))
            for k in range(ranking.shape[1])
            if 0 < truth[:, k].sum() < len(truth)
        ]
        if areas:
            metrics["auc"] = sum(areas) / len(areas)
    return metrics


def _classes_scores(logits: Tensor, labels: Tensor, group: Group) -> dict[str, float]:
    classes, predicted = logits.shape[1], logits.argmax(dim=1)
    counts = [labels[predicted == labels], labels, predicted]
    right, true, guessed = group.sum(torch.stack([c.bincount(minlength=classes) for c in counts]).double())
    present = true > 0
    f1 = 2 * right / (true + guessed).clamp(min=1)
    return {
        "balanced_accuracy": float((right / true.clamp(min=1))[present].mean()),
        "f1": float(f1[true + guessed > 0].mean()),
    }


def _targets_scores(logits: Tensor, labels: Tensor, group: Group) -> dict[str, float]:
    predicted, truth = logits > 0, labels > 0.5
    right, true, guessed, wrong_none = group.sum(
        torch.stack([(predicted & truth), truth, predicted, ~predicted & ~truth]).sum(dim=1).double()
    )
    count = float(group.sum(torch.tensor(float(len(labels)), device=labels.device)))
    recalls = torch.stack([right / true, wrong_none / (count - true)])  # NaN where there are none to recall
    return {
        "balanced_accuracy": float(recalls.nanmean(dim=0).mean()),
        "f1": float((2 * right / (true + guessed).clamp(min=1)).mean()),
    }
