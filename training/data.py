"""Channels to arrays: reading the files, encoding the labels, the statistics for scaling."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from container.artifact import Scaling
from container.codec import LabelledSeries, read_labelled_series
from container.errors import UserError
from training.model import CONSTANT

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dataset:
    """`series`: float64 `[N, 1, T]` as the user has them. `labels`: int64 `[N]`, indices into the classes."""

    series: NDArray[np.float64]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def length(self) -> int:
        return int(self.series.shape[-1])


def load_datasets(channels: dict[str, list[Path]]) -> tuple[Dataset, Dataset | None, list[str]]:
    """Training data, validation data if there is such a channel, and the classes in order.

    Raises:
        UserError: names the file, row and column of what is wrong; or there is one class only, or the
            validation data has a class or a length that the training data does not have.
    """
    labels, series = _read_channel("training", channels["training"])
    classes = sort_classes(set(labels))
    if len(classes) < 2:
        raise UserError(
            f"The training data has one class only ({classes[0]!r}, {len(labels)} rows); at least two are needed. "
            "Is the label in the first column?"
        )
    if series.shape[-1] < 2:
        raise UserError("The training series have one value each; at least two are needed to be a series.")
    if len(classes) > len(labels) / 2:
        logger.warning(
            "WARNING: %d series have %d different labels; is the label in the first column?", len(labels), len(classes)
        )
    training = Dataset(series, _encode(labels, classes))
    if "validation" not in channels:
        return training, None, classes
    labels, series = _read_channel("validation", channels["validation"], training.length, classes)
    return training, Dataset(series, _encode(labels, classes)), classes


def sort_classes(labels: set[str]) -> list[str]:
    """Labels in the order of their numbers if all of them are numbers, else of their text."""
    try:
        numbers = {label: float(label) for label in labels}
    except ValueError:
        return sorted(labels)
    if any(map(math.isnan, numbers.values())):  # which no order has a place for
        return sorted(labels)
    return sorted(labels, key=lambda label: (numbers[label], label))


def measure_scaling(series: NDArray[np.float64], method: str) -> Scaling:
    """Statistics of the training set for `method`; two passes, so that a large offset does no harm."""
    if method != "dataset":
        return Scaling.model_validate({"method": method})
    mean = float(series.mean())
    std = float(np.sqrt(np.mean(np.square(series - mean))))
    if not np.isfinite(mean) or not np.isfinite(std):
        raise UserError("The values of the training data are too large to be scaled; divide them by a constant first.")
    return Scaling(method="dataset", mean=mean, std=std if std > CONSTANT * abs(mean) else 1.0)


def _read_channel(
    name: str, files: Sequence[Path], length: int | None = None, classes: list[str] | None = None
) -> tuple[list[str], NDArray[np.float64]]:
    """Labels and series of all files; of the training data's length and classes, where these are given."""
    labels: list[str] = []
    parts: list[NDArray[np.float64]] = []
    for path in files:
        part = _read_file(path)
        if not part.labels:
            continue
        length = length or part.series.shape[-1]
        if part.series.shape[-1] != length:
            other = files[0] if parts else "the training data"
            raise UserError(
                f"{path} has series of {part.series.shape[-1]} values, but {other} has series of {length}; "
                "all must be of one length."
            )
        if classes is not None:
            _refuse_unknown_labels(path, part, classes)
        labels += part.labels
        parts.append(part.series)
    if not parts:
        raise UserError(f"Channel {name} has no data: its files hold blank lines only.")
    series = np.concatenate(parts) if len(parts) > 1 else parts[0]
    logger.info("%s: %d series of %d values from %d file(s)", name, len(labels), length, len(files))
    return labels, series


def _read_file(path: Path) -> LabelledSeries:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    return read_labelled_series(data, str(path))


def _refuse_unknown_labels(path: Path, part: LabelledSeries, classes: list[str]) -> None:
    known = set(classes)
    for row, label in zip(part.rows, part.labels, strict=True):
        if label not in known:
            raise UserError(
                f"{path}, row {row}, column 1: the training data has no label {label!r}; it has {_some(classes)}. "
                "Labels are compared as text, exactly as written."
            )


def _encode(labels: list[str], classes: list[str]) -> NDArray[np.int64]:
    index = {label: k for k, label in enumerate(classes)}
    return np.array([index[label] for label in labels], dtype=np.int64)


def _some(labels: list[str], limit: int = 10) -> str:
    text = ", ".join(repr(label) for label in labels[:limit])
    return text if len(labels) <= limit else f"{text} and {len(labels) - limit} more"
