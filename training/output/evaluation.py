"""Predictions compared with the true classes: confusion matrix, scores by class, typical examples and mistakes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lstm_fcn.training.output.explanations import Example


@dataclass(frozen=True)
class Evaluation:
    """Predicted probabilities of N labelled series.

    part: the data that the series belong to; cross-validation: training data, predicted by models trained without it.
    rows: number of series in that data; if greater than N, this is a sample.
    truth: int `[N]`, indices into `classes`; or `[N, C]` of 0 and 1 for independent classes.
    probabilities: float `[N, C]`.
    row_numbers: int `[N]`, rows of the user's data, counted from 1; None if unknown, as with several processes.
    """

    part: Literal["training", "validation", "cross-validation"]
    rows: int
    classes: Sequence[str]
    truth: NDArray[np.integer]
    probabilities: NDArray[np.floating]
    row_numbers: NDArray[np.integer] | None = None

    @property
    def independent(self) -> bool:
        return self.truth.ndim > 1

    @property
    def predictions(self) -> NDArray[np.int64]:
        """Predicted classes, in the form of `truth`."""
        found = self.probabilities > 0.5 if self.independent else self.probabilities.argmax(axis=1)
        return found.astype(np.int64)

    @property
    def confidence(self) -> NDArray[np.floating]:
        """Probabilities of the predictions, in the form of `truth`."""
        found: NDArray[np.floating] = self.probabilities
        return np.maximum(found, 1 - found) if self.independent else found[np.arange(len(found)), self.predictions]

    def confusion(self) -> NDArray[np.int64]:
        """Counts by true and predicted class, `[C, C]`; for independent classes `[C, 2, 2]`."""
        size = len(self.classes)
        if not self.independent:
            return np.bincount(self.truth * size + self.predictions, minlength=size * size).reshape(size, size)
        cells = 4 * np.arange(size) + 2 * self.truth + self.predictions
        return np.bincount(cells.reshape(-1), minlength=4 * size).reshape(size, 2, 2)

    def scores(self) -> NDArray[np.float64]:
        """Precision, recall, F1 and number of rows of each class, `[C, 4]`; NaN where undefined."""
        counts = self.confusion()
        if self.independent:
            right, true, predicted = counts[:, 1, 1], counts[:, 1].sum(axis=1), counts[:, :, 1].sum(axis=1)
        else:
            right, true, predicted = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
        with np.errstate(invalid="ignore"):
            return np.stack([right / predicted, right / true, 2 * right / (true + predicted), true], axis=1)

    def typical(self, limit: int = 6) -> list[tuple[int, int]]:
        """Choose correctly predicted rows, evenly over the classes and from high to low probability.

        Returns:
            row (an index into `truth`) and class of each.
        """
        correct = self.predictions == self.truth
        if not self.independent:
            groups = [(k, correct & (self.truth == k), self.confidence) for k in range(len(self.classes))]
        else:
            values = (1, 0) if len(self.classes) == 1 else (1,)  # with many targets most rows lack most of them
            groups = [
                (k, correct[:, k] & (self.truth[:, k] == value), self.confidence[:, k])
                for k in range(len(self.classes))
                for value in values
            ]
        per_group = max(1, limit // len(groups))
        chosen: list[tuple[int, int]] = []
        for k, in_group, confidence in groups:
            rows = np.flatnonzero(in_group)
            rows = rows[np.argsort(-confidence[rows], kind="stable")]
            places = np.linspace(0, len(rows), min(per_group, len(rows)), endpoint=False).astype(np.int64)
            chosen += [(int(row), k) for row in rows[places]]
        return chosen[:limit]

    def mistakes(self, limit: int = 6) -> list[tuple[int, int]]:
        """Row and class of the wrong predictions with the highest probabilities, in descending order."""
        wrong = np.nonzero(self.predictions != self.truth)
        classes = wrong[1] if self.independent else self.predictions[wrong]
        order = np.argsort(-self.confidence[wrong], kind="stable")[:limit]
        return [(int(wrong[0][k]), int(classes[k])) for k in order]

    def example(
        self, place: tuple[int, int], series: NDArray[np.float64], activation: NDArray[np.floating] | None
    ) -> Example:
        """One of the rows that `typical` or `mistakes` chose, with its prediction.

        Args:
            place: row and class.
            series: float64 `[M, T]`, the series of that row.
            activation: float `[T]`, its class activation map for that class, if there is one.
        """
        row, k = place
        name, probability = self.classes[k], float(self.probabilities[row, k])
        number = None if self.row_numbers is None else int(self.row_numbers[row])
        if not self.independent:
            return Example(series, name, probability, self.classes[self.truth[row]], activation, number)
        truth = name if self.truth[row, k] else f"not {name}"
        if probability > 0.5:
            return Example(series, name, probability, truth, activation, number)
        against = None if activation is None else -activation  # the evidence for the absence of the class
        return Example(series, f"not {name}", 1 - probability, truth, against, number)
