"""`serve` as a black box: the platform's rules for serving (S…), and what bad input is told."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from lstm_fcn.container.errors import UserError
from tests.programs import (
    PROGRAMS,
    Endpoint,
    endpoint,
    environment,
    free_port,
    labelled_csv,
    try_to_serve,
    without_labels,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "v1"
ROWS = (GOLDEN / "series.csv").read_text()
LABELS = ['"up, not ""down"""', "1.0"] * 4  # of the golden series, as CSV cells
LENGTH = 16
MEBIBYTE = 1024 * 1024


def copy_model(root: Path) -> Path:
    shutil.copytree(GOLDEN / "model", root / "model")
    return root


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    with endpoint(copy_model(tmp_path_factory.mktemp("ml")), SAGEMAKER_MODEL_SERVER_WORKERS="2") as running:
        yield running


def connect(server: Endpoint) -> http.client.HTTPConnection:
    address = urlsplit(server.url)
    return http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)


class TestHealth:
    def test_ping(self, server: Endpoint) -> None:
        reply = server.get("/ping")
        assert (reply.status, reply.body) == (200, b"")

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("GET", "/invocations", 405),
            ("PUT", "/invocations", 405),
            ("POST", "/ping", 405),
            ("OPTIONS", "/ping", 405),
            ("GET", "/models", 404),
            ("GET", "/", 404),
            ("GET", "/static/x", 404),
        ],
    )
    def test_nothing_else_is_served(self, server: Endpoint, method: str, path: str, status: int) -> None:
        reply = server.get(path, method)
        assert reply.status == status
        assert "this server answers GET /ping, POST /invocations" in reply.text

    def test_ping_is_quick_while_predictions_run(self, server: Endpoint) -> None:
        body = ROWS * 20000  # some seconds of work for each of 8 requests
        with ThreadPoolExecutor(8) as pool:
            replies = [pool.submit(server.invoke, body) for _ in range(8)]
            time.sleep(0.3)
            while not all(reply.done() for reply in replies):
                started = time.monotonic()
                assert server.get("/ping").status == 200
                assert time.monotonic() - started < 2
                time.sleep(0.1)
        assert {reply.result().status for reply in replies} == {200}


class TestPredictions:
    @pytest.mark.parametrize(
        "body",
        [
            ROWS,
            ROWS.rstrip("\n"),
            ROWS.replace("\n", "\r\n"),
            "\ufeff" + ROWS,
            ROWS + "\n\n",
            "\n".join(",".join(f'"{cell}"' for cell in line.split(",")) for line in ROWS.splitlines()),
        ],
    )
    def test_one_label_a_row_in_order(self, server: Endpoint, body: str) -> None:
        reply = server.invoke(body)
        assert reply.status == 200
        assert reply.text.split("\n") == LABELS
        assert reply.headers["Content-Type"] == "text/csv; charset=utf-8"

    @pytest.mark.parametrize("rows", [1, 31, 32, 33, 1000])
    def test_any_number_of_rows(self, server: Endpoint, rows: int) -> None:
        lines = (ROWS * 125).splitlines()[:rows]
        assert server.invoke("\n".join(lines)).text.split("\n") == (LABELS * 125)[:rows]

    @pytest.mark.parametrize(
        "content_type",
        ["text/csv", "TEXT/CSV", "text/csv; charset=utf-8", "text/csv;label_size=0", 'text/csv; header="absent"'],
    )
    def test_content_types(self, server: Endpoint, content_type: str) -> None:
        assert server.invoke(ROWS, Content_Type=content_type).status == 200

    def test_no_content_type_is_csv(self, server: Endpoint) -> None:
        connection = connect(server)
        connection.request("POST", "/invocations", ROWS.encode())
        assert connection.getresponse().status == 200
        connection.close()

    @pytest.mark.parametrize(
        "accept",
        ["", "*/*", "text/csv", "text/*", "TEXT/CSV", "image/png, text/csv;q=0.5", "text/csv; charset=utf-8"],
    )
    def test_accept(self, server: Endpoint, accept: str) -> None:
        reply = server.invoke(ROWS, Accept=accept)
        assert reply.status == 200
        assert reply.headers["Content-Type"].startswith("text/csv")

    def test_a_request_may_last_longer_than_the_timeout_of_a_worker(self, tmp_path: Path) -> None:
        settings = {"SAGEMAKER_MODEL_SERVER_TIMEOUT": "1", "SAGEMAKER_MAX_PAYLOAD_IN_MB": "100"}
        with endpoint(copy_model(tmp_path), SAGEMAKER_MODEL_SERVER_WORKERS="1", **settings) as server:
            started = time.monotonic()
            reply = server.invoke(ROWS * 90_000)
            assert time.monotonic() - started > 1.5
        assert reply.status == 200
        assert reply.text.count("\n") == 8 * 90_000 - 1

    def test_strange_headers(self, server: Endpoint) -> None:
        headers = {"X-Amzn-SageMaker-Custom-Attributes": "trace=1", "X-Amzn-SageMaker-Inference-Id": "7", "X-New": "y"}
        assert server.invoke(ROWS, **headers).status == 200

    def test_a_chunked_body(self, server: Endpoint) -> None:
        connection = connect(server)
        chunks = (ROWS[start : start + 7].encode() for start in range(0, len(ROWS), 7))
        connection.request("POST", "/invocations", chunks, {"Content-Type": "text/csv"}, encode_chunked=True)
        assert connection.getresponse().read().decode().split("\n") == LABELS
        connection.close()

    def test_concurrent_requests_are_not_mixed_up(self, server: Endpoint) -> None:
        lines = ROWS.splitlines()

        def ask(number: int) -> bool:
            order = [(number + k) % len(lines) for k in range(1 + number % 5)]
            return server.invoke("\n".join(lines[k] for k in order)).text.split("\n") == [LABELS[k] for k in order]

        with ThreadPoolExecutor(50) as pool:
            assert all(pool.map(ask, range(300)))


