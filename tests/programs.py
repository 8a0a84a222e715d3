"""The two programs as black boxes: a training job and an endpoint in a temporary /opt/ml tree."""

import contextlib
import io
import json
import logging
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TypeVar
from unittest import mock

import psutil

from lstm_fcn.benchmarks.programs import (
    PROGRAMS,
    TIMEOUT,
    Endpoint,
    Reply,
    Result,
    descendants,
    endpoint,
    environment,
    finish,
    free_port,
    kill_tree,
    labelled_csv,
    request,
    start,
    wait_until_healthy,
    without_labels,
)
from lstm_fcn.container.errors import UserError
from tests.preloaded import PreloadedTrain

# The names that other tests import from here; those of `benchmarks.programs` are shared with the benchmarks.
__all__ = [
    "MODEL_FILES",
    "PROGRAMS",
    "SMALL",
    "TIMEOUT",
    "Background",
    "Endpoint",
    "Reply",
    "Result",
    "TrainingJob",
    "assert_all_refused",
    "assert_refused",
    "assert_succeeded",
    "assert_succeeds",
    "assert_was_refused",
    "descendants",
    "endpoint",
    "environment",
    "finish",
    "free_port",
    "is_running",
    "kill_tree",
    "labelled_csv",
    "offer_pipe",
    "request",
    "run_all",
    "side_by_side",
    "start",
    "try_to_serve",
    "wait_until_healthy",
    "without_labels",
]

MODEL_FILES = ["README.md", "model.json", "model.onnx", "weights.safetensors"]

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

# A network small enough that a test waits for the start of the program, not for its training.
SMALL = {
    "filters-1": "4",
    "filters-2": "4",
    "filters-3": "4",
    "kernel-size-1": "3",
    "hidden-size": "2",
    "kernel-features": "84",
    "epochs": "3",
}


class TrainingJob:
    """An /opt/ml tree below `root`, filled like the platform fills it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.model = root / "model"
        self.failure = root / "output" / "failure"
        self.checkpoints = root / "checkpoints"

    def write(self, path: str, content: str | bytes | object) -> Path:
        """Write a file below the root: text and bytes as they are, anything else as JSON."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            target.write_bytes(content)
        else:
            target.write_text(content if isinstance(content, str) else json.dumps(content))
        return target

    def prepare(
        self, training: str | bytes | None = None, validation: str | None = None, **hyperparameters: str
    ) -> "TrainingJob":
        """Data and hyperparameters, written with underscores for dashes, beside those of a small network."""
        self.write("input/data/training/train.csv", labelled_csv() if training is None else training)
        if validation is not None:
            self.write("input/data/validation/valid.csv", validation)
        return self.set(**hyperparameters)

    def set(self, **hyperparameters: str) -> "TrainingJob":
        """These hyperparameters, written with underscores for dashes, beside those of a small network."""
        names = {name.replace("_", "-"): value for name, value in hyperparameters.items()}
        self.write("input/config/hyperparameters.json", SMALL | names)
        return self

    def copy(self, root: Path) -> "TrainingJob":
        """The whole tree once more, at `root`."""
        shutil.copytree(self.root, root)
        return TrainingJob(root)

    def start(self, program: bool = False) -> "Background":
        """Start `train` in a process of its own; with `program`, as a program that has yet to import everything."""
        return Background(start("train", self.root) if program else PreloadedTrain(environment(self.root)))

    def run(self, program: bool = False) -> Result:
        """Run `train` in a process of its own."""
        return self.start(program).finish()

    def run_here(self) -> Result:
        """Run `train` in this process, which is much faster; for jobs that end before or soon after their first step.

        What the program changes in its process is restored.
        """
        import torch

        from lstm_fcn.training.__main__ import main

        root, package = logging.getLogger(), logging.getLogger("lstm_fcn.training")
        handlers, level, threads = root.handlers[:], package.level, torch.get_num_threads()
        signals = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        stdout, stderr = io.StringIO(), io.StringIO()
        root.handlers = []  # so that the program sets up its own log
        try:
            with (
                mock.patch.dict(os.environ, environment(self.root), clear=True),
                mock.patch.object(sys, "argv", ["train"]),
                contextlib.redirect_stdout(stdout),
                contextlib.redirect_stderr(stderr),
                warnings.catch_warnings(),
            ):
                warnings.simplefilter("default")
                code = main()
        finally:
            root.handlers = handlers
            package.setLevel(level)
            torch.set_num_threads(threads)
            for number, handler in signals.items():
                signal.signal(number, handler)
        return Result(code, stdout.getvalue(), stderr.getvalue())

    def files(self) -> list[str]:
        """Names of what lies in the model folder."""
        return sorted(path.name for path in self.model.iterdir()) if self.model.is_dir() else []

    def read(self, name: str) -> bytes:
        """A file of the model."""
        return (self.model / name).read_bytes()


