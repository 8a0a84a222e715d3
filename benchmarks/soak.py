"""Minutes of mixed load on `serve` while its workers are killed one by one: `make soak`.

Several clients send requests of many kinds, and compare each answer with the labels that the server gave when it was
quiet. Meanwhile a worker gets SIGKILL every now and then, and /ping is asked every second. What was under way in a
worker that was killed may be lost; anything else that goes wrong is a failure, and the exit code is then not 0.

    python -m lstm_fcn.benchmarks.soak [--minutes 10] [--seed 0]
"""

import argparse
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
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from lstm_fcn.benchmarks.serving import Server, answer, resident_megabytes, running, series_csv, train_model

WORKERS, CLIENTS = 2, 8
SERIES, MOST_ROWS = 1000, 200  # to choose from; of a request
KILL_SECONDS = (5.0, 20.0)  # from one to the next
WARM_UP_SECONDS = 10.0  # before the first measurement of memory, and at the end without kills
TIMEOUT_SECONDS = 60.0
NOTICE_SECONDS = 5.0  # a client whose worker was killed has heard of it by then
PING_SECONDS = 2.0  # that /ping may take (S3)
STOP_SECONDS = 30.0  # from SIGTERM to the end (S8)
MOST_TRIES = 20  # of a request that gets 503
SHOWN_FAILURES = 20

# How often each kind of request is sent.
KINDS = {"whole": 0.7, "chunked": 0.08, "slow": 0.08, "malformed": 0.06, "half-closed": 0.04, "cut": 0.02, "gone": 0.02}
EXPLANATION = """\
whole: with Content-Length, at once; slow: in pieces with pauses; malformed: must get its 4xx; half-closed: the client
shuts its side down and waits for the answer; cut: the same in mid-body, must get 400; gone: leaves in mid-body."""


@dataclass(frozen=True)
class Series:
    """Rows to send, and the label of each."""

    rows: list[str]
    labels: list[str]

    def some(self, rng: np.random.Generator) -> tuple[bytes, bytes]:
        """The body of a request and its answer."""
        count = int(rng.integers(1, MOST_ROWS + 1))
        start = int(rng.integers(0, len(self.rows) - count + 1))
        part = slice(start, start + count)
        return "\n".join(self.rows[part]).encode() + b"\n", "\n".join(self.labels[part]).encode()


@dataclass(frozen=True)
class Request:
    """What is sent and what must come back."""

    kind: str
    pieces: list[bytes]
    headers: dict[str, str]
    answer: bytes | None = None  # None: any
    status: int = 200
    method: str = "POST"
    path: str = "/invocations"
    pause: float = 0.0  # seconds between pieces
    half_closes: bool = False


def make_request(series: Series, rng: np.random.Generator) -> Request:
    """A request of a random kind."""
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    body, expected = series.some(rng)
    headers = {"Content-Type": "text/csv", "Content-Length": str(len(body))}
    if kind == "whole":
        return Request(kind, [body], headers, expected)
    if kind == "chunked":
        chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in split(body, rng)] + [b"0\r\n\r\n"]
        return Request(kind, chunks, {"Content-Type": "text/csv", "Transfer-Encoding": "chunked"}, expected)
    if kind == "slow":
        return Request(kind, split(body, rng), headers, expected, pause=float(rng.uniform(0.05, 0.5)))
    if kind == "half-closed":
        return Request(kind, [body], headers, expected, half_closes=True)
    if kind == "malformed":
        return malformed(body, headers, int(rng.integers(7)))
    return Request(kind, split(body, rng)[:-1], headers, status=400, half_closes=kind == "cut")


def split(body: bytes, rng: np.random.Generator) -> list[bytes]:
    """From 2 to 6 pieces, none of them empty."""
    cuts = np.unique(rng.integers(1, len(body), size=rng.integers(1, 6))).tolist()
    return [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]


def malformed(body: bytes, headers: dict[str, str], case: int) -> Request:
    """One of seven ways to get a 4xx."""
    kind = "malformed"
    if case == 0:
        return Request(kind, [b"1,2,3\n"], headers | {"Content-Length": "6"}, status=400)
    if case == 1:
        return Request(kind, [b"x" + body[1:]], headers, status=400)
    if case == 2:
        unframed = {"Content-Type": "text/csv", "Transfer-Encoding": "chunked"}
        return Request(kind, [b"zz\r\n" + body], unframed, status=400)
    if case == 3:
        return Request(kind, [body], headers | {"Content-Type": "image/png"}, status=415)
    if case == 4:
        return Request(kind, [body], headers | {"Accept": "image/png"}, status=406)
    if case == 5:
        return Request(kind, [body], headers, status=404, path="/nothing")
    return Request(kind, [body], headers, status=405, method="PUT")


@dataclass
class Kill:
    """From the signal to the end of the process; all its connections are closed then."""

    began: float
    ended: float = float("inf")