class TestBadRequests:
    @pytest.mark.parametrize(
        ("body", "message"),
        [
            ("1,2,3\n", "request, row 1 has 3 values, but the model takes series of 16 values."),
            ("a," + ROWS, "send the values only, without a label."),
            (ROWS + "1,2\n", "request, row 9 has 2 values"),
            (ROWS.replace(",", ";"), "its cells seem to be separated by semicolons instead of commas."),
            (ROWS.replace("0", "x", 1), "every value must be a finite number."),
            (",".join(f"t{k}" for k in range(16)), "request, row 1 looks like a header"),
            ("nan" + ROWS[ROWS.index(",") :], "request, row 1, column 1 is 'nan'"),
            ("1e300" + ROWS[ROWS.index(",") :], "Series 1 of the request has values too large for the model."),
            ("hello", "request, row 1 has 1 value, but"),
            (bytes(range(256)), "is not UTF-8 text"),
            (b"\x00" * 100, "request, row 1 has 1 value, but"),
            ('{"instances": []}', "request, row 1 has 1 value, but"),
        ],
    )
    def test_malformed_bodies_are_explained(self, server: Endpoint, body: str | bytes, message: str) -> None:
        reply = server.invoke(body)
        assert reply.status == 400
        assert message in reply.text
        assert len(reply.text) < 300
        assert reply.headers["Content-Type"].startswith("text/plain")
        assert server.invoke(ROWS).status == 200

    @pytest.mark.parametrize("body", ["", "\n", " \r\n\n"])
    def test_nothing_to_predict(self, server: Endpoint, body: str) -> None:
        reply = server.invoke(body)
        assert (reply.status, reply.body) == (204, b"")

    @pytest.mark.parametrize("content_type", ["application/xml", "text/plain", "csv", "x"])
    def test_unsupported_content_type(self, server: Endpoint, content_type: str) -> None:
        reply = server.invoke(ROWS, Content_Type=content_type)
        assert reply.status == 415
        assert "send text/csv, application/json, application/jsonlines or application/x-npy." in reply.text

    @pytest.mark.parametrize("accept", ["application/xml", "text/csv;q=0", "image/*"])
    def test_unsupported_accept(self, server: Endpoint, accept: str) -> None:
        reply = server.invoke(ROWS, Accept=accept)
        assert reply.status == 406
        assert "predictions come as text/csv, application/json or application/jsonlines." in reply.text

    def test_a_body_of_25_mb_is_accepted_and_a_larger_one_is_told_the_limit(self, server: Endpoint) -> None:
        line = ",".join(["0.123456789"] * LENGTH) + "\n"
        rows = 25_000_000 // len(line)
        reply = server.invoke(line * rows)
        assert reply.status == 200
        assert reply.text.count("\n") == rows - 1
        too_large = line * ((55 * MEBIBYTE) // len(line))
        reply = server.invoke(too_large)
        assert reply.status == 413
        assert "The request is larger than 25 MiB" in reply.text

    def test_a_chunked_body_that_is_too_large_is_refused_not_cut_off(self, server: Endpoint) -> None:
        line = (",".join(["0.5"] * LENGTH) + "\n").encode()
        connection = connect(server)
        chunks = (line * 10000 for _ in range(30 * MEBIBYTE // (len(line) * 10000)))
        connection.request("POST", "/invocations", chunks, {"Content-Type": "text/csv"}, encode_chunked=True)
        assert connection.getresponse().status == 413
        connection.close()

    @pytest.mark.parametrize(
        "raw",
        [
            b"Content-Length: 500\r\n\r\n1,2,3\n",
            b"Transfer-Encoding: chunked\r\n\r\n5\r\n1,2,3",
            b"Transfer-Encoding: chunked\r\n\r\nnot a size\r\n1,2,3\r\n0\r\n\r\n",
        ],
    )
    def test_a_body_that_breaks_off_is_no_input(self, server: Endpoint, raw: bytes) -> None:
        address = urlsplit(server.url)
        with socket.create_connection((address.hostname, address.port), timeout=30) as client:
            client.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n" + raw)
            client.shutdown(socket.SHUT_WR)
            reply = client.recv(4096)
        assert reply == b"" or reply.startswith(b"HTTP/1.1 400")
        assert server.invoke(ROWS).status == 200

    @pytest.mark.parametrize(("method", "path", "status"), [("PUT", "/invocations", 405), ("POST", "/models", 404)])
    def test_a_connection_outlives_a_large_body_that_nobody_wanted(
        self, server: Endpoint, method: str, path: str, status: int
    ) -> None:
        connection = connect(server)
        for _ in range(3):
            connection.request(method, path, ROWS.encode() * 2000, {"Content-Type": "text/csv"})
            reply = connection.getresponse()
            assert (reply.status, reply.getheader("Connection")) == (status, "keep-alive")
            reply.read()
            sock = connection.sock
            assert sock is not None
            connection.request("POST", "/invocations", ROWS.encode(), {"Content-Type": "text/csv"})
            assert connection.getresponse().read().decode().split("\n") == LABELS
            assert connection.sock is sock
        connection.close()

    def test_a_connection_that_is_closed_behind_a_reply_is_said_to_be(self, server: Endpoint) -> None:
        connection = connect(server)
        connection.putrequest("POST", "/invocations")
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders(b"zz\r\n" + ROWS.encode())
        reply = connection.getresponse()
        assert (reply.status, reply.getheader("Connection")) == (400, "close")
        connection.close()


class TestSettings:
    def test_batch_replies_can_be_put_one_behind_the_other(self, tmp_path: Path) -> None:
        with endpoint(copy_model(tmp_path), SAGEMAKER_BATCH="true", SAGEMAKER_MODEL_SERVER_WORKERS="1") as server:
            lines = ROWS.splitlines(keepends=True)
            replies = [server.invoke("".join(lines[start : start + 3])).text for start in range(0, len(lines), 3)]
            assert "".join(replies) == "\n".join(LABELS) + "\n"
            parameters = json.loads(server.get("/execution-parameters").body)
        assert parameters == {"MaxConcurrentTransforms": 1, "MaxPayloadInMB": 6, "BatchStrategy": "MULTI_RECORD"}

    def test_execution_parameters_for_local_mode_and_many_workers(self, tmp_path: Path) -> None:
        with endpoint(copy_model(tmp_path), SAGEMAKER_BATCH="True", SAGEMAKER_MODEL_SERVER_WORKERS="2") as server:
            parameters = json.loads(server.get("/execution-parameters").body)
        assert parameters == {"MaxConcurrentTransforms": 2, "MaxPayloadInMB": 6}

    def test_execution_parameters(self, server: Endpoint) -> None:
        parameters = json.loads(server.get("/execution-parameters").body)
        assert parameters["MaxConcurrentTransforms"] * parameters["MaxPayloadInMB"] <= 100

    def test_payload_limit(self, tmp_path: Path) -> None:
        with endpoint(copy_model(tmp_path), SAGEMAKER_MAX_PAYLOAD_IN_MB="1") as server:
            assert server.invoke(ROWS).status == 200
            assert "larger than 1 MiB" in server.invoke(ROWS * 2000).text
            assert json.loads(server.get("/execution-parameters").body)["MaxPayloadInMB"] == 1

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("SAGEMAKER_BIND_TO_PORT", "http", "SAGEMAKER_BIND_TO_PORT=http must be an integer from 1 to 65535."),
            ("SAGEMAKER_MODEL_SERVER_WORKERS", "0", "SAGEMAKER_MODEL_SERVER_WORKERS=0 must be an integer"),
            ("SAGEMAKER_MODEL_SERVER_TIMEOUT", "-1", "SAGEMAKER_MODEL_SERVER_TIMEOUT=-1 must be an integer"),
        ],
    )
    def test_wrong_settings(self, tmp_path: Path, name: str, value: str, message: str) -> None:
        result = try_to_serve(copy_model(tmp_path), **{name: value})
        assert result.code == UserError.exit_code
        assert message in result.stderr

    def test_help(self) -> None:
        process = subprocess.run([PROGRAMS / "serve", "--help"], capture_output=True, text=True, check=True)
        assert "SAGEMAKER_MODEL_SERVER_WORKERS" in process.stdout


class TestModels:
    """Without a usable model the server ends with a clear line, instead of failing its health checks (S5)."""

    def test_empty_folder(self, tmp_path: Path) -> None:
        (tmp_path / "model").mkdir()
        result = try_to_serve(tmp_path)
        assert result.code == UserError.exit_code
        assert "holds no model: model.json is missing (found: nothing)" in result.stderr

    def test_an_archive_that_was_not_unpacked(self, tmp_path: Path) -> None:
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "model.tar.gz").write_bytes(b"x")
        assert "(found: model.tar.gz)" in try_to_serve(tmp_path).stderr

    @pytest.mark.parametrize(
        ("name", "message"),
        [("model.onnx", "model.onnx is damaged or of another model"), ("model.json", "model.json is damaged")],
    )
    def test_a_damaged_model(self, tmp_path: Path, name: str, message: str) -> None:
        path = copy_model(tmp_path) / "model" / name
        path.write_bytes(path.read_bytes()[:-100])
        result = try_to_serve(tmp_path)
        assert result.code == UserError.exit_code
        assert message in result.stderr
        assert "Traceback" not in result.stderr

    def test_strangers_beside_the_model(self, tmp_path: Path) -> None:
        root = copy_model(tmp_path)
        (root / "model" / "code").mkdir()
        for name in ("model.tar.gz", "output.tar.gz", ".DS_Store"):
            (root / "model" / name).write_bytes(b"x")
        with endpoint(root) as server:
            assert server.invoke(ROWS).status == 200

    def test_the_model_folder_is_not_written_to(self, tmp_path: Path) -> None:
        root = copy_model(tmp_path)
        before = sorted(path.relative_to(root) for path in root.rglob("*"))
        with endpoint(root) as server:
            server.invoke(ROWS)
        assert sorted(path.relative_to(root) for path in root.rglob("*")) == before


