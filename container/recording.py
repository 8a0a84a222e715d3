"""Recordings become windows: rows in order of time, steps on a grid, windows of a fixed number of steps.

Training, files to predict, streams and requests go through this module, with the same result however the rows are
divided. Times are int64, in nanoseconds since 1970 (UTC), or row numbers where there are no times.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from lstm_fcn.container.errors import UserError, plural

SECOND = 1_000_000_000
MOST_VALUES = 2**25  # of steps that rows bring at once
Times = NDArray[np.int64]
Values = NDArray[np.float64]
Codes = NDArray[np.int64]  # numbers of labels, or `UNLABELLED`
UNLABELLED = -1
Unit = Literal["s", "ms", "us", "ns"]
NANOSECONDS: dict[Unit, int] = {"s": SECOND, "ms": 1_000_000, "us": 1000, "ns": 1}


class Preparation(BaseModel):
    """How rows of a table become windows; part of the model.

    id: column that says to which recording a row belongs; None: there is one recording.
    time: column of times; None: the rows are in order.
    unit: of times that are numbers; None: they are timestamps.
    timezone: of timestamps without an offset; None: UTC.
    values: columns of values, in the order of the model's variables.
    every: nanoseconds from one step to the next; None: every row is a step.
    fill: the value at a step between two values of a column: `linear` interpolation, or the `last` one.
    max_gap: nanoseconds between two values of a column beyond which nothing is filled in between; None: no limit. No
        window contains a step that is not filled.
    window, stride: steps of a window, and from the start of one to the start of the next.
    label_by: the label of a window: the most frequent one of its steps (`majority`), or that of the `last` step.
    minimum_share: of the steps of a window that must have its label; without it, the window has none.
    """

    model_config = ConfigDict(frozen=True)

    id: str | None = None
    time: str | None = None
    unit: Unit | None = None
    timezone: str | None = None
    values: tuple[str, ...]
    every: int | None = None
    fill: Literal["linear", "last"] = "linear"
    max_gap: int | None = None
    window: int
    stride: int
    label_by: Literal["majority", "last"] = "majority"
    minimum_share: float = 0.5

    def describe(self) -> dict[str, str]:
        """Windows, grid and labels, in words."""
        step = "a row of the table" if self.every is None else f"{self.every / SECOND:g} s"
        return {
            "window": f"{self.window} steps, one every {plural(self.stride, 'step')}",
            "step": step,
            "columns": ", ".join(self.values),
            "label of a window": "that of most of its steps"
            if self.label_by == "majority"
            else "that of its last step",
        }


class Steps(NamedTuple):
    """Steps of a recording, in order: times `[n]`, and values `[n, M]` with NaN where nothing could be filled in."""

    times: Times
    values: Values


class Column:
    """The values of one column that are still needed: times `[k]`, each later than the one before, and values `[k]`."""

    def __init__(self) -> None:
        self.times: Times = np.empty(0, np.int64)
        self.values: Values = np.empty(0)

    def add(self, times: Times, values: Values) -> None:
        """Add rows in order of time. NaN is no value; of several values at one time, the first counts."""
        known = ~np.isnan(values)
        times, values = times[known], values[known]
        if len(times):
            before = self.times[-1:] if len(self.times) else times[:1] - 1
            later = np.diff(times, prepend=before) > 0
            self.times = np.concatenate([self.times, times[later]])
            self.values = np.concatenate([self.values, values[later]])

    def forget(self, until: int) -> None:
        """Drop what is not needed for steps after the time `until`."""
        first = max(0, int(np.searchsorted(self.times, until, "right")) - 1)
        self.times, self.values = self.times[first:], self.values[first:]


class Recording:
    """Puts the rows of one recording onto its grid, which starts at the time of the first row.

    At a step between two values of a column, the value is interpolated linearly or is the last one. Before the first
    and after the last value, the nearest one is repeated (with `fill="last"`, nothing comes before the first). Where
    two values, or a value and the end of the recording, are further apart than `max_gap`, there is nothing.
    """

    def __init__(self, preparation: Preparation) -> None:
        self._every, self._fill = preparation.every, preparation.fill
        self._max_gap = np.inf if preparation.max_gap is None else preparation.max_gap
        self._columns = [Column() for _ in preparation.values]
        self._origin = self._now = 0
        self._has_begun = False
        self._passed = 0  # steps that have been returned
        self._returned = 0  # time of the latest of them
        self._waiting: Times = np.empty(0, np.int64)  # without a grid: times of the steps that have not

    def add(self, times: Times, values: Values) -> Steps:
        """Add rows, times `[n]` in order and values `[n, M]`; return the steps that are known from now on."""
        if not len(times):
            return self._fill_in(self._waiting[:0])
        if not self._has_begun:
            self._has_begun, self._origin = True, int(times[0])
        self._now = int(times[-1])
        for column, found in zip(self._columns, values.T, strict=True):
            column.add(times, found)
        if self._every is None:
            later = times[times > self._returned] if self._passed else times
            self._waiting = np.unique(np.concatenate([self._waiting, later]))
        return self._return_until(min(map(self._known_until, self._columns)))

    def finish(self) -> Steps:
        """The steps up to the last row."""
        return self._return_until(self._now if self._has_begun else self._origin - 1)

    def _known_until(self, column: Column) -> int:
        """The time until which later rows change nothing."""
        latest = int(column.times[-1]) if len(column.times) else None
        if latest == self._now:
            return self._now
        if self._fill == "last" or self._now - (self._origin if latest is None else latest) > self._max_gap:
            return self._now - 1  # a later row may still bring a value for this instant
        return self._origin - 1 if latest is None else latest

    def _return_until(self, until: int) -> Steps:
        if self._every is None:
            count = int(np.searchsorted(self._waiting, until, "right"))
            times, self._waiting = self._waiting[:count], self._waiting[count:]
            self._passed += count
        else:
            end = max(self._passed, (until - self._origin) // self._every + 1)
            if (end - self._passed) * len(self._columns) > MOST_VALUES:
                raise UserError(
                    f"{end - self._passed:,} steps of the grid follow from the next rows of a recording. Are the times "
                    "right? Otherwise use a larger step (every)."
                )
            times = self._origin + self._every * np.arange(self._passed, end, dtype=np.int64)
            self._passed = end
        steps = self._fill_in(times)
        if len(times):
            self._returned = int(times[-1])
            for column in self._columns:
                column.forget(self._returned)
        return steps

    def _fill_in(self, times: Times) -> Steps:
        if not len(times):
            return Steps(times, np.empty((0, len(self._columns))))
        return Steps(times, np.column_stack([self._values_at(times, column) for column in self._columns]))

    def _values_at(self, times: Times, column: Column) -> Values:
        if not len(column.times):
            return np.full(len(times), np.nan)
        left = np.searchsorted(column.times, times, "right") - 1  # -1: before the first value
        right = np.minimum(left + 1, len(column.times) - 1)
        start, end = column.times[np.maximum(left, 0)], column.times[right]
        value = column.values[np.maximum(left, 0)]
        exact = (left >= 0) & (start == times)
        if self._fill == "last":
            return np.where(exact | ((left >= 0) & (times - start <= self._max_gap)), value, np.nan)
        between = (left >= 0) & (right > left)
        share = np.divide(times - start, end - start, where=between & (end > start), out=np.zeros(len(times)))
        filled = np.where(exact, value, value + (column.values[right] - value) * share)
        gap = np.where(left < 0, start - self._origin, np.where(between, end - start, self._now - start))
        return np.where(exact | (gap <= self._max_gap), filled, np.nan)


class Piece(NamedTuple):
    """Complete steps that follow each other; `continues`: those of the piece before, in the same recording."""

    times: Times
    values: Values
    continues: bool


class Pieces:
    """Divides the steps of one recording where one is not filled, or where rows are too far apart."""

    def __init__(self, preparation: Preparation) -> None:
        self._limit = preparation.max_gap if preparation.every is None and preparation.time else None
        self._latest: int | None = None  # time of the latest step, if it was complete

    def add(self, steps: Steps) -> Iterator[Piece]:
        complete = np.atleast_1d(~np.isnan(steps.values).any(axis=1))
        starts = np.flatnonzero(complete & ~np.concatenate([[False], complete[:-1]]))
        if self._limit is not None:
            far = np.flatnonzero(complete[1:] & complete[:-1] & (np.diff(steps.times) > self._limit)) + 1
            starts = np.union1d(starts, far)
        for start, following in zip(starts, np.append(starts, len(complete))[1:], strict=True):
            end = start + np.count_nonzero(complete[start:following])
            times = steps.times[start:end]
            follows = start == 0 and self._latest is not None
            follows = follows and (self._limit is None or int(times[0]) - (self._latest or 0) <= self._limit)
            yield Piece(times, steps.values[start:end], follows)
        if len(complete):
            self._latest = int(steps.times[-1]) if complete[-1] else None


class Cutter:
    """Where windows start in pieces that arrive in parts.

    waiting: steps of the parts so far that the next window needs.
    """

    def __init__(self, preparation: Preparation) -> None:
        self._window, self._stride = preparation.window, preparation.stride
        self.waiting = 0
        self._skip = 0  # steps until the next window starts

    def extend(self, count: int, continues: bool) -> tuple[NDArray[np.int64], int]:
        """Add `count` steps of a new piece or of the latest one.

        Returns:
            The starts of the windows that are full, counted from the first step that was waiting, and how many of these
            steps and the new ones are not needed any more.
        """
        if not continues:
            self.waiting = self._skip = 0
        total = self.waiting + count
        starts = np.arange(self._skip, total - self._window + 1, self._stride)
        used = int(starts[-1]) + self._stride if len(starts) else self._skip
        done = min(used, total)
        self.waiting, self._skip = total - done, used - done
        return starts, done


class LabelledCutter(Cutter):
    """Windows of the steps of one piece after the other, and their labels."""

    def __init__(self, preparation: Preparation) -> None:
        super().__init__(preparation)
        self._rule = preparation
        self._labels: Codes = np.empty(0, np.int64)

    def cut(
        self, labels: NDArray[np.int64], names: int, continues: bool
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Add steps; return the starts of the windows that are full, as `extend` does, and their labels."""
        starts, done = self.extend(len(labels), continues)
        labels = np.concatenate([self._labels if continues else labels[:0], labels])
        self._labels = labels[done:]
        return starts, self._choose(labels, starts, names)

    def _choose(self, labels: Codes, starts: NDArray[np.int64], names: int) -> Codes:
        ends = starts + self._rule.window
        last = labels[ends - 1] if len(starts) else starts
        chosen, most = np.full(len(starts), UNLABELLED), np.zeros(len(starts), np.int64)
        for code in range(names):
            sums = np.concatenate([[0], np.cumsum(labels == code)])
            counts = sums[ends] - sums[starts]
            better = counts > most if self._rule.label_by == "majority" else last == code
            chosen, most = np.where(better, code, chosen), np.where(better, counts, most)
        chosen[most < self._rule.minimum_share * self._rule.window] = UNLABELLED
        return chosen


