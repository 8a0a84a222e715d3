"""The report of a finished job, computed over the data of all its processes."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lstm_fcn.container.hyperparameters import Hyperparameters
from lstm_fcn.container.problem import Problem
from lstm_fcn.training.cross_validation import OutOfFold
from lstm_fcn.training.data.datasets import Data, Dataset
from lstm_fcn.training.distributed import Group
from lstm_fcn.training.explain import activation_maps, predict, unscale
from lstm_fcn.training.loop import BestEpoch
from lstm_fcn.training.network.model import Classifier
from lstm_fcn.training.output.evaluation import Evaluation
from lstm_fcn.training.output.explanations import Example
from lstm_fcn.training.output.report import Report

MAX_ROWS = 10_000  # predicted for a report; more are sampled

Part = Literal["training", "validation"]
Place = tuple[int, int]


def make_report(
    settings: Hyperparameters,
    data: Data,
    classifier: Classifier,
    best: BestEpoch,
    history: Sequence[Mapping[str, float]],
    versions: Mapping[str, str],
    folds: OutOfFold | None,
    group: Group,
) -> Report:
    """Evaluate the trained classifier and describe the job.

    Every process of the group must call this, each with its own part of the data; all of them return the same report.

    Args:
        settings: hyperparameters of the job.
        data: the part of this process.
        classifier: on the CPU, in evaluation mode, the same in all processes.
        best: the selected epoch.
        history: metrics of each epoch.
        versions: of the packages that made the model.
        folds: predictions of the training series by cross-validation, which are then evaluated.
        group: the job's processes.
    """
    parts: dict[Part, Dataset] = {"training": data.training}
    if data.validation is not None:
        parts["validation"] = data.validation
    sizes = {name: group.gather(f"{name} rows for the report", len(part)) for name, part in parts.items()}
    counts: dict[str, list[int]] = {
        name: _count_classes(part, len(data.problem.classes), group) for name, part in parts.items()
    }
    name = list(parts)[-1]
    evaluation, series = _evaluate(name, parts[name], sizes[name], data.problem, classifier, folds, group)
    first_row = sum(group.gather("rows predicted for the report", len(series))[: group.rank])
    typical, mistakes = evaluation.typical(), evaluation.mistakes()
    chosen = _gather_series(series, first_row, [*typical, *mistakes], group)
    return Report(
        title="LSTM-FCN training report",
        evaluation=evaluation,
        metrics=best.metrics,
        history=history,
        best_epoch=(best.epoch, best.round),
        configuration=_as_text(settings),
        defaults=_as_text(Hyperparameters()),
        data=_describe(data.problem, {name: sum(found) for name, found in sizes.items()}),
        class_counts=counts,
        versions=versions,
        examples=_examples(evaluation, typical, classifier, chosen, data.problem),
        mistakes=_examples(evaluation, mistakes, classifier, chosen, data.problem),
    )


def _evaluate(
    name: Part,
    part: Dataset,
    sizes: list[int],
    problem: Problem,
    classifier: Classifier,
    folds: OutOfFold | None,
    group: Group,
) -> tuple[Evaluation, Tensor]:
    """Predict an evenly spaced sample of the rows of all processes.

    Returns:
        the predictions of all processes, by rank; the scaled series of this one, float32 `[n, M, T]`, on the CPU.
    """
    total = sum(sizes)
    wanted = len(part) if total <= MAX_ROWS else -(-MAX_ROWS * len(part) // total)
    rows = np.linspace(0, len(part), wanted, endpoint=False).astype(np.int64)
    series, labels = part.batch(torch.from_numpy(rows).to(part.device))
    series = series.cpu()
    probabilities = folds.probabilities[rows] if folds else torch.from_numpy(predict(classifier, series))
    row_numbers = None
    if group.size == 1:
        row_numbers = 1 + (rows if part.rows is None else part.rows.cpu().numpy()[rows])
    evaluation = Evaluation(
        part="cross-validation" if folds else name,
        rows=total,
        classes=problem.classes,
        truth=group.gather_rows(labels).numpy().astype(np.int64),
        probabilities=group.gather_rows(probabilities).numpy(),
        row_numbers=row_numbers,
    )
    return evaluation, series


def _gather_series(series: Tensor, first_row: int, places: Sequence[Place], group: Group) -> dict[int, Tensor]:
    """Scaled series of the places by row, from whichever process has them.

    Args:
        series: the rows of this process, starting at `first_row` of the evaluation.
    """
    rows = sorted({row for row, _ in places})
    own = [row - first_row for row in rows if first_row <= row < first_row + len(series)]
    return dict(zip(rows, group.gather_rows(series[own]), strict=True))


def _examples(
    evaluation: Evaluation,
    places: Sequence[Place],
    classifier: Classifier,
    series: Mapping[int, Tensor],
    problem: Problem,
) -> list[Example]:
    """The series of the places in the user's units, each with the activation map of its class."""
    if not places:
        return []
    scaled = torch.stack([series[row] for row, _ in places])
    maps = activation_maps(classifier, scaled, [k for _, k in places])
    shown = unscale(scaled.numpy(), problem.scaling)
    return [
        evaluation.example(place, shown[number], None if maps is None else maps[number])
        for number, place in enumerate(places)
    ]


def _count_classes(part: Dataset, classes: int, group: Group) -> list[int]:
    """Series of each class, or with each target, in all processes."""
    labels = part.labels if part.rows is None else part.labels[part.rows]
    counts = labels.long().sum(dim=0) if labels.ndim > 1 else labels.bincount(minlength=classes)
    found: list[int] = group.sum(counts.cpu()).tolist()
    return found


def _describe(problem: Problem, rows: Mapping[Part, int]) -> dict[str, str]:
    described = {
        "task": problem.task,
        "training series": f"{rows['training']:,}",
        "validation series": f"{rows['validation']:,}" if "validation" in rows else "none",
        "variables": str(problem.num_variables),
        "length": str(problem.length),
        "scaling": problem.scaling.method,
    }
    if problem.preparation:
        described |= problem.preparation.describe()
    if problem.scaling.method == "dataset":
        described["mean"] = ", ".join(f"{value:.6g}" for value in problem.scaling.mean)
        described["standard deviation"] = ", ".join(f"{value:.6g}" for value in problem.scaling.std)
    return described


def _as_text(settings: Hyperparameters) -> dict[str, str]:
    return {name: str(value) for name, value in settings.model_dump(by_alias=True).items()}
