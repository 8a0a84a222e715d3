"""Parsers for the file formats of the UCR and UEA time series archives.

| format | rows |
|---|---|
| `ts` | a header, then `v,v,v:v,v,v:label`, variables between colons (https://www.sktime.net, "ts File Format v1.0") |
| `tsv` | label first, between tabs (UCR archive 2018) |
| `txt` | label first, between white space (timeseriesclassification.com) |
| `csv` | label first, between commas (UCR archive 2015, whose files have no extension) |
| `arff` | a header, then values and label; of several variables `'v,v\\nv,v',label` with a literal `\\n` (Weka) |
"""

import io
import math
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from lstm_fcn.container.csv_blocks import BYTE_ORDER_MARK
from lstm_fcn.container.errors import UserError, shorten

Format = Literal["ts", "tsv", "txt", "csv", "arff"]
# By file extension, in order of preference.
FORMATS: dict[str, Format] = {".ts": "ts", ".tsv": "tsv", ".txt": "txt", "": "csv", ".arff": "arff"}
SEPARATORS = {"tsv": "\t", "txt": None, "csv": ","}  # None: any white space

_MISSING = ("", "?")  # and NaN, which float() accepts
_INTEGER = re.compile(r"[-+]?[0-9]+")
_DECIMAL = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?")
_ATTRIBUTE = re.compile(r"""@attribute\s+(?:'[^']*'|"[^"]*"|[^\s{]+)\s*(.+)""", re.IGNORECASE)
_NOT_UTF8 = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Split:
    """The series of one file.

    labels: label of each of the `N` series.
    series: float64 `[N, M, W]`, M variables. NaN: missing, or beyond the end of a shorter series.
    lengths: number of time steps of each series, int64 `[N]`.
    """

    labels: list[str]
    series: NDArray[np.float64]
    lengths: NDArray[np.int64]

    @property
    def has_missing(self) -> bool:
        """Whether values are missing before the end of a series."""
        inside = np.arange(self.series.shape[2]) < self.lengths[:, None]
        return bool((np.isnan(self.series) & inside[:, None, :]).any())

    def resized(self, width: int) -> "Split":
        """The same series, padded or cut to `width`, which is at least the longest length."""
        if width == self.series.shape[2]:
            return self
        series = np.full((*self.series.shape[:2], width), math.nan)
        kept = min(width, self.series.shape[2])
        series[:, :, :kept] = self.series[:, :, :kept]
        return Split(self.labels, series, self.lengths)


def parse(content: bytes, form: Format, source: str) -> Split:
    """Parse the content of a file; messages call it `source`.

    In all formats but `ts`, rows have the same width; if all variables of a row end with missing values, the series
    ends before them.

    Raises:
        UserError: names the row (line number) and column of an invalid cell.
    """
    if not content or content.isspace():
        raise UserError(f"{source} is empty.")
    lines = _Lines(content, source)
    if form == "ts":
        header = _read_ts_header(lines)
        rows = _ts_rows(lines)
    elif form == "arff":
        header, relational = _read_arff_header(lines)
        rows = _arff_rows(lines, relational)
    else:
        header = _Header(equal_length=True)
        rows = _delimited_rows(lines, SEPARATORS[form])
    split = _collect(lines, header, rows)
    return split if form == "ts" else Split(split.labels, split.series, _lengths_without_padding(split.series))


# Rows of any format to arrays


@dataclass(frozen=True)
class _Header:
    """What a file declares about its series; None: nothing."""

    classes: tuple[str, ...] | None = None
    num_variables: int | None = None
    equal_length: bool = False
    length: int | None = None


class _Row(NamedTuple):
    """The cells of a row: label, cells of each variable, and column of the first of these cells."""

    label: str
    variables: list[list[str]]
    first_column: int = 1


