"""Predictions over CSV files of any size, without HTTP: the endpoint's predictions, row for row.

Files are read, predicted and written in blocks, on all cores. An output appears under its name once it is whole.
"""

import argparse
import contextlib
import gzip
import io
import logging
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast, get_args

from tqdm import tqdm

from lstm_fcn.container.channels import data_files
from lstm_fcn.container.cores import available_cores
from lstm_fcn.container.csv_blocks import Plain, unpacked
from lstm_fcn.container.csv_reader import Block, SeriesReader
from lstm_fcn.container.errors import AlgorithmError, UserError
from lstm_fcn.container.media_types import CSV, JSON_LINES, Precision, parse_outputs
from lstm_fcn.container.optml import OptML
from lstm_fcn.serving.encode import Encoder
from lstm_fcn.serving.negotiation import ResponseFormat
from lstm_fcn.serving.predictor import Predictor, TooLargeError

logger = logging.getLogger(__name__)

STANDARD = Path("-")  # standard input or output
SUFFIX = ".out"  # of the outputs of a folder, as a batch transform job names them
PROGRESS_INTERVAL = 30.0  # seconds between lines of progress, where nobody watches a bar
INTERRUPTED = 130

_unfinished: set[Path] = set()  # what a stop must remove


@dataclass(frozen=True)
class Transform:
    """What is done to every file.

    join: the predictions follow the cells of their row, as with `JoinSource=Input` of a batch transform job.
    """

    predictor: Predictor
    reply: ResponseFormat
    join: bool = False

    def run(self, stream: BinaryIO, name: str, sink: BinaryIO, advance: Callable[[int], None]) -> int:
        """Predict the rows of `stream`, called `name` in messages, into `sink`; returns how many there were.

        `advance` is told of rows that were written.

        Raises:
            UserError: names the first row that is wrong; `sink` then holds some of the rows before it.
        """
        metadata = self.predictor.metadata
        reader = _TextReader(
            stream,
            name,
            labelled=False,
            columns=metadata.problem.columns,
            preprocessing=metadata.problem.preprocessing,
            variables=metadata.problem.num_variables,
            length=metadata.problem.length,
        )
        encoder, rows = Encoder(metadata), 0
        for texts in self._in_order(self._work(encoder, reader, block) for block in reader):
            if not rows:
                sink.write(_lines(self._join(reader.header_line, encoder.header(self.reply))))
            sink.write(_lines(texts))
            advance(len(texts))
            rows += len(texts)
        return rows

    def _work(self, encoder: Encoder, reader: "_TextReader", block: Block) -> Callable[[], list[str]]:
        """What remains to be done with a block once it is read."""
        lines, metadata = reader.lines_of(block) if self.join else [], self.predictor.metadata

        def predict() -> list[str]:
            series = metadata.problem.preprocessing.apply(block.series, metadata.problem.length)
            try:
                predictions = self.predictor.predict(series)
            except TooLargeError as error:
                reader.fail(block.rows[error.index], "has values too large for the model")
            return self._join(lines, encoder.rows(predictions, self.reply))

        return predict

    def _join(self, lines: list[str], predictions: list[str]) -> list[str]:
        if not self.join:
            return predictions
        return [f"{line},{prediction}" for line, prediction in zip(lines, predictions, strict=True)]

    def _in_order(self, tasks: Iterator[Callable[[], list[str]]]) -> Iterator[list[str]]:
        """The tasks' results in order; some are worked on ahead, while the caller reads and writes."""
        cores = available_cores()
        waiting: deque[Future[list[str]]] = deque()
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


class _TextReader(SeriesReader):
    """Knows the text of the block that it gave out last."""

    _number, _text = 1, b""

    def parse_plain_blocks(self, texts: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes, Plain | None]]:
        for number, text, plain in super().parse_plain_blocks(texts):
            self._number, self._text = number, text
            yield number, text, plain

    def lines_of(self, block: Block) -> list[str]:
        """The lines of the last block's rows, as they are in the file."""
        lines = self._text.split(b"\n")
        return [lines[row - self._number].decode() for row in block.rows]

    @property
    def header_line(self) -> list[str]:
        """The file's header, if it has one."""
        return [] if self.header is None else [self.header.line]


class Progress:
    """A bar where a person watches, else a line now and then; both on standard error."""

    def __init__(self, name: str, stream: BinaryIO, size: int | None) -> None:
        self._name, self._stream, self._size = name, stream, size
        self._rows = 0
        self._started = self._last_line = time.monotonic()
        self._bar = tqdm(total=size, desc=name, unit="B", unit_scale=True, disable=not sys.stderr.isatty())

    def advance(self, rows: int) -> None:
        """Some more rows are done."""
        self._rows += rows
        place = self._stream.tell() if self._size else 0
        self._bar.set_postfix_str(f"{self._rows} rows, {self._rate():.0f} rows/s", refresh=False)
        self._bar.update(place - self._bar.n)
        if self._bar.disable and time.monotonic() - self._last_line > PROGRESS_INTERVAL:
            self._last_line = time.monotonic()
            share = f", {place / self._size:.0%}" if self._size else ""
            logger.info("%s: %d rows%s, %.0f rows/s", self._name, self._rows, share, self._rate())

    def finish(self) -> None:
        self._bar.close()
        logger.info("%s: %d rows, %.0f rows/s", self._name, self._rows, self._rate())

    def _rate(self) -> float:
        return self._rows / max(time.monotonic() - self._started, 1e-9)


