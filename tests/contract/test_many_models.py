"""`serve` with many models and with counts, as a black box: several workers, some of which are killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.models import CLASSES, LABELS, ROWS, save_model_of_variables, save_plain_model
from tests.programs import Endpoint, descendants, endpoint, environment, free_port, wait_until_healthy

HEADERS = {"Content-Type": "text/csv"}
TWO_WORKERS = {"SAGEMAKER_MODEL_SERVER_WORKERS": "2", "LSTM_FCN_METRICS": "true"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root")
    save_plain_model(folder / "models" / "plain")
    save_model_of_variables(folder / "models" / "loaded" / "model")
    return folder


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[Endpoint]:
    with endpoint(root, SAGEMAKER_MULTI_MODEL="true", **TWO_WORKERS) as running:
        yield running


def ask(url: str, body: str | None = None, method: str | None = None) -> tuple[int, str]:
    request = urllib.request.Request(url, body.encode() if body is not None else None, HEADERS, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def count(server: Endpoint, name: str, **labels: str) -> float:
    """The sum of a count over all samples with these labels."""
    families = text_string_to_metric_families(ask(server.url + "/metrics")[1])
    samples = [sample for family in families for sample in family.samples if sample.name == f"lstm_fcn_{name}"]
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


def kill(server: Endpoint, workers: list[int]) -> None:
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    while set(workers) & set(descendants(server.process.pid)):
        time.sleep(0.05)


def kill_a_worker(server: Endpoint) -> None:
    kill(server, [min(descendants(server.process.pid))])
    time.sleep(0.5)  # the next one has not begun to accept connections, but the other one has
    wait_until_healthy(server.url, server.process)


def test_models_of_the_folder_are_served_at_once(server: Endpoint) -> None:
    assert [ask(f"{server.url}/models/plain/invoke", ROWS) for _ in range(6)] == [(200, "\n".join(LABELS))] * 6


def test_what_was_loaded_is_known_to_all_workers_and_after_a_kill(server: Endpoint, root: Path) -> None:
    folder = root / "models" / "loaded" / "model"
    body = json.dumps({"model_name": "new", "url": str(folder)})
    assert ask(server.url + "/models", body)[0] == 200
    assert ask(server.url + "/models", body)[0] == 409
    for _ in range(2):
        assert [ask(f"{server.url}/models/new/invoke", "0,0,5,5,1,1\n") for _ in range(6)] == [(200, "y_b")] * 6
        kill_a_worker(server)
    names = [model["modelName"] for model in json.loads(ask(server.url + "/models")[1])["models"]]
    assert names == ["new", "plain"]
    assert ask(f"{server.url}/models/new", method="DELETE")[0] == 200
    assert {ask(f"{server.url}/models/new/invoke", "0,0,5,5,1,1\n")[0] for _ in range(6)} == {404}


def test_counts_of_all_workers_survive_a_kill(server: Endpoint) -> None:
    url = f"{server.url}/models/plain/invoke"
    names = [("requests_total", {"model": "plain", "status": "200"}), ("series_total", {"model": "plain"})]
    names += [("predictions_total", {"model": "plain", "class": CLASSES[0]}), ("step_seconds_count", {"step": "parse"})]
    before = [count(server, name, **labels) for name, labels in names]
    assert {ask(url, ROWS)[0] for _ in range(20)} == {200}
    kill_a_worker(server)
    assert {ask(url, ROWS)[0] for _ in range(20)} == {200}
    after = [count(server, name, **labels) for name, labels in names]
    assert [b - a for a, b in zip(before, after, strict=True)] == [40, 40 * 8, 40 * 4, 40]
    assert count(server, "requests_in_progress") == 0
    assert count(server, "model_load_seconds_count") >= 2


def test_a_request_in_progress_ends_with_its_worker(server: Endpoint) -> None:
    address = server.url.removeprefix("http://").split(":")
    with socket.create_connection((address[0], int(address[1]))) as connection:
        connection.sendall(b"POST /models/plain/invoke HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n1,2")
        while not count(server, "requests_in_progress"):
            time.sleep(0.05)
        kill(server, descendants(server.process.pid))  # one of them has the request
        wait_until_healthy(server.url, server.process)
        assert count(server, "requests_in_progress") == 0


def test_nothing_is_left_in_shared_memory(tmp_path: Path) -> None:
    save_plain_model(tmp_path / "model")
    with endpoint(tmp_path, **TWO_WORKERS) as running:
        assert ask(running.url + "/invocations", ROWS)[0] == 200
        assert count(running, "requests_total", model="model", status="200") == 1
        worker = min(descendants(running.process.pid))
        files = {Path(file.path) for file in psutil.Process(worker).open_files()}
        (counts,) = [path for path in files if path.parent.name.startswith("lstm-fcn-")]
        assert counts.exists()
    assert not counts.parent.exists()


def test_the_command_serves_a_folder_of_models(root: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "lstm_fcn.client", "serve", str(root / "models"), "--port", str(port)]
    process = subprocess.Popen([*command, "--workers", "1"], env=environment(root), stdout=subprocess.PIPE, text=True)
    try:
        wait_until_healthy(f"http://127.0.0.1:{port}", process)
        assert ask(f"http://127.0.0.1:{port}/models/plain/invoke", ROWS) == (200, "\n".join(LABELS))
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=60)
    assert f"http://127.0.0.1:{port}/models\n" in output
    assert "1 model, read when they are used" in output
