"""The platform's request to stop: SIGTERM, then SIGKILL 120 seconds later (T61)."""

import signal
import time
from types import FrameType

COMPUTING_SECONDS = 30.0


class StopBeforeTraining(BaseException):
    """A stop was asked for while there was no model yet that could be saved."""


class StopSignal:
    """Remembers that SIGTERM or Ctrl-C came.

    Until `training_started` is set there is nothing to save, so the signal ends the program where it is;
    from then on it is noted, for the training loop to see at its next step.
    """

    def __init__(self) -> None:
        self.training_started = False
        self._requested_at: float | None = None

    @property
    def requested(self) -> bool:
        return self._requested_at is not None

    @property
    def out_of_time(self) -> bool:
        """The part of the 120 seconds that computing may take is used up; what is left is for saving."""
        return self._requested_at is not None and time.monotonic() - self._requested_at > COMPUTING_SECONDS

    def listen(self) -> None:
        """Take over SIGTERM and SIGINT. A process with number 1 would not even be ended by them."""
        signal.signal(signal.SIGTERM, self._handle)
        signal.signal(signal.SIGINT, self._handle)
        # The image's script blocks them until there is a handler: until then, process 1 would lose them.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self._requested_at = self._requested_at or time.monotonic()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a second Ctrl-C means it
        if not self.training_started:
            raise StopBeforeTraining
