"""The file formats of the UCR and UEA time series archives: the bytes of a file to labels and series.

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
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from lstm_fcn.container.csv_blocks import BYTE_ORDER_MARK
from lstm_fcn.container.errors import UserError

Format = Literal["ts", "tsv", "txt", "csv", "arff"]
# By the extension of a file; the first is the best where a problem comes in several.
FORMATS: dict[str, Format] = {".ts": "ts", ".tsv": "tsv", ".txt": "txt", "": "csv", ".arff": "arff"}
SEPARATORS = {"tsv": "\t", "txt": None, "csv": ","}  # None: any white space

_MISSING = ("", "?")  # besides NaN, which is a number to Python
_INTEGER = re.compile(r"[-+]?[0-9]+")
_DECIMAL = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?")
_ATTRIBUTE = re.compile(r"""@attribute\s+(?:'[^']*'|"[^"]*"|[^\s{]+)\s*(.+)""", re.IGNORECASE)
_NOT_UTF8 = "\N{REPLACEMENT CHARACTER}"
_SHOWN = 20  # characters of a cell that a message quotes


@dataclass(frozen=True)
class Split:
    """The series of one file.

    labels: of the `N` series, as text.
    series: float64 `[N, M, W]`, M variables. NaN: missing, or beyond the end of a shorter series.
    lengths: values that each variable of a series has, int64 `[N]`.
    """

    labels: list[str]
    series: NDArray[np.float64]
    lengths: NDArray[np.int64]

    @property
    def has_missing(self) -> bool:
        """There are missing values before the end of a series."""
        inside = np.arange(self.series.shape[2]) < self.lengths[:, None]
        return bool((np.isnan(self.series) & inside[:, None, :]).any())

    def resized(self, width: int) -> "Split":
        """The same with `width` values in a row, which must hold the longest series."""
        if width == self.series.shape[2]:
            return self
        series = np.full((*self.series.shape[:2], width), math.nan)
        kept = min(width, self.series.shape[2])
        series[:, :, :kept] = self.series[:, :, :kept]
        return Split(self.labels, series, self.lengths)


def parse(content: bytes, form: Format, source: str) -> Split:
    """The series in the bytes of a file, which `source` names in messages.

    In all formats but `ts`, rows have the same width, and missing values at the end of a row, in all of its
    variables, are the end of a shorter series.

    Raises:
        UserError: names row (as an editor counts lines) and column (cells before it, and one) of what is wrong.
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
    """What a file says about its series; None where it says nothing."""

    classes: tuple[str, ...] | None = None
    num_variables: int | None = None
    equal_length: bool = False
    length: int | None = None


class _Row(NamedTuple):
    """The text of a row: its label, the cells of each variable, and the column of the first of them."""

    label: str
    variables: list[list[str]]
    first_column: int = 1


class _Lines:
    """The lines of a text, one after the other; knows the number of the last."""

    def __init__(self, content: bytes, source: str) -> None:
        self._lines = io.BytesIO(content.removeprefix(BYTE_ORDER_MARK))
        self._source = source
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        """Those that are not blank. Comments come in any encoding."""
        for line in self._lines:
            self.number += 1
            if not line.isspace():
                yield line.decode(errors="replace").rstrip("\r\n")

    def fail(self, problem: str, column: int | None = None) -> NoReturn:
        """Raise the `UserError` that says what is wrong with the last line."""
        place = f", row {self.number}" if self.number else ""
        place += "" if column is None else f", column {column}"
        raise UserError(f"{self._source}{place} {problem}.")

    def fail_whole(self, problem: str) -> NoReturn:
        """Raise the `UserError` that says what is wrong with the file."""
        raise UserError(f"{self._source} {problem}.")


def _collect(lines: _Lines, header: _Header, rows: Iterator[_Row]) -> Split:
    """All rows, each checked against the header and the first row."""
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
        lines.fail(f"has variables of different lengths ({counts}); all variables of a series must have one length")
    column = row.first_column
    values = []
    for cells in row.variables:
        values.append(_parse_cells(lines, cells, column))
        column += len(cells)
    case: NDArray[np.float64] = np.array(values)
    infinite = np.flatnonzero(np.isinf(case))
    if len(infinite):
        lines.fail("holds an infinite value, or one too large for a number", row.first_column + int(infinite[0]))
    if np.isnan(case).all():
        lines.fail("has no values, only missing ones")
    return case


def _parse_cells(lines: _Lines, cells: list[str], first_column: int) -> list[float]:
    if "_" not in "".join(cells):  # Python takes 1_000 for a number
        try:
            return list(map(float, cells))
        except ValueError:
            pass  # a missing value, or something that is wrong
    values = []
    for column, cell in enumerate(cells, first_column):
        try:
            values.append(math.nan if cell.strip() in _MISSING else float(cell.replace("_", "?")))
        except ValueError:
            lines.fail(f"holds {_shown(cell)}, which is not a number", column)
    return values


def _check_shape(lines: _Lines, header: _Header, found: tuple[int, ...], first: tuple[int, ...] | None) -> None:
    """Of a row `[M, T]`, whose number of variables is always the same, and its length where the header says so."""
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
        lines.fail("has a label that is not UTF-8 text")
    if classes is not None and label not in classes:
        known = ", ".join(classes[:_SHOWN]) + (", …" if len(classes) > _SHOWN else "")
        lines.fail(f"has the label {_shown(label)}, which the header does not declare ({known})")
    return label


def _normalise(label: str) -> str:
    """A label as it is written; but `1.0000000e+00` is the integer 1."""
    label = label.strip()
    if _DECIMAL.fullmatch(label) and not _INTEGER.fullmatch(label):
        number = float(label)
        if number.is_integer() and abs(number) < 2**53:
            return str(int(number))
    return label


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")


def _lengths_without_padding(series: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many steps of each series of `[N, M, W]` there are up to the last that has a value, int64 `[N]`."""
    at_end: NDArray[np.int64] = np.isnan(series[:, :, ::-1]).all(axis=1).argmin(axis=1)
    lengths: NDArray[np.int64] = series.shape[2] - at_end
    return lengths


