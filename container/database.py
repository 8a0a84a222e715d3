"""Tables of recordings, read and sorted by DuckDB: CSV, Parquet, SQL queries, Arrow; also those larger than memory."""

import contextlib
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lstm_fcn.container.channels import data_files
from lstm_fcn.container.cores import available_cores
from lstm_fcn.container.errors import UserError, shorten, suggest
from lstm_fcn.container.recording import NANOSECONDS, UNLABELLED, Codes, Preparation, Times, Values
from lstm_fcn.container.recording_text import ONLY
from lstm_fcn.container.tables import INDEX, is_parquet, is_table

Source = str | Path | Sequence[str | Path] | Iterable[Any]

BATCH_ROWS = 2**16  # sorted rows that are processed at once
GROUPED_ROWS = 2**12  # rows with a series each that are processed at once
MEMORY = "1GB"  # of DuckDB; larger tables are sorted on the disk
SHOWN = 3  # rows that a report names
QUERY = re.compile(r"\s*(select|from|with)\s", re.IGNORECASE)
VALUE = re.compile(r"-?\d*\.\d")  # unlike the name of a column
ROW_NAME, GROUP_NAME = "number of the row", "group of the row"  # no table has columns of these names
ROW = f'"{ROW_NAME}"'
NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")
FRACTIONS = ("FLOAT", "DOUBLE", "DECIMAL")


class Rows(NamedTuple):
    """Rows of one recording, in order of time; more of it may follow.

    recording, group: as text.
    times: int64 `[n]`, see `container.recording`.
    values: float64 `[n, M]`, NaN where one is missing.
    labels: numbers of the labels, int64 `[n]`.
    """

    recording: str
    group: str
    times: Times
    values: Values
    labels: Codes


@dataclass
class Findings:
    """Rows that were not in order of time, and rows at the time of an earlier one: how many, and the first ones."""

    unsorted: int = 0
    duplicates: int = 0
    places: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: Literal["unsorted", "duplicates"], recording: str, rows: NDArray[np.int64]) -> None:
        setattr(self, kind, getattr(self, kind) + len(rows))
        named = self.places.setdefault(kind, [])
        named += [f"{recording}, row {row}" for row in rows[: SHOWN - len(named)].tolist()]

    def lines(self) -> list[str]:
        """A sentence for each kind."""
        kinds = (
            (self.unsorted, "unsorted", "not in order of time; they are sorted"),
            (self.duplicates, "duplicates", "at the time of an earlier one; the first value of each column counts"),
        )
        return [
            f"{count} row(s) are {problem} ({'; '.join(self.places[kind])}{'; ...' if count > SHOWN else ''})"
            for count, kind, problem in kinds
            if count
        ]


