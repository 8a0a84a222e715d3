"""Predictions along recordings: one for each window, for each step, or for each event; from files or as rows arrive."""

import csv
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, TextIO

import click
import numpy as np
from numpy.typing import NDArray

from lstm_fcn.container import artifact
from lstm_fcn.container.cores import available_cores
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.media_types import CSV, Precision
from lstm_fcn.container.moments import format_times, has_timestamps
from lstm_fcn.container.recording import Preparation, Times, Values, Window, Windows
from lstm_fcn.container.recording_text import RowParser, Rows, parse_csv
from lstm_fcn.serving.encode import Encoder, ResponseFormat, join_places
from lstm_fcn.serving.output import to_arrow
from lstm_fcn.serving.predictor import Predictions, Predictor
from lstm_fcn.serving.recordings import no_window, preparation_of
from lstm_fcn.serving.transform import STANDARD, open_target, read_outputs

Each = Literal["window", "step", "event"]
CHUNK_VALUES = 2**20  # of windows that are predicted at once


class Found(NamedTuple):
    """Predictions of one recording, in order.

    starts, ends: times of the first and the last step of what is predicted, int64 `[n]`.
    probabilities: float32 `[n, C]`.
    explanation: of windows, float32 `[n, window]`; of steps and events, `[n, 0]`.
    """

    starts: Times
    ends: Times
    probabilities: NDArray[np.float32]
    explanation: NDArray[np.float32]


class OfSteps:
    """The probabilities of each step: the mean over the windows that contain it."""

    def __init__(self, preparation: Preparation, classes: int) -> None:
        self._stride = preparation.stride
        self._times: Times = np.empty(0, np.int64)
        self._sums: Values = np.empty((0, classes))
        self._counts: NDArray[np.int64] = np.empty(0, np.int64)

    def add(self, window: Window, predictions: Predictions) -> Found:
        """Add windows; return the steps that no later window contains."""
        probabilities = predictions.probabilities
        overlapping = window.times[:, : self._stride].ravel(), window.times[-1, self._stride :]
        times = np.union1d(self._times, np.concatenate(overlapping))
        first = np.searchsorted(times, window.times[:, 0])
        last = np.searchsorted(times, window.times[:, -1])
        sums = np.zeros((len(times) + 1, probabilities.shape[1]))
        counts = np.zeros(len(times) + 1, np.int64)
        for places, sign in ((first, 1), (last + 1, -1)):
            np.add.at(sums, places, sign * probabilities.astype(np.float64))
            np.add.at(counts, places, sign)
        sums, counts = np.cumsum(sums, axis=0)[:-1], np.cumsum(counts)[:-1]
        known = np.searchsorted(times, self._times)
        sums[known] += self._sums
        counts[known] += self._counts
        done = int(first[-1]) + 1  # the next window starts after the latest one
        self._times, self._sums, self._counts = times[done:], sums[done:], counts[done:]
        return _found(times[:done], times[:done], sums[:done] / counts[:done, None])

    def finish(self) -> Found:
        """The last steps."""
        return _found(self._times, self._times, self._sums / self._counts[:, None])


class OfEvents:
    """Steps that follow each other and have the same class, joined; the mean of their probabilities."""

    def __init__(self, preparation: Preparation, classes: int) -> None:
        self._steps = OfSteps(preparation, classes)
        self._limit = preparation.every or (preparation.max_gap if preparation.time else 1)
        self._times: Times = np.empty(0, np.int64)  # of the event that has not ended
        self._probabilities: NDArray[np.float32] = np.empty((0, classes), np.float32)

    def add(self, window: Window, predictions: Predictions) -> Found:
        """Add windows; return the events that have ended."""
        return self._join(self._steps.add(window, predictions), is_end=False)

    def finish(self) -> Found:
        """The last events."""
        return self._join(self._steps.finish(), is_end=True)

    def _join(self, steps: Found, is_end: bool) -> Found:
        times = np.concatenate([self._times, steps.starts])
        probabilities = np.concatenate([self._probabilities, steps.probabilities])
        classes = probabilities.argmax(axis=1)
        parted = classes[1:] != classes[:-1]
        if self._limit is not None:
            parted |= np.diff(times) > self._limit
        ends = 1 + np.flatnonzero(parted)
        ends = np.append(ends, len(times)) if is_end and len(times) else ends
        done = int(ends[-1]) if len(ends) else 0
        self._times, self._probabilities = times[done:], probabilities[done:]
        starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)[: len(ends)]
        if not len(ends):
            return _found(times[:0], times[:0], probabilities[:0])
        means = np.add.reduceat(probabilities[:done].astype(np.float64), starts) / (ends - starts)[:, None]
        return _found(times[starts], times[ends - 1], means)


