"""Predictions for files of any size, without HTTP. The predictions are the same as the endpoint's.

Files are read, predicted and written in blocks, on all cores. An output appears under its name once it is complete.
"""

import contextlib
import fcntl
import glob
import gzip
import io
import os
import secrets
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast, get_args

import click
from tqdm import tqdm

from lstm_fcn.container import artifact
from lstm_fcn.container.channels import data_files
from lstm_fcn.container.command_line import INTERRUPTED, run_command
from lstm_fcn.container.cores import available_cores
from lstm_fcn.container.csv_blocks import unpacked
from lstm_fcn.container.csv_reader import Block, SeriesReader
from lstm_fcn.container.errors import AlgorithmError, UserError
from lstm_fcn.container.media_types import CSV, JSON_LINES, OUTPUTS, Precision, parse_outputs
from lstm_fcn.container.shards import find_shard
from lstm_fcn.container.tables import TableReader, is_table
from lstm_fcn.serving.encode import Encoder, ResponseFormat
from lstm_fcn.serving.output import Lines, Output, Parquet, TextReader
from lstm_fcn.serving.predictor import Predictor, TooLargeError

STANDARD = Path("-")  # standard input or output
PROGRESS_INTERVAL = 30.0  # seconds between progress lines if standard error is not a terminal


_partial: Path | None = None  # temporary file of the output that is being written
_partial_lock = threading.Lock()  # held while it is created, and by a stop until the program has ended


@dataclass(frozen=True)
class Transform:
    """Converts a file of series into a file of predictions.

    file_format: `csv`, `jsonlines` or `parquet`; None: Parquet for tables, CSV for other files and on
        standard output.
    join: predictions follow the cells of their row, as with `JoinSource=Input` of a batch transform job.
    """

    predictor: Predictor
    outputs: tuple[str, ...] = ()
    file_format: str | None = None
    header: bool | None = None
    join: bool = False

    def suffix(self, source: Path) -> str:
        """What is appended to the name of a file in a folder: `.out`, as in a batch transform job."""
        return (
            ".out.parquet" if self.file_format == "parquet" or (not self.file_format and is_table(source)) else ".out"
        )

    def run_table(self, source: Any, sink: BinaryIO, advance: Callable[[int], None], usual: str = "parquet") -> None:
        """Write predictions for the rows of a table; `usual` is the format unless `file_format` is set. See `run`.

        The table is a file, or one in memory.
        """
        name = str(source) if isinstance(source, Path) else "The table"
        reader = TableReader(source, name, names=self.predictor.metadata.problem.names, **self._expected())
        self._predict(reader, self._open_output(self.file_format or usual, sink, reader), advance)

    def run(self, stream: BinaryIO, name: str, sink: BinaryIO, advance: Callable[[int], None]) -> None:
        """Write predictions for the rows of `stream` to `sink`.

        Args:
            stream: uncompressed CSV.
            name: of the stream, for messages.
            sink: receives the predictions.
            advance: called with the number of rows each time some have been written.

        Raises:
            UserError: names the first invalid row; `sink` may then hold predictions for rows before it.
        """
        reader = TextReader(stream, name, **self._expected())
        self._predict(reader, self._open_output(self.file_format or "csv", sink, reader), advance)

    def _expected(self) -> dict[str, Any]:
        """What the rows must be like, as readers take it."""
        problem = self.predictor.metadata.problem
        return {
            "labelled": False,
            "columns": problem.columns,
            "preprocessing": problem.preprocessing,
            "variables": problem.num_variables,
            "length": problem.length,
        }

    def _open_output(self, file_format: str, sink: BinaryIO, reader: TextReader | TableReader) -> Output:
        encoder = Encoder(self.predictor.metadata)
        reply = ResponseFormat(JSON_LINES if file_format == "jsonlines" else CSV, self.outputs, self.header)
        joined = reader if self.join else None
        if file_format == "parquet":
            if isinstance(joined, TextReader):
                raise UserError("--join with --format parquet requires a table as input.")
            return Parquet(encoder, reply, sink, joined)
        if isinstance(joined, TableReader):
            raise UserError("--join writes Parquet for a table; leave --format out.")
        return Lines(encoder, reply, sink, joined)

    def _predict(self, reader: SeriesReader, output: Output, advance: Callable[[int], None]) -> None:
        for part in self._in_order(self._work(reader, output, block) for block in reader):
            output.write(part)
            advance(len(part))
        output.finish()

    def _work(self, reader: SeriesReader, output: Output, block: Block) -> Callable[[], Any]:
        """A function that predicts a block; it may run in another thread while the next block is read."""
        problem, encode = self.predictor.metadata.problem, output.prepare(block)

        def predict() -> Any:
            series = problem.preprocessing.apply(block.series, problem.length)
            try:
                return encode(self.predictor.predict(series))
            except TooLargeError as error:
                reader.fail(block.rows[error.index], "has values too large for the model")

        return predict

    def _in_order(self, tasks: Iterator[Callable[[], Any]]) -> Iterator[Any]:
        """Run tasks in threads, a few ahead of the caller, and yield their results in order."""
        cores = self.predictor.threads
        waiting: deque[Future[Any]] = deque()
        with ThreadPoolExecutor(cores) as pool:
            try:
                for task in tasks:
                    waiting.append(pool.submit(task))
                    if len(waiting) > 2 * cores:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


