"""Channels to arrays: reading the files, encoding the labels, scaling, holding out."""

import logging
import math
import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import BinaryIO, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from lstm_fcn.container.artifact import Metadata
from lstm_fcn.container.channels import Source
from lstm_fcn.container.csv_header import HEADERLESS, Columns
from lstm_fcn.container.csv_reader import Block, SeriesReader, describe_length
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.hyperparameters import Hyperparameters
from lstm_fcn.container.preprocess import Preprocessing
from lstm_fcn.container.problem import Problem, Scaling, Task, are_independent
from lstm_fcn.training.data.datasets import Data, Dataset
from lstm_fcn.training.data.labels import sort_classes
from lstm_fcn.training.data.reading import READ_BYTES, ParallelReader, Progress, open_stream
from lstm_fcn.training.data.store import Store, scratch_folder
from lstm_fcn.training.distributed import Group
from lstm_fcn.training.network.model import CONSTANT, Scaler

logger = logging.getLogger(__name__)

SAMPLE_ROWS = 512  # series kept as the user has them, to compare the exported graph with torch on
CHUNK_VALUES = 2**17  # scaled at once while they are read
PASS_VALUES = 2**20  # worked on at once where all series are gone through again


def load(channels: dict[str, Source], settings: Hyperparameters, group: Group, earlier: Metadata | None = None) -> Data:
    """Read the training channel, and the validation channel if there is one.

    Args:
        channels: as `find_channels` returns them.
        settings: task, scaling, preprocessing, validation-fraction and seed are used.
        group: each of its processes keeps its share of the rows.
        earlier: the model that the job goes on from; its way of scaling is kept, and where its classes and length
            fit, so are its mean and standard deviation.

    Raises:
        UserError: names the file, row and column of what is wrong; or there is one class only, or the
            validation data has a class or a length that the training data does not have.
    """
    if settings.validation_fraction and "validation" in channels:
        raise UserError("There is a channel validation; validation-fraction must be 0 with it.")
    preprocessing = Preprocessing(missing_values=settings.missing_values, length_policy=settings.length_policy)
    method = earlier.problem.scaling.method if earlier else settings.scaling
    known = None if method == "dataset" else Scaling(method=method)
    variables = settings.num_variables if "num_variables" in settings.model_fields_set else None
    if variables is None and earlier and not earlier.problem.has_header:
        variables = earlier.problem.num_variables
    intake = _Intake(channels["training"], preprocessing, group, known, variables=variables)
    intake.read()
    length = _agree_on_length(intake, group, earlier)
    intake.complete(length)
    task, classes, columns = _agree_on_classes(intake, settings, group)
    if columns != HEADERLESS:
        intake.variables = columns.variables  # on a machine that got no rows, too
    labels = intake.encode(task, classes, columns)
    counts = np.sum(group.gather("class counts", _count_classes(labels, len(classes)).tolist()), axis=0)
    count = sum(group.gather("rows", intake.count))
    _check_classes(classes, counts, count, labels.ndim > 1)
    scaling = intake.scaling
    if scaling is None:
        kept = earlier is not None and (
            earlier.problem.classes,
            earlier.problem.num_variables,
            earlier.problem.length,
        ) == (
            tuple(classes),
            intake.variables,
            length,
        )
        scaling = earlier.problem.scaling if earlier and kept else _agree_on_scaling(intake, group)
    problem = Problem(
        task=task,
        classes=tuple(classes),
        class_counts=tuple(counts.tolist()),
        series_count=count,
        columns=columns,
        preprocessing=preprocessing,
        num_variables=intake.variables,
        length=length,
        scaling=scaling,
    )
    training, fingerprint = intake.finish(labels, scaling, length)
    validation = None
    if "validation" in channels:
        validation, checksum = load_validation(channels["validation"], problem, group)
        fingerprint += checksum
    elif settings.validation_fraction:
        training, validation = hold_out(training, settings.validation_fraction, settings.seed, group)
    rows = intake.sample[: math.ceil(SAMPLE_ROWS / group.size)].reshape(-1, intake.variables * length)
    sample = group.gather_rows(torch.from_numpy(rows))[:SAMPLE_ROWS].numpy().reshape(-1, intake.variables, length)
    return Data(problem, training, validation, sample, "-".join(group.gather("fingerprint", fingerprint)))


