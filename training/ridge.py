"""Ridge regression whose penalty is chosen by leave-one-out, and whose scores become probabilities.

Every class is regressed on 1 for its series and -1 for all others. The scores are multiplied by one temperature, for
which the probabilities of the series that were left out fit best.
"""

import logging
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from lstm_fcn.container.hyperparameters import Hyperparameters
from lstm_fcn.container.problem import Problem
from lstm_fcn.training.data.datasets import Dataset
from lstm_fcn.training.distributed import Group
from lstm_fcn.training.evaluate import EVALUATION_BATCH
from lstm_fcn.training.network.kernels import HIGH, KernelClassifier, KernelFeatures
from lstm_fcn.training.scores import measure_scores

logger = logging.getLogger(__name__)

PENALTIES = np.logspace(-3, 6, 19)  # for features of variance 1
MOST_FEATURES = 2**26  # of all series together, half a gigabyte; of more series, some are drawn
CONSTANT = 1e-6  # a feature with a smaller standard deviation carries nothing
Array = NDArray[np.float64]


class Ridge(NamedTuple):
    """A fitted regression: features `[F]` times `weights` plus `bias` are logits.

    weights: float64 `[C, F]`.
    bias: float64 `[C]`.
    penalty: the chosen one.
    logits: float64 `[N, C]`, of each training series by a regression on all others.
    """

    weights: Array
    bias: Array
    penalty: float
    logits: Array


def fit_ridge(features: NDArray[np.floating], targets: NDArray[np.bool_], independent: bool) -> Ridge:
    """Fit a regression on features `[N, F]` for the classes of each series, bool `[N, C]`.

    The penalty has the lowest squared error of the series that were left out, the intercept being left out with them:
    a series has the weight 1/N in its own mean (Golub, Heath and Wahba 1979). With the eigenvectors U and eigenvalues
    l of the Gram matrix of the centred features, the diagonal of the hat matrix is 1/N + sum U^2 l / (l + penalty).

    Args:
        features: see above.
        targets: see above.
        independent: each class has its own probability (sigmoid); otherwise they sum to 1 (softmax).
    """
    scale = features.std(axis=0, dtype=np.float64)
    scale[scale < CONSTANT] = np.inf
    mean = features.mean(axis=0, dtype=np.float64)
    scaled = (features - mean) / scale
    wanted = np.where(targets, 1.0, -1.0)
    offset = wanted.mean(axis=0)
    vectors, values = decompose(scaled)
    projected = vectors.T @ (wanted - offset)
    best, chosen = math.inf, (1.0, wanted)
    for penalty in PENALTIES:
        share = values / (values + penalty)
        leverage = np.square(vectors) @ share + 1 / len(scaled)
        error = (wanted - offset - vectors @ (share[:, None] * projected)) / np.maximum(1 - leverage, 1e-9)[:, None]
        if (squared := float(np.square(error).mean())) < best:
            best, chosen = squared, (float(penalty), wanted - error)
    penalty, left_out = chosen
    weights = (scaled.T @ (vectors @ (projected / (values + penalty)[:, None]))).T / scale
    temperature = choose_temperature(left_out, targets, independent)
    bias = offset - weights @ mean
    return Ridge(temperature * weights, temperature * bias, penalty, temperature * left_out)


def decompose(scaled: Array) -> tuple[Array, Array]:
    """Eigenvectors `[N, R]` and positive eigenvalues `[R]` of the Gram matrix of `[N, F]`, by its smaller side."""
    count, width = scaled.shape
    if count <= width:
        values, vectors = np.linalg.eigh(scaled @ scaled.T)
    else:
        values, vectors = np.linalg.eigh(scaled.T @ scaled)
    kept = values > max(values[-1], 1e-300) * 1e-10
    values, vectors = values[kept], vectors[:, kept]
    return (vectors if count <= width else scaled @ vectors / np.sqrt(values)), values