class TestStop:
    def test_requests_in_flight_get_their_answer(self, tmp_path: Path) -> None:
        with endpoint(copy_model(tmp_path), SAGEMAKER_MODEL_SERVER_WORKERS="1") as server:
            replies = []
            body = without_labels(labelled_csv(100_000))
            thread = threading.Thread(target=lambda: replies.append(server.invoke(body)))
            thread.start()
            time.sleep(0.5)
            server.process.send_signal(signal.SIGTERM)
            started = time.monotonic()
            server.process.wait(timeout=30)
            assert time.monotonic() - started < 28
            thread.join()
        assert replies[0].status == 200
        assert replies[0].text.count("\n") == 100_000 - 1

    @pytest.mark.parametrize("seconds", [0.1, 0.2, 0.3, 0.4, 0.6, 0.8])
    def test_a_stop_during_start_up(self, tmp_path: Path, seconds: float) -> None:
        process = subprocess.Popen([PROGRAMS / "serve"], env=environment(copy_model(tmp_path)))
        time.sleep(seconds)
        process.terminate()
        assert process.wait(timeout=10) in (0, -signal.SIGTERM)

    def test_a_worker_that_dies_is_replaced(self, tmp_path: Path) -> None:
        with endpoint(copy_model(tmp_path), SAGEMAKER_MODEL_SERVER_WORKERS="1") as server:
            children = subprocess.run(
                ["pgrep", "-P", str(server.process.pid)], capture_output=True, text=True, check=True
            ).stdout.split()
            os.kill(int(children[0]), signal.SIGKILL)
            deadline = time.monotonic() + 20
            while True:
                try:
                    assert server.invoke(ROWS).status == 200
                    break
                except OSError:
                    assert time.monotonic() < deadline
                    time.sleep(0.1)

    def test_a_port_in_use_is_an_error(self, tmp_path: Path) -> None:
        port = free_port()
        with socket.socket() as taken:
            taken.bind(("0.0.0.0", port))  # noqa: S104
            taken.listen()
            result = try_to_serve(copy_model(tmp_path), SAGEMAKER_BIND_TO_PORT=str(port))
        assert result.code != 0
        assert "in use" in result.stdout + result.stderr
