"""Tables with a series in each row: Parquet, and Arrow files (Feather version 2).

Two layouts, beside a column of labels:
- lists: each list column holds one variable of the series; a row's lists may be of any length;
- numbers: each column is a time step, in the order of a CSV row. Names `y...` and `x...` mean what they mean in the
  header of a CSV file (see `csv_header`).
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from lstm_fcn.container.csv_header import HEADERLESS, Columns, read_header
from lstm_fcn.container.csv_reader import ONE_LENGTH, Block, SeriesReader
from lstm_fcn.container.errors import UserError, plural, shorten, suggest
from lstm_fcn.container.preprocess import STRICT, Preprocessing

PARQUET, ARROW = b"PAR1", b"ARRO"  # the first bytes of files
LABEL = "label"  # name of the column of labels; without a column of this name, labels are in the first one
INDEX = "__index_level_"  # what pandas calls an index without a name
BATCH_VALUES = 2**17  # in a block
BUFFER_BYTES = 2**16  # of a column of a Parquet file


def is_table(path: Path) -> bool:
    """Whether a file is a table, by its first bytes."""
    return is_start_of_table(_start(path))


def is_parquet(path: Path) -> bool:
    return _start(path) == PARQUET


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(4)
    except OSError:  # reading it as text says what is wrong
        return b""


def is_start_of_table(content: bytes) -> bool:
    return content[:4] in (PARQUET, ARROW)


def names_targets(names: Sequence[str]) -> bool:
    """Whether columns are named as in the header of a CSV file: targets y..., values x..."""
    return all(name.startswith(("x", "X", "y", "Y")) for name in names)


def label_among(names: Sequence[str]) -> str | None:
    """The column of labels, unless the names are those of targets."""
    return LABEL if LABEL in names else names[0] if names else None


class TableReader(SeriesReader):
    """Iterates over the rows of a table in blocks, as `SeriesReader` does over those of a CSV file.

    Null and NaN are missing values. A label that is no text is read as its text: 1, true, 0.5.

    batch: the rows of the latest block, as in the file.
    """

    def __init__(
        self,
        path: Any,
        source: str,
        *,
        labelled: bool = True,
        columns: Columns | None = None,
        names: Sequence[str] = (),
        preprocessing: Preprocessing = STRICT,
        length: int | None = None,
        variables: int | None = None,
    ) -> None:
        """Read the table `path`.

        Args:
            path: Parquet or Arrow file, or a table in memory.
            source: what messages call it.
            labelled: rows have a label or targets beside their values.
            columns: expected targets and values; None: determined by the names in the table.
            names: expected columns of values, in order; the table may have them in any order, among others. Empty: all
                columns but the label.
            preprocessing: as for `SeriesReader`; so are `length` and `variables`.
            length: of the series.
            variables: of each series.
        """
        super().__init__(
            None,  # type: ignore[arg-type]  # there is no text
            source,
            labelled=labelled,
            columns=columns,
            preprocessing=preprocessing,
            length=length,
            variables=variables,
        )
        self.names = tuple(names)
        self.batch: Any = None
        self._path = path
        self._width = 0  # values of each variable in the latest block

    def __iter__(self) -> Iterator[Block]:
        try:
            import pyarrow
        except ModuleNotFoundError as error:
            advice = "Install it (pip install 'lstm-fcn[tables]'), or give CSV"
            raise UserError(f"{self.source} is a table, and reading it needs the package pyarrow. {advice}.") from error
        row = 1
        try:
            with _open(self._path) as (schema, batches):
                self._take_names(schema)
                for self.batch in batches:
                    if len(self.batch):
                        yield self._read(row)
                        row += len(self.batch)
        except (pyarrow.ArrowException, OSError) as error:
            raise UserError(f"{self.source} cannot be read as a table: {error}.") from error

    def fail(self, row: int, problem: str, column: int | None = None) -> NoReturn:
        """Raise a `UserError` about a row, or about a value in it, counted from 1 in the order of a CSV row."""
        if column is None:
            super().fail(row, problem)
        place = column - 1 - self.has_label
        if self._is_list and place >= 0:
            name, step = self.names[place // self._width], place % self._width
            raise UserError(f"{self.source}, row {row}, column {name}, value {step + 1} {problem}.")
        name = self._label if place < 0 and self._label is not None else self._named[place]
        raise UserError(f"{self.source}, row {row}, column {name} {problem}.")

    # Names

    def _take_names(self, schema: Any) -> None:
        """Find the columns of labels and of values; set `names`, or `header` and `columns`."""
        import pyarrow

        there = [name for name in schema.names if not name.startswith(INDEX)]
        if len(set(there)) < len(there):
            twice = next(name for name in there if there.count(name) > 1)
            self._fail_table(f"has two columns {shorten(twice)}")
        self._label: str | None = None
        wants_header = self.columns not in (None, HEADERLESS)
        if wants_header or (self.columns is None and names_targets(there)):
            expected = self.columns
            cells = there
            if expected is not None:  # other columns may accompany them
                wanted = {*(expected.targets if self._labelled else ()), *expected.series}
                cells = [name for name in there if name in wanted]
            self.header = read_header("", cells, expected, self._labelled, self._num_variables, self._fail_header)
            self.columns, self.variables = self.header.columns, self.header.columns.variables
            self._named, self._is_list = cells, False
        else:
            self.columns = HEADERLESS
            if self._labelled:
                self._label = label_among(there)
            others = [name for name in there if name != (self._label or LABEL)]
            self._named = self._find(others) if self.names else others
            if not self._named:
                self._fail_table("has no columns of values")
            self.names = tuple(self._named)
            kinds = [schema.field(name).type for name in self._named]
            lists = [_is_list(kind) for kind in kinds]
            self._is_list = all(lists)
            if any(lists) and not self._is_list:
                odd = self._named[lists.index(False)]
                self._fail_table(
                    f"has lists, but its column {shorten(odd)} has none; beside the label, all columns must be lists, "
                    "one for each variable, or all of them numbers"
                )
            if self._is_list:
                self._take_variables(len(self._named))
        for name in self._named:
            kind = schema.field(name).type
            kind = kind.value_type if _is_list(kind) else kind
            types = pyarrow.types
            if not (
                types.is_integer(kind)
                or types.is_floating(kind)
                or types.is_boolean(kind)
                or types.is_decimal(kind)
                or types.is_null(kind)
            ):
                advice = f"; name the column of labels {LABEL!r}" if self._labelled else ""
                self._fail_table(f"has {kind} in its column {shorten(name)}; values must be numbers{advice}")

    def _take_variables(self, count: int) -> None:
        if self._num_variables not in (None, count):
            wanted = plural(self._num_variables or 1, "variable")
            named = ", ".join(map(shorten, self._named[:4]))
            self._fail_table(f"has {plural(count, 'list column')} ({named}), but series have {wanted}")
        self.variables = count

    def _find(self, there: list[str]) -> list[str]:
        """The expected names, all of which must be there."""
        for name in self.names:
            if name not in there:
                raise UserError(f"{self.source} lacks the column {shorten(name)}; {suggest(name, there)}")
        return list(self.names)

    def _fail_table(self, problem: str) -> NoReturn:
        raise UserError(f"{self.source} {problem}.")

    def _fail_header(self, problem: str, column: int | None = None) -> NoReturn:
        place = "" if column is None else f"column {column} "
        self._fail_table(f"{place}{problem}")

    # Rows

    def _read(self, row: int) -> Block:
        rows = range(row, row + len(self.batch))
        labels = self._read_labels(row) if self._label is not None else []
        matrix = self._read_lists(row) if self._is_list else self._read_numbers(row)
        self._width = matrix.shape[1] // self.variables
        refused = ~np.isfinite(matrix) & (np.isinf(matrix) if self._rules.reads_missing else True)
        for index, column in np.argwhere(refused)[:1]:
            value = matrix[index, column]
            advice = ". Set missing-values=interpolate to fill in missing values" if self._length is None else ""
            missing = f"is missing; every value must be a number{advice}"
            problem = missing if np.isnan(value) else f"is {value}; every value must be finite"
            self.fail(rows[index], problem, int(column) + 1 + self.has_label)
        return self._split(rows, labels, matrix)

    def _read_labels(self, row: int) -> list[str]:
        import pyarrow

        column = self.batch.column(self._label)
        if pyarrow.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if pyarrow.types.is_floating(column.type):
            labels: list[str | None] = [None if value is None else repr(value) for value in column.to_pylist()]
        else:
            try:
                labels = column.cast(pyarrow.string()).to_pylist()
            except pyarrow.ArrowException:
                self._fail_table(f"has {column.type} in its column {shorten(self._label)}, which is no type of a label")
        for number, label in enumerate(labels, row):
            if label is None or not label.strip() or label == "nan":
                self.fail(number, "is empty; every row needs a label", 1)
        return labels  # type: ignore[return-value]

    def _read_numbers(self, row: int) -> NDArray[np.float64]:
        import pyarrow

        numbers = [self.batch.column(name).cast(pyarrow.float64(), safe=False) for name in self._named]
        tensor = pyarrow.RecordBatch.from_arrays(numbers, names=self._named).to_tensor(null_to_nan=True, row_major=True)
        matrix: NDArray[np.float64] = tensor.to_numpy()
        self._check_width(row, "", matrix.shape[1])
        return matrix

    def _read_lists(self, row: int) -> NDArray[np.float64]:
        """All values of the first variable, then those of the next, float64 `[n, M * W]`; NaN after a list's end."""
        columns = [self._read_list(row, name) for name in self._named]
        longest = np.max([lengths for _, lengths in columns], axis=0)
        width = int(longest.max())
        if self._rules.any_length:
            self._check_width(row + int(longest.argmax()), "", width * len(columns))
        else:
            self._expect_one_length(row, columns)
        filled = np.full((len(self.batch), len(columns), width), np.nan)
        for k, (values, lengths) in enumerate(columns):
            filled[:, k][np.arange(width) < lengths[:, np.newaxis]] = values
        return filled.reshape(len(filled), -1)

    def _read_list(self, row: int, name: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """All values of a list column, float64 `[S]`, and the length of each list, int64 `[n]`."""
        import pyarrow

        column = self.batch.column(name)
        if pyarrow.types.is_fixed_size_list(column.type):
            column = column.cast(pyarrow.list_(column.type.value_type))
        lengths: NDArray[np.int64] = column.value_lengths().fill_null(0).to_numpy().astype(np.int64)
        for index in np.flatnonzero(lengths == 0)[:1]:
            raise UserError(f"{self.source}, row {row + index}, column {name} is empty; every series needs values.")
        values = column.flatten().cast(pyarrow.float64(), safe=False)
        return values.to_numpy(zero_copy_only=False), lengths

    def _expect_one_length(self, row: int, columns: list[tuple[NDArray[np.float64], NDArray[np.int64]]]) -> None:
        count = len(columns)
        first, expected = self._first = self._first or (row, count * (self._length or int(columns[0][1][0])))
        expected //= count
        for name, (_, lengths) in zip(self._named, columns, strict=True):
            for index in np.flatnonzero(lengths != expected)[:1]:
                found = plural(int(lengths[index]), "value")
                taken = f"the model takes {expected}" if self._length else f"row {first} has {expected}"
                advice = "" if self._length else f"; {ONE_LENGTH}"
                raise UserError(f"{self.source}, row {row + index}, column {name} has {found}, but {taken}{advice}.")


@contextlib.contextmanager
def _open(path: Any) -> Iterator[tuple[Any, Iterator[Any]]]:
    """The schema of a table, and its rows in batches."""
    import pyarrow

    if isinstance(path, pyarrow.Table):
        yield path.schema, iter(path.to_batches())
    elif is_parquet(path):
        with open_parquet(path) as table:
            schema = table.schema_arrow
            yield schema, table.iter_batches(batch_size=_rows_of_batch(table), use_threads=True)
    else:
        with pyarrow.memory_map(str(path)) as mapped, pyarrow.ipc.open_file(mapped) as table:
            yield table.schema, (table.get_batch(k) for k in range(table.num_record_batches))


def open_parquet(path: Path) -> Any:
    """A Parquet file that is read page by page, so that its size takes no memory."""
    from pyarrow import parquet

    return parquet.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER_BYTES)


def _rows_of_batch(table: Any) -> int:
    """Rows of a batch of about `BATCH_VALUES` values."""
    if not table.num_row_groups:
        return 1
    group = table.metadata.row_group(0)
    values: int = sum(group.column(k).num_values for k in range(group.num_columns))
    rows: int = group.num_rows
    return max(1, BATCH_VALUES * rows // max(values, 1))


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))
