"""The Open Inference Protocol: metadata, predictions in all its forms, and refusals."""

import json
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from lstm_fcn import __version__
from lstm_fcn.container import artifact
from lstm_fcn.serving.app import create_app
from lstm_fcn.serving.models import OneModel
from lstm_fcn.serving.predictor import Predictor
from lstm_fcn.serving.settings import Settings
from tests.models import GOLDEN, LENGTH, NAMES, SERIES, probabilities, save_model_of_variables, save_plain_model


def make_client(folder: Path, name: str = "model") -> FlaskClient:
    one = OneModel(Predictor(*artifact.load(folder), threads=2), name)
    return create_app(one, Settings.from_environment({})).test_client()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> FlaskClient:
    return make_client(save_plain_model(tmp_path_factory.mktemp("model")))


def tensor(data: Any = None, **changes: Any) -> dict[str, Any]:
    data = SERIES.tolist() if data is None else data
    return {"name": "series", "datatype": "FP64", "shape": list(SERIES.shape), "data": data} | changes


def infer(client: FlaskClient, *inputs: dict[str, Any], **others: Any) -> Any:
    response = client.post("/v2/models/model/infer", json={"inputs": list(inputs)} | others)
    assert response.content_type == "application/json"
    return response.status_code, json.loads(response.text)


def test_server_and_health(client: FlaskClient) -> None:
    assert client.get("/v2").json == {"name": "lstm-fcn", "version": __version__, "extensions": []}
    assert client.get("/v2/health/live").json == {"live": True}
    assert client.get("/v2/health/ready").json == {"ready": True}
    assert client.get("/v2/models/model/ready").json == {"name": "model", "ready": True}


def test_metadata(client: FlaskClient) -> None:
    assert client.get("/v2/models/model").json == {
        "name": "model",
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "series", "datatype": "FP64", "shape": [-1, 1, LENGTH]}],
        "outputs": [
            {"name": "predicted_label", "datatype": "BYTES", "shape": [-1]},
            {"name": "probability", "datatype": "FP32", "shape": [-1]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]},
        ],
    }


def test_metadata_of_targets() -> None:
    described = make_client(GOLDEN / "model").get("/v2/models/model").json
    assert described is not None
    assert described["inputs"][0]["shape"][1] == 2
    assert described["outputs"][0] == {"name": "predicted_label", "datatype": "INT64", "shape": [-1, 3]}


@pytest.mark.parametrize(
    "given",
    [
        tensor(),
        tensor(SERIES.ravel().tolist()),
        tensor(shape=[8, 1, LENGTH], datatype="FP32"),
        tensor([[row] for row in SERIES.tolist()], shape=[8, 1, LENGTH]),
    ],
    ids=["two dimensions", "flat", "three dimensions", "nested"],
)
def test_predictions(client: FlaskClient, given: dict[str, Any]) -> None:
    status, found = infer(client, given, id="42", parameters={"any": 1})
    assert (status, found["model_name"], found["id"]) == (200, "model", "42")
    outputs = {output["name"]: output for output in found["outputs"]}
    assert outputs["predicted_label"]["data"] == NAMES
    assert outputs["probabilities"]["shape"] == [8, 2]
    assert outputs["probabilities"]["data"] == pytest.approx(probabilities(SERIES).ravel().tolist(), abs=1e-5)
    assert outputs["probability"]["data"] == pytest.approx(probabilities(SERIES).max(axis=1).tolist(), abs=1e-5)


def test_outputs_by_name(client: FlaskClient) -> None:
    wanted = [{"name": "explanation", "parameters": {"binary_data": False}}, {"name": "predicted_label"}]
    status, found = infer(client, tensor(), outputs=wanted)
    assert status == 200
    assert "id" not in found
    assert [(output["name"], output["shape"]) for output in found["outputs"]] == [
        ("explanation", [8, LENGTH]),
        ("predicted_label", [8]),
    ]


def test_targets_and_variables(tmp_path: Path) -> None:
    client = make_client(save_model_of_variables(tmp_path, columns=("x_1", "x_2")))
    data = [[[0, 0], [5, 5], [1, 1]], [[9, 9], [5, 5], [1, 1]]]
    status, found = infer(client, tensor(data, shape=[2, 3, 2], datatype="INT32"))
    assert status == 200
    assert found["outputs"][0]["datatype"] == "INT64"
    assert found["outputs"][0]["shape"] == [2, 3]
    assert found["outputs"][0]["data"] == [0, 1, 0, 1, 0, 0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"inputs": []}, '"inputs" must be a list of one tensor'),
        ([], '"inputs" must be a list of one tensor'),
        ({"inputs": [tensor(), tensor()]}, '"inputs" must be a list of one tensor'),
        ({"inputs": [tensor(name="x")]}, "input 'x': the input of the model is 'series'"),
        ({"inputs": [tensor(datatype="BYTES")]}, "has the datatype 'BYTES'; it must be FP64 or FP32"),
        ({"inputs": [tensor(shape=[8])]}, "has 128 values, but the shape is [8]"),
        ({"inputs": [tensor(shape=[-1, 16])]}, "the shape [-1, 16] must be a list of sizes"),
        ({"inputs": [tensor(shape=[16, 8])]}, "series 1 has 8 values, but the model takes series of 16 values"),
        ({"inputs": [tensor(shape=[128])]}, "the array has shape (128,); it must be [series, values]"),
        ({"inputs": [tensor(["a"] * 128)]}, "value 1 is 'a'; every value must be a finite number"),
        ({"inputs": [tensor([None] * 128)]}, "series 1, value 1 is missing"),
        ({"inputs": [tensor([[1, [2]]])]}, "value 2 is [2]; every value must be a finite number"),
        ({"inputs": [tensor("abc")]}, "the data must be a list of numbers; binary data is not supported"),
        ({"inputs": [tensor()], "id": 7}, '"id" is 7; it must be a string'),
        ({"inputs": [tensor()], "outputs": [{"name": "logits"}]}, "there is no output 'logits'; the outputs are"),
        ({"inputs": [tensor()], "outputs": "all"}, "there is no output 'all'"),
    ],
)
def test_refusals(client: FlaskClient, given: object, message: str) -> None:
    response = client.post("/v2/models/model/infer", json=given)
    assert response.status_code == 400
    assert message in json.loads(response.text)["error"]


def test_errors_have_the_form_of_the_protocol(client: FlaskClient) -> None:
    response = client.post("/v2/models/other/infer", json={"inputs": [tensor()]})
    assert (response.status_code, response.json) == (
        404,
        {"error": "There is no model 'other'; the model is 'model'."},
    )
    assert client.get("/v2/models/other/ready").status_code == 404
    invalid = client.post("/v2/models/model/infer", data=b"{")
    assert invalid.status_code == 400
    assert "is not valid JSON" in json.loads(invalid.text)["error"]
    assert client.delete("/v2/models/model").status_code == 405


def test_binary_tensors_are_refused(client: FlaskClient) -> None:
    headers = {"Inference-Header-Content-Length": "2"}
    response = client.post("/v2/models/model/infer", data=b"{}\0\0", headers=headers)
    assert (response.status_code, "binary tensors are not supported" in response.text) == (400, True)


def test_no_series_is_no_content(client: FlaskClient) -> None:
    response = client.post("/v2/models/model/infer", json={"inputs": [tensor([], shape=[0, LENGTH])]})
    assert (response.status_code, response.data) == (204, b"")