def load_validation(source: Source, problem: Problem, group: Group) -> tuple[Dataset, str]:
    """Series of the training data's kind, scaled as it is, and their checksum. Raises `UserError` as `load` does."""
    intake = _Intake(source, problem.preprocessing, group, problem.scaling, problem)
    intake.read()
    if sum(group.gather("validation rows", intake.count)) == 0:
        source.refuse_empty()
    if intake.not_one_hot and not problem.independent:
        raise UserError(f"{intake.not_one_hot}: exactly one of the columns {_some(problem.classes)} must be 1.")
    return intake.finish(intake.encode(problem.task, problem.classes, problem.columns), problem.scaling, problem.length)


def _agree_on_length(intake: "_Intake", group: Group, earlier: Metadata | None) -> int:
    """The length of the series that the network sees, the same on all machines."""
    lengths: list[int] = [length for length in group.gather("length", intake.widest) if length]
    if not lengths:
        intake.source.refuse_empty()
    length = max(lengths)
    policy = intake.preprocessing.length_policy
    if policy == "error" and min(lengths) != length:
        raise UserError(
            f"One machine has series of {min(lengths)} values, another has series of {length}; all must be of one "
            "length, unless the hyperparameter length-policy is pad or resample."
        )
    if earlier and (policy == "resample" or (policy == "pad" and length < earlier.problem.length)):
        length = earlier.problem.length
    if length < 2:
        raise UserError("The training series have one value each; at least two are needed to be a series.")
    return length


def _agree_on_classes(intake: "_Intake", settings: Hyperparameters, group: Group) -> tuple[Task, list[str], Columns]:
    """What there is to predict: from the labels or the header, over all machines, and the wanted task."""
    mine = intake.columns
    columns = None if mine is None else [list(mine.targets), list(mine.series), mine.variables]
    found = group.gather("classes", (columns, intake.labels, intake.not_one_hot))
    headers = [columns for columns, _, _ in found if columns is not None]
    if any(header != headers[0] for header in headers):
        raise UserError("The training files of the job's machines have different headers; all must have one.")
    targets, series, variables = headers[0]
    if not targets:
        classes = sort_classes({label for _, labels, _ in found for label in labels})
        return _choose_task(settings.task, classes), classes, HEADERLESS
    not_one_hot = next((place for _, _, place in found if place), None)
    return (
        _choose_task_of_targets(settings.task, targets, not_one_hot),
        targets,
        Columns(tuple(targets), tuple(series), variables),
    )


def _choose_task(wanted: str, classes: list[str]) -> Task:
    """The task of data with one label a row."""
    if wanted == "multilabel":
        raise UserError(
            "task=multilabel needs a header: a column of 0 and 1 for each target, with a name that starts with y, "
            "and columns of values, with names that start with x."
        )
    if wanted == "binary" and len(classes) != 2:
        raise UserError(f"task=binary needs two classes, but the training data has {len(classes)}: {_some(classes)}.")
    return "binary" if wanted != "multiclass" and len(classes) == 2 else "multiclass"


def _choose_task_of_targets(wanted: str, targets: list[str], not_one_hot: str | None) -> Task:
    """The task of data with target columns; `not_one_hot` is a row with none or several of them set."""
    if wanted == "multilabel" or (wanted == "auto" and len(targets) > 1 and not_one_hot):
        return "multilabel"
    if wanted == "binary" and len(targets) > 2:
        raise UserError(f"task=binary needs one or two target columns, but there are {len(targets)}: {_some(targets)}.")
    if len(targets) == 1:
        if wanted == "multiclass":
            raise UserError(f"task=multiclass needs a target column for each class, but there is {targets[0]} only.")
        return "binary"
    if not_one_hot:
        raise UserError(
            f"{not_one_hot}: exactly one of the columns {_some(targets)} must be 1, as task={wanted} has one class "
            "a row; task=multilabel takes any number."
        )
    return "binary" if wanted != "multiclass" and len(targets) == 2 else "multiclass"