class OfWindows:
    """Every window alone."""

    def add(self, window: Window, predictions: Predictions) -> Found:
        return Found(window.times[:, 0], window.times[:, -1], predictions.probabilities, predictions.explanation)

    def finish(self) -> Found | None:
        return None


def _found(starts: Times, ends: Times, probabilities: NDArray[Any]) -> Found:
    return Found(starts, ends, probabilities.astype(np.float32), np.empty((len(starts), 0), np.float32))


class Follower:
    """Predicts the recordings of a model, whose rows may come in parts."""

    def __init__(self, predictor: Predictor, each: Each) -> None:
        self.preparation = preparation_of(predictor.metadata)
        self._predictor, self._each = predictor, each
        values = self.preparation.window * len(self.preparation.values)
        self._chunk = max(1, CHUNK_VALUES // values * self.preparation.stride)
        self._open: dict[str, tuple[Windows, OfWindows | OfSteps | OfEvents]] = {}

    def add(self, rows: Rows) -> Iterator[Found]:
        """Add rows that are later than those of the same recording before."""
        if rows.recording not in self._open:
            self._open[rows.recording] = Windows(self.preparation), self._collect()
        windows, collected = self._open[rows.recording]
        for first in range(0, len(rows.times), self._chunk):
            part = slice(first, first + self._chunk)
            for window in windows.add(rows.times[part], rows.values[part]):
                yield collected.add(window, self._predictor.predict(window.series))

    def finish(self, recording: str) -> Iterator[Found]:
        """What follows from the end of a recording."""
        windows, collected = self._open.pop(recording)
        for window in windows.finish():
            yield collected.add(window, self._predictor.predict(window.series))
        if (rest := collected.finish()) is not None:
            yield rest

    @property
    def recordings(self) -> list[str]:
        """Those that have not been finished."""
        return list(self._open)

    def _collect(self) -> OfWindows | OfSteps | OfEvents:
        classes = len(self._predictor.metadata.problem.classes)
        if self._each == "window":
            return OfWindows()
        return OfSteps(self.preparation, classes) if self._each == "step" else OfEvents(self.preparation, classes)


# Output


class Table:
    """Writes predictions as CSV, or as Parquet if the name of the file ends in .parquet."""

    def __init__(self, metadata: artifact.Metadata, outputs: tuple[str, ...], each: Each, sink: BinaryIO) -> None:
        self._preparation = preparation_of(metadata)
        self._encoder = Encoder(metadata)
        self._reply = ResponseFormat(CSV, outputs or ("predicted_label", "probability"), header=True)
        self._encoder.outputs(self._reply)
        if "explanation" in self._reply.outputs and each != "window":
            raise UserError("--outputs explanation is of windows; leave out --each.")
        self._names = (self._preparation.id or "recording", *(("time",) if each == "step" else ("start", "end")))
        self._sink = sink

    def header(self) -> None:
        self._sink.write((",".join([*self._names, *self._encoder.header(self._reply)]) + "\n").encode())

    def write(self, recording: str, found: Found) -> None:
        """Write a row for each prediction."""
        times = [format_times(times, self._preparation) for times in (found.starts, found.ends)]
        places = [(recording, *each[: len(self._names) - 1]) for each in zip(*times, strict=True)]
        rows = self._encoder.rows(Predictions(found.probabilities, found.explanation), self._reply)
        self._sink.write("".join(f"{line}\n" for line in join_places(places, rows, CSV)).encode())

    def finish(self) -> None:
        pass


class ParquetTable(Table):
    """The same as Parquet."""

    _file: Any = None

    def header(self) -> None:
        no_predictions = self._encoder.no_predictions()
        nothing = Found(np.empty(0, np.int64), np.empty(0, np.int64), *no_predictions)
        self.write("", nothing)

    def write(self, recording: str, found: Found) -> None:
        import pyarrow
        from pyarrow import parquet

        kind = pyarrow.timestamp("ns", "UTC") if has_timestamps(self._preparation) else pyarrow.int64()
        columns = {self._names[0]: pyarrow.array([recording] * len(found.starts), pyarrow.string())}
        for name, times in zip(self._names[1:], (found.starts, found.ends), strict=False):
            columns[name] = pyarrow.array(times).cast(kind)
        predictions = Predictions(found.probabilities, found.explanation)
        for name, values in self._encoder.columns(predictions, self._reply).items():
            columns[name] = to_arrow(values)
        table = pyarrow.table(columns)
        self._file = self._file or parquet.ParquetWriter(self._sink, table.schema)
        if len(table):
            self._file.write_table(table)

    def finish(self) -> None:
        self._file.close()


# Commands


def predict_recordings(
    model: Path, data: Path, output: Path, outputs: str, each: Each, picture: Path | None, precision: Precision
) -> None:
    """Predict the recordings in a table; see the command `predict` for the arguments.

    Raises:
        UserError: the table does not have what the model needs, or the output cannot be written.
    """
    metadata, graph = artifact.load(model)
    predictor = Predictor(metadata, graph, available_cores(), precision)
    follower, count = Follower(predictor, each), 0
    drawn: list[Kept] = []
    with open_target(output) as sink:
        kind = ParquetTable if output.suffix == ".parquet" else Table
        table = kind(metadata, read_outputs(outputs), each, sink)
        table.header()
        for recording, parts in groupby(_read(data, follower.preparation), key=lambda rows: rows.recording):
            kept = Kept(recording) if picture and len(drawn) < MOST_DRAWN else None
            for rows in parts:
                for found in follower.add(rows):
                    table.write(recording, found)
                    count += len(found.starts)
                if kept:
                    kept.rows.append(rows)
            for found in follower.finish(recording):
                table.write(recording, found)
                count += len(found.starts)
            if kept:
                drawn.append(kept)
        table.finish()
        if not count:
            raise no_window(str(data), follower.preparation)
    if picture:
        _draw(drawn, predictor, picture)


def _read(data: Path, preparation: Preparation) -> Iterator[Rows]:
    if data == STANDARD:
        yield from parse_csv(sys.stdin.read(), preparation, "standard input")
        return
    from lstm_fcn.container.database import Findings, open_table, open_tables

    with open_tables() as connection:
        findings = Findings()
        for rows in open_table(data, connection).rows(preparation, findings):
            yield Rows(rows.recording, rows.times, rows.values)
        for line in findings.lines():
            click.echo(f"WARNING: {line}", err=True)


@click.command()
@click.argument("model", type=click.Path(file_okay=False, path_type=Path))
@click.option("--outputs", default="", help="outputs, separated by commas, as of `predict`")
def watch(model: Path, outputs: str) -> None:
    """Predict rows of recordings as they arrive on standard input, with the model in the folder MODEL.

    The input is CSV with a header; rows of several recordings may alternate. A prediction is written to standard
    output as soon as its window is full.
    """
    metadata, graph = artifact.load(model)
    follower = Follower(Predictor(metadata, graph, available_cores()), "window")
    sink = sys.stdout.buffer
    table = Table(metadata, read_outputs(outputs), "window", sink)
    table.header()
    sink.flush()
    latest: dict[str, int] = {}
    for row, (recording, time, values) in _arriving(sys.stdin, follower.preparation):
        if time < latest.get(recording, time):
            click.echo(f"WARNING: row {row} of {recording} is earlier than the row before; it is left out", err=True)
            continue
        latest[recording] = time
        _write(table, recording, follower.add(Rows(recording, np.array([time]), np.array([values]))))
    for recording in follower.recordings:
        _write(table, recording, follower.finish(recording))


def _write(table: Table, recording: str, found: Iterable[Found]) -> None:
    for part in found:
        table.write(recording, part)
        sys.stdout.buffer.flush()


def _arriving(stream: TextIO, preparation: Preparation) -> Iterator[tuple[int, tuple[str, int, list[float]]]]:
    """Number and content of each row."""
    lines = csv.reader(iter(stream.readline, ""))
    parser: RowParser | None = None
    for cells in lines:
        if not cells:
            continue
        if parser is None:
            parser = RowParser([name.strip() for name in cells], preparation, "standard input")
        else:
            yield lines.line_num, parser.parse(cells, lines.line_num)


# Pictures

MOST_DRAWN = 6  # recordings in a picture


class Kept:
    """A recording that is drawn."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows: list[Rows] = []


def _draw(recordings: Sequence[Kept], predictor: Predictor, path: Path) -> None:
    try:
        from lstm_fcn.training.output.recordings import Drawn, draw_recordings
        from lstm_fcn.training.output.style import png
    except ModuleNotFoundError as error:
        raise UserError(f"--picture needs {error.name}: pip install 'lstm-fcn[train]'.") from error
    from lstm_fcn.container.files import write_atomically

    drawn = []
    for kept in recordings:
        follower = Follower(predictor, "event")
        events = [found for rows in kept.rows for found in follower.add(rows)]
        events += follower.finish(kept.name)
        starts, ends, probabilities = (np.concatenate(parts) for parts in list(zip(*events, strict=True))[:3])
        times, values = (np.concatenate([getattr(rows, name) for rows in kept.rows]) for name in ("times", "values"))
        drawn.append(Drawn(kept.name, times, values, starts, ends, probabilities.argmax(axis=1)))
    metadata = predictor.metadata
    figure = draw_recordings(drawn, preparation_of(metadata), metadata.problem.classes)
    write_atomically((path, png(figure)))
