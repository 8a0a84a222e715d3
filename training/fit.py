"""Train one network, or one ensemble, on data that has been read: for jobs, tuning and benchmarks alike."""

import logging
import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lstm_fcn.container.errors import UserError, plural
from lstm_fcn.container.hyperparameters import Hyperparameters
from lstm_fcn.container.problem import Problem
from lstm_fcn.training.checkpoint import Checkpoints
from lstm_fcn.training.data.datasets import Data, Dataset
from lstm_fcn.training.devices import Placement
from lstm_fcn.training.distributed import Group
from lstm_fcn.training.earlier import EarlierModel
from lstm_fcn.training.evaluate import EVALUATION_BATCH, evaluate
from lstm_fcn.training.loop import BestEpoch, Loop
from lstm_fcn.training.network.model import Classifier, Network, Scaler, make_network
from lstm_fcn.training.network.views import Views, measure_statistics
from lstm_fcn.training.ridge import fit_kernels
from lstm_fcn.training.stop import StopSignal

logger = logging.getLogger(__name__)

UNFITTED = 0.15  # a training loss above this share of that of guessing: the training data has not been learned


@dataclass(frozen=True)
class Fit:
    """A trained classifier.

    classifier: its network has the weights of the best epoch and exact batch statistics; on the placement's device, in
        evaluation mode.
    best: epoch and round of these weights, and the metrics of the classifier.
    history: metrics of the network after every epoch, as they are logged.
    settings: the hyperparameters, with the batch size and the number of epochs that were used.
    stopped: a stop signal ended the training early.
    """

    classifier: Classifier
    best: BestEpoch
    history: list[dict[str, float]]
    settings: Hyperparameters
    stopped: bool


def fit(
    data: Data,
    settings: Hyperparameters,
    placement: Placement,
    *,
    group: Group | None = None,
    stop: StopSignal | None = None,
    checkpoints: Checkpoints | None = None,
    earlier: EarlierModel | None = None,
) -> Fit:
    """Train a new classifier on `data`.

    Args:
        data: as `load` returns it; this process's part of it.
        settings: the hyperparameters; `batch-size=0` and `epochs=0` are resolved here.
        placement: where to train, as `choose_placement` returns it.
        group: the processes that train together; None: this process alone.
        stop: asked at every step whether to stop; None: never stop.
        checkpoints: in the first process of the group, where to save checkpoints and to resume from.
        earlier: a model whose weights to start from.

    Raises:
        UserError: the batch size is too small for the group; training diverges in its first epoch; a checkpoint cannot
            be written or belongs to another job; the earlier model does not fit the data.
        StopBeforeTraining: a stop was requested before the first step.
    """
    group, stop, problem = group or Group(), stop or StopSignal(), data.problem
    automatic = settings.epochs == 0 and settings.early_stopping_patience == 0
    chosen = [name for name, value in (("batch-size", settings.batch_size), ("epochs", settings.epochs)) if value == 0]
    settings = settings.with_schedule(problem.series_count)
    check_batch_size(settings, group)
    if group.is_first:
        logger.info("%s", describe_schedule(settings, problem.series_count, chosen))
    training = data.training.to(placement.device)
    kernels = fit_kernels(training, problem, settings, group) if settings.kernel_features else None
    network = make_network(settings, problem.num_variables, problem.length, len(problem.classes))
    set_statistics(network, training, problem, group)
    if earlier:
        earlier.carry_over(network, problem)
    if not group.is_first:
        torch.manual_seed(settings.seed + group.rank)  # so that each process drops different cells
    validation = data.validation.to(placement.device) if data.validation is not None else None
    weights = class_weights(settings, problem).to(placement.device)
    loop = Loop(
        network.to(placement.device),
        training,
        validation,
        weights,
        settings,
        placement,
        stop,
        group,
        checkpoints,
        saves=any(group.gather("checkpoints", checkpoints is not None)),
        unfitted_loss=UNFITTED * guessing_loss(problem) if automatic else math.inf,
    )
    best = loop.fit()
    classifier = Classifier(Scaler(problem.scaling), network, problem.independent, kernels)
    classifier = classifier.to(placement.device).eval()
    if kernels is not None and not loop.stopping:
        parts = {"train": training} | ({} if validation is None else {"valid": validation})
        metrics = {
            f"{name}_{metric}": value
            for name, part in parts.items()
            for metric, value in evaluate(classifier.logits, part, weights, group, scores=name == "valid").items()
        }
        logger.info("network alone: %s", ", ".join(f"{name} {value:.6f}" for name, value in best.metrics.items()))
        best = replace(best, metrics=metrics)
    return Fit(classifier, best, loop.history, settings, loop.stopping)


def describe_schedule(settings: Hyperparameters, series: int, chosen: list[str]) -> str:
    """How long training takes, for the log, and which hyperparameters were chosen for this many training series."""
    steps = plural(settings.epochs * math.ceil(series / settings.batch_size), "step")
    reason = f"; {' and '.join(chosen)} chosen for {series} training series" if chosen else ""
    return f"schedule: batch-size={settings.batch_size}, epochs={settings.epochs}, {steps}{reason}"


def set_statistics(network: Network, training: Dataset, problem: Problem, group: Group) -> None:
    """Give the views of each network the statistics of the training set."""
    members = [module for module in network.modules() if isinstance(module, Views)]
    if all(views.names == ("values",) for views in members):
        return
    parts = torch.arange(len(training), device=training.device).split(EVALUATION_BATCH)  # type: ignore[no-untyped-call]
    batches = (training.batch(part)[0] for part in parts)
    statistics = measure_statistics(batches, problem.num_variables, problem.length, group)
    for views in members:
        views.set_statistics(statistics)


def guessing_loss(problem: Problem) -> float:
    """The lowest loss of a classifier that does not look at the series: the entropy of the classes."""
    shares = np.array(problem.class_counts, dtype=np.float64) / problem.series_count
    outcomes = np.stack([shares, 1 - shares]) if problem.independent else shares
    entropies = -outcomes * np.log(outcomes, where=outcomes > 0, out=np.zeros_like(outcomes))
    return float(entropies.sum(axis=0).mean() if problem.independent else entropies.sum())


def check_batch_size(settings: Hyperparameters, group: Group) -> None:
    """Raise `UserError` if a batch cannot give each process of the group at least one series."""
    smallest = max(1, settings.batch_size >> settings.fine_tune_rounds)
    if smallest < group.size:
        in_last_round = f" (in the last fine-tuning round of {smallest})" if settings.fine_tune_rounds else ""
        raise UserError(
            f"batch-size={settings.batch_size} is too small for {group.size} processes, which share each batch"
            f"{in_last_round}. Set batch-size to at least {group.size << settings.fine_tune_rounds}."
        )


def class_weights(settings: Hyperparameters, problem: Problem) -> Tensor:
    """Weights of the classes in the loss, float32 `[C]`; or, for independent classes, of 0 and 1, `[C, 2]`.

    Balanced weights follow scikit-learn: inversely proportional to the frequency of the class in the training
    data.
    """
    counts = np.array(problem.class_counts, dtype=np.float64)
    if problem.independent:
        counts = np.stack([problem.series_count - counts, counts], axis=1)
    if settings.class_weight == "none":
        return torch.ones(counts.shape)
    return torch.from_numpy(_balance(counts, problem.series_count)).float()


def _balance(counts: NDArray[np.float64], total: int) -> NDArray[np.float64]:
    """Weights along the last axis; 1 for a class without series."""
    present = counts > 0
    classes = present.sum(axis=-1, keepdims=True)
    return np.where(present, total / (classes * np.maximum(counts, 1)), 1.0)
