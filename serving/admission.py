"""Limits on the requests that a worker admits and on the large ones that it works on: bounded queues and memory."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from werkzeug.exceptions import ServiceUnavailable

MAX_REQUESTS = 128  # that a worker admits at a time; further ones get 503
RETRY_AFTER = 1  # seconds
LARGE = 256 * 1024  # bytes of a body from which a request waits for its turn


class Admission:
    """Counts the requests that are admitted, and gives turns to the large ones among them."""

    def __init__(self, requests: int, size: int, turns: int, gauge: "memoryview[float] | None" = None) -> None:
        """Set the limits.

        Args:
            requests: requests admitted at a time.
            size: bytes of their bodies together; a request that is alone is admitted whatever its size.
            turns: large requests worked on at a time. More of them would all finish late, and need memory for the
                series of each.
            gauge: its only number is set to the number of admitted requests.
        """
        self._gauge = gauge
        self._free_turns = turns
        self._waiting: deque[threading.Event] = deque()
        self._max_requests, self._max_bytes = requests, size
        self._requests = self._bytes = 0
        self._lock = threading.Lock()

    @contextmanager
    def admit(self, size: int) -> Iterator[None]:
        """Admit a request with a body of up to `size` bytes for the duration of the context.

        Raises:
            ServiceUnavailable: a limit is reached (503 with `Retry-After`).
        """
        with self._lock:
            if self._requests and (self._requests >= self._max_requests or self._bytes + size > self._max_bytes):
                raise ServiceUnavailable("Too many requests are waiting; try again.", retry_after=RETRY_AFTER)
            self._count(1, size)
        try:
            yield
        finally:
            with self._lock:
                self._count(-1, -size)

    def _count(self, requests: int, size: int) -> None:
        self._requests += requests
        self._bytes += size
        if self._gauge is not None:
            self._gauge[0] = self._requests

    @contextmanager
    def turn(self, size: int) -> Iterator[None]:
        """Wait for a turn, in the order of arrival, if the body is large; small requests never wait."""
        if size < LARGE:
            yield
            return
        self._take_turn()
        try:
            yield
        finally:
            self._pass_turn_on()

    def _take_turn(self) -> None:
        with self._lock:
            if self._free_turns:
                self._free_turns -= 1
                return
            mine = threading.Event()
            self._waiting.append(mine)
        mine.wait()

    def _pass_turn_on(self) -> None:
        """Give the turn to the request that has waited longest; a semaphore would let a new one overtake."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._free_turns += 1
