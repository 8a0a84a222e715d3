"""The one CSV parser, for training files and for requests."""

import csv
import io
from collections.abc import Iterator, Sequence
from functools import partial
from typing import BinaryIO, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from lstm_fcn.container import csv_blocks
from lstm_fcn.container.csv_blocks import LONGEST_LINE, Plain, parse_plain, read_blocks
from lstm_fcn.container.csv_cells import are_names, find_bad_cell, not_a_number, parse_cells
from lstm_fcn.container.csv_header import HEADERLESS, Columns, Header, read_header
from lstm_fcn.container.errors import UserError, plural, shorten
from lstm_fcn.container.preprocess import STRICT, Fault, Preprocessing

ONE_LENGTH = "all series must have the same length. Set length-policy=pad or resample to allow different lengths"
NOT_TEXT = "is not UTF-8 text (a compressed or binary file?)"

csv.field_size_limit(LONGEST_LINE)


class Block(NamedTuple):
    """Some rows of a file.

    rows: line numbers, from 1.
    labels: the first column, exactly as written; empty if there is a header.
    targets: the columns `y...`, float64 `[n, L]` of 0 and 1; `[n, 0]` without a header.
    series: float64 `[n, M, W]`, with NaN for missing values and beyond the end of a shorter series.
    """

    rows: Sequence[int]
    labels: list[str]
    targets: NDArray[np.float64]
    series: NDArray[np.float64]


class SeriesReader:
    """Iterates over the rows of one CSV text in blocks (T28, T29).

    A byte order mark, CRLF, a missing last newline, blank lines and quoted cells are accepted. The header may be
    repeated further down, as in concatenated files (T38).

    Blocks of plain text are parsed at once (`parse_plain`). All other blocks are parsed line by line, which also
    finds the first invalid cell: iterating raises a `UserError` with its source, row and column.
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
            labelled: rows hold a label or targets beside their values.
            columns: expected columns; None: determined by the first row.
            preprocessing: whether values may be missing, and series may differ in length.
            length: time steps that the model takes; None: determined by the first row.
            variables: of each series; None: determined by the header, else 1.
            block_bytes: text parsed at once; by default `BLOCK_BYTES`.
        """
        self.source = source
        self.columns = columns
        self.variables = variables or 1
        self.header: Header | None = None  # once it has been read
        self._stream = stream
        self._labelled = labelled
        self._rules = preprocessing
        self._length = length
        self._num_variables = variables
        self._first: tuple[int, int] | None = None  # number and width of the first row
        self._block_bytes = block_bytes or csv_blocks.BLOCK_BYTES

    def __iter__(self) -> Iterator[Block]:
        for number, text, plain in self.parse_plain_blocks(self._read_texts()):
            if plain is not None and self._fits(number, plain.values.shape[1]):
                yield self._split(range(number, number + len(plain.values)), plain.labels, plain.values)
            elif (parsed := self._parse_lines(number, text)) is not None:
                yield parsed

    def parse_plain_blocks(self, texts: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes, Plain | None]]:
        """Each block of text with its first line number and the result of `parse_plain`."""
        for number, text in texts:
            yield number, text, parse_plain(text, self.has_label)

    @property
    def has_label(self) -> bool:
        """Whether rows start with a label; known once the first block has been read."""
        return self._labelled and self.header is None

    def fail(self, row: int, problem: str, column: int | None = None) -> NoReturn:
        """Raise a `UserError` about a row, or about one of its columns, counted from 1."""
        place = f"row {row}" if column is None else f"row {row}, column {column}"
        raise UserError(f"{self.source}, {place} {problem}.")

    # Header

    def _read_texts(self) -> Iterator[tuple[int, bytes]]:
        """Blocks of whole lines below the header, each with the number of its first line."""
        for number, text in read_blocks(self._stream, self.source, self._block_bytes):
            if self.header is None and self.columns != HEADERLESS:
                number, text = self._take_header(number, text)
            yield number, text

    def _take_header(self, number: int, text: bytes) -> tuple[int, bytes]:
        """Read the header at the start of the first block, if there is one, and return the rest of the block."""
        while text:
            first, _, rest = text.partition(b"\n")
            if not _is_blank(line := self._decode(number, first)):
                break
            number, text = number + 1, rest
        else:
            return number, text
        cells = [cell.strip() for cell in (self._unquote(number, line) if '"' in line else line.split(","))]
        if are_names(cells[1:] if self._labelled and self.columns is None else cells):
            fail = partial(self.fail, number)
            self.header = read_header(line, cells, self.columns, self._labelled, self._num_variables, fail)
            self.columns, self.variables = self.header.columns, self.header.columns.variables
            return number + 1, rest
        if self.columns is not None:
            names = [*(self.columns.targets if self._labelled else ()), *self.columns.series]
            self.fail(number, f"must be the header ({','.join(names[:3])},...), as in the training data of the model")
        self.columns = HEADERLESS
        return number, text

    # Rows

    def _fits(self, number: int, width: int) -> bool:
        """Whether rows of this width are like the first one, or as the model takes them."""
        if self.header is not None:
            return width == self.header.width
        if width % self.variables:
            return False
        self._first = self._first or (number, width)
        model = self._length and self._length * self.variables
        if self._rules.any_length:
            return self._rules.length_policy == "resample" or model is None or width <= model
        return width == (model or self._first[1])

    def _parse_lines(self, number: int, text: bytes) -> Block | None:
        """Parse a block line by line; None if it holds no rows."""
        rows, labels, values, lines = [], [], [], []
        for row, raw in enumerate(text.split(b"\n"), number):
            line = self._decode(row, raw)
            if _is_blank(line) or (self.header is not None and line == self.header.line):
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
        if self.header is None and are_names(values[0].split(",")):
            self.fail(rows[0], f"looks like a header ({shorten(values[0])}), but the data has none; remove this row")
        matrix = parse_cells(values, self._rules, self.variables, fill=self.header is None)
        if matrix is None:
            index, column, problem = find_bad_cell(values, self._rules, advise=self._length is None)
            self.fail(rows[index], problem, column + 1 + self.has_label)
        return self._split(rows, labels if self.has_label else [], matrix)

    def _split_line(self, row: int, line: str) -> tuple[str, str]:
        """A line's label, if it has one, and its values without quotes, separated by commas."""
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
        has = f"has {plural(width, 'value')}"
        if self.header is not None:
            named = plural(self.header.width, "column")
            self.fail(row, f"has {plural(width, 'cell')}, but the header names {named}")
        if self.variables > 1 and (self._length is None or self._rules.any_length) and width % self.variables:
            self.fail(
                row,
                f"{has}, which cannot be divided among {self.variables} variables (num-variables); a row must hold all "
                "values of the first variable, then all values of the next",
            )
        if self._length is None:
            first, expected = self._first or (row, width)
            self.fail(
                row,
                f"{has}, but row {first} has {plural(expected, 'value')}; {ONE_LENGTH}",
            )
        advice = ""
        if width == 1:
            advice = _wrong_separator(line)
        elif width == self._length * self.variables + 1 and not self._labelled:
            advice = "; send the values only, without a label"
        taken = describe_length(self._length, self.variables, self._rules)
        self.fail(row, f"{has}, but the model takes {taken}{advice}")

    def _split(self, rows: Sequence[int], labels: list[str], matrix: NDArray[np.float64]) -> Block:
        """Separate targets and values, in the order of `columns`, and check both."""
        if self.header is None:
            targets, series = matrix[:, :0], matrix
        else:
            targets, series = _pick(matrix, self.header.targets), _pick(matrix, self.header.series)
            wrong = (targets != 0) & (targets != 1)
            if wrong.any():
                row, target = np.argwhere(wrong)[0]
                value = targets[row, target]
                shown = "missing" if np.isnan(value) else f"{value:g}"
                self.fail(rows[row], f"is {shown}; targets must be 0 or 1", self.header.targets[target] + 1)
        series = series.reshape(len(series), self.variables, -1)
        fault = self._rules.find_fault(series) if self._rules.reads_missing else None
        if fault is not None:
            self._fail_at_fault(rows[fault.row], fault, series)
        return Block(rows, labels, targets, series)

    def _fail_at_fault(self, row: int, fault: Fault, series: NDArray[np.float64]) -> NoReturn:
        column: int | None = None
        if fault.step is not None and self.header is not None:
            column = self.header.series[fault.variable * series.shape[2] + fault.step] + 1
        elif fault.step is not None and self.variables == 1:
            column = fault.step + 1 + self.has_label
        elif fault.step is not None:
            # The row may be shorter than the block, so its column is not known here.
            self.fail(row, f"lacks value {fault.step + 1} of variable {fault.variable + 1}: it {fault.problem}")
        self.fail(row, fault.problem, column)

    def _decode(self, row: int, raw: bytes) -> str:
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            self.fail(row, NOT_TEXT)

    def _unquote(self, row: int, line: str) -> list[str]:
        """The cells of a line, some of which are quoted."""
        try:
            return next(csv.reader([line], strict=True))
        except csv.Error:
            self.fail(row, "has quotes that do not match")

    def _join(self, row: int, cells: list[str], first_column: int) -> str:
        """Unquoted values separated by commas; a comma inside of a cell, as in `"1,000"`, is refused."""
        for column, cell in enumerate(cells, first_column):
            if "," in cell:
                self.fail(row, not_a_number(cell), column)
        return ",".join(cells)


