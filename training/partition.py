"""A table divided into one file for each value of a column, and the names of their folders."""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from lstm_fcn.container.channels import data_files
from lstm_fcn.container.database import ROW_NAME, Table, open_table, open_tables
from lstm_fcn.container.errors import UserError, plural, shorten
from lstm_fcn.container.shards import Shard
from lstm_fcn.container.steps import KEY, read_preparation
from lstm_fcn.container.tables import INDEX, LABEL, label_among, names_targets

MOST_GROUPS = 100_000
EVERYTHING = Shard()
RECORDING_COLUMNS = ("group", "recording")  # by which prepared recordings can be divided
GROUP_BYTES, GROUP_ROWS = 2**24, 2**16  # most of a row group
NAME_CHARACTERS = " -_.,+=@#"  # beside letters and digits
NAME_LENGTH = 60
DIGEST_LENGTH = 12

Convert = Callable[[Any], Any]  # an Arrow batch as DuckDB returns it to one as it is written


class Part(NamedTuple):
    """The rows of one group.

    group: value of the column, as text; empty for the rows without one.
    path: Parquet file, without the column of groups unless the rows are steps of recordings.
    sha256: of the file.
    error: why the rows cannot be used; there is no file then.
    """

    group: str
    path: Path
    rows: int
    sha256: str = ""
    error: str = ""


def divide(source: Path, by: str, folder: Path, shard: Shard = EVERYTHING) -> list[Part]:
    """Write the rows of each value of the column `by` to a file in a new folder, in the order of the table.

    The same rows give the same file, whatever the other groups are.

    Args:
        source: CSV with a header, Parquet or Arrow: a file, or a folder of files.
        by: see above.
        folder: see above.
        shard: which groups to write, in the order of their names.

    Raises:
        UserError: the table cannot be read, or the column is missing, has too many values or is that of the labels.
            Nothing is written then.
    """
    with open_tables() as connection:
        table = open_table(source, connection, as_text=True)
        schema = _prepared_schema(source, by)
        count = table.count_values(by)
        if count > MOST_GROUPS:
            raise UserError(
                f"{table.name}, column {by} has {count:,} different values; a model for each of at most "
                f"{MOST_GROUPS:,} can be trained. Give another column."
            )
        convert = _convert_rows(table, by) if schema is None else _convert_steps(schema)
        folder.mkdir(parents=True, exist_ok=True)
        return [
            _write(table.name, by, group, (batch for _, batch in batches), convert, folder / f"{number:06d}.parquet")
            for number, (group, batches) in enumerate(groupby(table.by_group(by), key=lambda pair: pair[0]))
            if number % shard.count == shard.index
        ]


def _prepared_schema(source: Path, by: str) -> Any:
    """The schema of files that `lstm-fcn prepare` has written; None for other files."""
    files = data_files(source) if source.is_dir() else [source]
    prepared = [read_preparation(file) for file in files]
    if not any(prepared):
        return None
    if any(each != prepared[0] for each in prepared):
        raise UserError(f"The files in {source} were not prepared in the same way; prepare all of them alike.")
    if by not in RECORDING_COLUMNS:
        raise UserError(f"{source} holds prepared recordings, which can be divided by the column group or recording.")
    from pyarrow import parquet

    schema = parquet.read_schema(files[0])
    return schema.with_metadata({KEY: schema.metadata[KEY]})


def _convert_steps(schema: Any) -> Convert:
    def convert(batch: Any) -> Any:
        import pyarrow

        return pyarrow.Table.from_batches([batch]).select(schema.names).cast(schema).combine_chunks().to_batches()[0]

    return convert


