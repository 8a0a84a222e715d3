"""Recordings, as people have them, become training data: sorted, on a grid, and with the label of every step."""

import contextlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from lstm_fcn.container.database import Findings, Rows, Source, Table, open_table, open_tables
from lstm_fcn.container.errors import UserError, plural
from lstm_fcn.container.moments import format_times, has_timestamps, parse_time
from lstm_fcn.container.recording import (
    SECOND,
    UNLABELLED,
    Codes,
    Column,
    LabelledCutter,
    Piece,
    Pieces,
    Preparation,
    Recording,
    Times,
    Unit,
    Values,
)
from lstm_fcn.container.steps import KEY

SPANS = {"ns": 1, "us": 1000, "ms": 10**6, "s": SECOND, "min": 60 * SECOND, "h": 3600 * SECOND, "d": 86400 * SECOND}
GROUP_STEPS = 2**20  # in a row group of the output
FILE = "recordings.parquet"


@dataclass
class Part:
    """What was written for training, or for validation.

    windows: number of windows of each class.
    unlabelled: windows that have no label; they are left out in training.
    longest: steps of the longest piece.
    """

    recordings: int = 0
    pieces: int = 0
    steps: int = 0
    windows: dict[str, int] = field(default_factory=dict)
    unlabelled: int = 0
    longest: int = 0

    def __str__(self) -> str:
        classes = ", ".join(f"{label}: {count}" for label, count in sorted(self.windows.items()))
        unlabelled = f", and {self.unlabelled} without a label" if self.unlabelled else ""
        return (
            f"{plural(self.recordings, 'recording')} in {plural(self.pieces, 'piece')}, {plural(self.steps, 'step')}, "
            f"{plural(sum(self.windows.values()), 'window')} ({classes}){unlabelled}"
        )


class Prepared(NamedTuple):
    """What `prepare` has written, and what it found on the way."""

    parts: dict[str, Part]
    findings: Findings


def prepare(
    source: Source,
    output: str | Path,
    *,
    id: str | None = None,  # noqa: A002
    time: str | None = None,
    values: Sequence[str] = (),
    label: str | None = None,
    group: str | None = None,
    intervals: Source | None = None,
    unit: Unit = "s",
    timezone: str | None = None,
    every: str | None = None,
    fill: Literal["linear", "last"] = "linear",
    max_gap: str | None = None,
    window: str | int = 100,
    stride: str | int | None = None,
    label_by: Literal["majority", "last"] = "majority",
    minimum_share: float = 0.5,
    unlabelled: str | None = None,
    split_at: str | None = None,
) -> Prepared:
    """Prepare recordings for training: sort their rows, put them onto a grid, and write them with their labels.

    The output folder gets `training/recordings.parquet`, and `validation/recordings.parquet` with `split_at`. Both are
    channels of a training job; the model remembers how they were prepared, and prepares recordings to predict alike.

    Args:
        source: a CSV or Parquet file, a folder of them, or several of these; an SQL query for DuckDB (it starts with
            SELECT, FROM or WITH); or Arrow batches, a table or a frame.
        output: folder; what `prepare` has written there before is replaced.
        id: column that says to which recording a row belongs; None: all rows are one recording.
        time: column of times: timestamps, text in ISO 8601, or numbers; None: the rows of a recording are in order.
        values: columns of values; by default all columns of numbers that are not used otherwise.
        label: column of labels; a null is no label. Without it, `intervals` says the labels.
        group: column; recordings with the same value are never divided between training and validation. By default
            each recording is a group.
        intervals: table with the columns `start`, `end` and `label`, and the one named `id`. A label holds from its
            start up to its end, which does not belong to it.
        unit: of times that are numbers.
        timezone: of times without an offset, such as `Europe/Berlin`; None: UTC.
        every: from one step of the grid to the next, such as `100ms`, `1s`, `5min`; None: every row is a step.
        fill: values between two rows: `linear` interpolation, or the `last` one.
        max_gap: a longer gap between two values, such as `10s`, is not filled; no window contains it.
        window, stride: in steps (`100`) or, with `every`, as time (`10s`); stride: by default half a window.
        label_by: the label of a window: the most frequent one of its steps, or that of the `last` step.
        minimum_share: of the steps of a window that must have its label; other windows are left out.
        unlabelled: class of steps without a label; None: they have no class.
        split_at: time; what comes before is for training, the rest for validation.

    Raises:
        UserError: the settings or the table are invalid; nothing is written then.
        ModuleNotFoundError: a package of the extra `tables` is missing.
    """
    with open_tables() as connection:
        table = open_table(source, connection)
        stride_steps, window_steps = make_windows(every, window, stride)
        chosen = table.choose_values(values, (id, time, label, group))
        preparation = Preparation(
            id=id,
            time=time,
            unit=unit if table.has_numbers(time) else None,
            timezone=timezone,
            values=chosen,
            every=None if every is None else parse_span("every", every),
            fill=fill,
            max_gap=None if max_gap is None else parse_span("max_gap", max_gap),
            window=window_steps,
            stride=stride_steps,
            label_by=label_by,
            minimum_share=minimum_share,
        )
        _check(preparation, label, intervals, split_at)
        marks, names = None, table.labels
        if intervals is not None:
            marks, names = read_intervals(open_table(intervals, connection), preparation)
        without = None if unlabelled is None else names.setdefault(unlabelled, len(names))
        findings = Findings()
        limit = None if split_at is None else parse_time(split_at, preparation)
        work = _Work(preparation, names, marks, without, limit)
        folder = Path(output)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".preparing-") as scratch:
            rows = table.rows(preparation, findings, label, group)
            parts = work.write(rows, Path(scratch))
            _check_windows(parts, preparation)
            for name in ("training", "validation"):
                shutil.rmtree(folder / name, ignore_errors=True)
                if name in parts:
                    (Path(scratch) / name).rename(folder / name)
    return Prepared(parts, findings)


