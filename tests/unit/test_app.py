"""The application without a server: what cannot be seen from outside, or only by chance."""

import logging
import re
import threading
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from lstm_fcn.serving import app as app_module
from lstm_fcn.serving.app import application, create_app
from lstm_fcn.serving.predictor import Predictions, Predictor
from lstm_fcn.serving.settings import Settings
from tests.unit.test_predictor import save_model_of_variables

GOLDEN = Path(__file__).parents[1] / "golden" / "v1"
ROWS = (GOLDEN / "series.csv").read_bytes()
HEADERS = {"Content-Type": "text/csv"}


@pytest.fixture
def predictor() -> Predictor:
    return Predictor(GOLDEN / "model", threads=2)


def make_client(predictor: Predictor, **environment: str) -> FlaskClient:
    return create_app(predictor, Settings.from_environment(environment)).test_client()


class TestQueue:
    def test_past_its_end_requests_are_told_to_come_back_and_pings_are_answered(
        self, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        entered, leave = threading.Event(), threading.Event()
        predict = predictor.predict

        def wait(*arguments: object) -> Predictions:
            entered.set()
            assert leave.wait(30)
            return predict(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(predictor, "predict", wait)
        monkeypatch.setattr(app_module, "QUEUE", 1)
        client = make_client(predictor)
        first: list[int] = []
        thread = threading.Thread(
            target=lambda: first.append(client.post("/invocations", data=ROWS, headers=HEADERS).status_code)
        )
        thread.start()
        assert entered.wait(30)
        reply = client.post("/invocations", data=ROWS, headers=HEADERS)
        assert (reply.status_code, reply.headers["Retry-After"]) == (503, "1")
        assert reply.text == "Too many requests are waiting; try again.\n"
        assert client.get("/ping").status_code == 200
        leave.set()
        thread.join()
        assert first == [200]
        assert client.post("/invocations", data=ROWS, headers=HEADERS).status_code == 200


class TestLog:
    def line(self, caplog: pytest.LogCaptureFixture) -> str:
        (line,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith("invocation ")]
        return line

    def test_one_line_a_request(self, predictor: Predictor, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO):
            headers = HEADERS | {"X-Amzn-SageMaker-Inference-Id": "order-7"}
            make_client(predictor).post("/invocations", data=ROWS, headers=headers)
        number = r"\d+\.\d\d"
        steps = " ".join(f"{step}_ms={number}" for step in ("read", "wait", "parse", "predict", "encode"))
        assert re.fullmatch(f"invocation id=order-7 status=200 rows=8 {steps}", self.line(caplog))

    @pytest.mark.parametrize("identity", ["a b", "x\tstatus=200", "é", "x" * 65])
    def test_an_id_cannot_break_the_line(
        self, predictor: Predictor, caplog: pytest.LogCaptureFixture, identity: str
    ) -> None:
        with caplog.at_level(logging.INFO):
            headers = HEADERS | {"X-Amzn-SageMaker-Inference-Id": identity}
            make_client(predictor).post("/invocations", data=ROWS, headers=headers)
        assert self.line(caplog).startswith("invocation id=1 status=200 ")

    def test_errors_say_what_the_client_was_told(self, predictor: Predictor, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO):
            make_client(predictor).post("/invocations", data=b"1,2\n", headers=HEADERS)
        line = self.line(caplog)
        assert line.startswith("invocation id=1 status=400 rows=0 read_ms=")
        assert line.endswith("error='request, row 1 has 2 values, but the model takes series of 16 values.'")

    def test_health_checks_are_not_logged(self, predictor: Predictor, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.DEBUG):
            make_client(predictor).get("/ping")
        assert not caplog.records


def test_our_own_fault_is_500_without_a_traceback(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> Predictions:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(predictor, "predict", fail)
    reply = make_client(predictor).post("/invocations", data=ROWS, headers=HEADERS)
    assert (reply.status_code, reply.text) == (500, "The server failed on this request; its log says why.\n")
    assert "secret" in caplog.text


@pytest.mark.parametrize("body", ["1,2,7,8,3,4\n", "[[1, 2], [7, 8], [3, 4]]"])
def test_a_model_for_series_of_several_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    (tmp_path / "model").mkdir()
    save_model_of_variables(tmp_path / "model")
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    client = application().test_client()
    headers = {"Content-Type": "application/json" if body.startswith("[") else "text/csv", "Accept": "text/csv"}
    reply = client.post("/invocations", data=body, headers=headers)
    assert (reply.status_code, reply.text) == (200, "y_b")
    headers["Accept"] += "; output=explanation"
    assert client.post("/invocations", data=body, headers=headers).text == "11,14"
