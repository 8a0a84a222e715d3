"""Requests to stop: SIGTERM from the platform, which sends SIGKILL 120 seconds later (T61), and Ctrl-C."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from types import FrameType

COMPUTING_SECONDS = 30.0


# Environment variable; `true`: a stopped job leaves a checkpoint to resume from, and no model.
RESUMABLE = "LSTM_FCN_RESUMABLE"


class StopBeforeTraining(BaseException):
    """A stop was requested before there was a model to save."""


class Interrupted(BaseException):
    """A stop was requested in a resumable job; its checkpoint is saved."""


class StopSignal:
    """Remembers SIGTERM or Ctrl-C.

    Until `training_started` is set there is nothing to save, so the signal ends the program where it is;
    after that, the training loop looks at `requested` at every step.

    resumable: a stop leaves a checkpoint to resume from. Otherwise the best model so far is saved, as the platform
        requires.
    """

    def __init__(self, resumable: bool = False) -> None:
        self.resumable = resumable
        self.training_started = False
        self._requested_at: float | None = None

    @property
    def requested(self) -> bool:
        return self._requested_at is not None

    @property
    def out_of_time(self) -> bool:
        """The share of the 120 seconds that computing may take is used up; the rest is for saving.

        Always false for a resumable job, because its model must not depend on interruptions.
        """
        if self.resumable:
            return False
        return self._requested_at is not None and time.monotonic() - self._requested_at > COMPUTING_SECONDS

    def listen(self) -> None:
        """Handle SIGTERM and SIGINT. The default actions would not even end a process with number 1."""
        signal.signal(signal.SIGTERM, self.handle)
        signal.signal(signal.SIGINT, self.handle)
        # The image's script blocks both signals, because process 1 loses those that arrive before it has a handler.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Remember the signal; raise `StopBeforeTraining` if there is nothing to save yet."""
        first = not self.requested
        self._requested_at = self._requested_at or time.monotonic()
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a second Ctrl-C ends the program at once
        if first and not self.training_started:
            raise StopBeforeTraining


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