class Window(NamedTuple):
    """Windows: times of their steps, int64 `[n, window]`, and series, float64 `[n, M, window]`."""

    times: Times
    series: Values

    def __len__(self) -> int:
        return len(self.times)


class Windows:
    """The windows of one recording, as soon as they are full: one every `stride` steps from the start of a piece."""

    def __init__(self, preparation: Preparation) -> None:
        self._window, self._stride = preparation.window, preparation.stride
        self._recording, self._pieces, self._cutter = Recording(preparation), Pieces(preparation), Cutter(preparation)
        self._times: Times = np.empty(0, np.int64)
        self._values: Values = np.empty((0, len(preparation.values)))

    def add(self, times: Times, values: Values) -> list[Window]:
        """Add rows, times `[n]` in order and values `[n, M]`; return the windows that are full now, in order."""
        return self._cut(self._recording.add(times, values))

    def finish(self) -> list[Window]:
        """The windows that end with the recording."""
        return self._cut(self._recording.finish())

    def _cut(self, steps: Steps) -> list[Window]:
        return [window for piece in self._pieces.add(steps) if len(window := self._extend(piece))]

    def _extend(self, piece: Piece) -> Window:
        if not piece.continues:
            self._times, self._values = piece.times[:0], piece.values[:0]
        times = np.concatenate([self._times, piece.times])
        values = np.concatenate([self._values, piece.values])
        starts, done = self._cutter.extend(len(piece.times), piece.continues)
        self._times, self._values = times[done:], values[done:]
        if not len(starts):
            return Window(np.empty((0, self._window), np.int64), np.empty((0, values.shape[1], self._window)))
        view = np.lib.stride_tricks.sliding_window_view
        taken = slice(starts[0], starts[-1] + 1, self._stride)  # a view: windows overlap, and are not copied
        return Window(view(times, self._window)[taken], view(values, self._window, axis=0)[taken])
