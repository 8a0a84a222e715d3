"""Reading the bytes of a channel: files, gzip files and pipes, and parsing large ones in several processes."""

import contextlib
import io
import logging
import multiprocessing
import multiprocessing.connection
import os
import select
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import BinaryIO

from typing_extensions import Buffer

from lstm_fcn.container.channels import Source
from lstm_fcn.container.cores import available_cores
from lstm_fcn.container.csv_blocks import Plain, parse_plain, unpacked
from lstm_fcn.container.csv_reader import SeriesReader
from lstm_fcn.container.errors import UserError

logger = logging.getLogger(__name__)

PIPE_SECONDS = 120.0  # to wait for the platform to open its end of a pipe
PROGRESS_INTERVAL = 30.0  # seconds between progress lines
READ_BYTES = 1024 * 1024
LARGE_BYTES = 64 * 1024 * 1024  # channels below this are parsed faster than processes start
MAX_WORKERS = 8  # more than one process cannot keep busy


class Progress:
    """Counts the bytes read from a channel, and logs them from time to time."""

    def __init__(self, source: Source) -> None:
        self._name = source.name
        self._is_pipe = source.pipe is not None
        self._total = sum(path.stat().st_size for path in source.files)
        self._done = 0
        self._started = self._last_line = time.monotonic()

    @property
    def is_large(self) -> bool:
        """Whether several processes parse faster than one; assumed for a pipe, whose size is not known."""
        return available_cores() > 1 and (self._total >= LARGE_BYTES or self._is_pipe)

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
            yield stack.enter_context(unpacked(stream, str(path)))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error


class ParallelReader(SeriesReader):
    """Reads a large text whose blocks are parsed by several processes."""

    def parse_plain_blocks(self, texts: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes, Plain | None]]:
        workers = min(available_cores(), MAX_WORKERS)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, initializer=prepare_worker) as pool:
            waiting: deque[tuple[int, bytes, Future[Plain | None]]] = deque()
            try:
                for number, text in texts:
                    waiting.append((number, text, pool.submit(parse_plain, text, self.has_label)))
                    if len(waiting) > 2 * workers:
                        number, text, parsed = waiting.popleft()
                        yield number, text, parsed.result()
                for number, text, parsed in waiting:
                    yield number, text, parsed.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


def prepare_worker() -> None:
    """Prepare a worker process: leave Ctrl-C to the parent, and end whenever the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        sentinel = parent.sentinel

        def end_with_parent() -> None:
            multiprocessing.connection.wait([sentinel])
            os._exit(1)

        threading.Thread(target=end_with_parent, daemon=True).start()


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
