"""Bytes to arrays and back. The one CSV parser, for training files and for requests."""

import contextlib
import csv
import gzip
import io
import re
import threading
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple, NoReturn, cast

import numpy as np
import simdjson
from numpy.typing import NDArray

from lstm_fcn.container.errors import UserError
from lstm_fcn.container.preprocess import STRICT, Fault, Preprocessing

# What one cell of a series may hold, around it white space only. Words such as nan and inf are not numbers here.
_NUMBER = re.compile(r"\s*[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?\s*")
# A missing value, where they are allowed; as a whole cell between commas.
_MISSING = re.compile(r"(?:(?<=,)|^)\s*(?:(?:nan|na|n/a|null|none)\s*)?(?=,|$)", re.IGNORECASE)

# The column of a variable's value at a time step, as a header names it; no step has more digits.
_OF_VARIABLE = re.compile(r"[xX]_(.+)_([0-9]{1,18})")

# Bytes parsed at once: small enough to stay in the cache, and other threads wait meanwhile, such as those that
# answer health checks (S3).
BLOCK_BYTES = 512 * 1024
LONGEST_LINE = 256 * 1024 * 1024

_of_thread = threading.local()
csv.field_size_limit(LONGEST_LINE)


@dataclass(frozen=True)
class Columns:
    """The columns that a header names, in order: targets start with `y`, values of the series with `x`.

    Names of the form `x_<variable>_<step>` with several variables tell series of so many variables; all columns of the
    first one come first, in the order of their steps. Without a header both are empty: a label comes first, then the
    values.
    """

    targets: tuple[str, ...] = ()
    series: tuple[str, ...] = ()
    variables: int = 1


HEADERLESS = Columns()
GZIP = b"\x1f\x8b"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
NOT_TEXT = "is not UTF-8 text (a compressed or binary file?)"


class Block(NamedTuple):
    """Some rows of a file.

    rows: their numbers, as an editor counts lines.
    labels: the first column, exactly as written; empty if there is a header.
    targets: the columns `y…`, float64 `[n, L]` of 0 and 1; `[n, 0]` without a header.
    series: float64 `[n, M, W]`. NaN, where it is allowed: missing, or beyond the end of a shorter series.
    """

    rows: Sequence[int]
    labels: list[str]
    targets: NDArray[np.float64]
    series: NDArray[np.float64]


