"""The formats of requests and responses and the outputs, from request to response, without a server."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from lstm_fcn.container import artifact
from lstm_fcn.serving.app import create_app
from lstm_fcn.serving.models import OneModel
from lstm_fcn.serving.predictor import Predictor
from lstm_fcn.serving.settings import Settings
from tests.models import CLASSES, GOLDEN, LABELS, NAMES, ROWS, SERIES, SLOPE, probabilities, save_plain_model

TARGETS = ("y_rises", "y_falls", "y_stays")
TRAINED_ROWS = (GOLDEN / "series.csv").read_text()
PROBABILITIES = np.loadtxt(GOLDEN / "probabilities.csv", delimiter=",")
EXPLANATION = np.loadtxt(GOLDEN / "explanation.csv", delimiter=",")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> FlaskClient:
    return make_client(save_plain_model(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def trained() -> FlaskClient:
    """A model of data with a header, two variables and missing values."""
    return make_client(GOLDEN / "model")


def make_client(folder: Path) -> FlaskClient:
    return create_app(
        OneModel(Predictor(*artifact.load(folder), threads=1)), Settings.from_environment({})
    ).test_client()


def invoke(client: FlaskClient, body: bytes | str, content_type: str = "text/csv", accept: str = "") -> TestResponse:
    response = client.post("/invocations", data=body, headers={"Content-Type": content_type, "Accept": accept})
    assert response.status_code == 200, response.text
    return response


def npy() -> bytes:
    stream = io.BytesIO()
    np.save(stream, SERIES)
    return stream.getvalue()


REQUESTS = {
    "text/csv": ROWS.encode(),
    "application/json": json.dumps({"instances": [{"features": row} for row in SERIES.tolist()]}).encode(),
    "application/jsonlines": "\n".join(json.dumps({"features": row}) for row in SERIES.tolist()).encode(),
    "application/x-npy": npy(),
}


class TestFormats:
    @pytest.mark.parametrize("media_type", REQUESTS)
    def test_every_format_gets_the_same_labels(self, plain: FlaskClient, media_type: str) -> None:
        response = invoke(plain, REQUESTS[media_type], media_type, "text/csv")
        assert response.text.split("\n") == LABELS

    @pytest.mark.parametrize("media_type", REQUESTS)
    def test_by_default_a_response_has_the_format_of_its_request(self, plain: FlaskClient, media_type: str) -> None:
        response = invoke(plain, REQUESTS[media_type], media_type, "*/*")
        expected = "text/csv; charset=utf-8" if media_type in ("text/csv", "application/x-npy") else media_type
        assert response.headers["Content-Type"] == expected

    def test_json(self, plain: FlaskClient) -> None:
        response = invoke(plain, REQUESTS["application/json"], "application/json; charset=utf-8")
        assert response.json == {"predictions": [{"predicted_label": name} for name in NAMES]}

    def test_json_lines(self, plain: FlaskClient) -> None:
        lines = invoke(plain, ROWS, accept="application/jsonlines").text.split("\n")
        assert [json.loads(line) for line in lines] == [{"predicted_label": name} for name in NAMES]


class TestOutputs:
    def test_probabilities_by_class_name(self, plain: FlaskClient) -> None:
        accept = 'application/json; output="predicted_label,probability,probabilities,explanation"'
        document = json.loads(invoke(plain, ROWS, accept=accept).data)
        for row, name, expected, series in zip(
            document["predictions"], NAMES, probabilities(SERIES), SERIES, strict=True
        ):
            assert list(row["probabilities"]) == list(CLASSES)
            assert list(row["probabilities"].values()) == pytest.approx(expected, abs=1e-5)
            assert row["probability"] == max(row["probabilities"].values()) == row["probabilities"][name]
            assert row["predicted_label"] == name
            assert row["explanation"] == pytest.approx(series * SLOPE, abs=1e-5)

    def test_probabilities_as_csv(self, plain: FlaskClient) -> None:
        text = invoke(plain, ROWS, accept="text/csv; output=probabilities; header=present").text
        header, *lines = text.split("\n")
        assert next(csv.reader([header])) == [f"probability_{name}" for name in CLASSES]
        np.testing.assert_allclose(np.loadtxt(lines, delimiter=","), probabilities(SERIES), atol=1e-5)


class TestDataWithAHeader:
    def test_csv_has_a_header_in_both_directions(self, trained: FlaskClient) -> None:
        header, *lines = invoke(trained, TRAINED_ROWS).text.split("\n")
        assert header == "y_rises,y_falls,y_stays,p_rises,p_falls,p_stays"
        found = np.loadtxt(lines, delimiter=",")
        np.testing.assert_array_equal(found[:, :3], np.eye(3)[PROBABILITIES.argmax(axis=1)])
        np.testing.assert_allclose(found[:, 3:], PROBABILITIES, atol=1e-5)

    def test_the_header_can_be_left_out(self, trained: FlaskClient) -> None:
        lines = invoke(trained, TRAINED_ROWS, accept="text/csv; header=absent; output=probabilities").text.split("\n")
        np.testing.assert_allclose(np.loadtxt(lines, delimiter=","), PROBABILITIES, atol=1e-5)

    def test_explanations(self, trained: FlaskClient) -> None:
        header, *lines = invoke(trained, TRAINED_ROWS, accept="text/csv; output=explanation").text.split("\n")
        assert header == ",".join(f"e_{k}" for k in range(1, 17))
        np.testing.assert_allclose(np.loadtxt(lines, delimiter=","), EXPLANATION, atol=1e-4)

    def test_json_holds_values_in_the_order_of_the_training_data_and_null_for_missing_ones(
        self, trained: FlaskClient
    ) -> None:
        rows = [[float(cell) if cell else None for cell in line.split(",")] for line in TRAINED_ROWS.splitlines()[1:]]
        body = json.dumps({"instances": [{"features": [row[:16], row[16:]]} for row in rows]})
        accept = 'application/json; output="predicted_label,probabilities,explanation"'
        found = json.loads(invoke(trained, body, "application/json", accept).data)["predictions"]
        for row, expected, explanation in zip(found, PROBABILITIES, EXPLANATION, strict=True):
            assert row["predicted_label"] == dict(zip(TARGETS, (expected == expected.max()).astype(int), strict=True))
            assert list(row["probabilities"]) == list(TARGETS)
            assert list(row["probabilities"].values()) == pytest.approx(expected, abs=1e-5)
            assert row["explanation"] == pytest.approx(explanation, abs=1e-4)
