"""From a finished job to its report: predictions, examples and mistakes with their class activation maps."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from lstm_fcn.container.hyperparameters import Hyperparameters
from lstm_fcn.container.problem import Problem
from lstm_fcn.training.data.datasets import Data, Dataset
from lstm_fcn.training.explain import activation_maps, predict, unscale
from lstm_fcn.training.loop import BestEpoch
from lstm_fcn.training.network.model import Network
from lstm_fcn.training.pictures import Example
from lstm_fcn.training.report import Evaluation, Report

MOST_ROWS = 10_000  # of which predictions are made for a report; more are sampled


def make_report(
    settings: Hyperparameters,
    data: Data,
    network: Network,
    best: BestEpoch,
    history: Sequence[Mapping[str, float]],
    versions: Mapping[str, str],
) -> Report:
    """The report of a job whose network is trained, on the CPU and in evaluation mode."""
    problem = data.problem
    part = data.training if data.validation is None else data.validation
    rows = np.linspace(0, len(part), min(len(part), MOST_ROWS), endpoint=False).astype(np.int64)
    numbers = rows if part.rows is None else part.rows.cpu().numpy()[rows]
    series, labels = part.batch(torch.from_numpy(rows).to(part.device))
    evaluation = Evaluation(
        part="training" if data.validation is None else "validation",
        rows=len(part),
        classes=problem.classes,
        truth=labels.cpu().numpy().astype(np.int64),
        probabilities=predict(network, series.cpu(), problem.independent),
        numbers=numbers + 1,
    )
    defaults = Hyperparameters().model_dump(by_alias=True)
    return Report(
        title="LSTM-FCN training report",
        evaluation=evaluation,
        metrics=best.metrics,
        history=history,
        kept=(best.epoch, best.round),
        configuration={name: str(value) for name, value in settings.model_dump(by_alias=True).items()},
        defaults={name: str(value) for name, value in defaults.items()},
        data=_describe(data),
        class_counts=_count_classes(data),
        versions=versions,
        examples=_examples(evaluation, evaluation.typical(), network, series.cpu(), problem),
        mistakes=_examples(evaluation, evaluation.mistakes(), network, series.cpu(), problem),
    )


def _examples(
    evaluation: Evaluation,
    places: list[tuple[int, int]],
    network: Network,
    series: Tensor,
    problem: Problem,
) -> list[Example]:
    """Series in the user's units with the map of the class that each place names."""
    if not places:
        return []
    chosen = series[[row for row, _ in places]]
    maps = activation_maps(network, chosen, [k for _, k in places])
    shown = unscale(chosen.numpy(), problem.scaling)
    return [
        evaluation.example(place, shown[number], None if maps is None else maps[number])
        for number, place in enumerate(places)
    ]


def _describe(data: Data) -> dict[str, str]:
    problem = data.problem
    described = {
        "task": problem.task,
        "training series": f"{len(data.training):,}",
        "validation series": f"{len(data.validation):,}" if data.validation else "none",
        "variables": str(problem.num_variables),
        "length": str(problem.length),
        "scaling": problem.scaling.method,
    }
    if problem.scaling.method == "dataset":
        described["mean"] = ", ".join(f"{value:.6g}" for value in problem.scaling.mean)
        described["standard deviation"] = ", ".join(f"{value:.6g}" for value in problem.scaling.std)
    return described


def _count_classes(data: Data) -> dict[str, list[int]]:
    """Series of each class in the data that this process has."""
    parts: dict[str, Dataset | None] = {"training": data.training, "validation": data.validation}
    classes = len(data.problem.classes)
    found = {}
    for name, part in parts.items():
        if part is not None:
            labels = part.labels if part.rows is None else part.labels[part.rows]
            counts = labels.sum(dim=0) if labels.ndim > 1 else labels.bincount(minlength=classes)
            found[name] = [int(count) for count in counts]
    return found