class SeriesReader:
    """The rows of one CSV text (T28, T29).

    A byte order mark, CRLF, a missing last newline, blank lines and quoted cells are understood. A header may
    come again further down, as where files are put one behind the other (T38).

    Iterating raises `UserError` that names source, row and column of the first cell that is wrong.
    """

    def __init__(
        self,
        stream: BinaryIO,
        source: str,
        *,
        labelled: bool = True,
        columns: Columns | None = None,
        preprocessing: Preprocessing = STRICT,
        length: int | None = None,
        variables: int | None = None,
        block_bytes: int | None = None,
    ) -> None:
        """Read UTF-8 text from `stream`.

        Args:
            stream: read to its end.
            source: its name, for messages.
            labelled: rows have a label or targets beside their values.
            columns: what the rows must be; None: the first row tells.
            preprocessing: whether values may be missing, and rows be shorter than others.
            length: time steps that the model takes; None: the first row tells.
            variables: of each series; None: what the header tells, or one.
            block_bytes: of the text that is worked on at once, by default `BLOCK_BYTES`.
        """
        self.source = source
        self.columns = columns
        self._stream = stream
        self._labelled = labelled
        self._rules = preprocessing
        self._length = length
        self._wanted_variables = variables
        self.variables = variables or 1
        self._first: tuple[int, int] | None = None  # row and width of the first row
        self.header: str | None = None  # the line, once it was read
        self._order: tuple[list[int], list[int]] = ([], [])  # where targets and values stand in a row
        self._block_bytes = block_bytes or BLOCK_BYTES

    def __iter__(self) -> Iterator[Block]:
        for number, text, plain in self.parse_plain_blocks(self._read_texts()):
            parsed = self._take(number, plain) or self._parse_lines(number, text)
            if parsed is not None:
                yield parsed

    def parse_plain_blocks(self, texts: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes, "Plain | None"]]:
        """Each block of text with its number and with what `parse_plain` makes of it."""
        for number, text in texts:
            yield number, text, parse_plain(text, self.has_label)

    @property
    def has_label(self) -> bool:
        """Rows start with a label; known once the first block was read."""
        return self._labelled and self.header is None

    def fail(self, row: int, problem: str, column: int | None = None) -> NoReturn:
        """Raise the `UserError` that says what is wrong there."""
        place = f"row {row}" if column is None else f"row {row}, column {column}"
        raise UserError(f"{self.source}, {place} {problem}.")

    # The header

    def _read_texts(self) -> Iterator[tuple[int, bytes]]:
        """Blocks of whole lines after the header, each with the number of its first row."""
        for number, text in _read_blocks(self._stream, self.source, self._block_bytes):
            if self.header is None and self.columns != HEADERLESS:
                number, text = self._start(number, text)
            yield number, text

    def _start(self, number: int, text: bytes) -> tuple[int, bytes]:
        """Take the header off the first block, if there is one or must be one."""
        while text:
            first, _, rest = text.partition(b"\n")
            if not _is_blank(line := self._decode(number, first)):
                break
            number, text = number + 1, rest
        else:
            return number, text
        cells = [cell.strip() for cell in (self._unquote(number, line) if '"' in line else line.split(","))]
        if not _is_header(cells[1:] if self._labelled and self.columns is None else cells):
            if self.columns is not None:
                names = ",".join(self._wanted(self.columns)[:3])
                self.fail(number, f"must be the header ({names},...), as in the data that the model is trained on")
            self.columns = HEADERLESS
            return number, text
        self._read_header(number, cells)
        self.header = line
        return number + 1, rest

    def _read_header(self, number: int, cells: list[str]) -> None:
        names = Columns(
            tuple(cell for cell in cells if cell.startswith(("y", "Y"))),
            tuple(cell for cell in cells if cell.startswith(("x", "X"))),
        )
        found: dict[str, None] = {}  # in the order of the header; quick to look up, however many there are
        for column, cell in enumerate(cells, 1):
            if not cell:
                self.fail(number, "has no name; every column of a header needs one, with x or y first", column)
            if cell[0] not in "xXyY":
                self._fail_at_header(number, cells, column)
            if cell in found:
                self.fail(number, f"names {_shorten(cell)} twice", column)
            found[cell] = None
        if self._labelled and not (names.targets and names.series):
            kind = "targets, whose names start with y" if names.series else "values, whose names start with x"
            self.fail(number, f"is a header without columns of {kind}")
        wanted = self.columns or self._order_by_variable(number, names)
        expected = dict.fromkeys(self._wanted(wanted))
        if expected.keys() != found.keys():
            surplus, lacking = [n for n in found if n not in expected], [n for n in expected if n not in found]
            problem = f"has column {_shorten(surplus[0])}" if surplus else f"lacks column {_shorten(lacking[0])}"
            self.fail(number, f"{problem}; its header must name {_list(list(expected))}")
        self.columns = wanted
        self.variables = wanted.variables
        if self._wanted_variables not in (None, self.variables):
            advice = "name them x_<variable>_<step>" if self.variables == 1 else "the header is enough, leave it out"
            self.fail(
                number,
                f"names columns of {_count(self.variables, 'variable')}, but num-variables is "
                f"{self._wanted_variables}; {advice}",
            )
        places = {name: place for place, name in enumerate(cells)}
        targets = wanted.targets if self._labelled else ()
        self._order = [places[name] for name in targets], [places[name] for name in wanted.series]

    def _order_by_variable(self, number: int, names: Columns) -> Columns:
        """The columns variable by variable, if their names tell several variables."""
        matches = [_OF_VARIABLE.fullmatch(name) for name in names.series]
        steps: dict[str, dict[int, str]] = {}
        for match in matches:
            if match is None:
                return names
            steps.setdefault(match[1], {})[int(match[2])] = match[0]
        first, *others = steps
        if not others:
            return names
        for other in others:
            if steps[other].keys() != steps[first].keys():
                self.fail(number, f"names other time steps for variable {_shorten(other)} than for {_shorten(first)}")
        ordered = [columns[step] for columns in steps.values() for step in sorted(columns)]
        for name in sorted(set(names.series) - set(ordered))[:1]:
            self.fail(number, f"names {_shorten(name)} twice, in two spellings")
        return Columns(names.targets, tuple(ordered), len(steps))

    def _wanted(self, columns: Columns) -> list[str]:
        return [*(columns.targets if self._labelled else ()), *columns.series]

    def _fail_at_header(self, number: int, cells: list[str], column: int) -> NoReturn:
        rule = "the columns of a header must start with y (targets) or x (values)"
        other = "files without such names have no header, so remove that row"
        if any(cell.startswith(("x", "X", "y", "Y")) for cell in cells[1:]):
            self.fail(number, f"names {_shorten(cells[column - 1])}; {rule}, and {other}", column)
        shown = _shorten(",".join(cells[1:] if self._labelled else cells))
        self.fail(number, f"looks like a header ({shown}); {rule}, and {other}")

    # Rows, the usual way: whole blocks at once

    def _take(self, number: int, plain: "Plain | None") -> Block | None:
        """The block that starts with row `number`, if its text was plain and its rows are as wide as they must be."""
        if plain is None or not self._fits(number, plain.values.shape[1]):
            return None
        return self._split(range(number, number + len(plain.values)), plain.labels, plain.values)

    def _fits(self, number: int, width: int) -> bool:
        """Rows of this width are as the first one, or as the model takes them."""
        if self.header is not None:
            return width == sum(map(len, self._order))
        if width % self.variables:
            return False
        self._first = self._first or (number, width)
        model = self._length and self._length * self.variables
        if self._rules.any_length:
            return self._rules.length_policy == "resample" or model is None or width <= model
        return width == (model or self._first[1])

    # Rows, the careful way: line by line

    def _parse_lines(self, number: int, text: bytes) -> Block | None:
        """The block, if it holds anything; raises `UserError` at the first cell that is wrong."""
        rows, labels, values, lines = [], [], [], []
        for row, raw in enumerate(text.split(b"\n"), number):
            line = self._decode(row, raw)
            if _is_blank(line) or line == self.header:
                continue
            label, cells = self._split_line(row, line)
            rows.append(row)
            labels.append(label)
            values.append(cells)
            lines.append(line)
        if not rows:
            return None
        for row, line, cells in zip(rows, lines, values, strict=True):
            self._check_width(row, line, cells.count(",") + 1)
        if self.columns is None or self.columns == HEADERLESS:
            self._refuse_header(rows[0], values[0])
        first_column = 2 if self.has_label else 1
        matrix = self._to_matrix(rows, values, first_column)
        return self._split(rows, labels if self.has_label else [], matrix)

    def _split_line(self, row: int, line: str) -> tuple[str, str]:
        """A line's label, if it has one, and its values, joined by commas as they stand in the file."""
        if '"' in line:
            cells = self._unquote(row, line)
            if not self.has_label:
                return "", self._join(row, cells, first_column=1)
            label, cells = cells[0], cells[1:]
            comma, rest = bool(cells), self._join(row, cells, first_column=2)
        elif self.has_label:
            label, separator, rest = line.partition(",")
            comma = bool(separator)
        else:
            return "", line
        if not comma:
            self.fail(row, f"has a label and no values{_wrong_separator(line)}")
        if not label.strip():
            self.fail(row, "has no label: its first column is empty", column=1)
        return label, rest

    def _check_width(self, row: int, line: str, width: int) -> None:
        if self._fits(row, width):
            return
        if self.header is not None:
            columns = sum(map(len, self._order))
            self.fail(row, f"has {_count(width, 'cell')}, but the header names {_count(columns, 'column')}")
        if self.variables > 1 and (self._length is None or self._rules.any_length) and width % self.variables:
            self.fail(
                row,
                f"has {_values(width)}, which cannot be divided among {self.variables} variables (num-variables): a "
                "row holds all values of the first variable, then those of the next",
            )
        if self._length is None:
            first, expected = self._first or (row, width)
            self.fail(
                row,
                f"has {_values(width)}, but row {first} has {_values(expected)}; all series must be of one length. "
                "The hyperparameter length-policy (pad or resample) takes series of different length",
            )
        advice = ""
        if width == 1:
            advice = _wrong_separator(line)
        elif width == self._length * self.variables + 1 and not self._labelled:
            advice = "; send the values only, without a label"
        self.fail(row, f"has {_values(width)}, but the model takes {self._taken()}{advice}")

    def _taken(self) -> str:
        return describe_length(self._length or 0, self.variables, self._rules)

    def _refuse_header(self, row: int, first: str) -> None:
        if _is_header(first.split(",")):
            self.fail(row, f"looks like a header ({_shorten(first)}); files have no header here, so remove that row")

    def _to_matrix(self, rows: list[int], values: list[str], first_column: int) -> NDArray[np.float64]:
        """Float64 `[n, W]`, W the width of the widest row; NaN where a value is missing."""
        cells = values
        if self._rules.reads_missing:
            cells = [_MISSING.sub("nan", line) for line in values]
            widest = max(line.count(",") + 1 for line in cells) // self.variables
            cells = [self._fill_up(line, widest) for line in cells]
        try:
            if not all(map(str.strip, cells)):  # a series of one empty cell, which loadtxt would pass over
                self._fail_at_bad_cell(rows, values, first_column)
            matrix = np.loadtxt(cells, delimiter=",", comments=None, ndmin=2, dtype=np.float64)
        except ValueError:
            self._fail_at_bad_cell(rows, values, first_column)
        missing = np.isnan(matrix)
        if np.isinf(matrix).any() or (missing.any() and not self._rules.reads_missing):
            self._fail_at_bad_cell(rows, values, first_column)
        return matrix

    def _fill_up(self, line: str, widest: int) -> str:
        """A row's values with each variable filled up to the length of the widest series."""
        missing = widest - (line.count(",") + 1) // self.variables
        if self.header is not None or missing == 0:
            return line
        if self.variables == 1:
            return line + ",nan" * missing
        cells = line.split(",")
        length = len(cells) // self.variables
        filled = [",".join(cells[k : k + length]) + ",nan" * missing for k in range(0, len(cells), length)]
        return ",".join(filled)

    def _fail_at_bad_cell(self, rows: list[int], values: list[str], first_column: int) -> NoReturn:
        for row, line in zip(rows, values, strict=True):
            for column, cell in enumerate(line.split(","), first_column):
                if self._rules.reads_missing and _MISSING.fullmatch(cell):
                    continue
                if not cell.strip():
                    self.fail(row, f"is empty; every value must be a number{self._way_with(cell)}", column)
                if not _NUMBER.fullmatch(cell):
                    self.fail(row, _no_number(cell) + self._way_with(cell), column)
                if not np.isfinite(float(cell.strip())):
                    self.fail(row, f"is {_shorten(cell)}, which is too large for a number", column)
        raise AssertionError("the parser refused a text in which every cell is a number")

    def _way_with(self, cell: str) -> str:
        """How a missing value can be taken, as long as no model says that it cannot."""
        if self._length is not None or not _MISSING.fullmatch(cell):
            return ""
        return ". The hyperparameter missing-values (interpolate) fills in values that are missing"

    # Both ways

    def _split(self, rows: Sequence[int], labels: list[str], matrix: NDArray[np.float64]) -> Block:
        """Targets and values apart, in the order of `columns`; checked."""
        if self.header is None:
            targets, series = matrix[:, :0], matrix
        else:
            targets, series = (_pick(matrix, order) for order in self._order)
            wrong = (targets != 0) & (targets != 1)
            if wrong.any():
                row, target = np.argwhere(wrong)[0]
                text = _missing_or_number(float(targets[row, target]))
                self.fail(rows[row], f"is {text}; targets must be 0 or 1", self._order[0][target] + 1)
        series = series.reshape(len(series), self.variables, -1)
        fault = self._rules.find_fault(series) if self._rules.reads_missing else None
        if fault is not None:
            self._fail_at_fault(rows[fault.row], fault, series)
        return Block(rows, labels, targets, series)

    def _fail_at_fault(self, row: int, fault: Fault, series: NDArray[np.float64]) -> NoReturn:
        column: int | None = None
        if fault.step is not None and self.header is not None:
            column = self._order[1][fault.variable * series.shape[2] + fault.step] + 1
        elif fault.step is not None and self.variables == 1:
            column = fault.step + 1 + self.has_label
        elif fault.step is not None:
            # A shorter series stands in fewer columns than it has here: what is told holds in any case.
            self.fail(row, f"lacks value {fault.step + 1} of variable {fault.variable + 1}: it {fault.problem}")
        self.fail(row, fault.problem, column)

    def _decode(self, row: int, raw: bytes) -> str:
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            self.fail(row, NOT_TEXT)

    def _unquote(self, row: int, line: str) -> list[str]:
        """The cells of a line in which some may be quoted."""
        try:
            return next(csv.reader([line], strict=True))
        except csv.Error:
            self.fail(row, "has quotes that do not match")

    def _join(self, row: int, cells: list[str], first_column: int) -> str:
        """Unquoted values as they would stand in a line without quotes; `"1,000"` is no number."""
        for column, cell in enumerate(cells, first_column):
            if "," in cell:
                self.fail(row, _no_number(cell), column)
        return ",".join(cells)