def read_series(
    data: bytes,
    source: str,
    length: int,
    columns: Columns = HEADERLESS,
    preprocessing: Preprocessing = STRICT,
    variables: int = 1,
) -> NDArray[np.float64]:
    """Parse the CSV of a request, one series per row without a label.

    With `columns`, the first row must be a header that names its series columns, in any order.

    Returns:
        Complete series, float64 `[N, M, length]`; N is 0 if the request holds only white space.

    Raises:
        UserError: as `SeriesReader`.
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
        data.decode("utf-8")  # for binary data, this is the most useful message
    except UnicodeDecodeError as error:
        reader.fail(data.count(b"\n", 0, error.start) + 1, NOT_TEXT)
    blocks = [preprocessing.apply(block.series, length) for block in reader]
    return np.concatenate(blocks) if blocks else np.empty((0, variables, length))


def describe_length(length: int, variables: int, rules: Preprocessing) -> str:
    """The series that a model takes, in words: `series of 3 variables with up to 24 values each`."""
    values = ("up to " if rules.any_length else "") + plural(length, "value")
    return f"series of {variables} variables with {values} each" if variables > 1 else f"series of {values}"


def _is_blank(line: str) -> bool:
    return not line.strip(" \t\v\f")


def _pick(matrix: NDArray[np.float64], columns: list[int]) -> NDArray[np.float64]:
    """These columns, contiguous in each row; a view if they are adjacent and in order."""
    first = columns[0] if columns else 0
    if columns == list(range(first, first + len(columns))):
        return matrix[:, first : first + len(columns)]
    return matrix.take(columns, axis=1)


def _wrong_separator(line: str) -> str:
    for separator, name in ((";", "semicolons"), ("\t", "tabs"), (" ", "spaces")):
        if separator in line.strip():
            return f"; its cells seem to be separated by {name} instead of commas"
    return ""
