"""Clients that come in thousands, are slow, or send nothing."""

import http.client
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.models import LABELS, ROWS, save_plain_model
from tests.programs import Endpoint, endpoint

CROWD = 2000


@pytest.fixture
def crowd(server: Endpoint) -> Iterator[list[socket.socket]]:
    """Connections on which nothing is sent."""
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


def test_thousands_of_silent_connections(server: Endpoint, crowd: list[socket.socket]) -> None:
    assert slowest_ping(server) < 2
    assert server.invoke(ROWS).text.split("\n") == LABELS
    for connection in crowd[:200]:
        connection.sendall(b"POST /invocations HTTP/1.1\r\nHost")  # and never more
    assert slowest_ping(server) < 2
    assert server.invoke(ROWS).text.split("\n") == LABELS


def test_a_stop_does_not_wait_for_silent_connections(tmp_path: Path) -> None:
    save_plain_model(tmp_path / "model")
    with endpoint(tmp_path, SAGEMAKER_MODEL_SERVER_WORKERS="1") as server:
        address = urlsplit(server.url)
        with socket.create_connection((address.hostname, address.port), timeout=30):
            assert server.get("/ping").status == 200
            started = time.monotonic()
            server.process.terminate()
            server.process.wait(timeout=30)
            assert time.monotonic() - started < 10


def test_a_client_that_closes_its_side_still_gets_its_response(server: Endpoint) -> None:
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=30) as client:
        head = f"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Length: {len(ROWS)}\r\n\r\n"
        client.sendall((head + ROWS).encode())
        client.shutdown(socket.SHUT_WR)
        response = http.client.HTTPResponse(client)
        response.begin()
        assert response.read().decode().split("\n") == LABELS
