"""How many requests a worker takes on, and how many of the large ones it works on: bounded queues, bounded memory."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from werkzeug.exceptions import ServiceUnavailable

RETRY_AFTER = 1  # seconds
LARGE = 256 * 1024  # bytes of a body from which on a request waits for others that are as large


class Admission:
    """Counts the requests that are being answered or wait for it."""

    def __init__(self, requests: int, size: int, turns: int) -> None:
        """At most `requests` at a time, with bodies of `size` bytes together; one of any size is always taken.

        No more than `turns` of the large ones are worked on at a time: side by side, all would end late, and all of
        them would need room for their series.
        """
        self._free_turns = turns
        self._waiting: deque[threading.Event] = deque()
        self._most_requests, self._most_bytes = requests, size
        self._requests = self._bytes = 0
        self._lock = threading.Lock()

    @contextmanager
    def admit(self, size: int) -> Iterator[None]:
        """A place for a request with a body of up to `size` bytes, for as long as the context lasts.

        Raises:
            ServiceUnavailable: there is none; the client may try again (503 with `Retry-After`).
        """
        with self._lock:
            if self._requests and (self._requests >= self._most_requests or self._bytes + size > self._most_bytes):
                raise ServiceUnavailable("Too many requests are waiting; try again.", retry_after=RETRY_AFTER)
            self._requests += 1
            self._bytes += size
        try:
            yield
        finally:
            with self._lock:
                self._requests -= 1
                self._bytes -= size

    @contextmanager
    def turn(self, size: int) -> Iterator[None]:
        """Wait until a request of this size may be worked on: a small one at once, large ones as they came."""
        if size < LARGE:
            yield
            return
        self._take_turn()
        try:
            yield
        finally:
            self._hand_on_turn()

    def _take_turn(self) -> None:
        with self._lock:
            if self._free_turns:
                self._free_turns -= 1
                return
            mine = threading.Event()
            self._waiting.append(mine)
        mine.wait()

    def _hand_on_turn(self) -> None:
        """To who has waited longest; a semaphore would let whoever asks just now go first."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._free_turns += 1
