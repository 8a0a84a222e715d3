"""The two programs as black boxes: a training job and an endpoint in a temporary /opt/ml tree."""

import contextlib
import json
import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

import numpy as np

from lstm_fcn.container.errors import UserError

PROGRAMS = Path(sys.executable).parent
TIMEOUT = 300  # seconds; nothing here takes a fifth of it
MODEL_FILES = ["model.json", "model.onnx", "weights.safetensors"]

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

# A network small enough that a test waits for the start of the program, not for its training.
SMALL = {
    "filters-1": "4",
    "filters-2": "4",
    "filters-3": "4",
    "kernel-size-1": "3",
    "hidden-size": "2",
    "epochs": "3",
}


def labelled_csv(rows: int = 12, length: int = 16, labels: tuple[str, ...] = ("up", "down"), seed: int = 0) -> str:
    """Headerless CSV of ramps that rise or fall with the label's index, label first."""
    rng = np.random.default_rng(seed)
    lines = []
    for k in range(rows):
        index = k % len(labels)
        series = (1 - 2 * (index % 2)) * np.linspace(-1, 1, length) + rng.normal(scale=0.1, size=length) + index // 2
        lines.append(",".join([labels[index], *(f"{value:.5f}" for value in series)]))
    return "\n".join(lines) + "\n"


def without_labels(text: str) -> str:
    return "".join(line.split(",", 1)[1] + "\n" for line in text.splitlines())


@dataclass(frozen=True)
class Result:
    """How a program ended."""

    code: int
    stdout: str
    stderr: str

    def metric_lines(self) -> list[str]:
        return [line for line in self.stdout.splitlines() if "train_loss: " in line]


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

    def start(self) -> "Background":
        return Background(start("train", self.root))

    def run(self) -> Result:
        return self.start().finish()

    def files(self) -> list[str]:
        """Names of what lies in the model folder."""
        return sorted(path.name for path in self.model.iterdir()) if self.model.is_dir() else []

    def read(self, name: str) -> bytes:
        """A file of the model."""
        return (self.model / name).read_bytes()


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
    assert_was_refused(job, job.run(), *messages)


def assert_all_refused(cases: Iterable[tuple[TrainingJob, str]]) -> None:
    """Run all jobs; each is refused with its message."""
    jobs, messages = zip(*cases, strict=True)
    for job, result, message in zip(jobs, run_all(jobs), messages, strict=True):
        assert_was_refused(job, result, message)


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

    def __init__(self, process: "subprocess.Popen[str]") -> None:
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
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGSTOP)  # it starts nothing more
            processes = [self.process.pid, *descendants(self.process.pid)]
            for number in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)

    def finish(self) -> Result:
        """Wait for the program to end by itself."""
        try:
            self.process.wait(TIMEOUT)
        finally:
            self.kill()
        for reader in self._readers:
            reader.join()
        return Result(self.process.returncode, "".join(self.lines), "".join(self._errors))


def descendants(process: int) -> Iterator[int]:
    """The processes that a process has started, and those that they have started."""
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        for child in map(int, children.read_text().split()):
            yield child
            yield from descendants(child)


def start(program: str, root: Path, settings: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
    """`train` or `serve` with its tree at `root` and these environment variables."""
    return subprocess.Popen(
        [PROGRAMS / program],
        env=environment(root, settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> Result:
    """Wait for a program to end by itself."""
    try:
        stdout, stderr = process.communicate(timeout=TIMEOUT)
    finally:
        process.kill()
    return Result(process.returncode, stdout, stderr)


def environment(root: Path, settings: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without the platform's variables, for a program whose tree is at `root`."""
    kept = {name: value for name, value in os.environ.items() if not re.match(r"(SAGEMAKER|SM|AWS)_", name)}
    return {**kept, "SAGEMAKER_BASE_DIR": str(root), **(settings or {})}


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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def text(self) -> str:
        return self.body.decode()


def request(
    url: str, body: bytes | str | None = None, headers: Mapping[str, str] | None = None, method: str | None = None
) -> Reply:
    """One HTTP request; a body is sent by POST as CSV unless said otherwise. Error statuses are replies too."""
    data = body.encode() if isinstance(body, str) else body
    defaults = {} if data is None else {"Content-Type": "text/csv"}
    outgoing = urllib.request.Request(url, data, {**defaults, **(headers or {})}, method=method)
    try:
        with urllib.request.urlopen(outgoing, timeout=60) as response:
            return Reply(response.status, response.read(), dict(response.headers))
    except urllib.error.HTTPError as error:
        with error:
            return Reply(error.code, error.read(), dict(error.headers))


class Endpoint:
    """A running `serve`."""

    def __init__(self, url: str, process: "subprocess.Popen[str]") -> None:
        self.url = url
        self.process = process

    def get(self, path: str, method: str = "GET") -> Reply:
        return request(self.url + path, method=method)

    def invoke(self, body: bytes | str, **headers: str) -> Reply:
        """POST to /invocations; headers are written with underscores for dashes."""
        return request(self.url + "/invocations", body, {name.replace("_", "-"): v for name, v in headers.items()})


def wait_until_healthy(url: str, process: "subprocess.Popen[str] | None" = None) -> None:
    """Return at the first good /ping; fail if the process ends or a minute goes by."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (process is None or process.poll() is None):
        try:
            with urllib.request.urlopen(f"{url}/ping", timeout=2):
                return
        except OSError:
            time.sleep(0.02)
    raise AssertionError(f"no good answer from {url}/ping")


@contextmanager
def endpoint(root: Path, **settings: str) -> Iterator[Endpoint]:
    """`serve` for the model in `root`/model, with these environment variables, stopped in the end."""
    port = free_port()
    process = start("serve", root, {"SAGEMAKER_BIND_TO_PORT": str(port), **settings})
    try:
        wait_until_healthy(f"http://127.0.0.1:{port}", process)
        yield Endpoint(f"http://127.0.0.1:{port}", process)
    finally:
        process.terminate()
        finish(process)


def try_to_serve(root: Path, **settings: str) -> Result:
    """`serve` where it is expected to end by itself."""
    return finish(start("serve", root, settings))