def _count_classes(labels: NDArray[np.generic], classes: int) -> NDArray[np.int64]:
    """Series of each class, int64 `[classes]`."""
    return labels.sum(axis=0).astype(np.int64) if labels.ndim > 1 else np.bincount(labels, minlength=classes)


def _check_classes(classes: list[str], counts: NDArray[np.int64], count: int, independent: bool) -> None:
    """There is something to tell apart, and the labels look like labels."""
    constant = [name for name, n in zip(classes, counts, strict=True) if n == 0 or (independent and n == count)]
    if independent and constant == classes:
        raise UserError(f"No target changes in the training data: each of {_some(classes)} is always the same.")
    if not independent and np.count_nonzero(counts) < 2:
        raise UserError(
            f"The training data has one class only ({classes[int(counts.argmax())]!r}, {count} rows); at least two "
            "are needed. Is the label in the first column?"
        )
    if constant:
        logger.warning("WARNING: %s cannot be learned: always the same in the training data", _some(constant))
    if not independent and len(classes) > count / 2:
        logger.warning(
            "WARNING: %d series have %d different labels; is the label in the first column?", count, len(classes)
        )


def _agree_on_scaling(intake: "_Intake", group: Group) -> Scaling:
    """By the mean and standard deviation of each variable, over all machines."""
    mine = [(moments.count, moments.mean, moments.squares) for moments in intake.moments]
    together = [Moments() for _ in range(intake.variables)]
    for parts in group.gather("moments", mine):
        for moments, part in zip(together, parts, strict=False):  # a machine that got no rows has none
            moments.merge(Moments(*part))
    means, stds = zip(*(moments.mean_and_std() for moments in together), strict=True)
    return Scaling(method="dataset", mean=means, std=stds)


def hold_out(training: Dataset, fraction: float, seed: int, group: Group) -> tuple[Dataset, Dataset]:
    """Split off a share of this process's series for validation, drawn from each class alike.

    Classes, or combinations of targets, of which there is one series only stay in the training set.

    Raises:
        UserError: the share of all processes together is less than one series.
    """
    keys = training.labels.cpu().numpy()
    _, strata, counts = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    strata = strata.reshape(-1)
    common = np.flatnonzero(counts[strata] > 1)
    wanted = min(round(fraction * len(keys)), len(common) - 1)
    if sum(group.gather("held out", max(wanted, 0))) == 0:
        raise UserError(
            f"validation-fraction={fraction:g} of {len(keys)} series is less than one series of a class that has "
            "several; raise it, or give a validation channel."
        )
    held_out = common[:0]
    if wanted > 0:
        several = len(np.unique(strata[common]))
        stratify = strata[common] if min(wanted, len(common) - wanted) >= several else None
        if stratify is None:
            logger.warning("WARNING: %d series cannot hold some of each of %d classes; drawn from all", wanted, several)
        _, held_out = train_test_split(common, test_size=wanted, random_state=seed, stratify=stratify)
    kept = np.setdiff1d(np.arange(len(keys)), held_out)
    device = training.device
    logger.info("validation: %d of %d series held out", len(held_out), len(keys))
    return (
        replace(training, rows=torch.from_numpy(kept).to(device)),
        replace(training, rows=torch.from_numpy(np.sort(held_out)).to(device)),
    )


