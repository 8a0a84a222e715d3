"""What can be sent to an endpoint, and what can be asked of it, as a black box."""

import csv
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.contract.test_serving import GOLDEN, LABELS, ROWS, copy_model
from tests.programs import Endpoint, endpoint, try_to_serve

V2 = Path(__file__).parents[1] / "golden" / "v2"  # three targets, a header, missing values
SERIES = [[float(cell) for cell in row.split(",")] for row in ROWS.splitlines()]
INSTANCES = json.dumps({"instances": [{"features": row} for row in SERIES]})
NAMES = [next(csv.reader([label]))[0] for label in LABELS]
PROBABILITIES = np.loadtxt(GOLDEN / "probabilities.csv", delimiter=",")
TARGETS = ("y_rises", "y_falls", "y_high")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    with endpoint(copy_model(tmp_path_factory.mktemp("ml")), SAGEMAKER_MODEL_SERVER_WORKERS="1") as running:
        yield running


@pytest.fixture(scope="module")
def headed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """Serves a model of data with a header."""
    root = tmp_path_factory.mktemp("ml")
    shutil.copytree(V2 / "model", root / "model")
    with endpoint(root, SAGEMAKER_MODEL_SERVER_WORKERS="1") as running:
        yield running


def npy() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array(SERIES))
    return stream.getvalue()


REQUESTS = {
    "text/csv": ROWS.encode(),
    "application/json": INSTANCES.encode(),
    "application/jsonlines": "\n".join(json.dumps({"features": row}) for row in SERIES).encode(),
    "application/x-npy": npy(),
}


class TestFormats:
    @pytest.mark.parametrize("media_type", REQUESTS)
    def test_every_format_gets_the_same_labels(self, server: Endpoint, media_type: str) -> None:
        reply = server.invoke(REQUESTS[media_type], Content_Type=media_type, Accept="text/csv")
        assert (reply.status, reply.text.split("\n")) == (200, LABELS)

    @pytest.mark.parametrize("media_type", REQUESTS)
    def test_a_reply_is_like_its_request_unless_said_otherwise(self, server: Endpoint, media_type: str) -> None:
        reply = server.invoke(REQUESTS[media_type], Content_Type=media_type, Accept="*/*")
        expected = "text/csv; charset=utf-8" if media_type in ("text/csv", "application/x-npy") else media_type
        assert reply.headers["Content-Type"] == expected

    def test_json(self, server: Endpoint) -> None:
        reply = server.invoke(INSTANCES, Content_Type="application/json; charset=utf-8")
        assert json.loads(reply.body) == {"predictions": [{"predicted_label": name} for name in NAMES]}

    def test_json_lines(self, server: Endpoint) -> None:
        reply = server.invoke(ROWS, Accept="application/jsonlines")
        assert [json.loads(line) for line in reply.text.split("\n")] == [{"predicted_label": name} for name in NAMES]

    def test_a_pickle_is_refused(self, server: Endpoint) -> None:
        stream = io.BytesIO()
        np.save(stream, np.array([[{"a": 1}]], dtype=object), allow_pickle=True)
        reply = server.invoke(stream.getvalue(), Content_Type="application/x-npy")
        assert (reply.status, reply.text) == (400, "request: the array's type is object; it must hold numbers.\n")

    @pytest.mark.parametrize("media_type", REQUESTS)
    def test_nothing_to_predict(self, server: Endpoint, media_type: str) -> None:
        assert server.invoke(b"", Content_Type=media_type).status == 204

    @pytest.mark.parametrize(
        ("media_type", "body", "message"),
        [
            ("application/json", '{"instances": [[1, 2]]}', "request, instance 1 has 2 values, but the model takes"),
            ("application/json", "{", "request is no valid JSON: "),
            (
                "application/jsonlines",
                "[1, 2]",
                "request, line 1 has 2 values, but the model takes series of 16 values.",
            ),
            ("application/x-npy", ROWS, "request is no array in NPY format (versions 1 and 2)."),
        ],
    )
    def test_what_is_wrong_is_said(self, server: Endpoint, media_type: str, body: str, message: str) -> None:
        reply = server.invoke(body, Content_Type=media_type)
        assert (reply.status, message in reply.text) == (400, True), reply.text