def _convert_rows(table: Table, by: str) -> Convert:
    """Leave out the column of groups; cells of CSV, which are text, become numbers unless they are labels."""
    if by == LABEL:
        raise UserError(f"{table.name}: the column {by} has the labels; give another one.")
    names = [name for name in table.columns if name != by and not name.startswith(INDEX)]
    label = None if names_targets(names) else label_among(names)
    texts = {name for name in names if name != label} if table.is_csv else set()

    def convert(batch: Any) -> Any:
        import pyarrow

        columns = {name: batch.column(name) for name in names}
        for name in texts:
            try:
                columns[name] = columns[name].cast(pyarrow.float64())
            except pyarrow.ArrowInvalid as error:
                raise UserError(f"{table.name}, {_find_text(batch, name)}; values must be numbers.") from error
        return pyarrow.RecordBatch.from_pydict(columns)

    return convert


def _find_text(batch: Any, name: str) -> str:
    """The first cell of a column that is not a number."""
    import pyarrow

    for row, cell in zip(batch.column(ROW_NAME).to_pylist(), batch.column(name), strict=True):
        try:
            cell.cast(pyarrow.float64())
        except pyarrow.ArrowInvalid:
            return f"row {row}, column {name} is {shorten(cell.as_py())}"
    return f"column {name} has text"


def _write(source: str, by: str, group: str | None, batches: Iterable[Any], convert: Convert, path: Path) -> Part:
    from pyarrow import parquet

    if group is None:
        rows = [row for batch in batches for row in (len(batch), batch.column(ROW_NAME)[0].as_py())]
        count = sum(rows[::2])
        error = f"{source}, column {by} is empty in {plural(count, 'row')}, first in row {rows[1]}; they have no model."
        return Part("", path, count, error=error)
    count, writer = 0, None
    try:
        for table in _row_groups(map(convert, batches)):
            writer = writer or parquet.ParquetWriter(path, table.schema, use_dictionary=False, write_statistics=False)
            writer.write_table(table, row_group_size=len(table))
            count += len(table)
    except UserError as error:
        return Part(group, path, count, error=str(error))
    finally:
        if writer is not None:
            writer.close()
    with path.open("rb") as file:
        return Part(group, path, count, hashlib.file_digest(file, "sha256").hexdigest())


def _row_groups(batches: Iterable[Any]) -> Iterator[Any]:
    """Tables of as many rows as a row group has, whose number does not depend on the batches."""
    import pyarrow

    waiting: list[Any] = []
    size = 0
    for batch in batches:
        size = size or min(max(1, GROUP_BYTES // max(1, batch.slice(0, 1).nbytes)), GROUP_ROWS)
        waiting.append(batch)
        while sum(map(len, waiting)) >= size:
            table = pyarrow.Table.from_batches(waiting)
            yield table.slice(0, size).combine_chunks()
            waiting = table.slice(size).to_batches()
    if sum(map(len, waiting)):
        yield pyarrow.Table.from_batches(waiting).combine_chunks()


# Names


def folder_names(groups: Sequence[str], reserved: Sequence[str] = ()) -> dict[str, str]:
    """A folder for each group: its value, if that is a safe name; else what is safe of it, and a part of its SHA-256.

    Names also differ on file systems that ignore case or compose characters, and from the reserved ones.
    """
    taken = Counter(_folded(name) for name in (*groups, *reserved))
    return {group: group if _is_safe(group) and taken[_folded(group)] == 1 else _with_digest(group) for group in groups}


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def _is_safe(group: str) -> bool:
    """Whether a value is a name that no file system, shell or program of this project treats in another way."""
    return (
        0 < len(group) <= NAME_LENGTH
        and all(character.isalnum() or character in NAME_CHARACTERS for character in group)
        and group[0].isalnum()
        and group[-1] not in " ."
    )


def _with_digest(group: str) -> str:
    safe = "".join(c if c.isalnum() or c in NAME_CHARACTERS else "_" for c in group[: NAME_LENGTH // 2]).lstrip(" -_.")
    return f"{safe or 'group'}-{hashlib.sha256(group.encode()).hexdigest()[:DIGEST_LENGTH]}"
