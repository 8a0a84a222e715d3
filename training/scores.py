"""Classification metrics: one implementation for training, its report and `lstm-fcn evaluate`."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lstm_fcn.training.distributed import Group


def count_correct(outputs: Tensor, truth: Tensor, threshold: float = 0.0) -> Tensor:
    """Count the series whose class, or all of whose independent classes, are predicted correctly.

    Arguments as for `measure_scores`; returns a tensor without dimensions, on the device of `outputs`.
    """
    if truth.ndim == 1:
        return (outputs.argmax(dim=1) == truth).sum()
    return ((outputs > threshold) == (truth > 0.5)).all(dim=1).sum()


def measure_scores(
    outputs: Tensor | NDArray[Any], truth: Tensor | NDArray[Any], group: Group | None = None, threshold: float = 0.0
) -> dict[str, float]:
    """Accuracy, balanced accuracy, macro F1 and, where it is defined, AUC; as scikit-learn defines them.

    AUC is defined for two classes and for independent classes; classes that are in all rows or in none are left out.

    Args:
        outputs: logits, or probabilities together with `threshold=0.5`; float `[N, C]`.
        truth: classes, integers `[N]`; or 0 and 1 for independent classes, `[N, C]`, and then the scores are means
            over the classes. A single independent class is scored as two classes, 0 and 1.
        group: the processes whose rows are scored together.
        threshold: an independent class is predicted if its output is greater.

    Returns:
        scores by name; empty if an output is not finite, as after training has diverged.
    """
    outputs, truth, group = torch.as_tensor(outputs), torch.as_tensor(truth), group or Group()
    if group.sum((~outputs.isfinite()).sum().double()) > 0:
        return {}
    independent = truth.ndim > 1
    right = count_correct(outputs, truth, threshold)
    correct, count = group.sum(torch.stack([right, right.new_tensor(len(truth))])).tolist()
    scores = {"accuracy": correct / count}
    if independent and outputs.shape[1] > 1:
        scores |= _score_independent(outputs > threshold, truth > 0.5, group)
    elif independent:
        scores |= _score_classes((outputs[:, 0] > threshold).long(), (truth[:, 0] > 0.5).long(), 2, group)
    else:
        scores |= _score_classes(outputs.argmax(dim=1), truth.long(), outputs.shape[1], group)
    if independent or outputs.shape[1] == 2:
        ranking = group.gather_rows(outputs if independent else outputs[:, 1:] - outputs[:, :1])
        positive = group.gather_rows(truth if independent else truth[:, None]) > 0.5
        areas = [
            _area(ranking[:, k].numpy(), positive[:, k].numpy())
            for k in range(ranking.shape[1])
            if 0 < positive[:, k].sum() < len(positive)
        ]
        if areas:
            scores["auc"] = sum(areas) / len(areas)
    return scores


def _score_classes(predicted: Tensor, truth: Tensor, classes: int, group: Group) -> dict[str, float]:
    """Scores of classes that exclude each other; `predicted` and `truth` are int64 `[N]`."""
    counts = [found.bincount(minlength=classes) for found in (truth[predicted == truth], truth, predicted)]
    right, true, guessed = group.sum(torch.stack(counts).double())
    f1 = 2 * right / (true + guessed).clamp(min=1)
    return {
        "balanced_accuracy": float((right / true)[true > 0].mean()),
        "f1": float(f1[true + guessed > 0].mean()),
    }


def _score_independent(predicted: Tensor, truth: Tensor, group: Group) -> dict[str, float]:
    """Scores of independent classes; `predicted` and `truth` are bool `[N, C]`."""
    counts = [predicted & truth, truth, predicted, ~predicted & ~truth, torch.ones_like(truth)]
    right, true, guessed, rejected, rows = group.sum(torch.stack(counts).sum(dim=1).double())
    recalls = torch.stack([right / true, rejected / (rows - true)])  # NaN for a class that is in no row or in all
    return {
        "balanced_accuracy": float(recalls.nanmean(dim=0).mean()),
        "f1": float((2 * right / (true + guessed).clamp(min=1)).mean()),
    }


def _area(ranking: NDArray[Any], positive: NDArray[np.bool_]) -> float:
    """Area under the ROC curve: the share of pairs of a positive and a negative row that are in the right order."""
    _, places, counts = np.unique(ranking, return_inverse=True, return_counts=True)
    ranks = (counts.cumsum() - (counts - 1) / 2)[places]  # equal rows share the mean of their ranks
    count = int(positive.sum())
    above = float(ranks[positive].sum()) - count * (count + 1) / 2
    return above / (count * (len(positive) - count))
