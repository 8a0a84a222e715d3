"""Minutes of mixed load on `serve` while its workers are killed one by one: `make soak`.

Several clients send requests of many kinds and compare each response with the labels that the server returned before
the test. Meanwhile, workers are killed at random times, and /ping is requested every second. A request that was in
flight in a killed worker may be lost; everything else that goes wrong is a failure, and the exit code is then not 0.
"""

import http.client
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import click
import numpy as np
import psutil

from lstm_fcn.benchmarks.serving import Server, answer, resident_megabytes, running, series_csv, train_model

WORKERS, CLIENTS = 2, 8
SERIES, MAX_ROWS = 1000, 200  # to choose from; per request
KILL_SECONDS = (5.0, 20.0)  # between two kills
WARM_UP_SECONDS = 10.0  # without kills, before the first measurement of memory and at the end
TIMEOUT_SECONDS = 60.0
NOTICE_SECONDS = 5.0  # within which a client notices that its worker was killed
PING_SECONDS = 2.0  # limit for /ping (S3)
STOP_SECONDS = 30.0  # limit from SIGTERM to the end (S8)
MAX_TRIES = 20  # of a request that gets 503
SHOWN_FAILURES = 20

# The share of each kind of request.
KINDS = {"whole": 0.7, "chunked": 0.08, "slow": 0.08, "malformed": 0.06, "half-closed": 0.04, "cut": 0.02, "gone": 0.02}
EXPLANATION = """\
whole: with Content-Length, at once; slow: in pieces with pauses; malformed: must get its 4xx; half-closed: the client
closes its side and waits for the response; cut: the same within the body, must get 400; gone: the client disconnects
within the body."""


@dataclass(frozen=True)
class Series:
    """Rows to send, and the label of each."""

    rows: list[str]
    labels: list[str]


@dataclass(frozen=True)
class Request:
    """A request, and the response that it must get."""

    kind: str
    pieces: list[bytes]
    headers: dict[str, str]
    response: bytes | None = None  # None: any
    status: int = 200
    method: str = "POST"
    path: str = "/invocations"
    pause: float = 0.0  # seconds between pieces
    half_closes: bool = False


PING = Request("/ping", [], {}, method="GET", path="/ping")


def make_request(series: Series, rng: np.random.Generator) -> Request:
    """A request of a random kind, for random rows."""
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    count = int(rng.integers(1, MAX_ROWS + 1))
    start = int(rng.integers(0, len(series.rows) - count + 1))
    body = "".join(f"{row}\n" for row in series.rows[start : start + count]).encode()
    expected = "\n".join(series.labels[start : start + count]).encode()
    headers = {"Content-Type": "text/csv", "Content-Length": str(len(body))}
    if kind == "malformed":
        return malformed(body, headers, int(rng.integers(7)))
    if kind == "chunked":
        chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in split(body, rng)] + [b"0\r\n\r\n"]
        return Request(kind, chunks, {"Content-Type": "text/csv", "Transfer-Encoding": "chunked"}, expected)
    if kind == "slow":
        return Request(kind, split(body, rng), headers, expected, pause=float(rng.uniform(0.05, 0.5)))
    if kind in ("cut", "gone"):
        return Request(kind, split(body, rng)[:-1], headers, status=400, half_closes=kind == "cut")
    return Request(kind, [body], headers, expected, half_closes=kind == "half-closed")


def split(body: bytes, rng: np.random.Generator) -> list[bytes]:
    """Split into 2 to 6 pieces, none of them empty."""
    cuts = np.unique(rng.integers(1, len(body), size=rng.integers(1, 6))).tolist()
    return [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]


def malformed(body: bytes, headers: dict[str, str], case: int) -> Request:
    """One of seven requests that must get a 4xx."""
    unframed = {"Content-Type": "text/csv", "Transfer-Encoding": "chunked"}
    return [
        Request("malformed", [b"1,2,3\n"], headers | {"Content-Length": "6"}, status=400),
        Request("malformed", [b"x" + body[1:]], headers, status=400),
        Request("malformed", [b"zz\r\n" + body], unframed, status=400),
        Request("malformed", [body], headers | {"Content-Type": "image/png"}, status=415),
        Request("malformed", [body], headers | {"Accept": "image/png"}, status=406),
        Request("malformed", [body], headers, status=404, path="/nothing"),
        Request("malformed", [body], headers, status=405, method="PUT"),
    ][case]


Kill = tuple[float, float]  # the time of the signal, and of the end of the worker, when its connections are closed