class Plain(NamedTuple):
    """What `parse_plain` found: the labels, if there are any, and float64 `[n, W]`."""

    labels: list[str]
    values: NDArray[np.float64]


def parse_plain(text: bytes, labelled: bool) -> Plain | None:
    """Lines that are plain: as many cells in each, numbers as JSON writes them, after a label if `labelled`.

    Nothing if they are not, be they wrong or only unusual; `SeriesReader` then reads them with more care. The lines
    end with newlines, the last one perhaps without.
    """
    # JSON would take a nested array for its numbers.
    if not text or b'"' in text or b"[" in text:
        return None
    text = text.removesuffix(b"\n") + b"\n"
    # The text becomes one JSON array: newlines become commas, labels blanks.
    characters = np.frombuffer(bytearray(text), dtype=np.uint8)
    separators = _find_separators(characters)
    if separators is None:
        return None
    labels = _take_labels(text, characters, separators) if labelled else []
    if labels is None:
        return None
    characters[separators[:-1, -1]] = ord(",")
    values = _parse_json(b"[" + characters.tobytes() + b"]")
    width = separators.shape[1] - labelled
    if values is None or len(values) != len(separators) * width:
        return None
    return Plain(labels, values.reshape(-1, width))


@contextlib.contextmanager
def unpacked(stream: "io.BufferedReader[Any]", name: str) -> Iterator[BinaryIO]:
    """What a stream, called `name` in messages, holds: unpacked if it is in gzip's format (T31).

    Raises:
        UserError: it breaks off or is damaged, now or while it is read.
    """
    try:
        if stream.peek(2)[:2] != GZIP:
            yield stream
            return
        with gzip.GzipFile(fileobj=stream) as packed:
            yield cast(BinaryIO, packed)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{name} is not a whole gzip file: {error}.") from error


