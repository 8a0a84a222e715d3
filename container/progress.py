"""The progress of a training, from its log: a bar where a person watches, plain lines elsewhere."""

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

from lstm_fcn.container.metrics import EpochLine

SHOWN = ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy")


@contextlib.contextmanager
def training_log(handler: logging.Handler) -> Iterator[None]:
    """Send the log of a training in this process to this handler only."""
    log = logging.getLogger("lstm_fcn.training")
    level, propagate = log.level, log.propagate
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate


class LineHandler(logging.Handler):
    """Hands the lines of a log to a function."""

    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__()
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        self._show(record.getMessage())


class EpochBar:
    """Shows the lines of a training's log; with a bar, the lines of epochs move it instead of being printed."""

    def __init__(self, rounds: int, bar: type[Any] = tqdm, disable: bool | None = None) -> None:
        """Create a bar for this many rounds, fine-tuning included.

        Args:
            rounds: see above.
            bar: the kind of bar.
            disable: None: no bar unless standard error is a terminal.
        """
        self._rounds = rounds
        self._bar = bar(unit="epoch", dynamic_ncols=True, disable=disable)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def show(self, line: str) -> None:
        """Show a line of the log."""
        epoch = None if self._bar.disable else EpochLine.parse(line)
        if epoch is None:
            self._bar.write(line)
            sys.stdout.flush()
            return
        shown = (f"{name}={epoch.metrics[name]:.4f}" for name in SHOWN if name in epoch.metrics)
        self._bar.set_postfix_str(" ".join(shown), refresh=False)
        self._bar.total = epoch.epochs * max(self._rounds, epoch.round + 1)
        self._bar.update(epoch.round * epoch.epochs + epoch.epoch - self._bar.n)