class _Lines:
    """Iterates over the lines of a file; `number` is that of the last line returned."""

    def __init__(self, content: bytes, source: str) -> None:
        self._lines = io.BytesIO(content.removeprefix(BYTE_ORDER_MARK))
        self._source = source
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        """Skip blank lines. Invalid UTF-8 is replaced, because comments come in any encoding."""
        for line in self._lines:
            self.number += 1
            if not line.isspace():
                yield line.decode(errors="replace").rstrip("\r\n")

    def fail(self, problem: str, column: int | None = None) -> NoReturn:
        """Raise `UserError` about the last line."""
        place = f", row {self.number}" if self.number else ""
        place += "" if column is None else f", column {column}"
        raise UserError(f"{self._source}{place} {problem}.")

    def fail_whole(self, problem: str) -> NoReturn:
        """Raise `UserError` about the whole file."""
        raise UserError(f"{self._source} {problem}.")


def _collect(lines: _Lines, header: _Header, rows: Iterator[_Row]) -> Split:
    """Parse all rows, and check each against the header and the first row."""
    labels: list[str] = []
    cases: list[NDArray[np.float64]] = []
    for row in rows:
        case = _parse_values(lines, row)
        _check_shape(lines, header, case.shape, cases[0].shape if cases else None)
        labels.append(_parse_label(lines, row.label, header.classes))
        cases.append(case)
    if not cases:
        lines.fail_whole("has no series")
    lengths = np.array([case.shape[1] for case in cases])
    series = np.full((len(cases), cases[0].shape[0], lengths.max()), math.nan)
    for k, case in enumerate(cases):
        series[k, :, : case.shape[1]] = case
    return Split(labels, series, lengths)


def _parse_values(lines: _Lines, row: _Row) -> NDArray[np.float64]:
    """The values of a row, float64 `[M, T]`, NaN where they are missing."""
    if len({len(cells) for cells in row.variables}) > 1:
        counts = ", ".join(str(len(cells)) for cells in row.variables)
        lines.fail(
            f"has variables of different lengths ({counts}); all variables of a series must have the same length"
        )
    cells = [cell for variable in row.variables for cell in variable]
    case = np.array(_parse_cells(lines, cells, row.first_column)).reshape(len(row.variables), -1)
    infinite = np.flatnonzero(np.isinf(case))
    if len(infinite):
        lines.fail("contains an infinite value, or one too large for float64", row.first_column + int(infinite[0]))
    if np.isnan(case).all():
        lines.fail("has only missing values")
    return case


def _parse_cells(lines: _Lines, cells: list[str], first_column: int) -> list[float]:
    if "_" not in "".join(cells):  # float() accepts 1_000
        try:
            return list(map(float, cells))
        except ValueError:
            pass  # a missing or an invalid value
    values = []
    for column, cell in enumerate(cells, first_column):
        try:
            values.append(math.nan if cell.strip() in _MISSING else float(cell.replace("_", "?")))
        except ValueError:
            lines.fail(f"contains {shorten(cell)}, which is not a number", column)
    return values


def _check_shape(lines: _Lines, header: _Header, found: tuple[int, ...], first: tuple[int, ...] | None) -> None:
    """Check the shape `[M, T]` of a row against the header, or else the first row."""
    (variables, length), (first_variables, first_length) = found, first or found
    expected = header.num_variables or first_variables
    if variables != expected:
        lines.fail(f"has {variables} variables; {_origin(header.num_variables)} {expected}")
    expected = header.length or first_length
    values = "values" if variables == 1 else "values in each variable"
    if header.equal_length and length != expected:
        lines.fail(f"has {length} {values}; {_origin(header.length)} {expected}")
    if header.length is not None and length > header.length:
        lines.fail(f"has {length} {values}; the header says at most {header.length}")


def _origin(declared: int | None) -> str:
    return "the first row has" if declared is None else "the header says"


def _parse_label(lines: _Lines, text: str, classes: tuple[str, ...] | None) -> str:
    label = _normalise(text)
    if label.lower() in (*_MISSING, "nan"):
        lines.fail("has no label")
    if _NOT_UTF8 in label:
        lines.fail("has a label that is not valid UTF-8")
    if classes is not None and label not in classes:
        known = textwrap.shorten(", ".join(classes), 200, placeholder=" …")
        lines.fail(f"has the label {shorten(label)}, which the header does not declare ({known})")
    return label


def _normalise(label: str) -> str:
    """The label as written, except that `1.0000000e+00` becomes `1`."""
    label = label.strip()
    if _DECIMAL.fullmatch(label) and not _INTEGER.fullmatch(label):
        number = float(label)
        if number.is_integer() and abs(number) < 2**53:
            return str(int(number))
    return label


