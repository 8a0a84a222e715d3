"""Channels to data sets: read the files, agree with the other processes on what they hold, scale, hold out."""

import logging
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, TypeGuard, cast

import numpy as np
import torch
from numpy.typing import NDArray

from lstm_fcn.container.artifact import Metadata
from lstm_fcn.container.channels import Source
from lstm_fcn.container.csv_header import HEADERLESS, Columns
from lstm_fcn.container.csv_reader import Block, SeriesReader, describe_length
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.hyperparameters import Hyperparameters
from lstm_fcn.container.preprocess import Preprocessing
from lstm_fcn.container.problem import Problem, Scaling
from lstm_fcn.container.steps import read_preparation
from lstm_fcn.container.tables import TableReader, is_table
from lstm_fcn.training.data.datasets import Data, Dataset
from lstm_fcn.training.data.labels import Labels, agree_on_classes, agree_on_names, check_classes, count_classes, quote
from lstm_fcn.training.data.reading import READ_BYTES, ParallelReader, Progress, open_stream
from lstm_fcn.training.data.scaling import RawSeries, ScaledSeries, agree_on_scaling, gather_sample, measure
from lstm_fcn.training.data.splits import draw_validation_rows
from lstm_fcn.training.data.windows import WindowReader
from lstm_fcn.training.distributed import Group

logger = logging.getLogger(__name__)


BLOCK_ROWS = 1024  # of arrays that are read at once


@dataclass(frozen=True)
class Arrays:
    """The data of a channel in memory, like headerless rows of a file.

    name: of the channel.
    series: float64 `[N, M, W]`, with NaN for missing values and beyond the end of a shorter series; without faults (see
        `Preprocessing.find_fault`).
    labels: of each series.
    """

    name: str
    series: NDArray[np.float64]
    labels: Sequence[str]

    def refuse_empty(self) -> None:
        """Raise a `UserError` because there are no series."""
        raise UserError(f"The {self.name} data has no series.")

    def blocks(self) -> Iterator[Block]:
        for first in range(0, len(self.labels), BLOCK_ROWS):
            labels = list(self.labels[first : first + BLOCK_ROWS])
            last = first + len(labels)
            yield Block(range(first + 1, last + 1), labels, np.empty((len(labels), 0)), self.series[first:last])