def is_running(process: int) -> bool:
    """Whether a process exists that has not ended; ended ones exist until somebody asks how."""
    try:
        return psutil.Process(process).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


def side_by_side(function: Callable[[Item], Outcome], items: Iterable[Item]) -> list[Outcome]:
    """`function` of each item, as many at a time as there are cores; the programs that it starts have one core each.

    So they train on one thread, and as fast as alone. Models that are compared must be trained alike.
    """
    cores: queue.SimpleQueue[int] = queue.SimpleQueue()
    for core in sorted(os.sched_getaffinity(0)):
        cores.put(core)
    with ThreadPoolExecutor(cores.qsize(), initializer=lambda: os.sched_setaffinity(0, {cores.get()})) as pool:
        return list(pool.map(function, items))


def run_all(jobs: Iterable[TrainingJob]) -> list[Result]:
    """Run jobs side by side; how they ended, in order."""
    return side_by_side(TrainingJob.run, jobs)


def assert_succeeds(job: TrainingJob) -> Result:
    result = job.run()
    assert_succeeded(job, result)
    return result


def assert_succeeded(job: TrainingJob, result: Result) -> None:
    """The job has left a whole model, and no failure (T51, T55, T56)."""
    assert result.code == 0, result.stdout + result.stderr
    assert job.files() == MODEL_FILES
    assert not job.failure.exists()


def assert_refused(job: TrainingJob, *messages: str) -> None:
    """Run the job in this process; it is refused with these messages."""
    assert_was_refused(job, job.run_here(), *messages)


def assert_all_refused(cases: Iterable[tuple[TrainingJob, str]]) -> None:
    """Run all jobs in this process; each is refused with its message."""
    for job, message in cases:
        assert_refused(job, message)


def assert_was_refused(job: TrainingJob, result: Result, *messages: str) -> None:
    """The job ended as the user's fault; the cause stands first in the failure file, and in the log (T55 to T57)."""
    assert result.code == UserError.exit_code, (messages, result.stdout, result.stderr)
    text = job.failure.read_text(encoding="utf-8")
    assert text.startswith("UserError: ")
    assert text in result.stderr
    assert "Traceback" not in result.stderr
    for message in messages:
        assert message in text[:1024]
    assert job.files() == []


class Background:
    """A program that runs; what it prints is read as it comes."""

    def __init__(self, process: "subprocess.Popen[str] | PreloadedTrain") -> None:
        self.process = process
        self.lines: list[str] = []
        self._errors: list[str] = []
        self._readers = [
            threading.Thread(target=self._collect, args=(process.stdout, self.lines), daemon=True),
            threading.Thread(target=self._collect, args=(process.stderr, self._errors), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _collect(stream: IO[str] | None, into: list[str]) -> None:
        assert stream is not None
        with stream:
            into.extend(stream)

    def wait_until(self, reached: Callable[[list[str]], bool]) -> bool:
        """Wait until the lines printed so far fulfil the condition; False if the program ends without it."""
        deadline = time.monotonic() + TIMEOUT
        while not reached(self.lines):
            if self.process.poll() is not None or time.monotonic() > deadline:
                for reader in self._readers:
                    reader.join(5)
                return reached(self.lines)
            time.sleep(0.002)
        return True

    def wait_for(self, text: str) -> None:
        """Wait until a line with this text is printed; fail if the program ends without it."""
        found = self.wait_until(lambda lines: any(text in line for line in lines))
        assert found, "".join(self.lines + self._errors)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the program and all that it has started, as the end of a container does."""
        kill_tree(self.process)

    def finish(self) -> Result:
        """Wait for the program to end by itself."""
        try:
            code = self.process.wait(TIMEOUT)
        finally:
            self.kill()
        for reader in self._readers:
            reader.join()
        return Result(code, "".join(self.lines), "".join(self._errors))


def offer_pipe(path: Path, data: bytes, delay: float = 0.0) -> threading.Thread:
    """Put `data` into a FIFO at `path`, as the platform does in Pipe mode; the FIFO appears after `delay` seconds.

    The thread waits for a reader; where there is none it is left behind.
    """

    def write() -> None:
        time.sleep(delay)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(path)
        with contextlib.suppress(BrokenPipeError), path.open("wb") as pipe:
            pipe.write(data)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    return thread


def try_to_serve(root: Path, **settings: str) -> Result:
    """`serve` where it is expected to end by itself."""
    return finish(start("serve", root, settings))
