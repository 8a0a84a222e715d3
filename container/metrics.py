"""The metrics of a training job: one declaration gives the log line and the regex that reads it (M1 to M5)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar

NUMBER = r"([-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)"


@dataclass(frozen=True)
class Metric:
    """A figure that is logged once per epoch, and once more for the saved model."""

    name: str
    objective: str  # of a tuning job: Minimize or Maximize
    meaning: str

    @property
    def regex(self) -> str:
        """Finds the value in a log line; group 1 parses as a float."""
        return f"{self.name}: {NUMBER}"


METRICS = (
    Metric("train_loss", "Minimize", "class-weighted cross-entropy on the training data"),
    Metric("train_accuracy", "Maximize", "share of the training series classified correctly"),
    Metric("valid_loss", "Minimize", "class-weighted cross-entropy on the validation data"),
    Metric("valid_accuracy", "Maximize", "share of the validation series classified correctly"),
    Metric("valid_balanced_accuracy", "Maximize", "recall, mean over the classes"),
    Metric("valid_f1", "Maximize", "F1 score, mean over the classes (macro)"),
    Metric("valid_auc", "Maximize", "area under the ROC curve, mean over the targets; two classes and multilabel only"),
)


METRICS_BY_NAME = {metric.name: metric for metric in METRICS}


def metric_text(values: Mapping[str, float]) -> str:
    """`name: value` pairs in declared order, as in the log.

    Plain decimals, so that a regex without exponents reads the whole value, too (M3).
    """
    return ", ".join(f"{metric.name}: {values[metric.name]:.6f}" for metric in METRICS if metric.name in values)


@dataclass(frozen=True)
class EpochLine:
    """The log line of one epoch: `format` writes it, `parse` reads it.

    epoch, epochs: number of the epoch in its round, from 1, and the epochs of each round.
    round: a fine-tuning round, or a continuation of training that had not fitted the data; 0: the first training.
    metrics: by name.
    """

    epoch: int
    epochs: int
    metrics: dict[str, float]
    round: int = 0

    _FORMAT: ClassVar = re.compile(r"(?:round: (\d+), )?epoch: (\d+)/(\d+), (?=train_loss: )")

    def format(self, lr: float, remaining: timedelta) -> str:
        """The line, with the learning rate of the next step and the estimated time to the end."""
        prefix = f"round: {self.round}, " if self.round else ""
        return (
            f"{prefix}epoch: {self.epoch}/{self.epochs}, {metric_text(self.metrics)}, lr: {lr:.6f}, left: {remaining}"
        )

    @classmethod
    def parse(cls, line: str) -> "EpochLine | None":
        """The epoch that a log line reports; None for every other line."""
        place = cls._FORMAT.match(line)
        if place is None:
            return None
        found = ((metric.name, re.search(metric.regex, line)) for metric in METRICS)
        metrics = {name: float(match[1]) for name, match in found if match}
        return cls(int(place[2]), int(place[3]), metrics, int(place[1] or 0))
