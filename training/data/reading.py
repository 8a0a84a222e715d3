"""The bytes of a channel: files, gzip files and pipes, and how large ones are parsed."""

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

PIPE_SECONDS = 120.0  # until the platform must have opened its end of a pipe
PROGRESS_INTERVAL = 30.0  # seconds between lines while a channel is read
READ_BYTES = 1024 * 1024
LARGE_BYTES = 64 * 1024 * 1024  # of a channel; below that, starting processes takes longer than parsing
MOST_WORKERS = 8  # that one process can keep busy


class Progress:
    """How much of a channel has been read, and how fast; said every now and then."""

    def __init__(self, source: Source) -> None:
        self._name = source.name
        self._is_pipe = source.pipe is not None
        self._total = sum(path.stat().st_size for path in source.files)
        self._done = 0
        self._started = self._last_line = time.monotonic()

    @property
    def is_large(self) -> bool:
        """Worth several processes; of a pipe nobody knows."""
        return available_cores() > 1 and (self._total >= LARGE_BYTES or self._is_pipe)

    def add(self, count: int) -> None:
        self._done += count
        if time.monotonic() - self._last_line > PROGRESS_INTERVAL:
            self._last_line = time.monotonic()
            total = f" of {self._total / 1e9:.1f}" if self._total else ""
            logger.info("%s: read %.1f%s GB%s", self._name, self._done / 1e9, total, self._rate())

    def summary(self) -> str:
        """For data large enough for it to matter."""
        return f": {self._done / 1e9:.1f} GB{self._rate()}" if self._done > 1e8 else ""

    def _rate(self) -> str:
        return f", {self._done / 1e6 / max(time.monotonic() - self._started, 1e-9):.0f} MB/s"


class _Counted(io.RawIOBase):
    """A stream that reports how much is read from it."""

    def __init__(self, raw: io.FileIO, progress: Progress) -> None:
        self._raw = raw
        self._progress = progress

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        count: int = self._raw.readinto(buffer)
        if count == 1:  # of a pipe, perhaps; two are needed to recognise a format
            count += self._raw.readinto(memoryview(buffer)[1:])
        self._progress.add(count)
        return count


@contextlib.contextmanager
def open_stream(path: Path, progress: Progress, is_pipe: bool) -> Iterator[BinaryIO]:
    """A file of a channel, or its pipe; unpacked if it is in gzip's format (T31).

    Raises:
        UserError: it cannot be read, while it is opened or later.
    """
    try:
        with contextlib.ExitStack() as stack:
            raw = stack.enter_context(_open_pipe(path) if is_pipe else path.open("rb", buffering=0))
            stream = stack.enter_context(io.BufferedReader(_Counted(raw, progress), READ_BYTES))
            yield stack.enter_context(unpacked(stream, str(path)))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error


class ParallelReader(SeriesReader):
    """Reads a large text with several processes that parse its blocks."""

    def parse_plain_blocks(self, texts: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes, Plain | None]]:
        workers = min(available_cores(), MOST_WORKERS)
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
    """Leave signals to the process that is worked for, and end when it ends, however that comes about."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        sentinel = parent.sentinel

        def end_with_parent() -> None:
            multiprocessing.connection.wait([sentinel])
            os._exit(1)

        threading.Thread(target=end_with_parent, daemon=True).start()


def _open_pipe(path: Path) -> io.FileIO:
    """The reading end of a pipe, once the platform writes to it (T36)."""
    deadline = time.monotonic() + PIPE_SECONDS
    while not path.exists():
        if time.monotonic() > deadline:
            raise UserError(f"The pipe {path} did not appear within {PIPE_SECONDS:.0f} seconds.")
        time.sleep(0.1)
    # Opened without waiting, or a pipe that nobody writes to would hold the job for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN | select.POLLHUP)
    if not poll.poll(1000 * PIPE_SECONDS):
        os.close(descriptor)
        raise UserError(f"Nobody wrote to the pipe {path} within {PIPE_SECONDS:.0f} seconds.")
    os.set_blocking(descriptor, True)
    return io.FileIO(descriptor)
