"""A load test of `serve` against the usual way to serve such a network: `make bench-serve`. wrk generates the load.

The usual way ("plain") is `benchmarks.plain_server`: Flask, pandas.read_csv and torch with one sync worker of gunicorn
per core. Both serve the same model and must return the same labels before anything is timed. They take turns case by
case, and only the one that is measured runs. Each case starts a new server, because a server under load is still busy
with requests that the load generator has given up.

Latencies are wrk's, corrected for coordinated omission; with fewer than 100 requests, p99 is the slowest. The exit code
is not 0 if a request failed.
"""

import http.client
import itertools
import json
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict, get_args

import click
import numpy as np
import psutil

from lstm_fcn.benchmarks.programs import (
    descendants,
    environment,
    free_port,
    kill_tree,
    labelled_csv,
    request,
    train,
    wait_until_healthy,
    without_labels,
)
from lstm_fcn.container.cores import available_cores
from lstm_fcn.container.media_types import Precision

LENGTH, CLASSES = 150, ("1", "2", "3", "4", "5")
ROWS = (1, 10, 100, 1000)  # per request
CONNECTIONS = (1, 8, 64)
ROUNDS = 3  # responses to each connection, at least; requests in flight at the end are not counted
WARM_UP_SECONDS = 1.0
TIMEOUT = "300s"  # longer than any response takes; wrk counts late ones as errors
STARTS = 12  # of the pair of servers with and without metrics
MIN_SAME = 0.99  # share of equal labels with bfloat16: series between two classes may get either
ROOT = Path(__file__).parents[1]


class Load(TypedDict):
    """What wrk measured (`post.lua`): requests per second, and percentiles of the latency in milliseconds."""

    per_second: float
    p50: float
    p99: float
    errors: int  # responses other than 2xx, broken connections, timeouts


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    process: "subprocess.Popen[str]"
    log: Path

    def workers(self) -> list[int]:
        return descendants(self.process.pid)


@contextmanager
def running(command: list[str], root: Path, settings: Mapping[str, str]) -> Iterator[Server]:
    """Run a server of the model in `root`/model on a free port, and kill it at the end of the block."""
    port = str(free_port())
    ports = {"SAGEMAKER_BIND_TO_PORT": port, "PORT": port}  # gunicorn itself reads PORT
    log = root / "server.log"
    with log.open("wb") as file:  # reading a pipe would take time from the server's cores
        variables = environment(root, {**settings, **ports})
        process = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=file, stderr=subprocess.STDOUT, text=True)
    try:
        wait_until_healthy(f"http://127.0.0.1:{port}", process)
        yield Server(f"http://127.0.0.1:{port}", process, log)
    finally:
        kill_tree(process)


@dataclass
class Way:
    """A way to serve, and what was measured of its servers."""

    command: list[str]
    settings: Mapping[str, str] = field(default_factory=dict)
    start_seconds: list[float] = field(default_factory=list)  # to the first good /ping
    worker_megabytes: list[float] = field(default_factory=list)  # the largest worker after each case
    first_line: str = ""  # of the log

    @contextmanager
    def serve(self, root: Path) -> Iterator[str]:
        """Run a server of the model in `root`/model; gives the URL for predictions."""
        started = time.perf_counter()
        with running(self.command, root, self.settings) as server:
            self.start_seconds.append(time.perf_counter() - started)
            yield f"{server.url}/invocations"
            self.worker_megabytes.append(max(map(resident_megabytes, server.workers())))
            self.first_line = server.log.read_text().partition("\n")[0]


def train_model(root: Path, preset: str = "default") -> Path:
    """Train a model of a preset for two epochs; return its folder, `root`/model."""
    return train(root, labelled_csv(512, LENGTH, CLASSES), {"preset": preset, "epochs": "2"})


def series_csv(rows: int) -> str:
    """Series to predict, which the model was not trained on, in random order."""
    lines = without_labels(labelled_csv(rows, LENGTH, CLASSES, seed=1)).splitlines(keepends=True)
    return "".join(lines[k] for k in np.random.default_rng(0).permutation(rows))


