"""The application without a server: predictions, refusals and the log."""

import io
import json
import logging
import re
import threading
from pathlib import Path

import numpy as np
import pytest
from flask.testing import FlaskClient

from lstm_fcn.container import artifact
from lstm_fcn.serving import endpoint as endpoint_module
from lstm_fcn.serving.app import application, create_app
from lstm_fcn.serving.models import OneModel
from lstm_fcn.serving.predictor import Predictions, Predictor
from lstm_fcn.serving.settings import Settings
from tests.models import LABELS, NAMES, ROWS, SERIES, save_model_of_variables, save_plain_model

CSV = {"Content-Type": "text/csv"}


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor(*artifact.load(save_plain_model(tmp_path_factory.mktemp("model"))), threads=2)


@pytest.fixture(scope="module")
def client(predictor: Predictor) -> FlaskClient:
    return make_client(predictor)


def make_client(predictor: Predictor, **environment: str) -> FlaskClient:
    return create_app(OneModel(predictor), Settings.from_environment(environment)).test_client()


class TestRequests:
    @pytest.mark.checklist("64: text/csv with any line ending gets one prediction per row, in the same order")
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
        ids=["LF", "no last newline", "CRLF", "byte order mark", "blank lines", "quotes"],
    )
    def test_dialects_of_csv(self, client: FlaskClient, body: str) -> None:
        response = client.post("/invocations", data=body, headers=CSV)
        assert (response.status_code, response.text.split("\n")) == (200, LABELS)
        assert response.headers["Content-Type"] == "text/csv; charset=utf-8"

    @pytest.mark.checklist("65: Content-Type with parameters and in any case; without one, the body is read as CSV")
    @pytest.mark.parametrize(
        "content_type",
        ["text/csv", "TEXT/CSV", "text/csv; charset=utf-8", "text/csv;label_size=0", 'text/csv; header="absent"', None],
    )
    def test_content_types(self, client: FlaskClient, content_type: str | None) -> None:
        headers = {"Content-Type": content_type} if content_type else {}
        response = client.post("/invocations", data=ROWS.encode(), headers=headers)
        assert response.text.split("\n") == LABELS

    @pytest.mark.checklist("66: both layouts of application/json, and application/jsonlines; responses are strict JSON")
    @pytest.mark.parametrize("layout", ["instances", "data", "lines"])
    def test_json(self, client: FlaskClient, layout: str) -> None:
        series = SERIES.tolist()
        bodies = {
            "instances": json.dumps({"instances": [{"features": row} for row in series]}),
            "data": json.dumps({"instances": [{"data": {"features": {"values": row}}} for row in series]}),
            "lines": "\n".join(json.dumps({"features": row}) for row in series),
        }
        media_type = "application/jsonlines" if layout == "lines" else "application/json"
        headers = {"Content-Type": media_type, "Accept": f'{media_type}; output="predicted_label,probabilities"'}
        text = client.post("/invocations", data=bodies[layout], headers=headers).text

        def refuse(name: str) -> None:
            raise AssertionError(name)

        found = [json.loads(line, parse_constant=refuse) for line in text.split("\n")]
        predictions = found if layout == "lines" else found[0]["predictions"]
        assert [row["predicted_label"] for row in predictions] == NAMES

    @pytest.mark.checklist("67: Accept absent, empty, a wildcard, a list, with parameters; the response names its type")
    @pytest.mark.parametrize(
        ("accept", "expected"),
        [
            (None, "text/csv; charset=utf-8"),
            ("", "text/csv; charset=utf-8"),
            ("*/*", "text/csv; charset=utf-8"),
            ("text/*", "text/csv; charset=utf-8"),
            ("TEXT/CSV", "text/csv; charset=utf-8"),
            ("image/png, text/csv;q=0.5", "text/csv; charset=utf-8"),
            ("text/csv; charset=utf-8", "text/csv; charset=utf-8"),
            ("application/json, text/csv;q=0.5", "application/json"),
        ],
    )
    def test_accept(self, client: FlaskClient, accept: str | None, expected: str) -> None:
        headers = CSV if accept is None else CSV | {"Accept": accept}
        response = client.post("/invocations", data=ROWS, headers=headers)
        assert (response.status_code, response.headers["Content-Type"]) == (200, expected)

    @pytest.mark.checklist("73: unknown headers are ignored")
    def test_unknown_headers(self, client: FlaskClient) -> None:
        headers = CSV | {"X-Amzn-SageMaker-Custom-Attributes": "trace=1,a=b", "X-New": "y"}
        assert client.post("/invocations", data=ROWS, headers=headers).text.split("\n") == LABELS

    @pytest.mark.parametrize("count", [1, 31, 32, 33, 1000])
    def test_any_number_of_rows(self, client: FlaskClient, count: int) -> None:
        lines = (ROWS * 125).splitlines()[:count]
        response = client.post("/invocations", data="\n".join(lines), headers=CSV)
        assert response.text.split("\n") == (LABELS * 125)[:count]

    @pytest.mark.checklist("69: an empty body gets 204")
    @pytest.mark.parametrize("body", ["", "\n", " \r\n\n"])
    @pytest.mark.parametrize("media_type", ["text/csv", "application/json", "application/jsonlines"])
    def test_nothing_to_predict(self, client: FlaskClient, body: str, media_type: str) -> None:
        response = client.post("/invocations", data=body, headers={"Content-Type": media_type})
        assert (response.status_code, response.data) == (204, b"")

    @pytest.mark.checklist("76: GET /execution-parameters: integers with a product of at most 100, a valid strategy")
    @pytest.mark.parametrize(
        ("environment", "expected"),
        [
            ({}, {"MaxConcurrentTransforms": 2, "MaxPayloadInMB": 6, "BatchStrategy": "MULTI_RECORD"}),
            (
                {"SAGEMAKER_MODEL_SERVER_WORKERS": "64"},
                {"MaxConcurrentTransforms": 16, "MaxPayloadInMB": 6, "BatchStrategy": "MULTI_RECORD"},
            ),
            (
                {"SAGEMAKER_MAX_PAYLOAD_IN_MB": "1"},
                {"MaxConcurrentTransforms": 2, "MaxPayloadInMB": 1, "BatchStrategy": "MULTI_RECORD"},
            ),
            ({"SAGEMAKER_BATCH": "True"}, {"MaxConcurrentTransforms": 2, "MaxPayloadInMB": 6}),
        ],
        ids=["default", "many workers", "small payload", "local mode"],
    )
    def test_execution_parameters(
        self, predictor: Predictor, environment: dict[str, str], expected: dict[str, object]
    ) -> None:
        client = make_client(predictor, **{"SAGEMAKER_MODEL_SERVER_WORKERS": "2"} | environment)
        assert client.get("/execution-parameters").json == expected

    @pytest.mark.checklist("80: in a batch transform job, concatenated responses have one row per record")
    @pytest.mark.parametrize("batch", ["true", "True"])
    def test_responses_of_a_batch_job_can_be_concatenated(self, predictor: Predictor, batch: str) -> None:
        client = make_client(predictor, SAGEMAKER_BATCH=batch)
        lines = ROWS.splitlines(keepends=True)
        bodies = ["".join(lines[start : start + 3]).rstrip("\n") for start in range(0, 8, 3)]
        texts = [client.post("/invocations", data=body, headers=CSV).text for body in bodies]
        assert "".join(texts) == "\n".join(LABELS) + "\n"
        headers = CSV | {"Accept": "application/jsonlines"}
        in_json = client.post("/invocations", data=ROWS, headers=headers).text
        assert [json.loads(line)["predicted_label"] for line in in_json.splitlines()] == NAMES

    def test_the_environment_decides_what_a_request_leaves_open(self, predictor: Predictor) -> None:
        client = make_client(
            predictor,
            SAGEMAKER_INFERENCE_OUTPUT="probability,predicted_label",
            SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT="application/jsonlines",
        )
        lines = client.post("/invocations", data=ROWS, headers=CSV).text.split("\n")
        assert [list(json.loads(line)) for line in lines] == [["probability", "predicted_label"]] * 8
        headers = CSV | {"Accept": "text/csv; output=predicted_label"}
        assert client.post("/invocations", data=ROWS, headers=headers).text.split("\n") == LABELS