def read_series(
    data: bytes,
    source: str,
    length: int,
    columns: Columns = HEADERLESS,
    preprocessing: Preprocessing = STRICT,
    variables: int = 1,
) -> NDArray[np.float64]:
    """Parse the CSV of a request, one series a row without a label, to complete series, float64 `[N, M, length]`.

    With `columns`, the first row must be a header that names its series columns, in any order. N is 0 if there is
    nothing but white space. Raises `UserError` as `SeriesReader` does.
    """
    reader = SeriesReader(
        io.BytesIO(data),
        source,
        labelled=False,
        columns=columns,
        preprocessing=preprocessing,
        length=length,
        variables=variables,
    )
    try:
        data.decode("utf-8")  # of all there is to say about binary data, this comes first
    except UnicodeDecodeError as error:
        reader.fail(data.count(b"\n", 0, error.start) + 1, NOT_TEXT)
    blocks = [preprocessing.apply(block.series, length) for block in reader]
    if not blocks:
        return np.empty((0, variables, length))
    return np.concatenate(blocks)


def describe_length(length: int, variables: int, rules: Preprocessing) -> str:
    """What a model takes, in words: `series of 3 variables with up to 24 values each`."""
    upto = "up to " if rules.any_length else ""
    if variables > 1:
        return f"series of {variables} variables with {upto}{_values(length)} each"
    return f"series of {upto}{_values(length)}"


