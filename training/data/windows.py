"""Windows of prepared recordings: a channel whose series overlap, and are stored once.

`lstm_fcn.data.prepare` writes such files: Parquet, a row for each step, with the `Preparation` in the metadata.
"""

import logging
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow
import torch
from numpy.typing import NDArray
from pyarrow import parquet

from lstm_fcn.container.channels import Source
from lstm_fcn.container.csv_header import HEADERLESS
from lstm_fcn.container.csv_reader import Block
from lstm_fcn.container.errors import UserError, plural
from lstm_fcn.container.preprocess import STRICT
from lstm_fcn.container.problem import Problem, Scaling
from lstm_fcn.container.recording import UNLABELLED, Codes, LabelledCutter, Preparation
from lstm_fcn.container.steps import COLUMNS, read_preparation
from lstm_fcn.container.tables import open_parquet
from lstm_fcn.training.data.datasets import Dataset
from lstm_fcn.training.data.labels import Labels
from lstm_fcn.training.data.scaling import (
    CHUNK_VALUES,
    PASS_VALUES,
    SAMPLE_ROWS,
    Moments,
    agree_on_scaling,
)
from lstm_fcn.training.data.store import MappedArray, reserve
from lstm_fcn.training.distributed import Group
from lstm_fcn.training.network.model import Scaler

logger = logging.getLogger(__name__)

BATCH_STEPS = 2**16  # read at once


class Piece(NamedTuple):
    """Steps that follow each other.

    name: recording and number of the piece.
    group: what the recording belongs to.
    values: float64 `[n, M]`.
    labels: their numbers, int64 `[n]`; -1 without a label.
    """

    name: tuple[str, int]
    group: str
    values: NDArray[np.float64]
    labels: Codes