def transform_file(transform: Transform, source: Path, target: Path) -> None:
    """Predict one file, or standard input, into another, or standard output; gzip by content and by name.

    Raises:
        UserError: the input is wrong or cannot be read, or the output cannot be written; nothing is left of it then.
    """
    with _open_source(source) as (stream, raw), _open_target(target) as sink:
        name = "standard input" if source == STANDARD else str(source)
        size = os.fstat(raw.fileno()).st_size if source != STANDARD else None
        progress = Progress(name, raw, size)
        transform.run(stream, name, sink, progress.advance)
        progress.finish()


@contextlib.contextmanager
def _open_source(path: Path) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """The text of a file, unpacked if need be, and the file itself."""
    with contextlib.ExitStack() as stack:
        raw = cast(io.BufferedReader, sys.stdin.buffer if path == STANDARD else stack.enter_context(path.open("rb")))
        yield stack.enter_context(unpacked(raw, str(path))), raw


@contextlib.contextmanager
def _open_target(path: Path) -> Iterator[BinaryIO]:
    """A file that gets its name once it is whole and on the disk; one that is not is removed."""
    if path == STANDARD:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    _unfinished.add(partial)
    try:
        with partial.open("wb") as file:
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
        _unfinished.discard(partial)


def plan(source: Path, target: Path, overwrite: bool) -> list[tuple[Path, Path]]:
    """Each file that is to be predicted, with its output.

    Of a folder, all data files; those with an output already are left out unless it shall be overwritten.

    Raises:
        UserError: there is no such input, it holds nothing, or the output is in the way.
    """
    if source == STANDARD:
        pairs = [(source, target)]
    elif source.is_dir():
        if target == STANDARD or target.resolve().is_relative_to(source.resolve()):
            raise UserError(f"The predictions of the files in {source} go into a folder of their own, outside of it.")
        pairs = [(path, target / f"{path.relative_to(source)}{SUFFIX}") for path in data_files(source)]
        if not pairs:
            raise UserError(f"{source} holds no file with content.")
    elif source.is_file():
        pairs = [(source, target / f"{source.name}{SUFFIX}" if target.is_dir() else target)]
    else:
        raise UserError(f"There is no file or folder {source}.")
    done = [output for _, output in pairs if output != STANDARD and output.exists()]
    if done and not overwrite:
        if not source.is_dir():
            raise UserError(f"{done[0]} exists already; --overwrite replaces it.")
        logger.info("%d of %d outputs exist already and are kept; --overwrite replaces them", len(done), len(pairs))
        pairs = [(path, output) for path, output in pairs if output not in done]
    return pairs


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=os.environ.get("_LSTM_FCN_COMMAND", "python -m lstm_fcn.serving.transform"), description=__doc__
    )
    parser.add_argument("input", type=Path, help="CSV file, folder of them, or - for standard input; gzip files, too")
    parser.add_argument(
        "output", type=Path, help="file, folder, or - for standard output; packed if its name ends with .gz"
    )
    parser.add_argument("--model", type=Path, default=OptML.from_environment().model, help="the model's folder")
    parser.add_argument("--outputs", default="", help="such as predicted_label,probability,probabilities,explanation")
    parser.add_argument("--format", choices=("csv", "jsonlines"), default="csv")
    parser.add_argument("--header", action="store_true", help="start CSV with a line of names")
    parser.add_argument("--join", action="store_true", help="put the predictions behind the cells of their row")
    parser.add_argument("--precision", choices=get_args(Precision), default="float32")
    parser.add_argument("--overwrite", action="store_true", help="replace outputs that exist already")
    return parser.parse_args()


def _run(arguments: argparse.Namespace) -> None:
    if arguments.join and (arguments.format != "csv" or arguments.header):
        raise UserError("--join goes with --format csv and without --header.")
    try:
        outputs = parse_outputs(arguments.outputs) if arguments.outputs else ()
    except ValueError as error:
        raise UserError(f"--outputs {arguments.outputs}: {error}.") from error
    media_type = CSV if arguments.format == "csv" else JSON_LINES
    reply = ResponseFormat(media_type, outputs, header=True if arguments.header else None)
    pairs = plan(arguments.input, arguments.output, arguments.overwrite)
    predictor = Predictor(arguments.model, available_cores(), arguments.precision)
    Encoder(predictor.metadata).outputs(reply)
    for source, target in pairs:
        transform_file(Transform(predictor, reply, arguments.join), source, target)


def _lines(texts: list[str]) -> bytes:
    return "".join(f"{text}\n" for text in texts).encode()


def _watch_for_stops() -> None:
    """End at once on SIGINT or SIGTERM, from a thread of its own.

    A handler runs in the main thread, which may be waiting for input; and an exception out of it, wherever the program
    is, could leave a lock behind that another thread needs.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def stop() -> None:
        os.read(reading, 1)
        for path in _unfinished:
            path.unlink(missing_ok=True)
        os.write(sys.stderr.fileno(), b"stopped; the file that was being predicted has no output\n")
        os._exit(INTERRUPTED)

    threading.Thread(target=stop, daemon=True).start()
    signal.set_wakeup_fd(writing)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # without a handler, there is no byte in the pipe


def main() -> int:
    """Returns 0 if every output is whole, 2 if the input must be mended, 1 if the fault is ours; a stop gives 130."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    _watch_for_stops()
    try:
        _run(_parse_arguments())
    except UserError as error:
        print(f"UserError: {error}", file=sys.stderr)
        return UserError.exit_code
    except BrokenPipeError:  # whoever read our standard output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return AlgorithmError.exit_code
    except OSError as error:
        where = f"{error.filename}: " if error.filename else "The output cannot be written: "
        print(f"UserError: {where}{error.strerror}.", file=sys.stderr)
        return UserError.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
