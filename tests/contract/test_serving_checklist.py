"""What the platform asks of a serving container, row by row; `python -m tests.checklist` prints the table.

Rows that need a container are in `tests/images`. A number is kept for ever.
"""

import json
import re
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.contract.test_formats import INSTANCES, NAMES, REQUESTS, npy
from tests.contract.test_serving import LABELS, LENGTH, MEBIBYTE, ROWS, connect, copy_model
from tests.programs import Endpoint, endpoint, free_port, try_to_serve

ONE_WORKER = {"SAGEMAKER_MODEL_SERVER_WORKERS": "1"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    with endpoint(copy_model(tmp_path_factory.mktemp("ml")), SAGEMAKER_MODEL_SERVER_WORKERS="2") as running:
        yield running


def test_row_57_the_port(tmp_path: Path) -> None:
    """SAGEMAKER_BIND_TO_PORT is the only port that is listened on."""
    others = {8080, free_port()}
    with endpoint(copy_model(tmp_path), **ONE_WORKER) as server:
        port = int(server.url.rpartition(":")[2])
        listening = {int(entry.split()[1].rpartition(":")[2], 16) for entry in sockets_of(server.process.pid)}
        assert listening == {port}
        assert not listening & others


def sockets_of(process: int) -> list[str]:
    """Lines of /proc/net/tcp of the sockets on which a process listens."""
    inodes = set()
    for descriptor in Path(f"/proc/{process}/fd").iterdir():
        try:
            inodes.update(re.findall(r"socket:\[(\d+)\]", str(descriptor.readlink())))
        except FileNotFoundError:
            continue
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return [line for line in lines if line.split()[3] == "0A" and line.split()[9] in inodes]


def test_row_58_ping_under_load(server: Endpoint) -> None:
    """GET /ping is answered within 2 seconds while all workers are busy with /invocations."""
    with ThreadPoolExecutor(4) as pool:
        replies = [pool.submit(server.invoke, ROWS * 20_000) for _ in range(4)]
        slowest, pings = 0.0, 0
        while not all(reply.done() for reply in replies):
            started = time.monotonic()
            assert server.get("/ping").status == 200
            slowest, pings = max(slowest, time.monotonic() - started), pings + 1
    assert pings > 3
    assert slowest < 2
    assert {reply.result().status for reply in replies} == {200}


@pytest.mark.parametrize("damage", ["no model", "broken model"])
def test_row_59_no_usable_model(tmp_path: Path, damage: str) -> None:
    """Without a usable model there is no good ping: the server ends, and its log says why."""
    copy_model(tmp_path)
    if damage == "no model":
        shutil.rmtree(tmp_path / "model")
    else:
        (tmp_path / "model" / "model.onnx").write_bytes(b"broken")
    result = try_to_serve(tmp_path)
    assert result.code == 2
    assert ("holds no model" if damage == "no model" else "model.onnx is damaged") in result.stderr


def test_row_60_strangers_beside_the_model(tmp_path: Path) -> None:
    """Other files in the model folder, such as its archive or `code/`, do not matter."""
    copy_model(tmp_path)
    (tmp_path / "model" / "code").mkdir()
    for name in ("model.tar.gz", "output.tar.gz", ".DS_Store", "code/inference.py"):
        (tmp_path / "model" / name).write_bytes(b"x")
    with endpoint(tmp_path, **ONE_WORKER) as server:
        assert server.invoke(ROWS).text.split("\n") == LABELS


def test_row_61_a_stop_lets_requests_end(tmp_path: Path) -> None:
    """SIGTERM: requests in flight get their answers, and the server is gone within 30 seconds."""
    with endpoint(copy_model(tmp_path), **ONE_WORKER) as server, ThreadPoolExecutor(1) as pool:
        reply = pool.submit(server.invoke, ROWS * 20_000)
        time.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(timeout=30)
        assert reply.result().status == 200
        assert reply.result().text.count("\n") == 8 * 20_000 - 1


def test_row_63_a_long_request_is_not_cut_off(tmp_path: Path) -> None:
    """A request that takes longer than a minute is answered where the timeout was raised; here both are shorter."""
    with endpoint(copy_model(tmp_path), **ONE_WORKER, SAGEMAKER_MODEL_SERVER_TIMEOUT="1") as server:
        connection = connect(server)
        connection.putrequest("POST", "/invocations")
        connection.putheader("Content-Type", "text/csv")
        connection.putheader("Content-Length", str(len(ROWS)))
        connection.endheaders()
        for start in range(0, len(ROWS), len(ROWS) // 4 + 1):
            time.sleep(0.8)
            connection.send(ROWS[start : start + len(ROWS) // 4 + 1].encode())
        assert connection.getresponse().read().decode().split("\n") == LABELS
        connection.close()


@pytest.mark.parametrize(
    "body",
    [ROWS, ROWS.replace("\n", "\r\n"), "\ufeff" + ROWS, ROWS.rstrip("\n")],
    ids=["LF", "CRLF", "byte order mark", "no last newline"],
)
def test_row_64_rows_of_csv(server: Endpoint, body: str) -> None:
    """text/csv of any line ends: as many rows out as in, in the same order."""
    assert server.invoke(body).text.split("\n") == LABELS


@pytest.mark.parametrize("content_type", ["text/csv; charset=utf-8", "text/csv;label_size=0", "TEXT/CSV"])
def test_row_65_spellings_of_csv(server: Endpoint, content_type: str) -> None:
    """Content-Type with parameters and in any case."""
    assert server.invoke(ROWS, Content_Type=content_type).text.split("\n") == LABELS


@pytest.mark.parametrize("layout", ["instances", "data", "lines"])
def test_row_66_json(server: Endpoint, layout: str) -> None:
    """Both layouts of application/json, and application/jsonlines; replies are strict JSON."""
    rows = [{"data": {"features": {"values": row["features"]}}} for row in json.loads(INSTANCES)["instances"]]
    bodies = {
        "instances": INSTANCES,
        "data": json.dumps({"instances": rows}),
        "lines": REQUESTS["application/jsonlines"].decode(),
    }
    media_type = "application/jsonlines" if layout == "lines" else "application/json"
    accept = f'{media_type}; output="predicted_label,probabilities"'
    text = server.invoke(bodies[layout], Content_Type=media_type, Accept=accept).text

    def refuse(name: str) -> None:
        raise AssertionError(name)

    found = [json.loads(line, parse_constant=refuse) for line in text.split("\n")]
    predictions = found if layout == "lines" else found[0]["predictions"]
    assert [row["predicted_label"] for row in predictions] == NAMES


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "text/csv; charset=utf-8"),
        ("*/*", "text/csv; charset=utf-8"),
        ("", "text/csv; charset=utf-8"),
        ("application/json, text/csv;q=0.5", "application/json"),
        ("text/csv; charset=utf-8", "text/csv; charset=utf-8"),
    ],
)
def test_row_67_accept(server: Endpoint, accept: str | None, expected: str) -> None:
    """Accept absent, empty, a wildcard, a list, with parameters; the reply says its type."""
    connection = connect(server)
    headers = {"Content-Type": "text/csv"} if accept is None else {"Content-Type": "text/csv", "Accept": accept}
    connection.request("POST", "/invocations", ROWS.encode(), headers)
    reply = connection.getresponse()
    assert (reply.status, reply.getheader("Content-Type")) == (200, expected)
    connection.close()


def test_row_68_unsupported_types(server: Endpoint) -> None:
    """An Accept that cannot be met gets 406, another Content-Type 415; none at all is taken for CSV."""
    assert server.invoke(ROWS, Accept="image/png").status == 406
    assert server.invoke(ROWS, Content_Type="image/png").status == 415
    connection = connect(server)
    connection.request("POST", "/invocations", ROWS.encode())
    assert connection.getresponse().status == 200
    connection.close()


@pytest.mark.parametrize(
    ("body", "statuses"),
    [
        (b"hello", {400}),
        (b"1,2,3\n", {400}),
        (bytes(range(256)) * 10, {400}),
        (b"", {204}),
        (b"\n", {204}),
    ],
    ids=["text", "wrong number of values", "binary", "empty", "newline"],
)
def test_row_69_bad_bodies(server: Endpoint, body: bytes, statuses: set[int]) -> None:
    """A malformed body gets 4xx or 204 and a short text; the server lives on."""
    reply = server.invoke(body)
    assert reply.status in statuses
    assert len(reply.body) < 300
    assert server.invoke(ROWS).status == 200


def test_row_70_a_pickle(server: Endpoint, tmp_path: Path) -> None:
    """application/x-npy with pickled objects gets 4xx, and none of their code is run."""
    trace = tmp_path / "trace"

    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (trace,)

    np.save(tmp_path / "bomb.npy", np.array([[Bomb()]], dtype=object), allow_pickle=True)
    reply = server.invoke((tmp_path / "bomb.npy").read_bytes(), Content_Type="application/x-npy")
    assert reply.status == 400
    assert not trace.exists()
    assert server.invoke(npy(), Content_Type="application/x-npy").status == 200


def test_row_71_large_bodies(server: Endpoint) -> None:
    """6 MiB and 25 MB are taken by default; more gets 413, and the text says the limit."""
    line = ",".join(["0.123456789"] * LENGTH) + "\n"
    for size in (6 * MEBIBYTE, 25_000_000):
        rows = size // len(line)
        assert server.invoke(line * rows).text.count("\n") == rows - 1
    reply = server.invoke(line * (40 * MEBIBYTE // len(line)))
    assert (reply.status, "larger than 25 MiB" in reply.text) == (413, True)


def test_row_72_a_chunked_body(server: Endpoint) -> None:
    """Transfer-Encoding: chunked, without a Content-Length."""
    connection = connect(server)
    chunks = (ROWS[start : start + 100].encode() for start in range(0, len(ROWS), 100))
    connection.request("POST", "/invocations", chunks, {"Content-Type": "text/csv"}, encode_chunked=True)
    assert connection.getresponse().read().decode().split("\n") == LABELS
    connection.close()


def test_row_73_strange_headers(server: Endpoint) -> None:
    """Headers that are not known do no harm."""
    headers = {"X-Amzn-SageMaker-Custom-Attributes": "trace=1,a=b", "X-Amzn-SageMaker-Inference-Id": "7", "X-New": "y"}
    assert server.invoke(ROWS, **headers).text.split("\n") == LABELS


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/invocations", 405), ("POST", "/ping", 405), ("GET", "/models", 404), ("GET", "/x", 404)],
)
def test_row_74_other_routes(server: Endpoint, method: str, path: str, status: int) -> None:
    """Other methods get 405, other paths 404."""
    assert server.get(path, method).status == status


def test_row_75_fifty_at_a_time(server: Endpoint) -> None:
    """50 concurrent requests get what each would get alone."""
    lines = ROWS.splitlines()

    def ask(number: int) -> bool:
        order = [(number * 3 + k) % len(lines) for k in range(1 + number % 7)]
        return server.invoke("\n".join(lines[k] for k in order)).text.split("\n") == [LABELS[k] for k in order]

    with ThreadPoolExecutor(50) as pool:
        assert all(pool.map(ask, range(200)))


def test_row_76_execution_parameters(server: Endpoint) -> None:
    """GET /execution-parameters: integers whose product is at most 100, and a strategy of the platform's."""
    parameters = json.loads(server.get("/execution-parameters").body)
    assert parameters["BatchStrategy"] in ("MULTI_RECORD", "SINGLE_RECORD")
    assert type(parameters["MaxConcurrentTransforms"]) is type(parameters["MaxPayloadInMB"]) is int
    assert 0 < parameters["MaxConcurrentTransforms"] * parameters["MaxPayloadInMB"] <= 100


@pytest.mark.parametrize("batch", ["true", "True"])
def test_row_80_replies_of_a_batch_job(tmp_path: Path, batch: str) -> None:
    """In a batch job, replies put one behind the other still have a row for each record."""
    lines = ROWS.splitlines(keepends=True)
    with endpoint(copy_model(tmp_path), **ONE_WORKER, SAGEMAKER_BATCH=batch) as server:
        replies = [server.invoke("".join(lines[start : start + 3]).rstrip("\n")).text for start in range(0, 8, 3)]
        assert "".join(replies) == "\n".join(LABELS) + "\n"
        in_json = server.invoke(INSTANCES, Content_Type="application/json", Accept="application/jsonlines").text
        assert [json.loads(line)["predicted_label"] for line in in_json.splitlines()] == NAMES
