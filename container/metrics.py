"""The metrics of a training job: one declaration gives the log line and the regex that reads it (M1 to M5)."""

from collections.abc import Mapping
from dataclasses import dataclass

NUMBER = r"([-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)"


@dataclass(frozen=True)
class Metric:
    """A figure printed once per epoch, and once more for the model that was saved."""

    name: str
    objective: str  # what a tuning job should do with it: Minimize or Maximize
    meaning: str

    @property
    def regex(self) -> str:
        """Finds the value on a log line; group 1 parses as a float."""
        return f"{self.name}: {NUMBER}"


METRICS = (
    Metric("train_loss", "Minimize", "class-weighted cross-entropy on the training data"),
    Metric("train_accuracy", "Maximize", "share of the training series classified correctly"),
    Metric("valid_loss", "Minimize", "class-weighted cross-entropy on the validation data"),
    Metric("valid_accuracy", "Maximize", "share of the validation series classified correctly"),
    Metric("valid_balanced_accuracy", "Maximize", "mean over the classes of the share of each classified correctly"),
    Metric("valid_f1", "Maximize", "F1 score, mean over the classes (macro)"),
    Metric("valid_auc", "Maximize", "area under the ROC curve, mean over the targets; two classes and multilabel only"),
)


def metric_text(values: Mapping[str, float]) -> str:
    """`name: value` pairs in declared order, as they stand on a log line.

    Plain decimals, so that also a regex that knows no exponent reads the whole value (M3).
    """
    return ", ".join(f"{metric.name}: {values[metric.name]:.6f}" for metric in METRICS if metric.name in values)