def _lengths_without_padding(series: NDArray[np.float64]) -> NDArray[np.int64]:
    """Time steps of each series of `[N, M, W]` up to the last one with a value, int64 `[N]`."""
    at_end: NDArray[np.int64] = np.isnan(series[:, :, ::-1]).all(axis=1).argmin(axis=1)
    lengths: NDArray[np.int64] = series.shape[2] - at_end
    return lengths


# Label first


def _delimited_rows(lines: _Lines, separator: str | None) -> Iterator[_Row]:
    for line in lines:
        label, *cells = line.split(separator)
        if not cells:
            lines.fail(f"has only a label ({shorten(label)}), or the separators of another format")
        yield _Row(label, [cells], first_column=2)


# .ts


def _read_ts_header(lines: _Lines) -> _Header:
    """Parse the lines before `@data`; lines that do not start with @ are comments."""
    found: dict[str, list[str]] = {}
    for line in lines:
        key, *values = line.split()
        if key.lower() == "@data":
            break
        if key.startswith("@"):
            found[key.lower()] = values
    else:
        lines.fail_whole("has no line @data")
    true = {key for key, values in found.items() if [value.lower() for value in values[:1]] == ["true"]}
    if "@timestamps" in true:
        lines.fail_whole("has time stamps (@timeStamps true), which are not supported")
    classes = tuple(map(_normalise, found.get("@classlabel", [])[1:]))
    if not classes:
        lines.fail_whole("declares no classes (@classLabel true …)")
    return _Header(
        classes=classes,
        num_variables=_number_of(lines, found, "@dimensions") or (1 if "@univariate" in true else None),
        equal_length="@equallength" in true,
        length=_number_of(lines, found, "@serieslength"),
    )


def _number_of(lines: _Lines, found: dict[str, list[str]], key: str) -> int | None:
    """None if the key is missing or 0, which some files use for different lengths."""
    values = found.get(key)
    if values is None:
        return None
    if len(values) != 1 or not values[0].isdecimal():
        lines.fail_whole(f"has {key} {' '.join(values)} in its header; it must be a whole number")
    return int(values[0]) or None


def _ts_rows(lines: _Lines) -> Iterator[_Row]:
    for line in lines:
        *variables, label = line.split(":")
        if not variables:
            lines.fail("has no label after a colon")
        yield _Row(label, [cells.split(",") for cells in variables])


# .arff


def _read_arff_header(lines: _Lines) -> tuple[_Header, bool]:
    """Parse the lines before `@data`; also return whether the series is one relational attribute."""
    width, classes, relational = 0, None, False
    for line in lines:
        text = line.strip()
        if text.lower() == "@data":
            break
        attribute = _ATTRIBUTE.match(text)
        if attribute is None:  # a comment, the relation's name, or the end of the relational attribute
            continue
        kind = attribute[1].lower()
        if classes is not None:
            lines.fail("declares an attribute after the class, which must be the last")
        if kind == "relational" and not width:
            relational = True
        elif kind in ("numeric", "real", "integer"):
            width += 1
        elif kind.startswith("{"):
            classes = tuple(_normalise(_unquoted(name)) for name in attribute[1].strip("{} \t").split(","))
        else:
            lines.fail(f"declares an attribute of the type {shorten(attribute[1])}, which is not supported")
    else:
        lines.fail_whole("has no line @data")
    if classes is None or not width:
        lines.fail_whole("declares no numeric attributes followed by a class {…}")
    return _Header(classes, None if relational else 1, equal_length=True, length=width), relational


def _arff_rows(lines: _Lines, relational: bool) -> Iterator[_Row]:
    for line in lines:
        text = line.strip()
        if text.startswith("%"):
            continue
        if relational:
            quote = text[0]
            values, end, label = text[1:].partition(quote)
            if quote not in "'\"" or not end:
                lines.fail("does not start with a quoted series")
            yield _Row(_unquoted(label.strip(" ,\t")), [cells.split(",") for cells in values.split("\\n")])
        else:
            values, _, label = text.rpartition(",")
            yield _Row(_unquoted(label), [values.split(",")])


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