class Progress:
    """Progress on standard error: a bar on a terminal, otherwise a line every `PROGRESS_INTERVAL` seconds."""

    def __init__(self, name: str, stream: BinaryIO, size: int | None) -> None:
        self._name, self._stream, self._size = name, stream, size
        self._rows = 0
        self._started = self._last_line = time.monotonic()
        self._bar = tqdm(total=size, desc=name, unit="B", unit_scale=True, disable=not sys.stderr.isatty())

    def advance(self, rows: int) -> None:
        """Report that `rows` more rows have been written."""
        self._rows += rows
        place = self._stream.tell() if self._size else 0
        self._bar.set_postfix_str(f"{self._rows} rows, {self._rate():.0f} rows/s", refresh=False)
        self._bar.update(place - self._bar.n)
        if self._bar.disable and time.monotonic() - self._last_line > PROGRESS_INTERVAL:
            self._last_line = time.monotonic()
            share = f", {place / self._size:.0%}" if self._size else ""
            self._print(share)

    def finish(self) -> None:
        """Remove the bar and print the totals."""
        self._bar.close()
        self._print("")

    def _print(self, share: str) -> None:
        click.echo(f"{self._name}: {self._rows} rows{share}, {self._rate():.0f} rows/s", err=True)

    def _rate(self) -> float:
        return self._rows / max(time.monotonic() - self._started, 1e-9)


def transform_file(transform: Transform, source: Path, target: Path) -> None:
    """Predict one file. gzip is detected in the input, and selected for the output by the suffix .gz.

    Args:
        transform: to apply.
        source: CSV file or table, or `-` for standard input.
        target: file to write, or `-` for standard output.

    Raises:
        UserError: the input is invalid; there is no output then.
        OSError: a file cannot be read or written.
    """
    with _open_source(source) as (stream, raw), open_target(target) as sink:
        name = "standard input" if source == STANDARD else str(source)
        size = os.fstat(raw.fileno()).st_size if source != STANDARD else None
        if source != STANDARD and is_table(source):
            progress = Progress(name, raw, None)
            transform.run_table(source, sink, progress.advance, "csv" if target == STANDARD else "parquet")
        else:
            progress = Progress(name, raw, size)
            transform.run(stream, name, sink, progress.advance)
        progress.finish()


@contextlib.contextmanager
def _open_source(path: Path) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Open a file for reading, decompressed if necessary; also yields the file as it is on disk."""
    with contextlib.ExitStack() as stack:
        raw = cast(io.BufferedReader, sys.stdin.buffer if path == STANDARD else stack.enter_context(path.open("rb")))
        yield stack.enter_context(unpacked(raw, str(path))), raw


@contextlib.contextmanager
def open_target(path: Path) -> Iterator[BinaryIO]:
    """Open an output that gets its name once it is complete and on the disk; after an error it is removed."""
    if path == STANDARD:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    global _partial
    with _partial_lock:
        partial, file = _create_partial(path)
        _partial = partial
    try:
        with file:
            if path.suffix == ".gz":
                with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as packed:
                    yield cast(BinaryIO, packed)
            else:
                yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _create_partial(path: Path) -> tuple[Path, BinaryIO]:
    """A temporary file beside `path` that no other process writes to. What killed processes left there is removed."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        with contextlib.suppress(OSError), leftover.open("rb+") as abandoned:
            fcntl.flock(abandoned, fcntl.LOCK_EX | fcntl.LOCK_NB)
            leftover.unlink()
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    file = partial.open("xb")
    with contextlib.suppress(OSError):  # a file system without locks
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if not partial.exists():  # removed as a leftover before it was locked
        file.close()
        return _create_partial(path)
    return partial, file


def pair_files(
    source: Path, target: Path, overwrite: bool, suffix: Callable[[Path], str], shard: str | None = None
) -> list[tuple[Path, Path]]:
    """Each input file with its output file.

    For a folder, these are all its data files, except those whose output exists unless `overwrite` is set. `suffix`
    returns what is appended to the name of a file. For `shard`, see `find_shard`.

    Raises:
        UserError: the input does not exist or is empty, the output exists or lies inside the input, or there is no such
            shard.
    """
    if shard is not None and not source.is_dir():
        raise UserError(f"--shard divides the files of a folder; {source} is no folder.")
    if source == STANDARD:
        pairs = [(source, target)]
    elif source.is_dir():
        if target == STANDARD or target.resolve().is_relative_to(source.resolve()):
            raise UserError(f"The output for the folder {source} must be a folder outside of it, not {target}.")
        pairs = [(path, target / f"{path.relative_to(source)}{suffix(path)}") for path in data_files(source)]
        if not pairs:
            raise UserError(f"The folder {source} contains no data files.")
        part = find_shard(shard, source)
        if part.count > 1:
            total, pairs = len(pairs), part.of(pairs)
            click.echo(f"shard {part.index}/{part.count}: {len(pairs)} of {total} files", err=True)
    elif source.is_file():
        pairs = [(source, target / f"{source.name}{suffix(source)}" if target.is_dir() else target)]
    else:
        raise UserError(f"There is no file or folder {source}.")
    done = [output for _, output in pairs if output != STANDARD and output.exists()]
    if done and not overwrite:
        if not source.is_dir():
            raise UserError(f"{done[0]} exists; --overwrite replaces it.")
        click.echo(f"{len(done)} of {len(pairs)} outputs exist and are kept; --overwrite replaces them", err=True)
        pairs = [(path, output) for path, output in pairs if output not in done]
    return pairs


