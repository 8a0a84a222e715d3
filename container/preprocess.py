"""Preprocessing of series: missing values and different lengths.

Training and serving run the same code; the artifact holds the settings.
"""

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:  # serving does not need the table
    from lstm_fcn.container.hyperparameters import Hyperparameters


class Fault(NamedTuple):
    """A series that cannot be completed.

    row, variable: index of the series and of its variable.
    step: index of the missing value; None if the variable has no values at all.
    """

    row: int
    variable: int
    step: int | None
    problem: str


class Preprocessing(BaseModel):
    """Treatment of missing values and of series of different length.

    missing_values: `error` refuses them; `interpolate` interpolates linearly between their neighbours and repeats the
        nearest value at both ends.
    length_policy: `error` requires one length. Otherwise missing values at the end of a row mark the end of the
        series: `pad` repeats the last value up to the length of the model; `resample` interpolates linearly to it.
    """

    model_config = ConfigDict(frozen=True)

    missing_values: Literal["error", "interpolate"] = "error"
    length_policy: Literal["error", "pad", "resample"] = "error"

    @classmethod
    def of(cls, settings: "Hyperparameters") -> "Preprocessing":
        """What the hyperparameters ask for."""
        return cls(missing_values=settings.missing_values, length_policy=settings.length_policy)

    @property
    def any_length(self) -> bool:
        """Whether series may differ in length."""
        return self.length_policy != "error"

    @property
    def reads_missing(self) -> bool:
        """Whether cells may be empty or NaN: a missing value, or the end of a shorter series."""
        return self.any_length or self.missing_values == "interpolate"

    def lengths(self, series: NDArray[np.float64]) -> NDArray[np.int64]:
        """Number of time steps of each of the series `[N, M, W]`, int64 `[N]`.

        If lengths may differ, a series ends with the last step at which any variable has a value.
        """
        if not self.any_length:
            return np.full(len(series), series.shape[2])
        at_end: NDArray[np.int64] = np.isnan(series[:, :, ::-1]).all(axis=1).argmin(axis=1)
        lengths: NDArray[np.int64] = series.shape[2] - at_end
        return lengths

    def find_fault(self, series: NDArray[np.float64]) -> Fault | None:
        """The first of the series `[N, M, W]`, with NaN for missing values, that `apply` cannot complete."""
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
        """Complete series to `length` time steps, float64 `[N, M, length]`.

        Args:
            series: float64 `[N, M, W]` with NaN for missing values, without faults (see `find_fault`). W is `length`
                unless lengths may differ; with `pad`, no series is longer than `length`.
            length: time steps that the model takes.
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
        """Complete one variable, float64 `[L]` with NaN for missing values, to `[length]`."""
        known = np.flatnonzero(~np.isnan(values))
        wanted = np.arange(length, dtype=np.float64)
        if self.length_policy == "resample":
            wanted = np.linspace(0, len(values) - 1, length)
        # interp repeats the last known value beyond it, which is also what padding needs.
        return np.interp(wanted, known, values[known])


STRICT = Preprocessing()  # one length, no missing values