def load(
    channels: Mapping[str, Source | Arrays],
    settings: Hyperparameters,
    group: Group,
    earlier: Metadata | None = None,
) -> Data:
    """Read the training channel, and the validation channel if there is one.

    Held-out rows influence neither the scaling nor the class counts.

    Args:
        channels: as `find_channels` returns them, or arrays.
        settings: task, scaling, preprocessing, validation-fraction and seed are used.
        group: each of its processes keeps its share of the rows.
        earlier: the model to continue training from. Its scaling method is used, and also its mean and standard
            deviation if it has the same classes, variables and length.

    Raises:
        UserError: names the file, row and column of invalid data; or the training data has only one class; or the
            validation data has a class or a length that is not in the training data.
    """
    if settings.validation_fraction and "validation" in channels:
        raise UserError("validation-fraction must be 0 if the job has a validation channel.")
    if settings.cross_validation_folds and ("validation" in channels or settings.validation_fraction):
        raise UserError("cross-validation-folds must be 0 if there is validation data; use one of the two.")
    method = earlier.problem.scaling.method if earlier else settings.scaling
    scaling = None if method == "dataset" else Scaling(method=method)
    reader = _open_training(channels["training"], settings, group, scaling, earlier)
    reader.read()

    length = _agree_on_length(reader, group, earlier)
    task, classes, columns = agree_on_classes(reader.labels, reader.columns, settings.task, group)
    names = agree_on_names(reader.names, group)
    if columns != HEADERLESS:
        reader.variables = columns.variables  # also in a process without rows
    labels = reader.labels.encode(task, classes, columns)
    counts, rows = count_classes(labels, len(classes), group, "class counts"), sum(group.gather("rows", len(labels)))
    check_classes(classes, counts, rows, labels.ndim > 1)
    held_out = np.zeros(len(labels), dtype=np.bool_)
    if settings.validation_fraction:
        fraction, seed = settings.validation_fraction, settings.seed
        held_out = draw_validation_rows(labels, fraction, seed, group, reader.groups, reader.group_names)
        counts = count_classes(labels[~held_out], len(classes), group, "class counts of the training part")
        rows = sum(group.gather("rows of the training part", int((~held_out).sum())))
    if scaling is None and earlier and _fits(earlier.problem, classes, reader.variables, length):
        scaling = earlier.problem.scaling
    scaling = reader.scale(scaling, length, ~held_out, group)
    problem = Problem(
        task=task,
        classes=tuple(classes),
        class_counts=tuple(counts),
        series_count=rows,
        columns=columns,
        names=names,
        preparation=reader.preparation,
        preprocessing=reader.preprocessing,
        num_variables=reader.variables,
        length=length,
        scaling=scaling,
    )
    training, fingerprint = reader.finish(labels, problem)
    if settings.cross_validation_folds and reader.groups is not None:
        training = replace(training, groups=torch.from_numpy(reader.groups))
    validation = None
    if "validation" in channels:
        validation, checksum = load_validation(channels["validation"], problem, group, reader.group_names)
        fingerprint += checksum
    elif settings.validation_fraction:
        validation = replace(training, rows=torch.from_numpy(np.flatnonzero(held_out)))
        training = replace(training, rows=torch.from_numpy(np.flatnonzero(~held_out)))
    sample = gather_sample(reader.sample, (problem.num_variables, length), group)
    fingerprint = "-".join(group.gather("fingerprint", fingerprint))
    return Data(problem, training, validation, sample, fingerprint, reader.group_names)


def _open_training(
    source: Source | Arrays, settings: Hyperparameters, group: Group, scaling: Scaling | None, earlier: Metadata | None
) -> "ChannelReader | WindowReader":
    are_recordings = holds_recordings(source)
    recordings = group.gather("recordings", are_recordings)
    if any(recordings) and not all(recordings):
        raise UserError(
            "Some machines of the job have recordings, others have none: lstm-fcn prepare writes one file. Use the "
            "distribution FullyReplicated."
        )
    if are_recordings:
        return WindowReader(cast(Source, source), group)
    variables = settings.num_variables if "num_variables" in settings.model_fields_set else None
    if variables is None and earlier and not earlier.problem.has_header:
        variables = earlier.problem.num_variables
    # Statistics of the training rows can be computed once it is known which rows are held out.
    waits = settings.validation_fraction > 0 and scaling is None
    return ChannelReader(source, Preprocessing.of(settings), group, scaling, variables=variables, waits=waits)


def holds_recordings(source: Source | Arrays) -> TypeGuard[Source]:
    """Whether the files of a channel were written by `lstm_fcn.data.prepare`."""
    return isinstance(source, Source) and any(read_preparation(path) for path in source.files)


def load_validation(
    source: Source | Arrays, problem: Problem, group: Group, training_groups: Sequence[str] = ()
) -> tuple[Dataset, str]:
    """Read labelled series for a known problem, scaled as its training series; also return their checksum.

    Logs a warning if one of the groups is among `training_groups`.

    Raises:
        UserError: as `load` does.
    """
    reader: ChannelReader | WindowReader
    if holds_recordings(source):
        reader = WindowReader(source, group, problem)
    else:
        reader = ChannelReader(source, problem.preprocessing, group, problem.scaling, problem)
    reader.read()
    if both := sorted({*training_groups} & {*reader.group_names}):
        logger.warning(
            "WARNING: %s both in the training and in the validation data (%s); the accuracy on new ones will be lower",
            "1 group is" if len(both) == 1 else f"{len(both)} groups are",
            quote(both, limit=3),
        )
    if sum(group.gather("validation rows", reader.count)) == 0:
        source.refuse_empty()
    if reader.labels.not_one_hot and not problem.independent:
        raise UserError(f"{reader.labels.not_one_hot}: exactly one of the columns {quote(problem.classes)} must be 1.")
    return reader.finish(reader.labels.encode(problem.task, problem.classes, problem.columns), problem)