def _read_blocks(stream: BinaryIO, source: str, block_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Whole lines, ended by newlines only, with the number of the first of them."""
    number, carry = 1, b""
    while chunk := stream.read(block_bytes):
        if number == 1 and not carry:
            chunk = chunk.removeprefix(BYTE_ORDER_MARK)
        whole, newline, rest = chunk.rpartition(b"\n")
        if not newline:
            carry += chunk
            if len(carry) > LONGEST_LINE:
                raise UserError(f"{source}, row {number} is longer than {LONGEST_LINE >> 20} MiB; is it CSV text?")
            continue
        block, carry = _unify_newlines(carry + whole + newline), rest
        yield number, block
        number += int(np.count_nonzero(np.frombuffer(block, dtype=np.uint8) == ord("\n")))
    if carry:
        yield number, _unify_newlines(carry)


def _parse_json(json: bytes) -> NDArray[np.float64] | None:
    if not hasattr(_of_thread, "parser"):
        _of_thread.parser = simdjson.Parser()  # keeps its memory from one text to the next
    try:
        array = cast(simdjson.Array, _of_thread.parser.parse(json))
        return np.frombuffer(array.as_buffer(of_type="d"))
    except (ValueError, TypeError, RuntimeError):
        return None


def _find_separators(characters: NDArray[np.uint8]) -> NDArray[np.int64] | None:
    """Where each line's commas are and, last, its newline: `[n, C + 1]`; None if lines differ in their commas."""
    newlines = characters == ord("\n")
    count = int(np.count_nonzero(newlines))
    separators = np.flatnonzero(newlines | (characters == ord(",")))
    per_line, rest = divmod(len(separators), count)
    if rest:
        return None
    found = separators.reshape(count, per_line)
    # As many newlines as there are, each at the end of a line: all others are commas.
    return found if newlines[found[:, -1]].all() else None


def _take_labels(text: bytes, characters: NDArray[np.uint8], separators: NDArray[np.int64]) -> list[str] | None:
    """Each line's first cell, which is blanked out; None if one of them is empty or no text."""
    if separators.shape[1] < 2:
        return None
    first = separators[:, 0]
    starts = np.concatenate(([0], separators[:-1, -1] + 1))
    places = zip(starts.tolist(), first.tolist(), strict=True)
    try:
        if text.isascii():
            ascii_text = text.decode("ascii")
            labels = [ascii_text[start:end] for start, end in places]
        else:
            labels = [text[start:end].decode() for start, end in places]
    except UnicodeDecodeError:
        return None
    if not all(map(str.strip, labels)):
        return None
    for offset in range(int((first - starts).max()) + 1):
        place = starts + offset
        characters[place[place <= first]] = ord(" ")
    return labels


def _unify_newlines(text: bytes) -> bytes:
    if b"\r" not in text:
        return text
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _is_header(cells: Sequence[str]) -> bool:
    """None of the cells is a number or stands for a missing one."""
    return len(cells) > 0 and not any(_NUMBER.fullmatch(cell) or _MISSING.fullmatch(cell) for cell in cells)


def _is_blank(line: str) -> bool:
    return not line.strip(" \t\v\f")


def _pick(matrix: NDArray[np.float64], columns: list[int]) -> NDArray[np.float64]:
    """These columns, a row's values side by side in memory; without a copy where they are so already."""
    first = columns[0] if columns else 0
    if columns == list(range(first, first + len(columns))):
        return matrix[:, first : first + len(columns)]
    return matrix.take(columns, axis=1)


def _missing_or_number(value: float) -> str:
    return "missing" if np.isnan(value) else f"{value:g}"


def _no_number(cell: str) -> str:
    return f"is {_shorten(cell)}; every value must be a finite number"


def _wrong_separator(line: str) -> str:
    for separator, name in ((";", "semicolons"), ("\t", "tabs"), (" ", "spaces")):
        if separator in line.strip():
            return f"; its cells seem to be separated by {name}, where commas should be"
    return ""


def _values(count: int) -> str:
    return _count(count, "value")


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _list(names: Sequence[str], limit: int = 4) -> str:
    return ", ".join(names) if len(names) <= limit else f"{', '.join(names[: limit - 1])}, ... {names[-1]}"


def _shorten(text: str, limit: int = 40) -> str:
    return repr(text if len(text) <= limit else text[:limit] + "...")