class TestOutputs:
    def test_probabilities_with_the_names_of_the_classes(self, server: Endpoint) -> None:
        accept = 'application/json; output="predicted_label,probability,probabilities"'
        found = json.loads(server.invoke(ROWS, Accept=accept).body)["predictions"]
        classes = list(found[0]["probabilities"])
        assert classes == sorted(set(NAMES))
        for row, name, expected in zip(found, NAMES, PROBABILITIES, strict=True):
            assert list(row["probabilities"].values()) == pytest.approx(expected, abs=1e-5)
            assert row["probability"] == max(row["probabilities"].values()) == row["probabilities"][name]
            assert row["predicted_label"] == name

    def test_probabilities_as_csv(self, server: Endpoint) -> None:
        text = server.invoke(ROWS, Accept="text/csv; output=probabilities; header=present").text
        assert next(csv.reader([text.split("\n")[0]])) == [f"probability_{name}" for name in sorted(set(NAMES))]
        np.testing.assert_allclose(np.loadtxt(text.split("\n")[1:], delimiter=","), PROBABILITIES, atol=1e-5)

    def test_an_old_model_has_no_explanation(self, server: Endpoint, tmp_path: Path) -> None:
        reply = server.invoke(ROWS, Accept="text/csv; output=explanation")
        assert (reply.status, "has no explanation: it is of an early release" in reply.text) == (400, True)
        result = try_to_serve(copy_model(tmp_path), SAGEMAKER_INFERENCE_OUTPUT="explanation")
        assert (result.code, "has no explanation: it is of an early release" in result.stderr) == (2, True)

    @pytest.mark.parametrize(
        ("accept", "message"),
        [
            ("text/csv; output=label", "there are predicted_label, probability, probabilities, explanation"),
            ("text/csv; output=probability,explanation", "several outputs are put in quotes"),
            ("nonsense", "Accept has 'nonsense', which is no media type"),
            ("text/csv; header=1", "header=1 must be present or absent"),
        ],
    )
    def test_wishes_that_cannot_be_met(self, server: Endpoint, accept: str, message: str) -> None:
        reply = server.invoke(ROWS, Accept=accept)
        assert (reply.status, message in reply.text) == (406, True), reply.text

    def test_the_environment_speaks_for_requests_that_say_nothing(self, tmp_path: Path) -> None:
        settings = {
            "SAGEMAKER_INFERENCE_OUTPUT": "probability,predicted_label",
            "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": "application/jsonlines",
        }
        with endpoint(copy_model(tmp_path), SAGEMAKER_MODEL_SERVER_WORKERS="1", **settings) as server:
            lines = server.invoke(ROWS).text.split("\n")
            assert [list(json.loads(line)) for line in lines] == [["probability", "predicted_label"]] * 8
            assert server.invoke(ROWS, Accept="text/csv; output=predicted_label").text.split("\n") == LABELS


class TestDataWithAHeader:
    ROWS = (V2 / "series.csv").read_text()
    PROBABILITIES = np.loadtxt(V2 / "probabilities.csv", delimiter=",")
    EXPLANATION = np.loadtxt(V2 / "explanation.csv", delimiter=",")

    def test_csv_has_a_header_on_both_ways(self, headed: Endpoint) -> None:
        lines = headed.invoke(self.ROWS).text.split("\n")
        assert lines[0] == "y_rises,y_falls,y_high,p_rises,p_falls,p_high"
        found = np.loadtxt(lines[1:], delimiter=",")
        np.testing.assert_array_equal(found[:, :3], self.PROBABILITIES > 0.5)
        np.testing.assert_allclose(found[:, 3:], self.PROBABILITIES, atol=1e-5)

    def test_without_its_header_where_that_is_wanted(self, headed: Endpoint) -> None:
        lines = headed.invoke(self.ROWS, Accept="text/csv; header=absent; output=probabilities").text.split("\n")
        np.testing.assert_allclose(np.loadtxt(lines, delimiter=","), self.PROBABILITIES, atol=1e-5)

    def test_explanations(self, headed: Endpoint) -> None:
        text = headed.invoke(self.ROWS, Accept="text/csv; output=explanation").text
        assert text.split("\n")[0] == ",".join(f"e{k}" for k in range(16))
        np.testing.assert_allclose(np.loadtxt(text.split("\n")[1:], delimiter=","), self.EXPLANATION, atol=1e-4)

    def test_json_has_values_in_the_order_of_the_training_data_and_null_for_missing_ones(
        self, headed: Endpoint
    ) -> None:
        rows = [[float(cell) if cell else None for cell in line.split(",")] for line in self.ROWS.splitlines()[1:]]
        body = json.dumps({"instances": [{"features": row} for row in rows]})
        accept = 'application/json; output="predicted_label,probabilities,explanation"'
        found = json.loads(headed.invoke(body, Content_Type="application/json", Accept=accept).body)["predictions"]
        for row, probabilities, explanation in zip(found, self.PROBABILITIES, self.EXPLANATION, strict=True):
            assert row["predicted_label"] == dict(zip(TARGETS, (probabilities > 0.5).astype(int), strict=True))
            assert list(row["probabilities"]) == list(TARGETS)
            assert list(row["probabilities"].values()) == pytest.approx(probabilities, abs=1e-5)
            assert row["explanation"] == pytest.approx(explanation, abs=1e-4)


class TestPrecision:
    def test_bfloat16_agrees_but_for_its_rounding(self, tmp_path: Path) -> None:
        with endpoint(
            copy_model(tmp_path), SAGEMAKER_MODEL_SERVER_WORKERS="1", LSTM_FCN_PRECISION="bfloat16"
        ) as server:
            text = server.invoke(ROWS, Accept="text/csv; output=probabilities").text
        np.testing.assert_allclose(np.loadtxt(text.split("\n"), delimiter=","), PROBABILITIES, atol=0.02)
