"""Recordings on their grid and in windows: as pandas does it, and the same however the rows are divided."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lstm_fcn.container.recording import SECOND, Preparation, Recording, Steps, Windows

ROWS = st.lists(
    st.tuples(
        st.integers(0, 5),  # seconds after the row before
        st.one_of(st.none(), st.integers(-9, 9)),
        st.one_of(st.none(), st.integers(-9, 9)),
    ),
    min_size=1,
    max_size=40,
)
CUTS = st.lists(st.integers(0, 40), max_size=5)


def prepare(**options: Any) -> Preparation:
    return Preparation(**{"time": "t", "values": ("a", "b"), "window": 4, "stride": 2, **options})


def as_arrays(rows: Sequence[tuple[int, int | None, int | None]]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    times = np.cumsum([row[0] for row in rows]) * SECOND
    values = np.array([[np.nan if value is None else value for value in row[1:]] for row in rows], dtype=np.float64)
    return times.astype(np.int64), values


def all_steps(preparation: Preparation, times: NDArray[np.int64], values: NDArray[np.float64]) -> Steps:
    recording = Recording(preparation)
    first, last = recording.add(times, values), recording.finish()
    return Steps(np.concatenate([first.times, last.times]), np.concatenate([first.values, last.values]))


@pytest.mark.parametrize("fill", ["linear", "last"])
@pytest.mark.parametrize("every", [None, SECOND, 3 * SECOND])
@pytest.mark.parametrize("max_gap", [None, 4 * SECOND])
@given(rows=ROWS, cuts=CUTS)
@settings(max_examples=60, deadline=None)
def test_the_division_of_the_rows_does_not_matter(
    rows: list[tuple[int, int | None, int | None]],
    cuts: list[int],
    every: int | None,
    fill: Literal["linear", "last"],
    max_gap: int | None,
) -> None:
    times, values = as_arrays(rows)
    preparation = prepare(every=every, fill=fill, max_gap=max_gap)
    whole = all_steps(preparation, times, values)
    recording, parts = Recording(preparation), []
    windows, found = Windows(preparation), []
    for part in np.split(np.arange(len(times)), sorted(cuts)):
        parts.append(recording.add(times[part], values[part]))
        found += windows.add(times[part], values[part])
    parts.append(recording.finish())
    found += windows.finish()
    for one, other in zip(whole, map(np.concatenate, zip(*parts, strict=True)), strict=True):
        np.testing.assert_array_equal(one, other)
    of_times, of_series = (np.concatenate(arrays) for arrays in zip(NONE, *found, strict=True))
    expected = literal_windows(preparation, whole)
    for one, other in zip(expected, (of_times[:, 0], of_times[:, -1], of_series), strict=True):
        np.testing.assert_array_equal(one, other)


NONE = np.empty((0, 4), np.int64), np.empty((0, 2, 4))


def literal_windows(preparation: Preparation, steps: Steps) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Windows by a loop over steps."""
    starts, ends, series = [], [], []
    piece: list[int] = []
    for k, values in enumerate(steps.values):
        far = preparation.every is None and preparation.max_gap is not None and piece
        if far and steps.times[k] - steps.times[piece[-1]] > (preparation.max_gap or 0):
            piece = []
        piece = [] if np.isnan(values).any() else [*piece, k]
        full = len(piece) - preparation.window
        if full >= 0 and full % preparation.stride == 0 and piece:
            taken = piece[-preparation.window :]
            starts.append(steps.times[taken[0]])
            ends.append(steps.times[taken[-1]])
            series.append(steps.values[taken].T)
    shape = (len(series), steps.values.shape[1], preparation.window)
    return np.array(starts, np.int64), np.array(ends, np.int64), np.array(series, np.float64).reshape(shape)


@given(rows=ROWS, every=st.sampled_from([1, 2, 7]), fill=st.sampled_from(["linear", "last"]))
@settings(max_examples=100, deadline=None)
def test_steps_are_those_of_pandas(
    rows: list[tuple[int, int | None, int | None]], every: int, fill: Literal["linear", "last"]
) -> None:
    times, values = as_arrays(rows)
    found = all_steps(prepare(every=every * SECOND, fill=fill), times, values)
    frame = pd.DataFrame(values, index=pd.to_datetime(times), columns=["a", "b"])
    grid = pd.date_range(frame.index[0], frame.index[-1], freq=f"{every}s")
    for k, name in enumerate(frame):
        known = frame[name].dropna()
        known = known[~known.index.duplicated()]
        both = known.reindex(known.index.union(grid))
        filled = both.interpolate("time", limit_direction="both") if fill == "linear" and len(known) else both.ffill()
        np.testing.assert_allclose(found.values[:, k], filled.reindex(grid), atol=1e-9)
    np.testing.assert_array_equal(found.times, grid.as_unit("ns").asi8)


def test_a_grid_over_the_end_of_daylight_saving_time() -> None:
    local = pd.date_range("2025-10-26 01:00", "2025-10-26 04:00", freq="17min", tz="Europe/Berlin")
    values = np.arange(2.0 * len(local)).reshape(-1, 2) ** 1.5
    found = all_steps(prepare(every=600 * SECOND), local.as_unit("ns").asi8, values)
    expected = pd.DataFrame(values, index=local).resample("10min", origin="start").asfreq().index
    assert len(found.times) == len(expected) == 24  # four hours and no more
    union = (
        pd.Series(values[:, 0], index=local)
        .reindex(local.append(expected).unique().sort_values())
        .interpolate("time")
        .reindex(expected)
    )
    np.testing.assert_allclose(found.values[:, 0], union, atol=1e-9)


def test_nothing_is_filled_in_a_gap() -> None:
    times = np.array([0, 1, 2, 7, 8], np.int64) * SECOND
    values = np.column_stack([[0.0, 1, 2, 7, 8], [0, np.nan, np.nan, 7, 8]])
    found = all_steps(prepare(every=SECOND, max_gap=4 * SECOND), times, values)
    np.testing.assert_array_equal(found.values[:, 0], [0, 1, 2, np.nan, np.nan, np.nan, np.nan, 7, 8])
    np.testing.assert_array_equal(found.values[:, 1], [0, *[np.nan] * 6, 7, 8])


def test_windows_do_not_span_a_gap_between_rows() -> None:
    times = np.array([0, 1, 2, 3, 9, 10, 11, 12, 13], np.int64) * SECOND
    values = np.column_stack([np.arange(9.0)] * 2)
    windows = Windows(prepare(stride=1, max_gap=2 * SECOND))
    starts = np.concatenate([window.times for window in windows.add(times, values) + windows.finish()])[:, 0] // SECOND
    assert starts.tolist() == [0, 9, 10]


def test_a_window_comes_as_soon_as_it_is_full() -> None:
    windows = Windows(prepare(every=SECOND, stride=1))
    rows = [(np.array([k * SECOND]), np.array([[k, k]], np.float64)) for k in range(6)]
    counts = [sum(map(len, windows.add(*row))) for row in rows]
    assert counts == [0, 0, 0, 1, 1, 1]