class ChannelReader:
    """Reads one channel; each process of a job keeps every n-th row.

    Call `read`, then `scale` unless the problem is known, then `finish`.

    columns: those that the header names; None before the first row.
    names: columns of values in tables; see `Problem`.
    count: rows that this process keeps.
    widest: time steps of the longest series.
    variables: of each series; the header may set it.
    """

    def __init__(
        self,
        source: Source | Arrays,
        preprocessing: Preprocessing,
        group: Group,
        scaling: Scaling | None,
        problem: Problem | None = None,
        variables: int | None = None,
        waits: bool = False,
    ) -> None:
        """Prepare to read `source`.

        Args:
            source: the channel.
            preprocessing: for every series.
            group: the processes that share the rows.
            scaling: None: by statistics of the data.
            problem: what the rows must fit; None for the training channel, which defines it.
            variables: None: as many as the header names, or one.
            waits: keep raw series until `scale` is called, because it may count only some of them.
        """
        self.source = source
        self.columns: Columns | None = problem.columns if problem else None
        self.names = problem.names if problem else ()
        self.preparation = problem.preparation if problem else None
        self.groups: NDArray[np.int64] | None = None
        self.group_names: list[str] = []
        self.count = 0
        self.widest = 0
        self.variables = problem.num_variables if problem else variables or 1
        self.labels = Labels(problem.classes if problem else None)
        self.series = ScaledSeries(scaling)
        self.preprocessing = preprocessing
        self._waits = waits
        self._wanted_variables = self.variables if problem else variables
        self._length = problem.length if problem else None
        self._first: tuple[int, str] | None = (problem.length, "the training data") if problem else None
        self._raw = RawSeries(preprocessing) if waits or (preprocessing.any_length and not problem) else None
        sharded = isinstance(source, Source) and source.sharded
        self._part = (group.local_rank, group.local_size) if sharded else (group.rank, group.size)
        self._rows_seen = 0

    @property
    def sample(self) -> NDArray[np.float64]:
        """Some series before scaling, float64 `[K, M, T]`."""
        return self.series.sample

    def read(self) -> None:
        """Read the channel to its end."""
        if isinstance(self.source, Arrays):
            self.columns, self.variables = HEADERLESS, self.source.series.shape[1]
            for block in self.source.blocks():
                self._take(block, self.source.name)
            return
        progress = Progress(self.source)
        if self.source.pipe:
            with open_stream(self.source.pipe, progress, is_pipe=True) as stream:
                self._read_text(str(self.source.pipe), stream)
        for path in self.source.files:
            if is_table(path):
                self._read(TableReader(path, str(path), names=self.names, **self._expected()))
                progress.add(path.stat().st_size)
                continue
            with open_stream(path, progress, is_pipe=False) as stream:
                self._read_text(str(path), stream)
        if self._rows_seen:
            logger.info(
                "%s: %d %s from %s%s",
                self.source.name,
                self._rows_seen,
                describe_length(self.widest, self.variables, self.preprocessing),
                "a pipe" if self.source.pipe else f"{len(self.source.files)} file(s)",
                progress.summary(),
            )

    def _read_text(self, name: str, stream: BinaryIO) -> None:
        self._read(ParallelReader(stream, name, block_bytes=READ_BYTES, **self._expected()))

    def _expected(self) -> dict[str, Any]:
        """What the rows of the next file must be like, as readers take it."""
        return {
            "columns": self.columns,
            "preprocessing": self.preprocessing,
            "length": self._length if self.preprocessing.any_length else None,
            "variables": self._wanted_variables,
        }

    def _read(self, reader: SeriesReader) -> None:
        for block in reader:
            self.columns, self.variables = reader.columns, reader.variables
            if isinstance(reader, TableReader):
                self.names = reader.names
            self._take(block, reader.source)

    def _take(self, block: Block, name: str) -> None:
        """Check all rows of a block of the file `name`, and keep those of this process."""
        self._check_width(block, name)
        rank, size = self._part
        kept = slice((rank - self._rows_seen) % size, None, size)
        self._rows_seen += len(block.series)
        self.labels.add(block, name, kept)
        self._add(block.series[kept])

    def _check_width(self, block: Block, name: str) -> None:
        width = block.series.shape[2]
        self.widest = max(self.widest, width)
        if self.preprocessing.any_length:
            return
        first, place = self._first = self._first or (width, name)
        if width != first:
            unlabelled = " Is the label missing from its first column?" if width == first - 1 else ""
            raise UserError(
                f"{name} has series of {width} values, but {place} has series of {first}; all series must have the "
                f"same length. Set length-policy=pad or resample to allow different lengths.{unlabelled}"
            )
        self._length = width

    def _add(self, series: NDArray[np.float64]) -> None:
        self.count += len(series)
        if self._raw is not None:
            self._raw.append(series)
        else:
            self.series.add(self.preprocessing.apply(series, self._length or series.shape[2]))

    def scale(self, scaling: Scaling | None, length: int, counted: NDArray[np.bool_], group: Group) -> Scaling:
        """Bring all series to `length` and return the scaling for `finish`.

        Args:
            scaling: None: by the statistics of the rows that are `counted`, over all processes.
            length: of the series that the network sees.
            counted: bool `[N]`.
            group: the processes that share the rows.

        Raises:
            UserError: the values are too large.
        """
        if self._raw is not None:
            if self._waits:
                if scaling is None:
                    blocks = self._raw.blocks(self.variables, length)
                    moments = measure((part[counted[k : k + len(part)]] for k, part in blocks), self.variables)
                    scaling = agree_on_scaling(moments, self.variables, group)
                self.series = ScaledSeries(scaling)
            for _, part in self._raw.blocks(self.variables, length):
                self.series.add(part)
        self.series.flush()
        return scaling or agree_on_scaling(self.series.moments, self.variables, group)

    def finish(self, labels: NDArray[np.generic], problem: Problem) -> tuple[Dataset, str]:
        """The rows of this process as a data set, and their checksum.

        Raises:
            UserError: a scaled value is too large for float32.
        """
        shape = (problem.num_variables, problem.length)
        checksum = zlib.crc32(np.ascontiguousarray(labels).data)
        storage, checksum = self.series.finish(problem.scaling, shape, self.source.name, checksum)
        series = torch.from_numpy(storage.values.reshape(-1, *shape))
        return Dataset(series, torch.from_numpy(labels), storage=storage), f"{checksum:08x}"


def _agree_on_length(reader: ChannelReader | WindowReader, group: Group, earlier: Metadata | None) -> int:
    """The length of the series that the network sees, the same in all processes."""
    lengths: list[int] = [length for length in group.gather("length", reader.widest) if length]
    if not lengths:
        reader.source.refuse_empty()
    length = max(lengths)
    policy = reader.preprocessing.length_policy
    if policy == "error" and min(lengths) != length:
        raise UserError(
            f"One machine has series of {min(lengths)} values, another has series of {length}; all series must have "
            "the same length. Set length-policy=pad or resample to allow different lengths."
        )
    if earlier and (policy == "resample" or (policy == "pad" and length < earlier.problem.length)):
        length = earlier.problem.length
    if length < 2:
        raise UserError("The training series have one value each; a series needs at least two.")
    return length


def _fits(problem: Problem, classes: list[str], variables: int, length: int) -> bool:
    """Whether the scaling of an earlier model's problem can be kept."""
    return (problem.classes, problem.num_variables, problem.length) == (tuple(classes), variables, length)