# Settings


def parse_span(name: str, text: str) -> int:
    """A span of time such as `100ms`, `1.5s` or `5min`, in nanoseconds.

    Raises:
        UserError: the text is something else.
    """
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]*)?)\s*([a-z]+)\s*", text)
    if not match or match[2] not in SPANS or float(match[1]) == 0:
        raise UserError(f"{name}={text} must be a number and a unit of time ({', '.join(SPANS)}), such as 10s.")
    return round(float(match[1]) * SPANS[match[2]])


def make_windows(every: str | None, window: str | int, stride: str | int | None) -> tuple[int, int]:
    """Stride and window in steps; see `prepare`."""

    def steps(name: str, size: str | int) -> int:
        if isinstance(size, int) or size.isdecimal():
            count = int(size)
        elif every is None:
            raise UserError(f"{name}={size} is a time, which needs a grid: set every, or give a number of steps.")
        else:
            count, rest = divmod(parse_span(name, size), parse_span("every", every))
            if rest:
                raise UserError(f"{name}={size} is not a whole number of steps of {every}.")
        if count < (2 if name == "window" else 1):
            raise UserError(f"{name}={size} is too short: a window has at least 2 steps, a stride 1.")
        return count

    size = steps("window", window)
    return (max(1, size // 2) if stride is None else steps("stride", stride)), size


def _check(preparation: Preparation, label: str | None, intervals: object, split_at: str | None) -> None:
    if (label is None) == (intervals is None):
        raise UserError("Labels come from a column (label) or from a table of intervals (intervals); give one of them.")
    if not 0 <= preparation.minimum_share <= 1:
        raise UserError(f"minimum_share={preparation.minimum_share:g} must be from 0 to 1.")
    needs = {"every": preparation.every, "max_gap": preparation.max_gap, "split_at": split_at, "intervals": intervals}
    for name, value in needs.items():
        if value is not None and preparation.time is None:
            raise UserError(f"{name} needs a column of times (time).")


# Labels


class Marks(NamedTuple):
    """Labels that hold from one time to the next: times in order, int64 `[n]`, and their numbers, int64 `[n]`."""

    times: Times
    labels: Codes

    def at(self, times: Times) -> Codes:
        """The label at each time."""
        places = np.searchsorted(self.times, times, "right")
        return np.concatenate([[UNLABELLED], self.labels])[places]


NO_MARKS = Marks(np.empty(0, np.int64), np.empty(0, np.int64))


def read_intervals(table: Table, preparation: Preparation) -> tuple[dict[str, Marks], dict[str, int]]:
    """The labels of each recording from a table of intervals, and the number of each label.

    Raises:
        UserError: an interval does not end after its start, or overlaps another one.
    """
    events = table.events(preparation)
    by_time = preparation.model_copy(update={"time": "time", "values": ()})
    found: dict[str, Marks] = {}
    for recording, chunks in groupby(events.rows(by_time, Findings(), "label"), key=lambda rows: rows.recording):
        parts = list(chunks)
        times, labels = (np.concatenate([getattr(part, name) for part in parts]) for name in ("times", "labels"))
        starts = labels != UNLABELLED
        wrong = np.flatnonzero(starts != (np.arange(len(starts)) % 2 == 0))
        if len(wrong):
            (moment,) = format_times(times[wrong[:1]], preparation)
            raise UserError(
                f"{table.name}: the intervals of {recording} overlap, or one does not end after its start, at {moment}."
            )
        found[recording] = Marks(times, labels)
    return found, events.labels


class _LabelsOfRows:
    """Labels of the rows of a recording, which hold until the next row."""

    def __init__(self) -> None:
        self._column = Column()

    def add(self, rows: Rows) -> None:
        self._column.add(rows.times, rows.labels.astype(np.float64))

    def at(self, times: Times) -> Codes:
        found = Marks(self._column.times, self._column.values.astype(np.int64)).at(times)
        if len(times):
            self._column.forget(int(times[-1]))
        return found


# Output


class Writer:
    """Writes steps of recordings to a file in the form of `container.steps`, and counts their windows."""

    def __init__(self, folder: Path, preparation: Preparation, names: Mapping[str, int]) -> None:
        """Write to the folder, which is created. `names` has the number of each label once it has been seen."""
        import pyarrow

        self.part = Part()
        self._preparation, self._names = preparation, names
        self._cutter = LabelledCutter(preparation)
        self._counts: NDArray[np.int64] = np.zeros(0, np.int64)
        text = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
        fields = [
            ("recording", text),
            ("group", text),
            ("piece", pyarrow.int32()),
            ("time", pyarrow.timestamp("ns", "UTC") if has_timestamps(preparation) else pyarrow.int64()),
            ("label", text),
            *((name, pyarrow.float64()) for name in preparation.values),
        ]
        self._schema = pyarrow.schema(fields, {KEY: preparation.model_dump_json()})
        self._waiting: list[Any] = []
        self._path = folder / FILE
        folder.mkdir(parents=True)
        self._recording = ""
        self._length = 0  # of the latest piece

    def __enter__(self) -> Self:
        from pyarrow import parquet

        self._file = parquet.ParquetWriter(self._path, self._schema)
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._file.close()

    def add(self, rows: Rows, times: Times, values: Values, labels: Codes, continues: bool) -> None:
        """Add steps to the latest piece, or a new piece, of the recording that `rows` belong to."""
        import pyarrow

        part = self.part
        if rows.recording != self._recording or not part.pieces:
            self._recording, self._number, continues = rows.recording, -1, False
            part.recordings += 1
        if not continues:
            self._number, self._length = self._number + 1, 0
            part.pieces += 1
        self._length += len(times)
        part.longest, part.steps = max(part.longest, self._length), part.steps + len(times)
        self._count(labels, continues)

        def text(name: str) -> Any:
            return pyarrow.DictionaryArray.from_arrays(np.zeros(len(times), np.int32), [name])

        names = pyarrow.array(list(self._names), pyarrow.string())
        codes = pyarrow.array(labels.astype(np.int32), mask=labels == UNLABELLED)
        columns = [
            text(rows.recording),
            text(rows.group),
            pyarrow.array(np.full(len(times), self._number, np.int32)),
            pyarrow.array(times).cast(self._schema.field("time").type),
            pyarrow.DictionaryArray.from_arrays(codes, names),
            *map(pyarrow.array, values.T),
        ]
        self._waiting.append(pyarrow.RecordBatch.from_arrays(columns, schema=self._schema))
        if sum(map(len, self._waiting)) >= GROUP_STEPS:
            self._flush()

    def _count(self, labels: Codes, continues: bool) -> None:
        _, found = self._cutter.cut(labels, len(self._names), continues)
        counts = np.bincount(found + 1, minlength=len(self._names) + 1)
        self._counts = counts + np.pad(self._counts, (0, len(counts) - len(self._counts)))
        self.part.unlabelled = int(self._counts[0])
        self.part.windows = {n: c for n, c in zip(self._names, self._counts[1:].tolist(), strict=True) if c}

    def _flush(self) -> None:
        import pyarrow

        if self._waiting:
            self._file.write_table(pyarrow.Table.from_batches(self._waiting).unify_dictionaries())
            self._waiting = []


@dataclass(frozen=True)
class _Work:
    """Writes the rows of a table as steps.

    marks: labels of each recording; None: the rows have labels.
    unlabelled: number of the class of steps without a label; None: they have none.
    limit: time from which steps are for validation; None: all are for training.
    """

    preparation: Preparation
    names: Mapping[str, int]
    marks: Mapping[str, Marks] | None
    unlabelled: int | None
    limit: int | None

    def write(self, table: Iterator[Rows], folder: Path) -> dict[str, Part]:
        with contextlib.ExitStack() as stack:
            writers = {
                name: stack.enter_context(Writer(folder / name, self.preparation, self.names))
                for name in ("training", "validation")[: 1 + (self.limit is not None)]
            }
            for recording, chunks in groupby(table, key=lambda rows: rows.recording):
                self._write(recording, chunks, list(writers.values()))
        return {name: writer.part for name, writer in writers.items()}

    def _write(self, name: str, chunks: Iterator[Rows], writers: list[Writer]) -> None:
        recording, pieces, labels = Recording(self.preparation), Pieces(self.preparation), _LabelsOfRows()
        marks = (
            None if self.marks is None else self.marks.get(name, Marks(np.empty(0, np.int64), np.empty(0, np.int64)))
        )
        for rows in chunks:
            labels.add(rows)
            for piece in pieces.add(recording.add(rows.times, rows.values)):
                self._divide(rows, piece, marks or labels, writers)
        for piece in pieces.add(recording.finish()):
            self._divide(rows, piece, marks or labels, writers)

    def _divide(self, rows: Rows, piece: Piece, source: Marks | _LabelsOfRows, writers: list[Writer]) -> None:
        labels = source.at(piece.times)
        if self.unlabelled is not None:
            labels = np.where(labels == UNLABELLED, self.unlabelled, labels)
        end = len(labels) if self.limit is None else int(np.searchsorted(piece.times, self.limit))
        if end:
            writers[0].add(rows, piece.times[:end], piece.values[:end], labels[:end], piece.continues)
        if end < len(labels):
            writers[1].add(rows, piece.times[end:], piece.values[end:], labels[end:], piece.continues and not end)


def _check_windows(parts: Mapping[str, Part], preparation: Preparation) -> None:
    """Raise `UserError` if there is nothing to train with."""
    part = parts["training"]
    if not part.steps:
        raise UserError("The table has no rows from which steps could be made.")
    if part.longest < preparation.window:
        raise UserError(
            f"A window has {preparation.window} steps, but the longest piece of a recording has {part.longest}; use a "
            "shorter window, or a larger max_gap."
        )
    if not part.windows:
        raise UserError(
            "No window has a label: check the labels, or use a lower minimum_share, or name a class of steps without a "
            "label (unlabelled)."
        )