@dataclass(frozen=True)
class Loss:
    """A request whose connection broke; `behind` is the kind of the request before it."""

    kind: str
    began: float
    ended: float
    error: str
    behind: str

    def was_killed(self, kills: Sequence[Kill]) -> bool:
        """Whether a worker was killed while the request was in flight, shortly before the client noticed."""
        return any(
            signalled <= self.ended and self.began <= dead and self.ended - dead < NOTICE_SECONDS
            for signalled, dead in kills
        )


@dataclass
class Tally:
    """Requests counted by kind and outcome, lost requests, and failures; all clients share it."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    losses: list[Loss] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, kind: str, outcome: str) -> None:
        with self.lock:
            self.counts[kind, outcome] += 1

    def fail(self, kind: str, text: str) -> None:
        self.count(kind, "failed")
        self.failures.append(f"{kind}: {text}")

    def judge_losses(self, kills: Sequence[Kill]) -> None:
        """Count the requests that were lost with their worker; all other lost requests are failures."""
        for loss in self.losses:
            if loss.was_killed(kills):
                self.count(loss.kind, "killed")
            else:
                seconds = loss.ended - loss.began
                self.fail(loss.kind, f"lost after {seconds:.2f} s, behind one of kind {loss.behind}: {loss.error}")


class Client:
    """Sends one request after another over a connection that it keeps as long as possible."""

    def __init__(self, url: str, tally: Tally) -> None:
        self.tally = tally
        self.connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT_SECONDS)
        self._last_kind = "nothing"

    def send(self, request: Request) -> None:
        """Send, and check the response; send again as long as the response is 503."""
        for _ in range(MAX_TRIES):
            wait = self._exchange(request)
            if wait is None:
                break
            time.sleep(wait)
        else:
            self.tally.fail(request.kind, f"503 for {MAX_TRIES} times")
        self._last_kind = request.kind

    def _exchange(self, request: Request) -> float | None:
        """Send, and check the response; return the seconds to wait if the request must be sent again."""
        began = time.perf_counter()
        try:
            self._drop_closed(request.kind)
            self.tally.count(request.kind, "sent")
            self._send(request)
            if request.kind == "gone":
                self.connection.close()
                return None
            response = self.connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            self.connection.close()
            self.tally.losses.append(Loss(request.kind, began, time.perf_counter(), repr(error), self._last_kind))
            return None
        if request.half_closes:
            self.connection.close()
        if response.status == http.client.SERVICE_UNAVAILABLE and request is not PING:
            self.tally.count(request.kind, "refused")
            return float(response.headers.get("Retry-After", "1"))
        if response.status != request.status:
            self.tally.fail(request.kind, f"{request.headers}: {response.status}, not {request.status}: {body[:200]!r}")
        elif request.response is not None and body != request.response:
            self.tally.fail(request.kind, f"other labels than before: {body!r}, not {request.response!r}"[:500])
        else:
            self.tally.count(request.kind, "answered")
        return None

    def _drop_closed(self, kind: str) -> None:
        """Do not reuse a connection that the server has closed; unexpected bytes in it are a failure."""
        open_socket: socket.socket | None = self.connection.sock
        if open_socket is None or not select.select([open_socket], [], [], 0)[0]:
            return
        try:
            unexpected = open_socket.recv(1024)
        except ConnectionError:
            unexpected = b""
        self.connection.close()
        if unexpected:
            self.tally.failures.append(f"before {kind}: bytes that belong to no request: {unexpected!r}")

    def _send(self, request: Request) -> None:
        connection = self.connection
        connection.putrequest(request.method, request.path)
        for name, value in request.headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        for piece in request.pieces:
            connection.send(piece)
            time.sleep(request.pause)
        if request.half_closes:
            connection.sock.shutdown(socket.SHUT_WR)


def send_requests(client: Client, series: Series, seed: tuple[int, int], stop: threading.Event) -> None:
    """Send random requests."""
    rng = np.random.default_rng(seed)
    while not stop.wait(rng.uniform(0, 0.05)):
        client.send(make_request(series, rng))
    client.connection.close()


def send_pings(client: Client, stop: threading.Event) -> float:
    """Request /ping every second, each time over a new connection; return the longest time of a response."""
    slowest = 0.0
    while not stop.is_set():
        began = time.perf_counter()
        client.send(PING)
        client.connection.close()
        seconds = time.perf_counter() - began
        slowest = max(slowest, seconds)
        if seconds >= PING_SECONDS:
            client.tally.fail("/ping", f"took {seconds:.2f} s")
        stop.wait(1 - seconds)
    return slowest


def kill_workers(server: Server, rng: np.random.Generator, stop: threading.Event) -> list[Kill]:
    """Kill a worker at random times."""
    kills = []
    while not stop.wait(rng.uniform(*KILL_SECONDS)):
        worker = int(rng.choice(server.workers()))
        began = time.perf_counter()
        os.kill(worker, signal.SIGKILL)
        while psutil.pid_exists(worker):
            time.sleep(0.001)
        kills.append((began, time.perf_counter()))
    return kills


def memory(server: Server) -> str:
    """Resident memory of a server's first process and of its workers, and their sum."""
    sizes = [resident_megabytes(process) for process in (server.process.pid, *server.workers())]
    return f"{sum(sizes):.0f} MB ({' + '.join(f'{size:.0f}' for size in sizes)})"


