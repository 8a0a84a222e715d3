"""Clients that come in crowds, are slow, or say nothing."""

import http.client
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.contract.test_serving import LABELS, ROWS, copy_model
from tests.programs import Endpoint, endpoint

CROWD = 2000


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Endpoint]:
    with endpoint(copy_model(tmp_path), SAGEMAKER_MODEL_SERVER_WORKERS="2") as running:
        yield running


@pytest.fixture
def crowd(server: Endpoint) -> Iterator[list[socket.socket]]:
    """Connections that say nothing."""
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < 2 * CROWD:
        pytest.skip("this machine does not allow so many open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    address = urlsplit(server.url)
    connections = [socket.create_connection((address.hostname, address.port), timeout=30) for _ in range(CROWD)]
    yield connections
    for connection in connections:
        connection.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))


def slowest_ping(server: Endpoint) -> float:
    slowest = 0.0
    for _ in range(10):
        started = time.monotonic()
        assert server.get("/ping").status == 200
        slowest = max(slowest, time.monotonic() - started)
    return slowest


def test_thousands_that_say_nothing(server: Endpoint, crowd: list[socket.socket]) -> None:
    assert slowest_ping(server) < 2
    assert server.invoke(ROWS).text.split("\n") == LABELS
    for connection in crowd[:200]:
        connection.sendall(b"POST /invocations HTTP/1.1\r\nHost")  # and never go on
    assert slowest_ping(server) < 2
    assert server.invoke(ROWS).text.split("\n") == LABELS


def test_a_stop_does_not_wait_for_those_that_say_nothing(server: Endpoint) -> None:
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=30):
        assert server.get("/ping").status == 200
        started = time.monotonic()
        server.process.terminate()
        server.process.wait(timeout=30)
        assert time.monotonic() - started < 10


def test_one_that_shuts_its_side_down_still_gets_its_answer(server: Endpoint) -> None:
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=30) as client:
        head = f"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Length: {len(ROWS)}\r\n\r\n"
        client.sendall((head + ROWS).encode())
        client.shutdown(socket.SHUT_WR)
        reply = http.client.HTTPResponse(client)
        reply.begin()
        assert reply.read().decode().split("\n") == LABELS
