"""What is done to a series before the network sees it: missing values and different lengths.

The same code runs in training and in serving; the artifact says with which settings.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict


class Fault(NamedTuple):
    """A series whose missing values cannot be dealt with: which, of which variable, and at which step, if at one."""

    row: int
    variable: int
    step: int | None
    problem: str


class Preprocessing(BaseModel):
    """How missing values and series of different length are treated.

    missing_values: `error` refuses them; `interpolate` puts them on the line between their neighbours, and
        repeats the nearest value at both ends.
    length_policy: `error` wants one length. Otherwise missing values at the end of a row are not part of the
        series: `pad` repeats the last value up to the model's length; `resample` interpolates linearly to it.
    """

    model_config = ConfigDict(frozen=True)

    missing_values: Literal["error", "interpolate"] = "error"
    length_policy: Literal["error", "pad", "resample"] = "error"

    @property
    def any_length(self) -> bool:
        """Series may differ in length."""
        return self.length_policy != "error"

    @property
    def reads_missing(self) -> bool:
        """A cell may be empty or NaN: a missing value, or the end of a shorter series."""
        return self.any_length or self.missing_values == "interpolate"

    def lengths(self, series: NDArray[np.float64]) -> NDArray[np.int64]:
        """How many time steps each of the series `[N, M, W]` has, int64 `[N]`.

        Where lengths differ, steps at the end that no variable has a value for are not counted.
        """
        if not self.any_length:
            return np.full(len(series), series.shape[2])
        at_end: NDArray[np.int64] = np.isnan(series[:, :, ::-1]).all(axis=1).argmin(axis=1)
        lengths: NDArray[np.int64] = series.shape[2] - at_end
        return lengths

    def find_fault(self, series: NDArray[np.float64]) -> Fault | None:
        """The first of the series `[N, M, W]`, NaN for missing values, that `apply` cannot complete."""
        missing = np.isnan(series)
        if not missing.any():
            return None
        for row, variable in np.argwhere(missing.all(axis=2))[:1]:
            name = f" of variable {variable + 1}" if series.shape[1] > 1 else ""
            return Fault(int(row), int(variable), None, f"has no values{name}, only missing ones")
        if self.missing_values == "error":
            inside = missing & (np.arange(series.shape[2]) < self.lengths(series)[:, None, None])
            for row, variable, step in np.argwhere(inside)[:1]:
                where = "after it" if series.shape[1] == 1 else "beside it or after it"
                problem = f"is missing, with values {where}; missing-values=interpolate fills it"
                return Fault(int(row), int(variable), int(step), problem)
        return None

    def apply(self, series: NDArray[np.float64], length: int) -> NDArray[np.float64]:
        """Complete series of `length` time steps, float64 `[N, M, length]`.

        Args:
            series: float64 `[N, M, W]` with NaN for missing values. Every variable has at least one value. W is
                `length` unless lengths may differ; under `pad`, no series is longer than `length`.
            length: the model's length.
        """
        if not self.reads_missing:
            return series
        ends = self.lengths(series)
        if series.shape[2] < length:
            series = np.pad(series, ((0, 0), (0, 0), (0, length - series.shape[2])), constant_values=np.nan)
        complete = series[:, :, :length]
        rows = np.flatnonzero((ends != length) | np.isnan(complete).any(axis=(1, 2)))
        if rows.size:
            complete = complete.copy()
        for row in rows:
            for variable in range(series.shape[1]):
                complete[row, variable] = self._complete(series[row, variable, : ends[row]], length)
        return complete

    def _complete(self, values: NDArray[np.float64], length: int) -> NDArray[np.float64]:
        """One variable of any length with gaps, float64 `[L]`, as a whole one, `[length]`."""
        known = np.flatnonzero(~np.isnan(values))
        wanted = np.arange(length, dtype=np.float64)
        if self.length_policy == "resample":
            wanted = np.linspace(0, len(values) - 1, length)
        # Beyond the last known value, interpolation repeats it: that pads, too.
        return np.interp(wanted, known, values[known])


STRICT = Preprocessing()  # one length, no missing values