def read_outputs(text: str) -> tuple[str, ...]:
    """The option `--outputs`; empty for the default. Raises `UserError` with the reason."""
    try:
        return parse_outputs(text) if text else ()
    except ValueError as error:
        raise UserError(f"--outputs {text}: {error}.") from error


def transform_files(
    model: Path,
    source: Path,
    target: Path,
    *,
    outputs: str = "",
    file_format: str | None = None,
    header: bool = False,
    join: bool = False,
    precision: Precision = "float32",
    overwrite: bool = False,
    shard: str | None = None,
) -> int:
    """Predict a file, a folder or standard input; see the command `transform` for the arguments.

    SIGINT and SIGTERM end the whole program with exit code 130.

    Returns:
        0; 1 if the reader of standard output closed it.

    Raises:
        UserError: an argument or the input is invalid, or a file cannot be read or written. Outputs of earlier files
            are complete; the file at fault has none.
    """
    if join and (file_format == "jsonlines" or header):
        raise UserError("--join cannot be combined with --header or --format jsonlines.")
    if header and file_format == "parquet":
        raise UserError("--header is for CSV; a Parquet file names its columns.")
    names = read_outputs(outputs)
    with _exit_on_stop():
        try:
            predictor = Predictor(*artifact.load(model), available_cores(), precision)
            transform = Transform(predictor, names, file_format, True if header else None, join)
            pairs = pair_files(source, target, overwrite, transform.suffix, shard)
            Encoder(predictor.metadata).outputs(ResponseFormat(CSV, names))
            for path, output in pairs:
                transform_file(transform, path, output)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return AlgorithmError.exit_code
        except OSError as error:
            where = f"{error.filename}: " if error.filename else "The output cannot be written: "
            raise UserError(f"{where}{error.strerror}.") from error
    return 0


@contextlib.contextmanager
def _exit_on_stop() -> Iterator[None]:
    """End the program at once on SIGINT or SIGTERM, and remove the output that is not complete.

    A thread does this, because a signal handler runs in the main thread, which may be waiting for input; and an
    exception raised there could leave a lock behind that another thread needs.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def wait_for_stop() -> None:
        if not os.read(reading, 1):
            return
        with _partial_lock:
            if _partial is not None:
                _partial.unlink(missing_ok=True)
            os.write(sys.stderr.fileno(), b"Interrupted; the file that was being predicted has no output.\n")
            os._exit(INTERRUPTED)

    watcher = threading.Thread(target=wait_for_stop, daemon=True)
    watcher.start()
    previous_pipe = signal.set_wakeup_fd(writing)
    # Without a handler, a signal would not write to the pipe.
    previous = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous_pipe)
        for number, handler in previous.items():
            signal.signal(number, handler)
        os.close(writing)
        watcher.join()
        os.close(reading)


@click.command()
@click.argument("model", type=click.Path(file_okay=False, path_type=Path))
@click.argument("source", metavar="INPUT", type=click.Path(allow_dash=True, path_type=Path))
@click.argument("target", metavar="OUTPUT", type=click.Path(allow_dash=True, path_type=Path))
@click.option("--outputs", default="", help="outputs, separated by commas: " + ", ".join(OUTPUTS))
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["csv", "jsonlines", "parquet"]),
    help="format of OUTPUT [parquet for tables, else csv]",
)
@click.option("--header", is_flag=True, help="write a header line (CSV)")
@click.option("--join", is_flag=True, help="write each prediction after the cells of its row")
@click.option("--precision", type=click.Choice(get_args(Precision)), default="float32", show_default=True)
@click.option("--overwrite", is_flag=True, help="replace outputs that exist")
@click.option("--shard", metavar="I/N", help="every N-th file of a folder, from number I (0 to N - 1)")
def transform(model: Path, source: Path, target: Path, **options: Any) -> int:
    """Predict files of any size with the model in the folder MODEL, on all cores.

    INPUT is a CSV, Parquet or Arrow file, a folder of them, or - for CSV from standard input; gzip-compressed CSV is
    detected. OUTPUT is a file (compressed if its name ends in .gz), a folder, or - for standard output. An output
    appears under its name once it is complete.
    """
    return transform_files(model, source, target, **options)


def main() -> int:
    return run_command(transform, "python -m lstm_fcn.serving.transform")


if __name__ == "__main__":
    sys.exit(main())
