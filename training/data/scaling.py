"""Statistics of the training series, and the scaled series."""

import logging
import math
import zlib
from collections.abc import Iterable, Iterator
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from lstm_fcn.container.errors import UserError
from lstm_fcn.container.preprocess import Preprocessing
from lstm_fcn.container.problem import Scaling
from lstm_fcn.training.data.store import MappedArray, Store, scratch_folder
from lstm_fcn.training.distributed import Group
from lstm_fcn.training.network.model import CONSTANT, Scaler

logger = logging.getLogger(__name__)

SAMPLE_ROWS = 512  # raw series that are kept, to compare the exported graph with torch on
CHUNK_VALUES = 2**17  # values that are scaled at once while the data is read
PASS_VALUES = 2**20  # values that are processed at once in a later pass over the data


class Moments:
    """Mean and standard deviation of one variable, computed block by block without losing digits to a large offset.

    origin, unit: mean and standard deviation of the first block. Values relative to these fit into float32, whatever
        their offset and size, before the statistics of all blocks are known.
    """

    def __init__(self, count: int = 0, mean: float = 0.0, squares: float = 0.0) -> None:
        """`squares` is the sum of the squared distances from `mean`."""
        self.count, self.mean, self.squares = count, mean, squares
        self.origin, self.unit = 0.0, 1.0

    def add(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Include a block of values; return them relative to `origin`, in units of `unit`, in the same shape."""
        with np.errstate(over="ignore", invalid="ignore"):
            if not self.count and values.size:
                mean, std = float(values.mean()), float(values.std())
                self.origin = mean if math.isfinite(mean) else 0.0
                self.unit = std if math.isfinite(std) and std > CONSTANT * abs(mean) else 1.0
            distances = (values - self.origin) / self.unit
            if values.size:
                flat = distances.reshape(-1)
                total = float(flat.sum())
                # Not a dot product: for blocks this small, waking the threads takes longer than the sum.
                squares = float(np.einsum("i,i->", flat, flat)) - total * (total / flat.size)
                mean = self.origin + self.unit * (total / flat.size)
                self.merge(Moments(flat.size, mean, max(squares, 0.0) * self.unit * self.unit))
        return distances

    def merge(self, other: "Moments") -> None:
        """Include the values that `other` has seen."""
        count = self.count + other.count
        if count == 0:
            return
        step = other.mean - self.mean
        self.mean += step * (other.count / count)
        self.squares += other.squares + step * step * (self.count * (other.count / count))
        self.count = count

    def mean_and_std(self) -> tuple[float, float]:
        """Mean and standard deviation to scale by; the standard deviation of a constant is 1.

        Raises:
            UserError: the values are too large.
        """
        variance = self.squares / self.count
        if not (math.isfinite(self.mean) and math.isfinite(variance)):
            raise UserError(
                "The values of the training data are too large to be scaled; divide them by a constant first."
            )
        std = math.sqrt(variance)
        return self.mean, std if std > CONSTANT * abs(self.mean) else 1.0


def measure(blocks: Iterable[NDArray[np.float64]], variables: int) -> list[Moments]:
    """Moments of each variable of the series `[n, M, T]` in all blocks."""
    moments = [Moments() for _ in range(variables)]
    for series in blocks:
        for k, of_variable in enumerate(moments):
            of_variable.add(series[:, k])
    return moments


def agree_on_scaling(moments: list[Moments], variables: int, group: Group) -> Scaling:
    """Scaling by mean and standard deviation of each variable over all processes.

    `moments` is empty in a process without rows.
    """
    together = [Moments() for _ in range(variables)]
    for parts in group.gather("moments", [(found.count, found.mean, found.squares) for found in moments]):
        for total, part in zip(together, parts, strict=False):
            total.merge(Moments(*part))
    means, stds = zip(*(total.mean_and_std() for total in together), strict=True)
    return Scaling(method="dataset", mean=means, std=stds)


class RawSeries:
    """Series as they were read, stored until it is known to which length and by which statistics to bring them."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self._preprocessing = preprocessing
        self._values = Store(np.float64)
        self._lengths = [np.empty(0, np.int64)]
        self._finished: MappedArray | None = None

    def append(self, series: NDArray[np.float64]) -> None:
        """Store series `[n, M, W]` without the steps after their end."""
        lengths = self._preprocessing.lengths(series)
        inside = np.arange(series.shape[2]) < lengths[:, np.newaxis, np.newaxis]
        self._values.append(series[np.broadcast_to(inside, series.shape)])
        self._lengths.append(lengths)

    def blocks(self, variables: int, length: int) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """The series in order, as the number of the first row and complete series `[n, variables, length]`."""
        raw = self._finished = self._finished or self._values.finish()
        lengths = np.concatenate(self._lengths)
        ends = np.cumsum(lengths * variables)
        rows = max(1, PASS_VALUES // (length * variables))
        for first in range(0, len(lengths), rows):
            part = lengths[first : first + rows]
            inside = np.arange(part.max()) < np.repeat(part, variables).reshape(-1, variables, 1)
            series = np.full(inside.shape, np.nan)
            series[inside] = raw.values[ends[first] - part[0] * variables : ends[first + len(part) - 1]]
            yield first, self._preprocessing.apply(series, length)
            raw.release()


class ScaledSeries:
    """Collects complete series as float32, scaled by a given scaling or, at the end, by their statistics.

    Without a given scaling, series are stored relative to the statistics of the first chunk until all statistics are
    known. All work is done in chunks of one size, so that not a bit of the result depends on how files and blocks
    divide the rows.

    moments: of each variable; empty with a given scaling.
    sample: the first series as they were added, float64 `[K, M, T]`.
    """

    def __init__(self, scaling: Scaling | None) -> None:
        self.moments: list[Moments] = []
        self.sample: NDArray[np.float64] = np.empty((0, 1, 0))
        self._scaler = Scaler(scaling) if scaling else None
        self._waiting: list[NDArray[np.float64]] = []  # not yet enough for a chunk
        self._series = Store(np.float32)

    def add(self, series: NDArray[np.float64]) -> None:
        """Add complete series `[n, M, T]`."""
        self._waiting.append(series)
        rows = max(1, CHUNK_VALUES // (series.shape[1] * series.shape[2]))
        if sum(map(len, self._waiting)) >= rows:
            whole = np.concatenate(self._waiting)
            end = len(whole) - len(whole) % rows
            for start in range(0, end, rows):
                self._store(whole[start : start + rows])
            self._waiting = [whole[end:]]

    def flush(self) -> None:
        """Process the last series, so that `moments` and `sample` are complete."""
        if any(map(len, self._waiting)):
            self._store(np.concatenate(self._waiting))
        self._waiting = []

    def _store(self, series: NDArray[np.float64]) -> None:
        if len(self.sample) < SAMPLE_ROWS:
            head = series[: SAMPLE_ROWS - len(self.sample)].copy()
            self.sample = np.concatenate([self.sample, head]) if len(self.sample) else head
        if self._scaler is not None:
            self._series.append(self._scaler(torch.from_numpy(np.ascontiguousarray(series))).numpy())
            return
        self.moments = self.moments or [Moments() for _ in range(series.shape[1])]
        distances = np.empty(series.shape, np.float32)
        with np.errstate(over="ignore"):
            for k, moments in enumerate(self.moments):
                distances[:, k] = moments.add(series[:, k])
        self._series.append(distances)

    def finish(self, scaling: Scaling, shape: tuple[int, int], name: str, checksum: int) -> tuple[MappedArray, int]:
        """All series scaled by `scaling`, and their checksum.

        Args:
            scaling: the given scaling, or one of the statistics in `moments`.
            shape: variables and length of the series.
            name: channel, for messages.
            checksum: to be continued over the series.

        Returns:
            float32 values `[N * M * T]`, and the checksum.

        Raises:
            UserError: a scaled value is too large for float32.
        """
        self.flush()
        storage = self._series.finish()
        values = storage.values.reshape(-1, *shape)
        rows = max(1, PASS_VALUES // math.prod(shape))
        for start in range(0, len(values), rows):
            part = cast(NDArray[np.float32], values[start : start + rows])
            if self._scaler is None:
                part[:] = self._rescale(part, scaling)
            if not np.isfinite(part).all():
                raise UserError(
                    f"The {name} data has values too large for float32 after scaling; divide them by a constant first."
                )
            checksum = zlib.crc32(part.data, checksum)
            storage.release()
        storage.expect_random_access()
        if storage.in_file:
            gigabytes = storage.values.nbytes / 1e9
            logger.info("%s: %.1f GB of float32 in a scratch file in %s", name, gigabytes, scratch_folder())
        return storage, checksum

    def _rescale(self, part: NDArray[np.float32], scaling: Scaling) -> NDArray[np.float64]:
        """Series `[n, M, T]` from units of the first block to `scaling`."""
        origin = np.array([moments.origin for moments in self.moments])
        unit = np.array([moments.unit for moments in self.moments])
        offset = (origin - scaling.mean) / scaling.std
        rescaled: NDArray[np.float64] = part * (unit / scaling.std)[:, np.newaxis] + offset[:, np.newaxis]
        return rescaled


def gather_sample(sample: NDArray[np.float64], shape: tuple[int, int], group: Group) -> NDArray[np.float64]:
    """Raw series of all processes, at most `SAMPLE_ROWS`, float64 `[K, M, T]`."""
    rows = sample[: math.ceil(SAMPLE_ROWS / group.size)].reshape(-1, math.prod(shape))
    found: NDArray[np.float64] = group.gather_rows(torch.from_numpy(rows))[:SAMPLE_ROWS].numpy().reshape(-1, *shape)
    return found
