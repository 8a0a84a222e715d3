"""`serve` as a black box: what needs a real process, socket or signal. The rest is in `tests/unit/test_app.py`."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest

from lstm_fcn.container.errors import UserError
from lstm_fcn.serving import __main__ as serve
from tests.models import GOLDEN, LABELS, LENGTH, ROWS, probabilities, save_plain_model
from tests.programs import PROGRAMS, Endpoint, descendants, endpoint, environment, free_port, try_to_serve

MEBIBYTE = 1024 * 1024
ONE_WORKER = {"SAGEMAKER_MODEL_SERVER_WORKERS": "1"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree with the plain model."""
    save_plain_model(tmp_path / "model")
    return tmp_path


def connect(server: Endpoint) -> http.client.HTTPConnection:
    address = urlsplit(server.url)
    return http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)


def run_in_process(root: Path, monkeypatch: pytest.MonkeyPatch, **settings: str) -> int:
    """`serve` where it is expected to refuse, without starting a process."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["serve"])
    for name, value in {"OPENBLAS_NUM_THREADS": "1", "SAGEMAKER_BASE_DIR": str(root), **settings}.items():
        monkeypatch.setenv(name, value)
    return serve.main()


class TestHealth:
    def test_ping(self, server: Endpoint) -> None:
        response = server.get("/ping")
        assert (response.status, response.body) == (200, b"")

    @pytest.mark.checklist("58: GET /ping is answered within 2 seconds while all workers are busy with /invocations")
    def test_ping_under_load(self, server: Endpoint) -> None:
        with ThreadPoolExecutor(4) as pool:
            responses = [pool.submit(server.invoke, ROWS * 5_000) for _ in range(4)]
            slowest, pings = 0.0, 0
            while not all(response.done() for response in responses):
                started = time.monotonic()
                assert server.get("/ping").status == 200
                slowest, pings = max(slowest, time.monotonic() - started), pings + 1
        assert pings > 3
        assert slowest < 2
        assert {response.result().status for response in responses} == {200}

    @pytest.mark.checklist("57: SAGEMAKER_BIND_TO_PORT is the only port that is listened on")
    def test_the_port(self, server: Endpoint) -> None:
        found = psutil.Process(server.process.pid).net_connections("inet")
        listening = [each.laddr.port for each in found if each.status == psutil.CONN_LISTEN]
        assert listening == [urlsplit(server.url).port]


class TestPredictions:
    def test_predictions_are_those_of_the_model(self, server: Endpoint) -> None:
        text = server.invoke(ROWS, Accept="text/csv; output=probabilities").text
        series = np.loadtxt(ROWS.splitlines(), delimiter=",")
        np.testing.assert_allclose(np.loadtxt(text.split("\n"), delimiter=","), probabilities(series), atol=1e-5)

    def test_bfloat16_agrees_but_for_its_rounding(self, root: Path) -> None:
        with endpoint(root, **ONE_WORKER, LSTM_FCN_PRECISION="bfloat16") as server:
            text = server.invoke(ROWS, Accept="text/csv; output=probabilities").text
        series = np.loadtxt(ROWS.splitlines(), delimiter=",")
        np.testing.assert_allclose(np.loadtxt(text.split("\n"), delimiter=","), probabilities(series), atol=0.02)

    def test_a_trained_model(self, trained_server: Endpoint) -> None:
        text = trained_server.invoke((GOLDEN / "series.csv").read_text()).text
        header, *lines = text.split("\n")
        assert header == "y_rises,y_falls,y_stays,p_rises,p_falls,p_stays"
        expected = np.loadtxt(GOLDEN / "probabilities.csv", delimiter=",")
        found = np.loadtxt(lines, delimiter=",")
        np.testing.assert_allclose(found[:, 3:], expected, atol=1e-5)
        np.testing.assert_array_equal(found[:, :3], np.eye(3)[expected.argmax(axis=1)])

    @pytest.mark.checklist("72: Transfer-Encoding: chunked, without a Content-Length")
    def test_a_chunked_body(self, server: Endpoint) -> None:
        connection = connect(server)
        chunks = (ROWS[start : start + 7].encode() for start in range(0, len(ROWS), 7))
        connection.request("POST", "/invocations", chunks, {"Content-Type": "text/csv"}, encode_chunked=True)
        assert connection.getresponse().read().decode().split("\n") == LABELS
        connection.close()

    @pytest.mark.checklist("75: 50 concurrent requests get what each would get alone")
    def test_concurrent_requests_are_not_mixed_up(self, server: Endpoint) -> None:
        lines = ROWS.splitlines()

        def ask(number: int) -> bool:
            order = [(number * 3 + k) % len(lines) for k in range(1 + number % 7)]
            return server.invoke("\n".join(lines[k] for k in order)).text.split("\n") == [LABELS[k] for k in order]

        with ThreadPoolExecutor(50) as pool:
            assert all(pool.map(ask, range(200)))

    @pytest.mark.checklist("63: a request that takes longer than the timeout of a worker is not cut off")
    def test_slow_requests_and_idle_workers_outlive_the_timeout(self, root: Path) -> None:
        with endpoint(root, **ONE_WORKER, SAGEMAKER_MODEL_SERVER_TIMEOUT="1") as server:
            workers = descendants(server.process.pid)
            connection = connect(server)
            connection.putrequest("POST", "/invocations")
            connection.putheader("Content-Type", "text/csv")
            connection.putheader("Content-Length", str(len(ROWS)))
            connection.endheaders()
            for start in range(0, len(ROWS), len(ROWS) // 4 + 1):
                time.sleep(1)
                connection.send(ROWS[start : start + len(ROWS) // 4 + 1].encode())
            assert connection.getresponse().read().decode().split("\n") == LABELS
            connection.close()
            assert descendants(server.process.pid) == workers


class TestBodies:
    @pytest.mark.checklist("71: 6 MiB and 25 MB are accepted by default; more gets 413, and the text names the limit")
    def test_large_bodies(self, server: Endpoint) -> None:
        line = ",".join(["0.123456789"] * LENGTH) + "\n"
        for size in (6 * MEBIBYTE, 25_000_000):
            rows = size // len(line)
            response = server.invoke(line * rows)
            assert (response.status, response.text.count("\n")) == (200, rows - 1)
        response = server.invoke(line * (55 * MEBIBYTE // len(line)))
        assert (response.status, "larger than 25 MiB" in response.text) == (413, True)

    def test_a_chunked_body_that_is_too_large_is_refused_not_cut_off(self, server: Endpoint) -> None:
        line = (",".join(["0.5"] * LENGTH) + "\n").encode()
        connection = connect(server)
        chunks = (line * 10000 for _ in range(30 * MEBIBYTE // (len(line) * 10000)))
        connection.request("POST", "/invocations", chunks, {"Content-Type": "text/csv"}, encode_chunked=True)
        assert connection.getresponse().status == 413
        connection.close()

    @pytest.mark.parametrize(
        ("raw", "expected"),
        [
            (b"Content-Length: 500\r\n\r\n1,2,3\n", b"HTTP/1.1 400"),
            (b"Transfer-Encoding: chunked\r\n\r\n5\r\n1,2,3", b"HTTP/1.1 400"),
            (b"Transfer-Encoding: chunked\r\n\r\nnot a size\r\n1,2,3\r\n0\r\n\r\n", b"HTTP/1.1 400"),
        ],
        ids=["length", "chunk", "chunk size"],
    )
    def test_a_truncated_body_is_refused(self, server: Endpoint, raw: bytes, expected: bytes) -> None:
        address = urlsplit(server.url)
        with socket.create_connection((address.hostname, address.port), timeout=30) as client:
            client.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n" + raw)
            client.shutdown(socket.SHUT_WR)
            response = client.recv(4096)
        assert response.startswith(expected)
        assert server.invoke(ROWS).status == 200

    @pytest.mark.parametrize(("method", "path", "status"), [("PUT", "/invocations", 405), ("POST", "/models", 404)])
    def test_a_connection_survives_a_large_body_that_is_refused(
        self, server: Endpoint, method: str, path: str, status: int
    ) -> None:
        connection = connect(server)
        for _ in range(3):
            connection.request(method, path, ROWS.encode() * 2000, {"Content-Type": "text/csv"})
            response = connection.getresponse()
            assert (response.status, response.getheader("Connection")) == (status, "keep-alive")
            response.read()
            sock = connection.sock
            assert sock is not None
            connection.request("POST", "/invocations", ROWS.encode(), {"Content-Type": "text/csv"})
            assert connection.getresponse().read().decode().split("\n") == LABELS
            assert connection.sock is sock
        connection.close()

    def test_closing_a_connection_is_announced(self, server: Endpoint) -> None:
        connection = connect(server)
        connection.putrequest("POST", "/invocations")
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders(b"zz\r\n" + ROWS.encode())
        response = connection.getresponse()
        assert (response.status, response.getheader("Connection")) == (400, "close")
        connection.close()


class TestStart:
    """Without a usable model or with an invalid setting, the server ends with a clear message (S5)."""

    @pytest.mark.checklist("59: without a usable model there is no good ping: the server ends, and its log says why")
    def test_no_model(self, tmp_path: Path) -> None:
        result = try_to_serve(tmp_path)
        assert result.code == UserError.exit_code
        assert "holds no model: model.json is missing (found: no such folder)" in result.stderr
        assert "Traceback" not in result.stderr

    def test_an_archive_that_was_not_unpacked(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "model.tar.gz").write_bytes(b"x")
        assert run_in_process(tmp_path, monkeypatch) == UserError.exit_code
        assert "(found: model.tar.gz)" in capsys.readouterr().err

    @pytest.mark.checklist("59: a damaged model is refused at the start")
    @pytest.mark.parametrize(
        ("name", "message"),
        [("model.onnx", "model.onnx is damaged or belongs to another model"), ("model.json", "model.json is damaged")],
    )
    def test_a_damaged_model(
        self, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, message: str
    ) -> None:
        path = root / "model" / name
        path.write_bytes(path.read_bytes()[:-100])
        assert run_in_process(root, monkeypatch) == UserError.exit_code
        assert message in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("SAGEMAKER_BIND_TO_PORT", "http", "SAGEMAKER_BIND_TO_PORT=http must be an integer from 1 to 65535."),
            ("SAGEMAKER_INFERENCE_OUTPUT", "explanation", "The model has no explanation"),
        ],
    )
    def test_invalid_settings(
        self,
        root: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        name: str,
        value: str,
        message: str,
    ) -> None:
        path = root / "model" / "model.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"explains": False}))
        assert run_in_process(root, monkeypatch, **{name: value}) == UserError.exit_code
        assert message in capsys.readouterr().err

    @pytest.mark.parametrize(("argument", "code"), [("--help", 0), ("-h", 0), ("model", 2)])
    def test_help(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], argument: str, code: int
    ) -> None:
        monkeypatch.setattr(sys, "argv", ["serve", argument])
        assert serve.main() == code
        assert "SAGEMAKER_MODEL_SERVER_WORKERS" in capsys.readouterr().out

    @pytest.mark.checklist("60: other files in the model folder, such as its archive or code/, are ignored")
    def test_the_model_folder_may_hold_other_files_and_is_not_written_to(self, root: Path) -> None:
        (root / "model" / "code").mkdir()
        for name in ("model.tar.gz", "output.tar.gz", ".DS_Store", "code/inference.py"):
            (root / "model" / name).write_bytes(b"x")
        before = sorted(path.relative_to(root) for path in root.rglob("*"))
        with endpoint(root, **ONE_WORKER) as server:
            assert server.invoke(ROWS).text.split("\n") == LABELS
        assert sorted(path.relative_to(root) for path in root.rglob("*")) == before

    def test_a_port_in_use_is_an_error(self, root: Path) -> None:
        port = free_port()
        with socket.socket() as taken:
            taken.bind(("0.0.0.0", port))  # noqa: S104
            taken.listen()
            result = try_to_serve(root, SAGEMAKER_BIND_TO_PORT=str(port))
        assert result.code != 0
        assert "in use" in result.stdout + result.stderr


class TestStop:
    @pytest.mark.checklist("61: SIGTERM: requests in flight get their responses; the server ends within 30 seconds")
    def test_requests_in_flight_get_their_response(self, root: Path) -> None:
        with endpoint(root, **ONE_WORKER) as server, ThreadPoolExecutor(1) as pool:
            response = pool.submit(server.invoke, ROWS * 8_000)
            time.sleep(0.5)
            server.process.send_signal(signal.SIGTERM)
            server.process.wait(timeout=30)
            assert response.result().status == 200
            assert response.result().text.count("\n") == 8 * 8_000 - 1

    def test_connections_kept_alive_do_not_delay_a_stop(self, root: Path) -> None:
        with endpoint(root, **ONE_WORKER) as server:
            connection = connect(server)
            connection.request("GET", "/ping")
            connection.getresponse().read()
            started = time.monotonic()
            server.process.terminate()
            server.process.wait(timeout=30)
            assert time.monotonic() - started < 10
            connection.close()

    @pytest.mark.parametrize("seconds", [0.1, 0.3, 0.6])
    def test_a_stop_during_start_up(self, root: Path, seconds: float) -> None:
        process = subprocess.Popen([PROGRAMS / "serve"], env=environment(root))
        time.sleep(seconds)
        process.terminate()
        assert process.wait(timeout=10) in (0, -signal.SIGTERM)

    def test_a_worker_that_dies_is_replaced(self, root: Path) -> None:
        with endpoint(root, **ONE_WORKER) as server:
            (worker,) = descendants(server.process.pid)
            os.kill(worker, signal.SIGKILL)
            deadline = time.monotonic() + 20
            while True:
                try:
                    assert server.invoke(ROWS).status == 200
                    break
                except OSError:
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
