"""Predictions compared with the true classes: confusion matrix, scores by class, typical examples and mistakes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, multilabel_confusion_matrix, precision_recall_fscore_support

from lstm_fcn.training.output.explanations import Example


@dataclass(frozen=True)
class Evaluation:
    """Predicted probabilities of N labelled series.

    part: the data that the series belong to.
    rows: number of series in that data; if greater than N, this is a sample.
    truth: int `[N]`, indices into `classes`; or `[N, C]` of 0 and 1 for independent classes.
    probabilities: float `[N, C]`.
    row_numbers: int `[N]`, rows of the user's data, counted from 1; None if unknown, as with several processes.
    """

    part: Literal["training", "validation"]
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
        count = multilabel_confusion_matrix if self.independent else confusion_matrix
        found: NDArray[np.int64] = count(*self._labels(), labels=self._label_values())
        return found

    def scores(self) -> NDArray[np.float64]:
        """Precision, recall, F1 and number of rows of each class, `[C, 4]`; NaN where undefined."""
        found = precision_recall_fscore_support(*self._labels(), labels=self._label_values(), zero_division=np.nan)
        return np.stack(found, axis=1).astype(np.float64)

    def _labels(self) -> tuple[NDArray[np.integer], NDArray[np.int64]]:
        """Truth and predictions for scikit-learn, which takes a single target as one column."""
        single = self.independent and len(self.classes) == 1
        return (self.truth[:, 0], self.predictions[:, 0]) if single else (self.truth, self.predictions)

    def _label_values(self) -> list[int]:
        return [1] if self.independent and len(self.classes) == 1 else list(range(len(self.classes)))

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
