"""Bytes to arrays and back. The one CSV parser, for training files and for requests."""

import csv
import io
import re
from collections.abc import Iterable
from typing import NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from container.errors import UserError

# What one cell of a series may hold, around it spaces only. Words such as nan and inf are not numbers here.
_NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*", re.ASCII)

# Values parsed at once. The parser keeps other threads waiting, and health checks must not wait long (S3).
BLOCK_VALUES = 65536


class LabelledSeries(NamedTuple):
    """What a training file holds: for each series its row in the file and its label; float64 `[N, 1, T]`."""

    rows: list[int]
    labels: list[str]
    series: NDArray[np.float64]


def read_labelled_series(data: bytes, source: str) -> LabelledSeries:
    """Parse headerless CSV with the label in the first column and one series a row (T28).

    Labels are text, kept exactly as written. A byte order mark, CRLF, a missing last newline, blank
    lines and quoted cells are understood (T29).

    Args:
        data: the file's content, UTF-8.
        source: the file's name, for messages.

    Raises:
        UserError: names source, row and column of the first cell that is wrong. Rows are counted as
            an editor counts lines, from 1.
    """
    rows = _Rows(data, source)
    labels, values = [], []
    for number, line in rows.lines:
        label, comma, rest = line.partition(",")
        if '"' in line:
            label, *cells = rows.unquote(number, line)
            comma, rest = "," if cells else "", rows.join(number, cells, first_column=2)
        if not comma:
            rows.fail(number, f"has a label and no values{_wrong_separator(line)}")
        if not label.strip():
            rows.fail(number, "has no label: its first column is empty", column=1)
        labels.append(label)
        values.append(rest)
    series = _to_array(rows, values, first_column=2, length=None)
    return LabelledSeries([number for number, _ in rows.lines], labels, series)


def read_series(data: bytes, source: str, length: int) -> NDArray[np.float64]:
    """Parse headerless CSV without labels, one series of `length` values a row, to float64 `[N, 1, length]`.

    N is 0 if there is nothing but white space. Raises `UserError` as `read_labelled_series` does, and if
    a row has another number of values.
    """
    rows = _Rows(data, source)
    values = [
        rows.join(number, rows.unquote(number, line), first_column=1) if '"' in line else line
        for number, line in rows.lines
    ]
    return _to_array(rows, values, first_column=1, length=length)


def write_labels(labels: Iterable[str]) -> str:
    """CSV text of one label a line, quoted where CSV needs it, with a newline after each."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([label] for label in labels)
    return text.getvalue()


class _Rows:
    """The lines of a CSV text that are not blank, each with its number in the file."""

    def __init__(self, data: bytes, source: str) -> None:
        self.source = source
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            row = data.count(b"\n", 0, error.start) + 1
            self.fail(row, "is not UTF-8 text (a compressed or binary file?)")
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        self.lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip(" \t\v\f")]

    def unquote(self, row: int, line: str) -> list[str]:
        """The cells of a line in which some are quoted."""
        try:
            return next(csv.reader([line], strict=True))
        except csv.Error:
            self.fail(row, "has quotes that do not match")

    def join(self, row: int, cells: list[str], first_column: int) -> str:
        """Unquoted values as they would stand in a line without quotes; `"1,000"` is no number."""
        for column, cell in enumerate(cells, first_column):
            if "," in cell:
                self.fail(row, _no_number(cell), column)
        return ",".join(cells)

    def fail(self, row: int, problem: str, column: int | None = None) -> NoReturn:
        place = f"row {row}" if column is None else f"row {row}, column {column}"
        raise UserError(f"{self.source}, {place} {problem}.")


def _to_array(rows: _Rows, values: list[str], first_column: int, length: int | None) -> NDArray[np.float64]:
    """Float64 `[N, 1, T]` from each line's values, joined by commas as they stand in the file."""
    if not values:
        return np.empty((0, 1, length or 0))
    _check_widths(rows, values, length)
    _refuse_header(rows, values[0])
    array = np.empty((len(values), values[0].count(",") + 1))
    rows_per_block = max(1, BLOCK_VALUES // array.shape[1])
    for start in range(0, len(values), rows_per_block):
        block = values[start : start + rows_per_block]
        parsed = _parse_block(block)
        if parsed is None:
            _fail_at_bad_cell(rows, start, block, first_column)
        array[start : start + len(block)] = parsed
    return array[:, np.newaxis, :]


def _parse_block(values: list[str]) -> NDArray[np.float64] | None:
    """Float64 `[len(values), T]`, or nothing if a cell is not a finite number."""
    if not all(map(str.strip, values)):  # a series of one empty cell, which loadtxt would pass over
        return None
    try:
        block = np.loadtxt(values, delimiter=",", comments=None, ndmin=2, dtype=np.float64)
    except ValueError:
        return None
    return block if np.isfinite(block).all() else None


def _refuse_header(rows: _Rows, first: str) -> None:
    cells = first.split(",")
    if all(cell.strip() and not _NUMBER.fullmatch(cell) and cell.strip().lower() != "nan" for cell in cells):
        rows.fail(
            rows.lines[0][0], f"looks like a header ({_shorten(first)}); files have no header here, so remove that row"
        )


def _check_widths(rows: _Rows, values: list[str], length: int | None) -> None:
    """Every row has as many values as the first one, or as the model expects."""
    expected = length or values[0].count(",") + 1
    for (number, line), row in zip(rows.lines, values, strict=True):
        width = row.count(",") + 1
        if width == expected:
            continue
        if length is None:
            first = rows.lines[0][0]
            rows.fail(
                number,
                f"has {_values(width)}, but row {first} has {_values(expected)}; all series must be of one length",
            )
        advice = ""
        if width == 1:
            advice = _wrong_separator(line)
        elif width == length + 1:
            advice = "; send the values only, without a label"
        rows.fail(number, f"has {_values(width)}, but the model takes series of {_values(length)}{advice}")


def _fail_at_bad_cell(rows: _Rows, start: int, block: list[str], first_column: int) -> NoReturn:
    for (number, _), line in zip(rows.lines[start:], block, strict=False):
        for column, cell in enumerate(line.split(","), first_column):
            if not cell.strip():
                rows.fail(number, "is empty; every value must be a number", column)
            if not _NUMBER.fullmatch(cell):
                rows.fail(number, _no_number(cell), column)
            if not np.isfinite(float(cell)):
                rows.fail(number, f"is {_shorten(cell)}, which is too large for a number", column)
    raise AssertionError("the parser refused a text in which every cell is a number")


def _no_number(cell: str) -> str:
    return f"is {_shorten(cell)}; every value must be a finite number"


def _wrong_separator(line: str) -> str:
    for separator, name in ((";", "semicolons"), ("\t", "tabs"), (" ", "spaces")):
        if separator in line.strip():
            return f"; its cells seem to be separated by {name}, where commas should be"
    return ""


def _values(count: int) -> str:
    return f"{count} value" if count == 1 else f"{count} values"


def _shorten(text: str, limit: int = 40) -> str:
    return repr(text if len(text) <= limit else text[:limit] + "...")