class Table:
    """A table of which `rows` can be read.

    columns: DuckDB's type of each column.
    is_csv: the table is read from CSV.
    labels: the number of each label that has been read.
    """

    def __init__(self, name: str, origin: str, connection: Any) -> None:
        """`name` is what messages call it; `origin` is what follows FROM in SQL. See `open_table`."""
        self.name, self._from, self._connection = name, origin, connection
        self.is_csv = origin.startswith("read_csv(")
        self._numbered = f"(SELECT *, row_number() OVER () AS {ROW} FROM {self._from})"
        self.labels: dict[str, int] = {}
        found = self._run(f"DESCRIBE SELECT * FROM {self._from}").fetchall()
        self.columns: dict[str, str] = {row[0]: row[1] for row in found}

    def rows(
        self, preparation: Preparation, findings: Findings, label: str | None = None, group: str | None = None
    ) -> Iterator[Rows]:
        """All rows, recording by recording.

        Raises:
            UserError: a column is missing or has values of another kind; or a row has no recording, no time, or a value
                that is infinite.
        """
        latest: tuple[str, int, int] | None = None  # recording, time and row of the latest row
        for batch in self._sorted(preparation, label, group):
            names, groups = batch.column("recording").dictionary_encode(), batch.column("group")
            codes, numbers = names.indices.to_numpy(), batch.column("row").to_numpy()
            times = self._localize(batch.column("time"), preparation)
            values = np.empty((len(batch), len(preparation.values)))
            for k in range(values.shape[1]):
                values[:, k] = batch.column(f"value {k}").to_numpy(zero_copy_only=False)
            labels = self._number(batch.column("label")) if label else np.full(len(batch), UNLABELLED)
            ends = 1 + np.flatnonzero(np.diff(codes))
            for first, last in zip([0, *ends.tolist()], [*ends.tolist(), len(batch)], strict=True):
                recording = names.dictionary[codes[first]].as_py()
                here = slice(first, last)
                before = latest[1:] if latest and latest[0] == recording else (int(times[first]) - 1, 0)
                _examine(findings, recording, times[here], numbers[here], before)
                latest = recording, int(times[last - 1]), int(numbers[here].max())
                yield Rows(recording, groups[first].as_py(), times[here], values[here], labels[here])

    def events(self, preparation: Preparation) -> "Table":
        """A table of intervals as events: at its start, an interval has its label, and at its end it has none.

        Raises:
            UserError: a column is missing.
        """
        self.require(preparation.id, "start", "end", "label")
        id_column = f"{_quote(preparation.id)}, " if preparation.id else ""
        ends = (
            f'SELECT {id_column}"end" AS time, CAST(NULL AS VARCHAR) AS label FROM {self._from} WHERE label IS NOT NULL'
        )
        starts = f'SELECT {id_column}"start", CAST(label AS VARCHAR) FROM {self._from} WHERE label IS NOT NULL'
        return Table(self.name, f"({ends} UNION ALL {starts})", self._connection)

    def count_values(self, column: str) -> int:
        """How many values a column has, without null. Raises `UserError` if there is no such column."""
        self.require(column)
        count: int = self._run(f"SELECT count(DISTINCT {_quote(column)}) FROM {self._from}").fetchall()[0][0]
        return count

    def by_group(self, column: str) -> Iterator[tuple[str | None, Any]]:
        """All rows, group by group, in Arrow batches of one group; a group is a value of the column, as text.

        The rows of a group keep their order, which DuckDB's `COPY ... PARTITION_BY` does not guarantee. The batches
        have the columns of the table and `ROW_NAME`, the number of the row in the table. Rows without a group are last.

        Raises:
            UserError: the table cannot be read.
        """
        query = f"SELECT *, CAST({_quote(column)} AS VARCHAR) AS {_quote(GROUP_NAME)} FROM {self._numbered}"
        with self._explained():
            relation = self._connection.sql(f"{query} ORDER BY {_quote(GROUP_NAME)} NULLS LAST, {ROW}")
            # The name since DuckDB 1.4, and before.
            read = getattr(relation, "to_arrow_reader", None) or relation.fetch_arrow_reader
            reader = read(GROUPED_ROWS)
        while True:
            with self._explained():
                batch = next(reader, None)
            if batch is None:
                return
            groups = batch.column(GROUP_NAME).dictionary_encode()
            codes = groups.indices.fill_null(-1).to_numpy()
            batch = batch.select([name for name in batch.schema.names if name != GROUP_NAME])
            ends = 1 + np.flatnonzero(np.diff(codes))
            for first, last in zip([0, *ends.tolist()], [*ends.tolist(), len(batch)], strict=True):
                yield groups[first].as_py(), batch.slice(first, last - first)

    def require(self, *names: str | None) -> None:
        """Raise `UserError` if one of the columns is missing."""
        for name in names:
            if name is not None and name not in self.columns:
                hint = " Is its header missing?" if any(map(VALUE.match, self.columns)) else ""
                raise UserError(f"{self.name} has no column {shorten(name)}; {suggest(name, self.columns)}{hint}")

    def choose_values(self, names: Sequence[str], others: Sequence[str | None]) -> tuple[str, ...]:
        """The columns of values: those given, or all columns of numbers but the others.

        Raises:
            UserError: a column is missing, or there is none.
        """
        self.require(*names, *others)
        usual = (name for name, kind in self.columns.items() if _is_number(kind) and not name.startswith(INDEX))
        chosen = tuple(names) or tuple(name for name in usual if name not in others)
        if not chosen:
            there = ", ".join(f"{shorten(name)} ({kind})" for name, kind in list(self.columns.items())[:8])
            raise UserError(f"{self.name} has no columns of numbers to take as values; it has {there}.")
        return chosen

    def has_numbers(self, column: str | None) -> bool:
        """Whether a column has numbers."""
        return column is not None and _is_number(self.columns[column])

    def _sorted(self, preparation: Preparation, label: str | None, group: str | None) -> Iterator[Any]:
        """Arrow batches of the sorted rows, with the columns recording, group, time, value 0, ..., label, row."""
        import pyarrow

        self.require(preparation.id, preparation.time, *preparation.values, label, group)
        if preparation.time and self.has_numbers(preparation.time) != bool(preparation.unit):
            wanted = "numbers" if preparation.unit else "timestamps"
            raise UserError(f"{self.name}, column {preparation.time}: times must be {wanted}, as in training.")
        for name in preparation.values:
            if not _is_number(self.columns[name]):
                self._fail_at_text(name)
        recording = f"CAST({_quote(preparation.id)} AS VARCHAR)" if preparation.id else f"'{ONLY}'"
        parts = {
            "recording": recording,
            "group": f"CAST({_quote(group)} AS VARCHAR)" if group else recording,
            "time": self._time(preparation),
            **{f"value {k}": f"CAST({_quote(name)} AS DOUBLE)" for k, name in enumerate(preparation.values)},
            "label": f"CAST({_quote(label)} AS VARCHAR)" if label else "NULL",
        }
        columns = ", ".join(f"{expression} AS {_quote(name)}" for name, expression in parts.items())
        rows = f"SELECT {columns}, {ROW} AS row FROM {self._numbered}"
        self._refuse_missing(rows, preparation)
        with self._explained():
            reader = pyarrow.RecordBatchReader.from_stream(
                self._connection.sql(f"{rows} ORDER BY recording, time, row")
            )
        while True:
            with self._explained():
                whole = next(reader, None)
            if whole is None:
                return
            for first in range(0, len(whole), BATCH_ROWS):
                batch = whole.slice(first, BATCH_ROWS)
                self._refuse_infinite(batch, preparation)
                yield batch

    def _time(self, preparation: Preparation) -> str:
        """The time of a row in nanoseconds, as SQL; of times without an offset, as if they were UTC."""
        if preparation.time is None:
            return ROW
        name, kind = _quote(preparation.time), self.columns[preparation.time]
        factor = NANOSECONDS[preparation.unit or "s"]
        if kind.startswith(NUMBERS):
            return f"CAST({name} AS BIGINT) * {factor}"
        if kind.startswith(FRACTIONS):
            return f"CAST(round(CAST({name} AS DOUBLE) * {factor}) AS BIGINT)"
        if kind.startswith(("TIMESTAMP", "DATE")):
            return f"epoch_ns(CAST({name} AS {'TIMESTAMPTZ' if 'ZONE' in kind else 'TIMESTAMP_NS'}))"
        return f"epoch_ns(TRY_CAST({name} AS TIMESTAMPTZ))"

    def _localize(self, times: Any, preparation: Preparation) -> Times:
        """Times in nanoseconds, those without an offset in the timezone of the preparation."""
        import pyarrow
        from pyarrow import compute

        found: Times = times.to_numpy()
        kind = self.columns.get(preparation.time or "", "")
        if preparation.timezone is None or preparation.unit or "ZONE" in kind:
            return found
        try:
            zoned = compute.assume_timezone(times.cast(pyarrow.timestamp("ns")), preparation.timezone)
        except (pyarrow.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise UserError(f"{self.name}, column {preparation.time}: {reason}. Give times with an offset.") from error
        localized: Times = zoned.cast(pyarrow.int64()).to_numpy()
        return localized

    def _number(self, labels: Any) -> Codes:
        encoded = labels.dictionary_encode()
        numbers = [self.labels.setdefault(name, len(self.labels)) for name in encoded.dictionary.to_pylist()]
        codes: Codes = encoded.indices.fill_null(len(numbers)).to_numpy()
        return np.array([*numbers, UNLABELLED], dtype=np.int64)[codes]

    def _refuse_missing(self, rows: str, preparation: Preparation) -> None:
        for name, column in (("recording", preparation.id), ("time", preparation.time)):
            if column is None:
                continue
            found = self._run(f"SELECT row FROM ({rows}) WHERE {_quote(name)} IS NULL LIMIT 1").fetchone()
            if found:
                wrong = "is empty" if name == "recording" or preparation.unit else "is empty or no time (ISO 8601)"
                raise UserError(f"{self.name}, row {found[0]}, column {column} {wrong}.")

    def _refuse_infinite(self, batch: Any, preparation: Preparation) -> None:
        for k, name in enumerate(preparation.values):
            infinite = np.flatnonzero(np.isinf(batch.column(f"value {k}").to_numpy(zero_copy_only=False)))
            if len(infinite):
                row = batch.column("row")[int(infinite[0])].as_py()
                raise UserError(f"{self.name}, row {row}, column {name} is infinite; every value must be finite.")

    def _fail_at_text(self, name: str) -> None:
        column = _quote(name)
        found = self._run(
            f"SELECT {ROW}, CAST({column} AS VARCHAR) FROM {self._numbered} "
            f"WHERE {column} IS NOT NULL AND TRY_CAST({column} AS DOUBLE) IS NULL LIMIT 1"
        ).fetchone()
        place = f", row {found[0]}, column {name} is {shorten(found[1])}" if found else f", column {name} is text"
        raise UserError(f"{self.name}{place}; values must be numbers.")

    def _run(self, query: str) -> Any:
        with self._explained():
            return self._connection.execute(query)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        import duckdb

        try:
            yield
        except duckdb.Error as error:
            raise UserError(f"{self.name} cannot be read: {' '.join(str(error).split())[:500]}") from error


@contextlib.contextmanager
def open_tables() -> Iterator[Any]:
    """A connection to DuckDB, to be closed with everything that it has sorted on the disk.

    Raises:
        ModuleNotFoundError: names the extra to install.
    """
    try:
        import duckdb
        import pyarrow  # noqa: F401
    except ModuleNotFoundError as error:
        message = f"Tables need the package {error.name}, which is not installed: pip install 'lstm-fcn[tables]'."
        raise ModuleNotFoundError(message, name=error.name) from error
    with tempfile.TemporaryDirectory() as scratch, duckdb.connect() as connection:
        connection.execute(f"SET memory_limit = '{MEMORY}'")
        connection.execute(f"SET temp_directory = {_text(scratch)}")
        connection.execute(f"SET threads = {available_cores()}")
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


def open_table(source: Source, connection: Any, as_text: bool = False) -> Table:
    """The table of a source; for sources, see `lstm_fcn.data.prepare`. With `as_text`, the cells of CSV are text.

    Raises:
        UserError: there is no such file, or it cannot be read.
    """
    return Table(*_describe(source, connection, as_text), connection)


def _describe(source: Source, connection: Any, as_text: bool) -> tuple[str, str]:
    """What messages call a source, and the SQL that stands for it."""
    if isinstance(source, str) and QUERY.match(source):
        return "The query", f"({source.rstrip().rstrip(';')})"
    if isinstance(source, (str, Path)):
        source = [source]
    if isinstance(source, Sequence) and all(isinstance(path, (str, Path)) for path in source):
        return _describe_files([Path(path) for path in source if isinstance(path, (str, Path))], connection, as_text)
    import pyarrow

    if not hasattr(source, "__arrow_c_stream__"):
        batches = iter(source)
        first = next(batches, None)
        if first is None:
            raise UserError("The table has no batches.")
        source = pyarrow.RecordBatchReader.from_batches(first.schema, _with_first(first, batches))
    # Its rows may come only once, but are needed more than once.
    connection.register("given", pyarrow.RecordBatchReader.from_stream(source))
    name = f"kept_{len(connection.execute('SHOW TABLES').fetchall())}"
    connection.execute(f"CREATE TEMP TABLE {name} AS SELECT * FROM given")
    connection.unregister("given")
    return "The table", name


def _with_first(first: Any, others: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from others


def _describe_files(paths: Sequence[Path], connection: Any, as_text: bool) -> tuple[str, str]:
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise UserError(f"There is no file or folder {path}.")
        files += data_files(path) if path.is_dir() else [path]
    name = ", ".join(map(str, paths))
    if not files:
        raise UserError(f"The folder {name} contains no data files.")
    tables = [is_table(file) for file in files]
    if any(tables) and not all(tables):
        raise UserError(f"{name} contains CSV and Parquet files; give files of one kind.")
    listed = ", ".join(_text(str(file)) for file in files)
    if not tables[0]:
        return name, f"read_csv([{listed}]{', all_varchar = true, header = true' * as_text})"
    parquet = [is_parquet(file) for file in files]
    if any(parquet) and not all(parquet):
        raise UserError(f"{name} contains Parquet and Arrow files; give files of one kind.")
    return name, f"read_parquet([{listed}])" if parquet[0] else _register_arrow(files, connection)


def _register_arrow(files: Sequence[Path], connection: Any) -> str:
    from pyarrow import ArrowException, dataset

    table = f"files_{len(connection.execute('SHOW TABLES').fetchall())}"
    try:
        connection.register(table, dataset.dataset(list(map(str, files)), format="ipc"))
    except (ArrowException, OSError) as error:
        raise UserError(f"{files[0]} cannot be read as a table: {error}.") from error
    return table


def _examine(
    findings: Findings, recording: str, times: Times, rows: NDArray[np.int64], before: tuple[int, int]
) -> None:
    """Note rows out of order, and rows at the time of an earlier one; `before` is time and row of the row before."""
    late = np.flatnonzero(rows < np.maximum.accumulate(np.concatenate([[before[1]], rows]))[:-1])
    if len(late):
        findings.add("unsorted", recording, rows[late])
    again = np.flatnonzero(np.diff(times, prepend=before[0]) == 0)
    if len(again):
        findings.add("duplicates", recording, rows[again])


def _is_number(kind: str) -> bool:
    return kind.startswith(NUMBERS + FRACTIONS)


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