class WindowReader:
    """Reads a channel of prepared recordings as `ChannelReader` reads one of rows.

    Each process keeps every n-th recording. Values are stored as float32, relative to the first ones, until it is known
    by which statistics to scale them.

    group_names: of the groups that recordings belong to.
    """

    def __init__(self, source: Source, group: Group, problem: Problem | None = None) -> None:
        """Prepare to read `source`; for the arguments, see `ChannelReader`."""
        self.source = source
        self.preparation = _one_preparation(source.files, problem)
        self.columns, self.names = HEADERLESS, self.preparation.values
        self.variables, self.widest = len(self.names), 0
        self.preprocessing = STRICT
        self.labels = Labels(problem.classes if problem else None)
        self.group_names: list[str] = []
        self.sample: NDArray[np.float64] = np.empty((0, self.variables, self.preparation.window))
        rank, size = (group.local_rank, group.local_size) if source.sharded else (group.rank, group.size)
        self._part = (rank, size)
        rows = sum(parquet.read_metadata(path).num_rows for path in source.files)
        self._steps = _Steps(self.variables, rows)
        # Memory is taken as these are written.
        self._starts: NDArray[np.integer[Any]] = np.empty(rows, np.int32 if rows < 2**31 else np.int64)
        self._recordings: list[tuple[int, int]] = []  # number of the first step and of the group

    @property
    def count(self) -> int:
        """Windows that this process keeps."""
        return len(self._starts)

    def read(self) -> None:
        """Read the channel to its end."""
        numbers: dict[str, int] = {}
        names: dict[str, int] = {}
        recordings: set[str] = set()
        cutter = LabelledCutter(self.preparation)
        unlabelled = count = 0
        for path in self.source.files:
            latest = None
            for piece in _read_pieces(path, self.preparation, names, self._part):
                follows, latest = piece.name == latest, piece.name
                recordings.add(piece.name[0])
                if not follows:
                    group = numbers.setdefault(piece.group, len(numbers))
                    self._recordings.append((self._steps.count, group))
                first = self._steps.count - (cutter.waiting if follows else 0)
                places, codes = cutter.cut(piece.labels, len(names), follows)
                labelled = codes != UNLABELLED
                unlabelled += int((~labelled).sum())
                self._steps.add(piece.values)
                found = first + places[labelled]
                self._starts[count : count + len(found)] = found
                count += len(found)
                self._add_labels([*names], codes[labelled], path)
        self._starts, self.group_names = self._starts[:count], list(numbers)
        if self.count:
            self.widest = self.preparation.window
        logger.info(
            "%s: %d windows of %d steps from %s%s",
            self.source.name,
            self.count,
            self.preparation.window,
            plural(len(recordings), "recording"),
            f"; {unlabelled} without a label are left out" if unlabelled else "",
        )

    @property
    def groups(self) -> NDArray[np.int64]:
        """The group of each window, a number of `group_names`, int64 `[N]`."""
        firsts, groups = np.array(self._recordings, dtype=np.int64).reshape(-1, 2).T
        found: NDArray[np.int64] = groups[np.searchsorted(firsts, self._starts, "right") - 1]
        return found

    def _add_labels(self, names: list[str], codes: NDArray[np.int64], path: Path) -> None:
        labels = [names[code] for code in codes.tolist()]
        self.labels.add(Block(range(1, len(labels) + 1), labels, np.empty((len(labels), 0)), NO_SERIES), str(path), ALL)

    def scale(self, scaling: Scaling | None, length: int, counted: NDArray[np.bool_], group: Group) -> Scaling:  # noqa: ARG002
        """The scaling for `finish`; for the arguments, see `ChannelReader.scale`."""
        self._steps.flush()
        if scaling is not None:
            return scaling
        moments = [Moments() for _ in range(self.variables)]
        starts = self._starts if counted.all() else self._starts[counted]
        for first, values in self._steps.blocks():
            within = np.arange(first, first + len(values), dtype=starts.dtype)
            begun, ended = np.searchsorted(starts, (within, within - self.preparation.window), "right")
            for k, of_variable in enumerate(moments):
                of_variable.add(values[begun > ended, k])
        return agree_on_scaling(moments, self.variables, group)

    def finish(self, labels: NDArray[np.generic], problem: Problem) -> tuple[Dataset, str]:
        """The windows of this process as a data set, and their checksum; see `ChannelReader.finish`."""
        self._steps.flush()
        window, starts = self.preparation.window, self._starts
        shown = starts[np.linspace(0, len(starts) - 1, min(len(starts), SAMPLE_ROWS)).astype(np.int64)]
        self.sample = (
            np.stack([self._steps.raw(start, start + window).T for start in shown.tolist()])
            if len(shown)
            else self.sample
        )
        scaling = problem.scaling
        scaler = None
        if scaling.method == "series":
            scaler = _WindowScaler(self._steps)
        storage = self._steps.finish(scaling, self.source.name)
        checksum = zlib.crc32(np.ascontiguousarray(labels).data)
        for part in (starts, storage.values):
            checksum = zlib.crc32(part.data, checksum)
        checksum = zlib.crc32(repr((self._recordings, self.group_names)).encode(), checksum)
        steps = torch.from_numpy(storage.values)
        count = max(0, len(storage.values) // self.variables - window + 1)
        series = steps.as_strided((count, self.variables, window), (self.variables, 1, self.variables))
        dataset = Dataset(
            series,
            torch.from_numpy(labels),
            starts=torch.from_numpy(starts),
            scaler=scaler,
            storage=storage,
        )
        return dataset, f"{checksum:08x}"


NO_SERIES = np.empty((0, 1, 0))
ALL = slice(None)


class _Steps:
    """The values of all steps, float32 `[S, M]`, relative to mean and deviation of the first ones."""

    def __init__(self, variables: int, most: int) -> None:
        """Take up to `most` steps."""
        self.count = 0
        self._variables = variables
        self._moments = [Moments() for _ in range(variables)]
        self._waiting: list[NDArray[np.float64]] = []  # so that the first chunk does not depend on the files' batches
        self._stored = 0
        self._storage = reserve(most * variables, np.float32)

    def add(self, values: NDArray[np.float64]) -> None:
        """Add steps `[n, M]`."""
        self.count += len(values)
        self._waiting.append(values)
        if sum(map(len, self._waiting)) * self._variables >= CHUNK_VALUES:
            self.flush()

    def flush(self) -> None:
        """Store the last steps."""
        if not self._waiting:
            return
        values = np.concatenate(self._waiting)
        first = values[: CHUNK_VALUES // self._variables]
        for k, moments in enumerate(self._moments):
            if not moments.count:
                moments.add(first[:, k])
        end = self._stored + len(values)
        room = self._storage.values.reshape(-1, self._variables)
        room[self._stored : end] = (values - self.origin) / self.unit
        self._stored, self._waiting = end, []
        self._storage.release()

    @property
    def origin(self) -> NDArray[np.float64]:
        return np.array([moments.origin for moments in self._moments])

    @property
    def unit(self) -> NDArray[np.float64]:
        return np.array([moments.unit for moments in self._moments])

    @property
    def _values(self) -> NDArray[np.float32]:
        return cast(NDArray[np.float32], self._storage.values.reshape(-1, self._variables))[: self.count]

    def raw(self, first: int, last: int) -> NDArray[np.float64]:
        """Steps in the user's units, float64 `[n, M]`."""
        found: NDArray[np.float64] = self._values[first:last] * self.unit + self.origin
        return found

    def blocks(self) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """All steps in the user's units, with the number of the first."""
        rows = max(1, PASS_VALUES // self._variables)
        for first in range(0, self.count, rows):
            yield first, self.raw(first, first + rows)
            self._storage.release()

    def finish(self, scaling: Scaling, name: str) -> MappedArray:
        """All steps, scaled unless every window is scaled alone.

        Raises:
            UserError: a scaled value is too large for float32.
        """
        storage, values = self._storage, self._values
        rows = max(1, PASS_VALUES // self._variables)
        for first in range(0, len(values), rows):
            if scaling.method != "series":
                values[first : first + rows] = (self.raw(first, first + rows) - scaling.mean) / scaling.std
            if not np.isfinite(values[first : first + rows]).all():
                raise UserError(
                    f"The {name} data has values too large for float32 after scaling; divide them by a constant first."
                )
            storage.release()
        storage.expect_random_access()
        storage.values = values.reshape(-1)
        return storage


class _WindowScaler:
    """Scales each window of relative values alone, as the exported graph does."""

    def __init__(self, steps: _Steps) -> None:
        self._origin = torch.from_numpy(steps.origin)[:, None]
        self._unit = torch.from_numpy(steps.unit)[:, None]
        self._scaler = Scaler(Scaling(method="series"))

    def __call__(self, series: torch.Tensor) -> torch.Tensor:
        origin, unit = self._origin.to(series.device), self._unit.to(series.device)
        scaled: torch.Tensor = self._scaler(series.double() * unit + origin)
        return scaled


def _one_preparation(files: tuple[Path, ...], problem: Problem | None) -> Preparation:
    """The preparation of all files, which must be that of the problem."""
    prepared = [read_preparation(path) for path in files]
    expected = problem.preparation if problem else prepared[0]
    for path, found in zip(files, prepared, strict=True):
        if found is None:
            raise UserError(f"{path} is not written by lstm-fcn prepare, unlike other files of its channel.")
        if expected is None:
            raise UserError(f"{path} holds recordings, but the training data holds rows; prepare both in the same way.")
        for name, value in expected.model_dump().items():
            if getattr(found, name) != value:
                raise UserError(
                    f"{path} was prepared with {name}={getattr(found, name)}, other files with {value}; prepare all "
                    "data in the same way."
                )
    return cast(Preparation, expected)


def _read_pieces(
    path: Path, preparation: Preparation, numbers: dict[str, int], part: tuple[int, int]
) -> Iterator[Piece]:
    """The pieces of this process's recordings, those of more than `BATCH_STEPS` in parts; `numbers` are of labels."""
    rank, size = part
    try:
        with open_parquet(path) as table:
            latest, number = None, -1
            for batch in table.iter_batches(batch_size=BATCH_STEPS, columns=[*COLUMNS, *preparation.values]):
                recordings, groups = batch.column("recording"), batch.column("group")
                pieces = batch.column("piece").to_numpy()
                values = np.column_stack([batch.column(name).to_numpy() for name in preparation.values])
                labels = _number_labels(batch.column("label"), numbers)
                ends = 1 + np.flatnonzero((np.diff(recordings.indices.to_numpy()) != 0) | (np.diff(pieces) != 0))
                for first, last in zip([0, *ends.tolist()], [*ends.tolist(), len(batch)], strict=True):
                    recording = recordings[first].as_py()
                    number += recording != latest
                    latest = recording
                    if number % size == rank:
                        name, group = (recording, int(pieces[first])), groups[first].as_py()
                        yield Piece(name, group, values[first:last], labels[first:last])
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read as a table: {error}.") from error


def _number_labels(labels: Any, numbers: dict[str, int]) -> Codes:
    """The number of each label in a dictionary array; new ones are added to `numbers`."""
    names = [numbers.setdefault(name, len(numbers)) for name in labels.dictionary.to_pylist()]
    codes: NDArray[np.int64] = labels.indices.fill_null(len(names)).to_numpy()
    return np.array([*names, UNLABELLED])[codes]