def choose_temperature(scores: Array, targets: NDArray[np.bool_], independent: bool) -> float:
    """The factor of the scores `[N, C]` for which the cross-entropy is lowest.

    The truth is taken as uncertain by one series in N + 2 (Platt 1999), so that scores without a mistake do not become
    probabilities of 0 and 1.
    """
    doubt = 1 / (len(scores) + 2)

    def loss(logarithm: float) -> float:
        logits = math.exp(logarithm) * scores
        if independent:
            truth = targets * (1 - 2 * doubt) + doubt
            return float((np.logaddexp(0, logits) - truth * logits).mean())
        truth = targets * (1 - doubt) + (1 - targets) * doubt / max(1, targets.shape[1] - 1)
        highest = logits.max(axis=1, keepdims=True)
        total = highest[:, 0] + np.log(np.exp(logits - highest).sum(axis=1))
        return float((total - (truth * logits).sum(axis=1)).mean())

    return math.exp(minimize(loss, -3.0, 6.0))


def minimize(function: Callable[[float], float], low: float, high: float) -> float:
    """The minimum of a function that falls, then rises, by golden-section search."""
    ratio = (math.sqrt(5) - 1) / 2
    for _ in range(40):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if function(left) < function(right) else (left, high)
    return (low + high) / 2


def make_kernels(settings: Hyperparameters, problem: Problem) -> KernelClassifier:
    """Kernel features and a linear layer that are still to be fitted."""
    features = KernelFeatures(problem.length, problem.num_variables, settings.kernel_features)
    return KernelClassifier(features, len(problem.classes))


@torch.no_grad()
def fit_kernels(training: Dataset, problem: Problem, settings: Hyperparameters, group: Group) -> KernelClassifier:
    """Fit kernel features and their linear layer; every process returns the same.

    Args:
        training: this process's part of the training set.
        problem: its shape and classes.
        settings: `kernel-features` and `seed` are used.
        group: the processes that train together.
    """
    model = make_kernels(settings, problem).to(training.device)
    most = max(1, MOST_FEATURES // model.features.count // group.size)
    order = torch.randperm(len(training), generator=torch.Generator().manual_seed(settings.seed)).to(training.device)
    chosen = order[:most].sort().values
    examples = group.gather_rows(training.batch(order[: len(HIGH)])[0])
    model.features.draw_biases(examples.to(training.device), settings.seed)
    features, labels = [], []
    for rows in chosen.split(EVALUATION_BATCH):  # type: ignore[no-untyped-call]
        series, truth = training.batch(rows)
        features.append(model.features(series).cpu())
        labels.append(truth.cpu())
    fitted, truth = group.gather_rows(torch.cat(features)), group.gather_rows(torch.cat(labels))
    targets = truth > 0.5 if truth.ndim > 1 else torch.nn.functional.one_hot(truth, len(problem.classes)).bool()
    weights = torch.zeros(len(problem.classes), model.features.count + 1)
    if group.is_first:
        # As many threads as torch has: NumPy would count the cores of the machine, not of the container, and the
        # number of threads changes the last digits.
        with threadpool_limits(torch.get_num_threads(), "blas"):
            ridge = fit_ridge(fitted.numpy(), targets.numpy(), problem.independent)
        weights[:, :-1], weights[:, -1] = torch.from_numpy(ridge.weights), torch.from_numpy(ridge.bias)
        accuracy = measure_scores(ridge.logits, truth)["accuracy"]
        logger.info(
            "kernel features: %d, fitted to %d series, penalty %g; leave-one-out accuracy %.4f",
            model.features.count,
            len(fitted),
            ridge.penalty,
            accuracy,
        )
    group.broadcast(weights)
    model.mean.copy_(fitted.mean(dim=0, dtype=torch.float64))
    model.linear.weight.copy_(weights[:, :-1])
    model.linear.bias.copy_(weights[:, -1])
    return model
