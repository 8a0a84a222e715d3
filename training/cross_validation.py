"""Cross-validation: every training series is predicted by a classifier that was trained without it."""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lstm_fcn.container.errors import UserError
from lstm_fcn.container.hyperparameters import Hyperparameters
from lstm_fcn.container.problem import Problem
from lstm_fcn.training.checkpoint import Checkpoint, Checkpoints, share
from lstm_fcn.training.data.datasets import Data, Dataset
from lstm_fcn.training.data.labels import count_classes
from lstm_fcn.training.data.splits import draw_folds_of_groups
from lstm_fcn.training.devices import Placement
from lstm_fcn.training.distributed import Group
from lstm_fcn.training.evaluate import EVALUATION_BATCH
from lstm_fcn.training.explain import predict
from lstm_fcn.training.fit import fit
from lstm_fcn.training.scores import measure_scores
from lstm_fcn.training.stop import Interrupted, StopBeforeTraining, StopSignal

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OutOfFold:
    """Predictions of this process's training series.

    probabilities: float32 `[N, C]`.
    metrics: over the series of all processes, named like those of validation data.
    """

    probabilities: Tensor
    metrics: dict[str, float]


def cross_validate(
    data: Data,
    settings: Hyperparameters,
    placement: Placement,
    group: Group,
    stop: StopSignal,
    checkpoints: Checkpoints | None = None,
) -> OutOfFold:
    """Train `cross-validation-folds` classifiers, each without one fold of the training series, and predict that fold.

    The series are scaled by the statistics of all of them. For the arguments, see `fit`; a checkpoint is saved after
    each fold.

    Raises:
        UserError: there are fewer series than folds, or as `fit` does.
        StopBeforeTraining: a stop was requested.
        Interrupted: a stop was requested after the first fold of a resumable job.
    """
    folds, training, problem = settings.cross_validation_folds, data.training, data.problem
    labels = training.labels if training.rows is None else training.labels[training.rows]
    if data.group_names:
        groups = cast(Tensor, training.groups)
        groups = groups if training.rows is None else groups[training.rows]
        number_of = draw_folds_of_groups(labels.numpy(), groups.numpy(), data.group_names, folds, settings.seed, group)
    else:
        number_of = draw_folds(labels.numpy(), folds, settings.seed)
    if problem.series_count < folds:
        raise UserError(f"cross-validation-folds={folds} is more than the {problem.series_count} training series.")
    progress = Progress(len(labels), len(problem.classes), group, checkpoints)
    probabilities = progress.probabilities
    for fold in range(progress.folds, folds):
        held_out = number_of == fold
        part = _without(data, held_out, group)
        try:
            with _only_warnings():
                trained = fit(part, settings, placement, group=group, stop=stop)
            if trained.stopped:
                raise StopBeforeTraining
        except (Interrupted, StopBeforeTraining):
            if fold and stop.resumable:
                raise Interrupted(f"Interrupted after fold {fold}; run the same command again to resume it.") from None
            raise StopBeforeTraining from None
        positions = np.flatnonzero(held_out)
        for picked in torch.from_numpy(positions).split(EVALUATION_BATCH):  # type: ignore[no-untyped-call]
            series = training.batch(picked)[0].to(placement.device)
            probabilities[picked] = torch.from_numpy(predict(trained.classifier, series))
        seen = torch.from_numpy(number_of <= fold)
        accuracy = measure(probabilities[seen], labels[seen], group)["valid_accuracy"]
        if group.is_first:
            logger.info("cross-validation: fold %d of %d, accuracy so far %.4f", fold + 1, folds, accuracy)
        progress.save(fold + 1)
    return OutOfFold(probabilities, measure(probabilities, labels, group))


class Progress:
    """The predictions so far, resumed from the latest checkpoint if there is one.

    folds: how many are done.
    probabilities: of the series of this process, float32 `[N, C]`; 0 where the fold is not done.
    """

    def __init__(self, series: int, classes: int, group: Group, checkpoints: Checkpoints | None) -> None:
        self._group, self._checkpoints = group, checkpoints
        self._saves = any(group.gather("checkpoints of folds", checkpoints is not None))
        self.folds, self.probabilities = 0, torch.zeros(series, classes)
        found = share(checkpoints.load_newest() if checkpoints else None, group) if self._saves else None
        if found is not None:
            first = sum(group.gather("rows of folds", series)[: group.rank])
            self.folds = found.state["folds"]
            self.probabilities[:] = found.tensors["probabilities"][first : first + series]
            if group.is_first:
                logger.info("resumed: cross-validation after fold %d", self.folds)

    def save(self, folds: int) -> None:
        self.folds = folds
        if self._saves:
            everywhere = self._group.gather_rows(self.probabilities)
            if self._checkpoints is not None:
                self._checkpoints.save(f"fold{folds:03d}", Checkpoint({"probabilities": everywhere}, {"folds": folds}))


def draw_folds(labels: NDArray[np.generic], folds: int, seed: int) -> NDArray[np.int64]:
    """Draw the fold of each series, int64 `[N]`, with the same share of each class in every fold."""
    _, strata = np.unique(labels, axis=0, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(strata.reshape(-1)[order], kind="stable")]
    numbers = np.empty(len(labels), np.int64)
    numbers[order] = np.arange(len(labels)) % folds
    return numbers


def measure(probabilities: Tensor, labels: Tensor, group: Group) -> dict[str, float]:
    """Loss and scores of probabilities `[N, C]` over all processes, named like those of validation data."""
    safe = probabilities.double().clamp(1e-7, 1 - 1e-7)
    if labels.ndim > 1:
        losses = -torch.where(labels > 0.5, safe, 1 - safe).log().mean(dim=1)
    else:
        losses = -safe.log().gather(1, labels.long()[:, None])[:, 0]
    loss, count = group.sum(torch.stack([losses.sum(), torch.tensor(float(len(losses)))])).tolist()
    scores = measure_scores(probabilities, labels, group, threshold=0.5)
    return {"valid_loss": loss / count} | {f"valid_{name}": value for name, value in scores.items()}


def _without(data: Data, held_out: NDArray[np.bool_], group: Group) -> Data:
    """The data without some of the training series."""
    training = data.training
    positions = torch.from_numpy(np.flatnonzero(~held_out))
    rows = positions if training.rows is None else training.rows[positions]
    kept: Dataset = replace(training, rows=rows)
    counts = count_classes(training.labels[rows].numpy(), len(data.problem.classes), group, "class counts of a fold")
    problem: Problem = data.problem.model_copy(
        update={"class_counts": tuple(counts), "series_count": sum(group.gather("rows of a fold", len(kept)))}
    )
    return replace(data, problem=problem, training=kept, validation=None)


@contextlib.contextmanager
def _only_warnings() -> Iterator[None]:
    """Without the lines of every epoch, which are read as the progress and the metrics of the job."""
    parent = logging.getLogger("lstm_fcn.training")
    before = parent.level
    parent.setLevel(logging.WARNING)
    try:
        yield
    finally:
        parent.setLevel(before)
