"""How predictions of files are written: as lines of CSV or JSON, or as Parquet."""

from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Protocol

from numpy.typing import NDArray

from lstm_fcn.container.csv_blocks import Plain
from lstm_fcn.container.csv_reader import Block, SeriesReader
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.tables import TableReader
from lstm_fcn.serving.encode import Encoder, ResponseFormat
from lstm_fcn.serving.predictor import Predictions

GROUP_BYTES = 16 * 1024 * 1024  # of a row group of Parquet, before compression


class Output(Protocol):
    """Takes the predictions of a file, block by block.

    `prepare` is called for each block in order; the function that it returns, which encodes the predictions of the
    block, may run in any thread. `write` takes the results in order; `finish` ends the file.
    """

    def prepare(self, block: Block) -> Callable[[Predictions], Any]: ...

    def write(self, part: Any) -> None: ...

    def finish(self) -> None: ...


class TextReader(SeriesReader):
    """A reader that keeps the text of its latest block."""

    _number, _text = 1, b""

    def parse_plain_blocks(self, texts: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes, Plain | None]]:
        for number, text, plain in super().parse_plain_blocks(texts):
            self._number, self._text = number, text
            yield number, text, plain

    def lines_of(self, block: Block) -> list[str]:
        """The lines of the latest block's rows, as written in the file."""
        lines = self._text.split(b"\n")
        return [lines[row - self._number].decode() for row in block.rows]

    @property
    def header_line(self) -> list[str]:
        """The header of the file; an empty list without one."""
        return [] if self.header is None else [self.header.line]


class Lines:
    """A line for each series, after the line of its row if `reader` is given."""

    def __init__(self, encoder: Encoder, reply: ResponseFormat, sink: BinaryIO, reader: TextReader | None) -> None:
        self._encoder, self._reply, self._sink, self._reader = encoder, reply, sink, reader
        self._has_begun = False

    def prepare(self, block: Block) -> Callable[[Predictions], list[str]]:
        lines = self._reader.lines_of(block) if self._reader else None

        def encode(predictions: Predictions) -> list[str]:
            return _join(lines, self._encoder.rows(predictions, self._reply))

        return encode

    def write(self, part: list[str]) -> None:
        if not self._has_begun:
            self._has_begun = True
            above = self._reader.header_line if self._reader else None
            part = [*_join(above, self._encoder.header(self._reply)), *part]
        self._sink.write("".join(f"{text}\n" for text in part).encode())

    def finish(self) -> None:
        pass


def _join(lines: list[str] | None, predictions: list[str]) -> list[str]:
    if lines is None:
        return predictions
    return [f"{line},{prediction}" for line, prediction in zip(lines, predictions, strict=True)]


def to_arrow(values: NDArray[Any]) -> Any:
    """An Arrow array of text or numbers `[n]`, or of a list of numbers for each row of `[n, k]`."""
    import pyarrow

    if values.ndim == 1:
        return pyarrow.array(values)
    return pyarrow.array(list(values), pyarrow.list_(pyarrow.float32()))


class Parquet:
    """A row for each series, after the columns of its row if `reader` is given."""

    def __init__(self, encoder: Encoder, reply: ResponseFormat, sink: BinaryIO, reader: TableReader | None) -> None:
        self._encoder, self._reply, self._sink, self._reader = encoder, reply, sink, reader
        self._waiting: list[Any] = []
        self._writer: Any = None

    def prepare(self, block: Block) -> Callable[[Predictions], Any]:  # noqa: ARG002
        given = self._reader.batch if self._reader else None
        return lambda predictions: self._batch(predictions, given)

    def _batch(self, predictions: Predictions, given: Any = None) -> Any:
        """Predictions as an Arrow batch, after the columns of the batch `given`."""
        import pyarrow

        columns = {} if given is None else dict(zip(given.schema.names, given.columns, strict=True))
        for name, values in self._encoder.columns(predictions, self._reply).items():
            if name in columns:
                raise UserError(f"The table already has a column {name}; leave out --join.")
            columns[name] = to_arrow(values)
        return pyarrow.RecordBatch.from_pydict(columns)

    def write(self, part: Any) -> None:
        self._waiting.append(part)
        if sum(batch.nbytes for batch in self._waiting) > GROUP_BYTES:
            self._write_group()

    def finish(self) -> None:
        if self._waiting or self._writer is None:
            self._write_group()
        self._writer.close()

    def _write_group(self) -> None:
        import pyarrow
        from pyarrow import parquet

        batches = self._waiting or [self._batch(self._encoder.no_predictions())]
        table = pyarrow.Table.from_batches(batches)
        self._writer = self._writer or parquet.ParquetWriter(self._sink, table.schema)
        self._writer.write_table(table, row_group_size=max(1, len(table)))
        self._waiting = []