class TestRefusals:
    @pytest.mark.checklist("69: a malformed body gets 400 and a short text")
    @pytest.mark.parametrize(
        ("body", "message"),
        [
            ("1,2,3\n", "request, row 1 has 3 values, but the model takes series of 16 values."),
            ("a," + ROWS, "send the values only, without a label."),
            (ROWS + "1,2\n", "request, row 9 has 2 values"),
            (ROWS.replace("0", "x", 1), "every value must be a finite number."),
            ("1e300" + ROWS[ROWS.index(",") :], "Series 1 of the request has values too large for the model."),
            (bytes(range(256)), "is not UTF-8 text"),
            (b"\x00" * 100, "request, row 1 has 1 value, but"),
        ],
        ids=["length", "label", "short row", "word", "too large", "binary", "zeros"],
    )
    def test_malformed_bodies(self, client: FlaskClient, body: str | bytes, message: str) -> None:
        response = client.post("/invocations", data=body, headers=CSV)
        assert (response.status_code, response.headers["Content-Type"]) == (400, "text/plain; charset=utf-8")
        assert message in response.text
        assert len(response.text) < 300

    @pytest.mark.checklist("70: application/x-npy with pickled objects gets 400, and their code is not run")
    def test_a_pickle(self, client: FlaskClient, tmp_path: Path) -> None:
        trace = tmp_path / "trace"

        class Bomb:
            def __reduce__(self) -> tuple[object, ...]:
                return Path.touch, (trace,)

        stream = io.BytesIO()
        np.save(stream, np.array([[Bomb()]], dtype=object), allow_pickle=True)
        response = client.post("/invocations", data=stream.getvalue(), headers={"Content-Type": "application/x-npy"})
        assert (response.status_code, response.text) == (
            400,
            "request: the array has dtype object; it must hold numbers.\n",
        )
        assert not trace.exists()

    @pytest.mark.checklist("68: another Content-Type gets 415, an Accept that is not supported 406")
    @pytest.mark.parametrize(
        ("headers", "status", "message"),
        [
            ({"Content-Type": "image/png"}, 415, "send text/csv, application/json, application/jsonlines or appl"),
            ({"Accept": "image/png"}, 406, "predictions are available as text/csv, application/json or appl"),
            ({"Accept": "text/csv; output=label"}, 406, "supported: predicted_label, probability, probabilities, exp"),
        ],
    )
    def test_unsupported_types(self, client: FlaskClient, headers: dict[str, str], status: int, message: str) -> None:
        response = client.post("/invocations", data=ROWS, headers=CSV | headers)
        assert (response.status_code, message in response.text) == (status, True), response.text

    @pytest.mark.checklist("74: other methods get 405, other paths 404")
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
    def test_other_routes(self, client: FlaskClient, method: str, path: str, status: int) -> None:
        response = client.open(path, method=method)
        assert response.status_code == status
        assert "; supported: GET /execution-parameters, POST /invocations, GET /ping, GET /v2, " in response.text
        assert ("Allow" in response.headers) == (status == 405)

    def test_a_larger_body_than_allowed(self, predictor: Predictor) -> None:
        client = make_client(predictor, SAGEMAKER_MAX_PAYLOAD_IN_MB="1")
        response = client.post("/invocations", data=ROWS * 2000, headers=CSV)
        assert response.status_code == 413
        assert "The request is larger than 1 MiB; send fewer rows at once, or raise SAGEMAKER_MAX_PA" in response.text

    def test_a_body_that_is_shorter_than_announced(self, client: FlaskClient) -> None:
        environ = {"CONTENT_LENGTH": "500", "wsgi.input": io.BytesIO(b"1,2,3\n")}
        response = client.post("/invocations", headers=CSV, environ_overrides=environ)
        assert (response.status_code, response.text) == (400, "The request body ends after 6 of 500 bytes.\n")

    def test_an_internal_error_is_500_without_a_traceback(
        self, predictor: Predictor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(*_: object) -> Predictions:
            raise ZeroDivisionError("secret")

        monkeypatch.setattr(predictor, "predict", fail)
        response = make_client(predictor).post("/invocations", data=ROWS, headers=CSV)
        assert (response.status_code, response.text) == (500, "Internal error; see the traceback in the log.\n")
        assert "secret" in caplog.text

    def test_requests_above_the_limit_get_503_and_pings_are_answered(
        self, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        entered, leave = threading.Event(), threading.Event()
        predict = predictor.predict

        def wait(*arguments: object) -> Predictions:
            entered.set()
            assert leave.wait(30)
            return predict(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(predictor, "predict", wait)
        monkeypatch.setattr(endpoint_module, "MAX_REQUESTS", 1)
        client = make_client(predictor)
        first: list[int] = []
        thread = threading.Thread(
            target=lambda: first.append(client.post("/invocations", data=ROWS, headers=CSV).status_code)
        )
        thread.start()
        assert entered.wait(30)
        response = client.post("/invocations", data=ROWS, headers=CSV)
        assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
        assert response.text == "Too many requests are waiting; try again.\n"
        assert client.get("/ping").status_code == 200
        leave.set()
        thread.join()
        assert first == [200]
        assert client.post("/invocations", data=ROWS, headers=CSV).status_code == 200


class TestLog:
    def line(self, caplog: pytest.LogCaptureFixture) -> str:
        (line,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith("invocation ")]
        return line

    def test_one_line_per_request(self, client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO):
            client.post("/invocations", data=ROWS, headers=CSV | {"X-Amzn-SageMaker-Inference-Id": "order-7"})
        number = r"\d+\.\d\d"
        steps = " ".join(f"{step}_ms={number}" for step in ("read", "wait", "parse", "predict", "encode"))
        assert re.fullmatch(f"invocation id=order-7 status=200 rows=8 {steps}", self.line(caplog))

    @pytest.mark.parametrize("identity", ["a b", "x\tstatus=200", "é", "x" * 65])
    def test_an_id_cannot_forge_a_log_line(
        self, predictor: Predictor, caplog: pytest.LogCaptureFixture, identity: str
    ) -> None:
        with caplog.at_level(logging.INFO):
            headers = CSV | {"X-Amzn-SageMaker-Inference-Id": identity}
            make_client(predictor).post("/invocations", data=ROWS, headers=headers)
        assert self.line(caplog).startswith("invocation id=1 status=200 ")

    def test_errors_are_logged_as_they_were_sent(self, predictor: Predictor, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO):
            make_client(predictor).post("/invocations", data=b"1,2\n", headers=CSV)
        line = self.line(caplog)
        assert line.startswith("invocation id=1 status=400 rows=0 read_ms=")
        assert line.endswith("error='request, row 1 has 2 values, but the model takes series of 16 values.'")

    def test_health_checks_are_not_logged(self, client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.DEBUG):
            client.get("/ping")
        assert not caplog.records


@pytest.mark.parametrize("body", ["1,2,7,8,3,4\n", "[[1, 2], [7, 8], [3, 4]]"])
def test_a_model_for_series_of_several_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    save_model_of_variables(tmp_path / "model")
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    client = application().test_client()
    headers = {"Content-Type": "application/json" if body.startswith("[") else "text/csv", "Accept": "text/csv"}
    response = client.post("/invocations", data=body, headers=headers)
    assert (response.status_code, response.text) == (200, "y_b")
    headers["Accept"] += "; output=explanation"
    assert client.post("/invocations", data=body, headers=headers).text == "11,14"
