"""The two programs as black boxes: a training job and an endpoint in a temporary /opt/ml tree."""

import json
import os
import re
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

import numpy as np

PROGRAMS = Path(sys.executable).parent
TIMEOUT = 300  # seconds; nothing here takes a fifth of it

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

    def write(self, path: str, content: str | bytes | object) -> Path:
        """Write a file below the root: text and bytes as they are, anything else as JSON."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            target.write_bytes(content)
        else:
            target.write_text(content if isinstance(content, str) else json.dumps(content))
        return target

    def prepare(self, training: str | bytes | None = None, **hyperparameters: str) -> "TrainingJob":
        """Training data and hyperparameters, written with underscores for dashes, beside those of a small network."""
        self.write("input/data/training/train.csv", labelled_csv() if training is None else training)
        names = {name.replace("_", "-"): value for name, value in hyperparameters.items()}
        self.write("input/config/hyperparameters.json", SMALL | names)
        return self

    def start(self) -> "subprocess.Popen[str]":
        return start("train", self.root)

    def run(self) -> Result:
        return finish(self.start())


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