def soak(server: Server, series: Series, seconds: float, seed: int) -> tuple[Tally, dict[str, str]]:
    """Load the server for some seconds while its workers are killed, and stop it; return also what was measured."""
    tally, stop_killing, stop = Tally(), threading.Event(), threading.Event()
    with ThreadPoolExecutor(CLIENTS + 2) as threads:
        try:
            clients = [
                threads.submit(send_requests, Client(server.url, tally), series, (seed, number), stop)
                for number in range(CLIENTS)
            ]
            pings = threads.submit(send_pings, Client(server.url, tally), stop)
            time.sleep(WARM_UP_SECONDS)
            before = memory(server)
            killer = threads.submit(kill_workers, server, np.random.default_rng(seed), stop_killing)
            time.sleep(max(0.0, seconds - 2 * WARM_UP_SECONDS))
            stop_killing.set()
            time.sleep(WARM_UP_SECONDS)
        finally:
            stop_killing.set()
            stop.set()
    for client in clients:
        client.result()
    kills, after = killer.result(), memory(server)
    tally.judge_losses(kills)
    tally.failures += check_end(server, series)
    log = server.log.read_text()
    replaced = log.count("Booting worker with pid") - WORKERS
    if replaced != len(kills):
        tally.failures.append(f"{len(kills)} workers were killed, but the log mentions {replaced} replaced ones")
    if "Traceback" in log:
        tally.failures.append("the log has a traceback: " + log[log.index("Traceback") :][:2000])
    return tally, {
        "workers killed, replaced": f"{len(kills)}, {replaced}",
        "slowest /ping": f"{pings.result():.2f} s",
        "resident memory at the start (first process, workers)": before,
        "resident memory at the end": after,
    }


def check_end(server: Server, series: Series) -> list[str]:
    """Check that a server has all its workers, returns the same labels as before, and stops; return the failures."""
    failures = []
    if len(server.workers()) != WORKERS:
        failures.append(f"there are {len(server.workers())} workers at the end")
    if answer(f"{server.url}/invocations", "\n".join(series.rows)).split("\n") != series.labels:
        failures.append("other labels at the end than at the start")
    server.process.terminate()
    try:
        code = server.process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        failures.append(f"still running {STOP_SECONDS:.0f} s after SIGTERM")
    else:
        failures += [f"exit code {code} after SIGTERM"] if code else []
    return failures


def print_outcome(tally: Tally, measured: Mapping[str, str]) -> None:
    columns = ("sent", "answered", "refused", "killed", "failed")
    print("| kind | sent | answered as expected | 503, sent again | lost with a killed worker | failed |")
    print("|---|---|---|---|---|---|")
    for kind in (*KINDS, "/ping"):
        print(f"| {kind} | " + " | ".join(str(tally.counts[kind, column]) for column in columns) + " |")
    print(f"\n{EXPLANATION}\n\n| | |\n|---|---|")
    for name, value in measured.items():
        print(f"| {name} | {value} |", flush=True)


@click.command(help=__doc__)
@click.option("--minutes", type=float, default=10.0, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def main(minutes: float, seed: int) -> None:
    settings = {"SAGEMAKER_MODEL_SERVER_WORKERS": str(WORKERS)}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        train_model(root)
        with running([sys.executable, "-m", "lstm_fcn.serving"], root, settings) as server:
            body = series_csv(SERIES)
            series = Series(body.splitlines(), answer(f"{server.url}/invocations", body).split("\n"))
            tally, measured = soak(server, series, 60 * minutes, seed)
    print_outcome(tally, measured)
    if failures := tally.failures:
        raise SystemExit("\n".join([f"\n{len(failures)} failure(s):", *failures[:SHOWN_FAILURES]]))


if __name__ == "__main__":
    main()