@dataclass(frozen=True)
class Loss:
    """A request whose connection broke."""

    kind: str
    began: float
    ended: float
    error: str
    behind: str  # the kind of the request before it

    def was_killed(self, kills: Sequence[Kill]) -> bool:
        """A worker was killed while the request was under way, and the client heard of it soon."""
        return any(
            kill.began <= self.ended and self.began <= kill.ended and self.ended - kill.ended < NOTICE_SECONDS
            for kill in kills
        )


@dataclass
class Tally:
    """What became of requests: counts by kind and outcome, losses, and what was wrong."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    losses: list[Loss] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def count(self, kind: str, outcome: str) -> None:
        self.counts[kind, outcome] += 1

    def fail(self, kind: str, text: str) -> None:
        self.count(kind, "failed")
        self.failures.append(f"{kind}: {text}")


class Client:
    """Sends one request after the other, over a connection that is kept as long as it lasts."""

    def __init__(self, url: str, series: Series, seed: tuple[int, int]) -> None:
        address = urlsplit(url)
        self.tally = Tally()
        self._connection = http.client.HTTPConnection(address.hostname or "", address.port, TIMEOUT_SECONDS)
        self._last_kind = "nothing"
        self._series = series
        self._rng = np.random.default_rng(seed)

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            request = make_request(self._series, self._rng)
            for _ in range(MOST_TRIES):
                wait = self._exchange(request)
                if wait is None:
                    break
                time.sleep(wait)
            else:
                self.tally.fail(request.kind, f"503 for {MOST_TRIES} times")
            self._last_kind = request.kind
            time.sleep(self._rng.uniform(0, 0.05))
        self._connection.close()

    def _exchange(self, request: Request) -> float | None:
        """Send, and check what comes back; seconds to wait if it is to be sent again."""
        began = time.perf_counter()
        try:
            self._drop_closed(request.kind)
            self.tally.count(request.kind, "sent")
            self._send(request)
            if request.kind == "gone":
                self._connection.close()
                return None
            response = self._connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            self.tally.losses.append(Loss(request.kind, began, time.perf_counter(), repr(error), self._last_kind))
            return None
        if request.half_closes:
            self._connection.close()
        if response.status == http.client.SERVICE_UNAVAILABLE:
            self.tally.count(request.kind, "refused")
            return float(response.headers.get("Retry-After", "1"))
        self._check(request, response.status, body)
        return None

    def _drop_closed(self, kind: str) -> None:
        """A connection that the server has closed meanwhile is not used again; one that holds bytes is a failure."""
        open_socket: socket.socket | None = self._connection.sock
        if open_socket is None or not select.select([open_socket], [], [], 0)[0]:
            return
        try:
            unasked = open_socket.recv(1024)
        except ConnectionError:
            unasked = b""
        self._connection.close()
        if unasked:
            self.tally.failures.append(f"before {kind}: bytes that belong to no request: {unasked!r}")

    def _send(self, request: Request) -> None:
        connection = self._connection
        connection.putrequest(request.method, request.path)
        for name, value in request.headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        for piece in request.pieces:
            connection.send(piece)
            time.sleep(request.pause)
        if request.half_closes:
            connection.sock.shutdown(socket.SHUT_WR)

    def _check(self, request: Request, status: int, body: bytes) -> None:
        if status != request.status:
            self.tally.fail(request.kind, f"{request.headers}: {status}, not {request.status}: {body[:200]!r}")
        elif request.answer is not None and body != request.answer:
            self.tally.fail(request.kind, f"not the labels of the quiet server: {body!r}, not {request.answer!r}"[:500])
        else:
            self.tally.count(request.kind, "answered")


class Pinger:
    """Asks /ping every second."""

    def __init__(self, url: str) -> None:
        self.tally = Tally()
        self.seconds: list[float] = []
        self._address = urlsplit(url).netloc

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            began = time.perf_counter()
            self._ping(began)
            stop.wait(max(0.0, began + 1 - time.perf_counter()))

    def _ping(self, began: float) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=TIMEOUT_SECONDS)
        self.tally.count("/ping", "sent")
        try:
            connection.request("GET", "/ping")
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            self.tally.losses.append(Loss("/ping", began, time.perf_counter(), repr(error), behind="nothing"))
            return
        finally:
            connection.close()
        self.seconds.append(time.perf_counter() - began)
        if status != http.client.OK or self.seconds[-1] >= PING_SECONDS:
            self.tally.fail("/ping", f"{status} after {self.seconds[-1]:.2f} s")
        else:
            self.tally.count("/ping", "answered")


def kill_workers(server: Server, rng: np.random.Generator, kills: list[Kill], stop: threading.Event) -> None:
    """Kill one of the workers every now and then."""
    while not stop.wait(rng.uniform(*KILL_SECONDS)):
        worker = int(rng.choice(server.workers()))
        kills.append(Kill(time.perf_counter()))
        os.kill(worker, signal.SIGKILL)
        while Path(f"/proc/{worker}").exists():
            time.sleep(0.001)
        kills[-1].ended = time.perf_counter()


@contextmanager
def at_work(clients: Sequence[Client], pinger: Pinger) -> Iterator[None]:
    """All clients send while the block runs; what they have sent is answered when it is left."""
    stop = threading.Event()
    asking: list[Client | Pinger] = [*clients, pinger]
    with ThreadPoolExecutor(len(asking)) as threads:
        ends = [threads.submit(one.run, stop) for one in asking]
        try:
            yield
        finally:
            stop.set()
    for end in ends:
        end.result()


@contextmanager
def workers_killed(server: Server, seed: int) -> Iterator[list[Kill]]:
    """Workers are killed while the block runs."""
    kills: list[Kill] = []
    stop = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        killer = thread.submit(kill_workers, server, np.random.default_rng(seed), kills, stop)
        try:
            yield kills
        finally:
            stop.set()
    killer.result()


@dataclass(frozen=True)
class Memory:
    """Resident memory of a server's first process and of its workers, in MB."""

    processes: list[float]

    @classmethod
    def of(cls, server: Server) -> "Memory":
        return cls([resident_megabytes(process) for process in (server.process.pid, *server.workers())])

    def __str__(self) -> str:
        return f"{sum(self.processes):.0f} MB ({' + '.join(f'{size:.0f}' for size in self.processes)})"