# Label first


def _delimited_rows(lines: _Lines, separator: str | None) -> Iterator[_Row]:
    for line in lines:
        label, *cells = line.split(separator)
        if not cells:
            lines.fail(f"has a label only ({_shown(label)}), or other separators than the format")
        yield _Row(label, [cells], first_column=2)


# .ts


def _read_ts_header(lines: _Lines) -> _Header:
    """What stands before `@data`; lines that do not start with @ are comments there."""
    found: dict[str, list[str]] = {}
    for line in lines:
        key, *values = line.split()
        if key.lower() == "@data":
            break
        if key.startswith("@"):
            found[key.lower()] = values
    else:
        lines.fail_whole("has no line @data")
    if _is_true(found, "@timestamps"):
        lines.fail_whole("has time stamps (@timeStamps true), which are not supported")
    classes = tuple(map(_normalise, found.get("@classlabel", [])[1:]))
    if not classes:
        lines.fail_whole("declares no classes (@classLabel true …)")
    univariate = _is_true(found, "@univariate")
    return _Header(
        classes=classes,
        num_variables=_number_of(lines, found, "@dimensions") or (1 if univariate else None),
        equal_length=_is_true(found, "@equallength"),
        length=_number_of(lines, found, "@serieslength"),
    )


def _is_true(found: dict[str, list[str]], key: str) -> bool:
    return [value.lower() for value in found.get(key, [])[:1]] == ["true"]


def _number_of(lines: _Lines, found: dict[str, list[str]], key: str) -> int | None:
    """None if it is not there, or 0, which some files have for different lengths."""
    values = found.get(key)
    if values is None:
        return None
    if len(values) != 1 or not values[0].isdecimal():
        lines.fail_whole(f"has {key} {' '.join(values)} in its header; a whole number must be there")
    return int(values[0]) or None


def _ts_rows(lines: _Lines) -> Iterator[_Row]:
    for line in lines:
        *variables, label = line.split(":")
        if not variables:
            lines.fail("has no label after a colon")
        yield _Row(label, [cells.split(",") for cells in variables])


# .arff


def _read_arff_header(lines: _Lines) -> tuple[_Header, bool]:
    """What stands before `@data`, and whether the series is in one relational attribute."""
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
            lines.fail(f"declares an attribute of the type {_shown(attribute[1])}, which no series has")
    else:
        lines.fail_whole("has no line @data")
    if classes is None or not width:
        lines.fail_whole("declares no numeric attributes and a class {…} after them")
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
                lines.fail("does not start with one quoted text, in which the series must be")
            yield _Row(_unquoted(label.strip(" ,\t")), [cells.split(",") for cells in values.split("\\n")])
        else:
            values, _, label = text.rpartition(",")
            yield _Row(_unquoted(label), [values.split(",")])


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