def resident_megabytes(process: int) -> float:
    """Resident memory of a process in MB."""
    return float(psutil.Process(process).memory_info().rss / 1e6)


def check_labels(both: tuple[Way, Way], root: Path, exact: bool) -> None:
    """Check that both ways return the same labels, or almost the same if not `exact`."""
    rows = max(ROWS)
    answers = []
    for way in both:
        with way.serve(root) as url:
            answers.append(answer(url, series_csv(rows)).split())
    same = sum(ours == plain for ours, plain in zip(*answers, strict=True))
    print(f"The same label for {same} of {rows} series, {len(set(answers[1]))} different labels.\n")
    if same < rows * (1 if exact else MIN_SAME):
        raise SystemExit("The two ways return different labels.")


def answer(url: str, body: str) -> str:
    reply = request(url, body)
    if reply.status != http.client.OK:
        raise SystemExit(f"A server responded {reply.status}: {reply.text}")
    return reply.text


def warm_up(url: str, body: str) -> float:
    """Keep all cores busy for a while; return the requests per second. No request is in flight at the end."""
    started = time.perf_counter()
    sent = 0
    with ThreadPoolExecutor(2 * available_cores()) as clients:
        while sent == 0 or time.perf_counter() - started < WARM_UP_SECONDS:
            sent += len(list(clients.map(answer, [url] * 2 * available_cores(), [body] * 2 * available_cores())))
    return sent / (time.perf_counter() - started)


def load(url: str, body: Path, connections: int, seconds: int) -> Load:
    """Post the content of a file for some seconds; each connection sends its next request after the response."""
    command = [shutil.which("wrk") or "wrk", "--threads", "1", "--connections", str(connections)]
    command += ["--duration", f"{seconds}s", "--timeout", TIMEOUT, "--script", str(Path(__file__).parent / "post.lua")]
    result = subprocess.run([*command, url, "--", str(body)], capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"wrk failed: {result.stdout}{result.stderr}")
    found: Load = json.loads(result.stdout.splitlines()[-1])
    return found


def measure(way: Way, root: Path, rows: int, connections: int, seconds: int) -> Load:
    body = root / f"{rows}.csv"
    body.write_text(series_csv(rows))
    with way.serve(root) as url:
        rate = warm_up(url, body.read_text())
        return load(url, body, connections, max(seconds, math.ceil(ROUNDS * connections / rate)))


def ratio(ours: float, plain: float) -> str:
    return f"{ours / plain:.2f}" if plain else "-"


def compare_loads(both: tuple[Way, Way], root: Path, seconds: int) -> int:
    """Print a table of all cases; return the number of errors."""
    columns = ["rows", "conn.", "requests/s", "plain", "ours / plain"]
    columns += ["p50, ms", "plain", "ours / plain", "p99, ms", "plain", "ours / plain", "errors", "plain"]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    failed = 0
    for rows, connections in itertools.product(ROWS, CONNECTIONS):
        ours, plain = (measure(way, root, rows, connections, seconds) for way in both)
        failed += ours["errors"] + plain["errors"]
        pairs = [(ours["per_second"], plain["per_second"]), (ours["p50"], plain["p50"]), (ours["p99"], plain["p99"])]
        cells = " | ".join(f"{one:.1f} | {other:.1f} | {ratio(one, other)}" for one, other in pairs)
        print(f"| {rows} | {connections} | {cells} | {ours['errors']} | {plain['errors']} |", flush=True)
    return failed