class Moments:
    """Mean and standard deviation of numbers that come in blocks; a large offset does no harm."""

    def __init__(self, count: int = 0, mean: float = 0.0, squares: float = 0.0) -> None:
        """`squares` is the sum of the squared distances from `mean`."""
        self.count, self.mean, self.squares = count, mean, squares
        # Mean and standard deviation of the first block: until those of all are known, near enough to keep in
        # float32 what is left of a large offset, and values that are themselves too large or too small for it.
        self.origin, self.unit = 0.0, 1.0

    def add(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Count a block in; returns its values less `origin`, in units of `unit`, of the same shape."""
        with np.errstate(over="ignore", invalid="ignore"):
            if not self.count and values.size:
                mean, std = float(values.mean()), float(values.std())
                self.origin = mean if math.isfinite(mean) else 0.0
                self.unit = std if math.isfinite(std) and std > CONSTANT * abs(mean) else 1.0
            distances = (values - self.origin) / self.unit
            if values.size:
                flat = distances.reshape(-1)
                total = float(flat.sum())
                # Not as a product of vectors: for blocks this small, waking threads costs more than the sum.
                squares = float(np.einsum("i,i->", flat, flat)) - total * (total / flat.size)
                mean = self.origin + self.unit * (total / flat.size)
                self.merge(Moments(flat.size, mean, max(squares, 0.0) * self.unit * self.unit))
        return distances

    def merge(self, other: "Moments") -> None:
        count = self.count + other.count
        if count == 0:
            return
        step = other.mean - self.mean
        self.mean += step * (other.count / count)
        self.squares += other.squares + step * step * (self.count * (other.count / count))
        self.count = count

    def mean_and_std(self) -> tuple[float, float]:
        """To scale by; of a constant, the deviation is 1. Raises `UserError` if the numbers are too large."""
        variance = self.squares / self.count
        if not (math.isfinite(self.mean) and math.isfinite(variance)):
            raise UserError(
                "The values of the training data are too large to be scaled; divide them by a constant first."
            )
        std = math.sqrt(variance)
        return self.mean, std if std > CONSTANT * abs(self.mean) else 1.0


class _Intake:
    """What has been read of a channel; each process of a job keeps every n-th row."""

    def __init__(
        self,
        source: Source,
        preprocessing: Preprocessing,
        group: Group,
        scaling: Scaling | None,
        problem: Problem | None = None,
        variables: int | None = None,
    ) -> None:
        """Read `source`, scaled by `scaling`; None: by the statistics of the data itself, once they are known.

        Of the validation channel, `problem` says what its rows must be. `variables` that are None are as many as the
        header tells, or one.
        """
        self.source = source
        self.preprocessing = preprocessing
        self.scaling = scaling
        self.problem = problem
        self.columns: Columns | None = problem.columns if problem else None
        self.count = 0
        self.widest = 0
        self.variables = problem.num_variables if problem else variables or 1  # the header may know better
        self._wanted_variables = self.variables if problem else variables
        self.moments: list[Moments] = []  # of each variable
        self.sample: NDArray[np.float64] = np.empty((0, 1, 0))
        self.not_one_hot: str | None = None  # where the first row is of which not exactly one target is 1
        self._part = (group.local_rank, group.local_size) if source.sharded else (group.rank, group.size)
        self._rows_seen = 0
        self._length = problem.length if problem else None
        self._first: tuple[int, str] | None = (problem.length, "the training data") if problem else None
        self._labels: dict[str, int] = {label: k for k, label in enumerate(problem.classes)} if problem else {}
        self._codes = Store(np.int64)  # places in _labels
        self._targets = Store(np.uint8)
        self._raw = Store(np.float64)  # values of series whose final length is not known yet
        self._raw_lengths = [np.empty(0, np.int64)]
        self._waiting: list[NDArray[np.float64]] = []  # complete series, until there are enough for a chunk
        self._series = Store(np.float32)  # scaled, or in units of the first block until all are known

    @property
    def labels(self) -> list[str]:
        """Labels in the order of their first appearance."""
        return list(self._labels)

    def read(self) -> None:
        """Read the channel to its end."""
        progress = Progress(self.source)
        for path in self.source.files if self.source.pipe is None else (self.source.pipe,):
            with open_stream(path, progress, is_pipe=self.source.pipe is not None) as stream:
                self._read_stream(str(path), stream, progress.is_large)
        if self._rows_seen:
            logger.info(
                "%s: %d %s from %s%s",
                self.source.name,
                self._rows_seen,
                describe_length(self.widest, self.variables, self.preprocessing),
                "a pipe" if self.source.pipe else f"{len(self.source.files)} file(s)",
                progress.summary(),
            )

    def _read_stream(self, name: str, stream: BinaryIO, in_parallel: bool) -> None:
        longest = self._length if self.preprocessing.any_length else None
        kind = ParallelReader if in_parallel else SeriesReader
        reader = kind(
            stream,
            name,
            columns=self.columns,
            preprocessing=self.preprocessing,
            length=longest,
            variables=self._wanted_variables,
            block_bytes=READ_BYTES if in_parallel else None,
        )
        for block in reader:
            self.columns, self.variables = reader.columns, reader.variables
            self._check_width(block, name)
            codes = self._find_codes(block, name)
            if not block.labels and self.not_one_hot is None:
                wrong = np.flatnonzero(block.targets.sum(axis=1) != 1)
                self.not_one_hot = f"{name}, row {block.rows[wrong[0]]}" if wrong.size else None
            self._keep(block, codes)

    def _check_width(self, block: Block, name: str) -> None:
        width = block.series.shape[2]
        self.widest = max(self.widest, width)
        if self.preprocessing.any_length:
            return
        first, place = self._first = self._first or (width, name)
        if width != first:
            unlabelled = " Is the label missing from its first column?" if width == first - 1 else ""
            raise UserError(
                f"{name} has series of {width} values, but {place} has series of {first}; all must be of one length, "
                f"unless the hyperparameter length-policy is pad or resample.{unlabelled}"
            )
        self._length = width

    def _find_codes(self, block: Block, name: str) -> NDArray[np.int64]:
        """Places of the block's labels in `labels`, int64 `[n]`; new ones are added to the training data's."""
        try:
            return np.array([self._labels[label] for label in block.labels], dtype=np.int64)
        except KeyError:
            pass
        for row, label in zip(block.rows, block.labels, strict=True):
            if label not in self._labels:
                if self.problem:
                    raise UserError(
                        f"{name}, row {row}, column 1: the training data has no label {label!r}; it has "
                        f"{_some(self.labels)}. Labels are compared as text, exactly as written."
                    )
                self._labels[label] = len(self._labels)
        return self._find_codes(block, name)

    def _keep(self, block: Block, codes: NDArray[np.int64]) -> None:
        """Keep this process's rows."""
        rank, size = self._part
        mine = slice((rank - self._rows_seen) % size, None, size)
        self._rows_seen += len(block.rows)
        series = block.series[mine]
        self.count += len(series)
        self._codes.append(codes[mine])
        self._targets.append(block.targets[mine])
        if self._length is not None:
            self._add(self.preprocessing.apply(series, self._length))
            return
        lengths = self.preprocessing.lengths(series)
        self._raw_lengths.append(lengths)
        inside = np.arange(series.shape[2]) < lengths[:, np.newaxis, np.newaxis]
        self._raw.append(series[np.broadcast_to(inside, series.shape)])

    def complete(self, length: int) -> None:
        """Bring the series that were kept as they are to `length`, now that it is known."""
        lengths, variables = np.concatenate(self._raw_lengths), self.variables
        raw = self._raw.finish()
        ends = np.cumsum(lengths * variables)
        rows = max(1, PASS_VALUES // (length * variables))
        for first in range(0, len(lengths), rows):
            part = lengths[first : first + rows]
            inside = np.arange(part.max()) < np.repeat(part, variables).reshape(-1, variables, 1)
            series = np.full(inside.shape, np.nan)
            series[inside] = raw.values[ends[first] - part[0] * variables : ends[first + len(part) - 1]]
            self._add(self.preprocessing.apply(series, length))
            raw.release()
        self._length = length
        self._scale_rest()

    def _add(self, series: NDArray[np.float64]) -> None:
        """Collect complete series, float64 `[n, M, T]`, and work on them in chunks of one size.

        Thus not a single bit depends on how files and blocks of text divide them.
        """
        self._waiting.append(series)
        rows = max(1, CHUNK_VALUES // (series.shape[1] * series.shape[2]))
        if sum(map(len, self._waiting)) >= rows:
            whole = np.concatenate(self._waiting)
            end = len(whole) - len(whole) % rows
            for start in range(0, end, rows):
                self._scale(whole[start : start + rows])
            self._waiting = [whole[end:]]

    def _scale_rest(self) -> None:
        """There are no more series to wait for."""
        if any(map(len, self._waiting)):
            self._scale(np.concatenate(self._waiting))
        self._waiting = []

    def _scale(self, series: NDArray[np.float64]) -> None:
        """Keep series, float64 `[n, M, T]`, scaled as far as is known by now."""
        if len(self.sample) < SAMPLE_ROWS:
            head = series[: SAMPLE_ROWS - len(self.sample)].copy()
            self.sample = np.concatenate([self.sample, head]) if len(self.sample) else head
        if self.scaling is not None:
            scaled = Scaler(self.scaling)(torch.from_numpy(np.ascontiguousarray(series)))
            self._series.append(scaled.numpy())
            return
        self.moments = self.moments or [Moments() for _ in range(self.variables)]
        distances = np.empty(series.shape, np.float32)
        with np.errstate(over="ignore"):
            for k, moments in enumerate(self.moments):
                distances[:, k] = moments.add(series[:, k])
        self._series.append(distances)

    def encode(self, task: Task, classes: Sequence[str], columns: Columns) -> NDArray[np.generic]:
        """Labels: int64 `[N]`, places in `classes`, or float32 `[N, L]`."""
        if columns != HEADERLESS:
            targets = self._targets.finish().values.reshape(-1, len(classes))
            return targets.astype(np.float32) if are_independent(task, classes) else targets.argmax(axis=1)
        place = {label: k for k, label in enumerate(classes)}
        places = np.array([place[label] for label in self._labels], dtype=np.int64)
        labels: NDArray[np.int64] = places[self._codes.finish().values.astype(np.int64, copy=False)]
        return labels

    def _rescale(self, part: NDArray[np.float32], scaling: Scaling) -> NDArray[np.float64]:
        """Series `[n, M, T]` from units of the first block to those of all."""
        origin = np.array([moments.origin for moments in self.moments])
        unit = np.array([moments.unit for moments in self.moments])
        offset = (origin - scaling.mean) / scaling.std
        rescaled: NDArray[np.float64] = part * (unit / scaling.std)[:, np.newaxis] + offset[:, np.newaxis]
        return rescaled

    def finish(self, labels: NDArray[np.generic], scaling: Scaling, length: int) -> tuple[Dataset, str]:
        """The channel's rows scaled by `scaling`, and their checksum.

        Raises:
            UserError: a scaled value is too large for float32.
        """
        self._scale_rest()
        storage = self._series.finish()
        checksum = zlib.crc32(np.ascontiguousarray(labels).data)
        values = storage.values.reshape(-1, self.variables, length)
        rows = max(1, PASS_VALUES // (self.variables * length))
        for start in range(0, len(values), rows):
            part = cast(NDArray[np.float32], values[start : start + rows])
            if self.scaling is None:
                part[:] = self._rescale(part, scaling)
            if not np.isfinite(part).all():
                raise UserError(
                    f"The {self.source.name} data has values too large for float32 after scaling; divide them by a "
                    "constant first."
                )
            checksum = zlib.crc32(part.data, checksum)
            storage.release()
        storage.expect_random_access()
        if storage.in_file:
            logger.info(
                "%s: %.1f GB of float32 in a scratch file in %s",
                self.source.name,
                storage.values.nbytes / 1e9,
                scratch_folder(),
            )
        series = torch.from_numpy(values)
        return Dataset(series, torch.from_numpy(labels), storage=storage), f"{checksum:08x}"


def _some(labels: Sequence[str], limit: int = 10) -> str:
    text = ", ".join(repr(label) for label in labels[:limit])
    return text if len(labels) <= limit else f"{text} and {len(labels) - limit} more"
