"""Reading the bytes of a channel: files, gzip files and pipes, and parsing their CSV in several threads."""

import contextlib
import functools
import io
import logging
import os
import select
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow
from pyarrow import csv
from typing_extensions import Buffer

from lstm_fcn.container.channels import Source
from lstm_fcn.container.cores import available_cores
from lstm_fcn.container.csv_blocks import Plain, parse_plain, unpacked
from lstm_fcn.container.csv_reader import SeriesReader
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.tables import is_start_of_table

logger = logging.getLogger(__name__)

PIPE_SECONDS = 120.0  # to wait for the platform to open its end of a pipe
PROGRESS_INTERVAL = 30.0  # seconds between progress lines
READ_BYTES = 512 * 1024
MAX_THREADS = 8  # more than one thread can feed and store
WHOLE_LINES = csv.ParseOptions(quote_char=False, ignore_empty_lines=False)


class Progress:
    """Counts the bytes read from a channel, and logs them from time to time."""

    def __init__(self, source: Source) -> None:
        self._name = source.name
        self._total = sum(path.stat().st_size for path in source.files)
        self._done = 0
        self._started = self._last_line = time.monotonic()

    def add(self, count: int) -> None:
        self._done += count
        if time.monotonic() - self._last_line > PROGRESS_INTERVAL:
            self._last_line = time.monotonic()
            total = f" of {self._total / 1e9:.1f}" if self._total else ""
            logger.info("%s: read %.1f%s GB%s", self._name, self._done / 1e9, total, self._rate())

    def summary(self) -> str:
        """Size and rate, for the log; empty for small data."""
        return f": {self._done / 1e9:.1f} GB{self._rate()}" if self._done > 1e8 else ""

    def _rate(self) -> str:
        return f", {self._done / 1e6 / max(time.monotonic() - self._started, 1e-9):.0f} MB/s"


class _Counted(io.RawIOBase):
    """A stream that reports the bytes read to `Progress`."""

    def __init__(self, raw: io.FileIO, progress: Progress) -> None:
        self._raw = raw
        self._progress = progress

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        count: int = self._raw.readinto(buffer)
        if count == 1:  # a pipe can return a single byte, but two are needed to recognise gzip
            count += self._raw.readinto(memoryview(buffer)[1:])
        self._progress.add(count)
        return count


@contextlib.contextmanager
def open_stream(path: Path, progress: Progress, is_pipe: bool) -> Iterator[BinaryIO]:
    """Open a file of a channel, or its pipe; gzip is decompressed (T31).

    Raises:
        UserError: opening or reading fails.
    """
    try:
        with contextlib.ExitStack() as stack:
            raw = stack.enter_context(_open_pipe(path) if is_pipe else path.open("rb", buffering=0))
            stream = stack.enter_context(io.BufferedReader(_Counted(raw, progress), READ_BYTES))
            if is_start_of_table(stream.peek(4)):
                raise UserError(f"{path} delivers a table, which cannot be read from a pipe; use input mode FastFile.")
            yield stack.enter_context(unpacked(stream, str(path)))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error


class ParallelReader(SeriesReader):
    """A `SeriesReader` whose blocks are parsed by pyarrow in threads and, when these are busy, by the reader too."""

    def parse_plain_blocks(self, texts: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes, Plain | None]]:
        threads = max(1, min(available_cores() - 1, MAX_THREADS))
        with ThreadPoolExecutor(threads) as pool:
            waiting: deque[tuple[int, bytes, Future[Plain | None]]] = deque()
            busy: deque[Future[Plain | None]] = deque()
            try:
                for number, text in texts:
                    while busy and busy[0].done():
                        busy.popleft()
                    if len(busy) <= threads:
                        busy.append(pool.submit(parse_block, text, self.has_label))
                        waiting.append((number, text, busy[-1]))
                    else:
                        waiting.append((number, text, Future()))
                        waiting[-1][2].set_result(parse_plain(text, self.has_label))
                    while waiting and (waiting[0][2].done() or len(waiting) > 4 * threads):
                        number, text, parsed = waiting.popleft()
                        yield number, text, parsed.result()
                for number, text, parsed in waiting:
                    yield number, text, parsed.result()
            finally:
                pool.shutdown(cancel_futures=True)


def parse_block(text: bytes, labelled: bool) -> Plain | None:
    """Parse lines that have the same number of cells, and finite numbers after a label if `labelled`.

    Returns:
        None for all other text, whether it is invalid or only unusual; `SeriesReader` then parses it line by line.
    """
    if b'"' in text:
        return None
    cells = text.count(b",", 0, text.find(b"\n") + 1 or None) + 1
    names, columns = _columns(cells, labelled)
    options = csv.ReadOptions(column_names=names, use_threads=False, block_size=len(text) + 1)
    try:
        table = csv.read_csv(pyarrow.BufferReader(text), options, WHOLE_LINES, columns)
        (batch,) = table.to_batches()
    except (pyarrow.ArrowInvalid, ValueError):
        return None
    labels = batch.column(0).to_pylist() if labelled else []
    if cells == labelled or not all(map(str.strip, labels)):
        return None
    values = (batch.drop_columns(["0"]) if labelled else batch).to_tensor(row_major=True).to_numpy()
    return Plain(labels, values) if np.isfinite(values).all() else None


@functools.lru_cache(maxsize=16)
def _columns(cells: int, labelled: bool) -> tuple[list[str], csv.ConvertOptions]:
    """Columns named by their number: a label, if `labelled`, and numbers, none of them missing."""
    kinds = {str(k): pyarrow.string() if labelled and k == 0 else pyarrow.float64() for k in range(cells)}
    return list(kinds), csv.ConvertOptions(column_types=kinds, null_values=[], strings_can_be_null=False)


def _open_pipe(path: Path) -> io.FileIO:
    """Open the reading end of a pipe as soon as the platform writes to it (T36)."""
    deadline = time.monotonic() + PIPE_SECONDS
    while not path.exists():
        if time.monotonic() > deadline:
            raise UserError(f"The pipe {path} did not appear within {PIPE_SECONDS:.0f} seconds.")
        time.sleep(0.1)
    # Opened without blocking, because a pipe without a writer would block the job forever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN | select.POLLHUP)
    if not poll.poll(1000 * PIPE_SECONDS):
        os.close(descriptor)
        raise UserError(f"No data arrived in the pipe {path} within {PIPE_SECONDS:.0f} seconds.")
    os.set_blocking(descriptor, True)
    return io.FileIO(descriptor)
