"""Run `train` and `serve` as programs, and talk to an endpoint. Benchmarks and tests share these functions."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import psutil

PROGRAMS = Path(sys.executable).parent  # where `train` and `serve` are installed
TIMEOUT = 300  # seconds a program may take to end
HEALTHY_SECONDS = 60  # that a server may take to its first successful /ping


# Data


def labelled_csv(rows: int = 12, length: int = 16, labels: tuple[str, ...] = ("up", "down"), seed: int = 0) -> str:
    """Headerless CSV, label first: noisy ramps whose direction and offset depend on the label."""
    rng = np.random.default_rng(seed)
    lines = []
    for k in range(rows):
        index = k % len(labels)
        series = (1 - 2 * (index % 2)) * np.linspace(-1, 1, length) + rng.normal(scale=0.1, size=length) + index // 2
        lines.append(",".join([labels[index], *(f"{value:.5f}" for value in series)]))
    return "\n".join(lines) + "\n"


def without_labels(text: str) -> str:
    """The rows of a labelled CSV without their first column."""
    return "".join(line.split(",", 1)[1] + "\n" for line in text.splitlines())


# Processes


class Process(Protocol):
    """What is needed of `subprocess.Popen`."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, number: int, /) -> None: ...


@dataclass(frozen=True)
class Result:
    """Exit code and output of a program that has ended."""

    code: int
    stdout: str
    stderr: str

    def metric_lines(self) -> list[str]:
        return [line for line in self.stdout.splitlines() if "train_loss: " in line]


def start(program: str, root: Path, settings: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
    """Start `train` or `serve` with `root` in place of /opt/ml and these environment variables."""
    return subprocess.Popen(
        [PROGRAMS / program],
        env=environment(root, settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> Result:
    """Wait for a program to end; kill it after `TIMEOUT` seconds."""
    try:
        stdout, stderr = process.communicate(timeout=TIMEOUT)
    finally:
        process.kill()
    return Result(process.returncode, stdout, stderr)


def environment(root: Path, settings: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without SageMaker's variables, with `root` in place of /opt/ml."""
    kept = {name: value for name, value in os.environ.items() if not re.match(r"(SAGEMAKER|SM|AWS)_", name)}
    return {**kept, "SAGEMAKER_BASE_DIR": str(root), **(settings or {})}


def descendants(process: int) -> list[int]:
    """Ids of the child processes of a process, and of their children."""
    return [child.pid for child in psutil.Process(process).children(recursive=True)]


def kill_tree(process: Process) -> None:
    """Kill a program and everything that it has started, as the end of a container does."""
    if process.poll() is None:
        process.send_signal(signal.SIGSTOP)  # so that it starts no further process
        for number in (process.pid, *descendants(process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        process.wait()


def train(root: Path, training: str, hyperparameters: Mapping[str, str]) -> Path:
    """Run a training job on headerless CSV in a new tree at `root`.

    Returns:
        The folder of the model.

    Raises:
        RuntimeError: the job failed.
    """
    prepare_job(root, training, hyperparameters)
    result = finish(start("train", root))
    if result.code:
        raise RuntimeError(f"train ended with exit code {result.code}: {result.stderr}")
    return root / "model"


def prepare_job(root: Path, training: str, hyperparameters: Mapping[str, str]) -> None:
    """Write the input of a training job below `root`."""
    for path, text in (("data/training/train.csv", training), ("config/hyperparameters.json", None)):
        target = root / "input" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(dict(hyperparameters)) if text is None else text)


# HTTP


@dataclass(frozen=True)
class Reply:
    """A response of the endpoint."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def text(self) -> str:
        return self.body.decode()


class Endpoint:
    """A running `serve`."""

    def __init__(self, url: str, process: "subprocess.Popen[str]") -> None:
        self.url = url
        self.process = process

    def get(self, path: str, method: str = "GET") -> Reply:
        return request(self.url + path, method=method)

    def invoke(self, body: bytes | str, **headers: str) -> Reply:
        """POST to /invocations; header names have underscores instead of dashes."""
        return request(self.url + "/invocations", body, {name.replace("_", "-"): v for name, v in headers.items()})


@contextmanager
def endpoint(root: Path, **settings: str) -> Iterator[Endpoint]:
    """Run `serve` for the model in `root`/model with these environment variables; stop it at the end of the block."""
    port = free_port()
    process = start("serve", root, {"SAGEMAKER_BIND_TO_PORT": str(port), **settings})
    try:
        wait_until_healthy(f"http://127.0.0.1:{port}", process)
        yield Endpoint(f"http://127.0.0.1:{port}", process)
    finally:
        process.terminate()
        finish(process)


def free_port() -> int:
    """A TCP port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def wait_until_healthy(url: str, process: Process | None = None, path: str = "/ping") -> None:
    """Wait for the first successful response from `path`.

    Raises:
        AssertionError: the process has ended, or `HEALTHY_SECONDS` have passed.
    """
    deadline = time.monotonic() + HEALTHY_SECONDS
    while time.monotonic() < deadline and (process is None or process.poll() is None):
        try:
            with urllib.request.urlopen(url + path, timeout=2):
                return
        except OSError:
            time.sleep(0.02)
    raise AssertionError(f"no successful response from {url}{path}")


def request(
    url: str, body: bytes | str | None = None, headers: Mapping[str, str] | None = None, method: str | None = None
) -> Reply:
    """Send one HTTP request. A body is sent by POST, as CSV by default. Error responses are returned, not raised."""
    data = body.encode() if isinstance(body, str) else body
    defaults = {} if data is None else {"Content-Type": "text/csv"}
    outgoing = urllib.request.Request(url, data, {**defaults, **(headers or {})}, method=method)
    try:
        with urllib.request.urlopen(outgoing, timeout=60) as response:
            return Reply(response.status, response.read(), dict(response.headers))
    except urllib.error.HTTPError as error:
        with error:
            return Reply(error.code, error.read(), dict(error.headers))