@dataclass(frozen=True)
class Outcome:
    """All that a soak has found out."""

    tally: Tally
    ping_seconds: list[float]
    kills: list[Kill]
    replaced: int
    before: Memory
    after: Memory


def soak(server: Server, series: Series, seconds: float, seed: int) -> Outcome:
    """Load the server for so long, the kills included, and stop it."""
    clients = [Client(server.url, series, (seed, number)) for number in range(CLIENTS)]
    pinger = Pinger(server.url)
    with at_work(clients, pinger):
        time.sleep(WARM_UP_SECONDS)
        before = Memory.of(server)
        with workers_killed(server, seed) as kills:
            time.sleep(max(0.0, seconds - 2 * WARM_UP_SECONDS))
        time.sleep(WARM_UP_SECONDS)
    after = Memory.of(server)
    total = Tally()
    for tally in (*(client.tally for client in clients), pinger.tally):
        total.counts += tally.counts
        total.losses += tally.losses
        total.failures += tally.failures
    sort_losses(total, kills)
    total.failures += check_end(server, series)
    log = server.log.read_text()
    replaced = log.count("Booting worker with pid") - WORKERS
    if replaced != len(kills):
        total.failures.append(f"the log tells of {replaced} replaced workers, {len(kills)} were killed")
    if "Traceback" in log:
        total.failures.append("the log has a traceback: " + log[log.index("Traceback") :][:2000])
    return Outcome(total, pinger.seconds, kills, replaced, before, after)


def sort_losses(tally: Tally, kills: Sequence[Kill]) -> None:
    """Tell the requests that died with their worker from those that must not be lost."""
    for loss in tally.losses:
        if loss.was_killed(kills):
            tally.count(loss.kind, "killed")
        else:
            seconds = loss.ended - loss.began
            tally.fail(loss.kind, f"lost after {seconds:.2f} s, behind one of kind {loss.behind}: {loss.error}")


def check_end(server: Server, series: Series) -> list[str]:
    """What is wrong with a server after all this: it has all its workers, answers, and stops when told to."""
    failures = []
    if len(server.workers()) != WORKERS:
        failures.append(f"there are {len(server.workers())} workers at the end")
    if answer(f"{server.url}/invocations", "\n".join(series.rows)).split("\n") != series.labels:
        failures.append("other labels at the end than at the start")
    server.process.terminate()
    try:
        code = server.process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        failures.append(f"still there {STOP_SECONDS:.0f} s after SIGTERM")
    else:
        failures += [f"exit code {code} after SIGTERM"] if code else []
    return failures


def print_outcome(outcome: Outcome) -> None:
    columns = ("sent", "answered", "refused", "killed", "failed")
    print("| kind | sent | answered as expected | 503, sent again | lost with a killed worker | failed |")
    print("|---|---|---|---|---|---|")
    counts = outcome.tally.counts
    for kind in (*KINDS, "/ping"):
        print(f"| {kind} | " + " | ".join(str(counts[kind, column]) for column in columns) + " |")
    print(f"\n{EXPLANATION}\n\n| | |\n|---|---|")
    print(f"| workers killed, replaced | {len(outcome.kills)}, {outcome.replaced} |")
    print(f"| slowest /ping | {max(outcome.ping_seconds):.2f} s |")
    print(f"| resident memory at the start (first process, workers) | {outcome.before} |")
    print(f"| resident memory at the end | {outcome.after} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    settings = {"SAGEMAKER_MODEL_SERVER_WORKERS": str(WORKERS)}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        train_model(root)
        with running([sys.executable, "-m", "lstm_fcn.serving"], root, settings) as server:
            body = series_csv(SERIES)
            series = Series(body.splitlines(), answer(f"{server.url}/invocations", body).split("\n"))
            outcome = soak(server, series, 60 * arguments.minutes, arguments.seed)
    print_outcome(outcome)
    failures = outcome.tally.failures
    if failures:
        raise SystemExit("\n".join([f"\n{len(failures)} failure(s):", *failures[:SHOWN_FAILURES]]))


if __name__ == "__main__":
    main()
