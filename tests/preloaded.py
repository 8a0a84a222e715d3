"""`train` in a process of its own that starts with everything imported, because the imports take longer than a test."""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from multiprocessing.connection import Connection
from typing import IO

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        __name__,
        "lstm_fcn.training.job",
        "lstm_fcn.training.output.report",
        "lstm_fcn.training.output.summary",
    ]
)


class PreloadedTrain:
    """A running `train`, forked from a process that has imported it; has the interface of `subprocess.Popen`."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Start `train` with these environment variables, on the cores of the calling thread."""
        # libgomp reads this when torch is imported.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        outputs, ends = zip(*(_context.Pipe(duplex=False) for _ in range(2)), strict=True)
        cores = os.sched_getaffinity(0)
        self._process = _context.Process(target=_run_train, args=(*ends, dict(environment), cores))
        self._process.start()
        self.stdout, self.stderr = map(_open, outputs)
        for connection in ends:
            connection.close()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("train", timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _open(output: "Connection[None, bytes]") -> IO[str]:
    with output:
        return os.fdopen(os.dup(output.fileno()), "r")


def _run_train(
    stdout: "Connection[bytes, None]",
    stderr: "Connection[bytes, None]",
    environment: dict[str, str],
    cores: Iterable[int],
) -> None:
    """In the new process: become `train`."""
    from lstm_fcn.training.__main__ import main

    os.sched_setaffinity(0, cores)
    for number, connection in ((1, stdout), (2, stderr)):
        os.dup2(connection.fileno(), number)
        connection.close()
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["train"]
    sys.exit(main())
