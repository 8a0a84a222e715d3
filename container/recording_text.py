"""Rows of recordings as text: CSV with a header, or columns of a JSON document."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lstm_fcn.container.errors import UserError, plural, shorten, suggest
from lstm_fcn.container.moments import parse_time
from lstm_fcn.container.recording import Preparation, Times, Values

ONLY = "recording"  # name of the only recording, if no column names it
MISSING = ("", "nan", "na", "n/a", "null", "none")

Cell = str | float | int | None


class Rows(NamedTuple):
    """Rows of one recording in order of time: times `[n]` and values `[n, M]`, see `container.recording`."""

    recording: str
    times: Times
    values: Values


class RowParser:
    """Takes the cells of rows apart, whose columns have these names, in any order and among others."""

    def __init__(self, names: Sequence[str], preparation: Preparation, source: str) -> None:
        """Raises `UserError` if a column is missing."""
        self._preparation, self._source = preparation, source
        self._id = None if preparation.id is None else find_column(preparation.id, names, source)
        self._time = None if preparation.time is None else find_column(preparation.time, names, source)
        self._values = [(name, find_column(name, names, source)) for name in preparation.values]
        self._width = len(names)

    def parse(self, cells: Sequence[Cell], row: int) -> tuple[str, int, list[float]]:
        """Recording, time and values of a row; NaN where one is missing. `row` is its number.

        Raises:
            UserError: a cell is not what its column holds.
        """
        if len(cells) != self._width:
            raise UserError(f"{self._source}, row {row} has {plural(len(cells), 'cell')} instead of {self._width}.")
        recording = ONLY if self._id is None else str(cells[self._id])
        time = row
        if self._time is not None:
            try:
                time = parse_time(str(cells[self._time]), self._preparation)
            except UserError as error:
                raise UserError(f"{self._source}, row {row}, column {self._preparation.time}: {error}") from error
        return recording, time, [self._number(cells[place], name, row) for name, place in self._values]

    def _number(self, cell: Cell, name: str, row: int) -> float:
        if cell is None or (isinstance(cell, str) and cell.strip().lower() in MISSING):
            return math.nan
        try:
            number = float(cell)
        except (ValueError, OverflowError):
            number = math.inf
        if not math.isfinite(number):
            problem = f"{self._source}, row {row}, column {name} is {shorten(cell)}"
            raise UserError(f"{problem}; every value must be a finite number.")
        return number


def find_column(name: str, names: Sequence[str], source: str) -> int:
    """The place of a column. Raises `UserError` if it is missing."""
    if name not in names:
        raise UserError(f"{source} has no column {shorten(name)}, which the model needs; {suggest(name, names)}")
    return names.index(name)


def parse_rows(
    names: Sequence[str], rows: Sequence[Sequence[Cell]], preparation: Preparation, source: str, first: int = 1
) -> list[Rows]:
    """All rows, recording by recording, in order of the first row of each; `first` is the number of the first row."""
    parser = RowParser(names, preparation, source)
    found: dict[str, tuple[list[int], list[list[float]]]] = {}
    for number, cells in enumerate(rows, first):
        recording, time, values = parser.parse(cells, number)
        of_times, of_values = found.setdefault(recording, ([], []))
        of_times.append(time)
        of_values.append(values)
    sorted_rows = []
    for recording, (of_times, of_values) in found.items():
        times = np.array(of_times, dtype=np.int64)
        order = np.argsort(times, kind="stable")
        sorted_rows.append(Rows(recording, times[order], np.array(of_values)[order]))
    return sorted_rows


def parse_csv(text: str, preparation: Preparation, source: str) -> list[Rows]:
    """The recordings of CSV text with a header; its rows are numbered as in the text."""
    try:
        lines = [cells for cells in csv.reader(io.StringIO(text)) if cells]
    except csv.Error as error:
        raise UserError(f"{source} is not valid CSV: {error}.") from error
    if not lines:
        raise UserError(f"{source} is empty; it needs a header.")
    names = [name.strip() for name in lines[0]]
    return parse_rows(names, lines[1:], preparation, source, first=2)


def parse_columns(columns: Mapping[str, Sequence[Cell]], preparation: Preparation, source: str) -> list[Rows]:
    """The recordings of columns of equal length."""
    lengths = {len(column) for column in columns.values()}
    if len(lengths) != 1:
        raise UserError(f"{source}: the columns of a recording have different lengths ({sorted(lengths)}).")
    return parse_rows(list(columns), list(zip(*columns.values(), strict=True)), preparation, source)


def names_recording(header: str, preparation: Preparation) -> bool:
    """Whether a line is the header of recordings."""
    cells = {cell.strip().strip('"') for cell in header.split(",")}
    return bool(cells & {*preparation.values, preparation.time})