def compare_servers(ours: Way, plain: Way) -> None:
    """Print a table with start times and memory of all these servers."""
    start, other_start = (statistics.median(way.start_seconds) for way in (ours, plain))
    memory, other_memory = (max(way.worker_megabytes) for way in (ours, plain))
    name = f"start to first good /ping, median of {len(ours.start_seconds)}"
    print("\n| | ours | plain | ours / plain |\n|---|---|---|---|")
    print(f"| {name} | {start:.2f} s | {other_start:.2f} s | {ratio(start, other_start)} |")
    name = "resident memory of the largest worker after load"
    print(f"| {name} | {memory:.0f} MB | {other_memory:.0f} MB | {ratio(memory, other_memory)} |", flush=True)


def compare_presets(ours: Way, seconds: int) -> int:
    """Print a table of the models of all presets on our endpoint, `paper` first; return the number of errors."""
    print("\n| preset | requests/s | of `paper` | rows/s | of `paper` |\n|---|---|---|---|---|")
    failed, first = 0, None
    for preset in ("paper", "default", "best"):
        with tempfile.TemporaryDirectory() as folder:
            train_model(Path(folder), preset)
            loads = [measure(ours, Path(folder), rows, 8, seconds) for rows in (1, 1000)]
        failed += sum(one["errors"] for one in loads)
        speeds = [loads[0]["per_second"], 1000 * loads[1]["per_second"]]
        first = first or speeds
        cells = " | ".join(f"{speed:.0f} | {ratio(speed, other)}" for speed, other in zip(speeds, first, strict=True))
        print(f"| {preset} | {cells} |", flush=True)
    return failed


def compare_metrics(ours: Way, root: Path) -> int:
    """Print the requests per second with `GET /metrics` beside those without; return the number of errors.

    Each server has one worker, because connections are not divided evenly among several. Both run at a time and take
    turns of two seconds. They are started often, because a server keeps the speed it happens to start with.
    """
    body = root / "1.csv"
    body.write_text(series_csv(1))
    ratios, failed = [], 0
    for _ in range(STARTS):
        speeds: list[list[float]] = [[], []]
        with ExitStack() as stack:
            urls = []
            for counted in ("true", "false"):
                settings = {**ours.settings, "SAGEMAKER_MODEL_SERVER_WORKERS": "1", "LSTM_FCN_METRICS": counted}
                urls.append(f"{stack.enter_context(running(ours.command, root, settings)).url}/invocations")
                warm_up(urls[-1], body.read_text())
            for turn in range(6):
                for url, found in list(zip(urls, speeds, strict=True))[:: 1 if turn % 2 else -1]:
                    one = load(url, body, 8, 2)
                    failed += one["errors"]
                    if turn:  # the first one warms up
                        found.append(one["per_second"])
        ratios.append(sum(speeds[0]) / sum(speeds[1]))
    error = statistics.stdev(ratios) / math.sqrt(STARTS)
    print(f"\nWith metrics: {statistics.mean(ratios):.3f} of the requests/s (standard error {error:.3f})", flush=True)
    return failed


@click.command(help=__doc__)
@click.option("--seconds", type=int, default=6, show_default=True, help="minimum duration of each case")
@click.option("--precision", type=click.Choice(get_args(Precision)), help="LSTM_FCN_PRECISION of our endpoint")
def main(seconds: int, precision: str | None) -> None:
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is missing: apt-get install wrk")
    ours = Way([sys.executable, "-m", "lstm_fcn.serving"], {"LSTM_FCN_PRECISION": precision} if precision else {})
    workers = ["--workers", str(available_cores()), "--worker-class", "sync", "--timeout", "60"]
    plain = Way([sys.executable, "-m", "gunicorn", *workers, "lstm_fcn.benchmarks.plain_server:application()"])
    both = ours, plain
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        train_model(root)
        check_labels(both, root, exact=precision != "bfloat16")
        print(f"{available_cores()} core(s), shared with the load generator. Ours: {ours.first_line}\n", flush=True)
        errors = compare_loads(both, root, seconds)
        compare_servers(ours, plain)
        errors += compare_metrics(ours, root)
    errors += compare_presets(ours, seconds)
    if errors:
        raise SystemExit(f"{errors} request(s) failed")


if __name__ == "__main__":
    main()
