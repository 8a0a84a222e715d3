"""The Open Inference Protocol, version 2, over HTTP and JSON, as KServe and others use it.

https://github.com/kserve/open-inference-protocol
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from flask import Flask, Response, jsonify, request
from numpy.typing import NDArray

from lstm_fcn import __version__
from lstm_fcn.container.artifact import Metadata
from lstm_fcn.container.errors import UserError, shorten
from lstm_fcn.container.media_types import JSON, OUTPUTS
from lstm_fcn.serving.decode import SOURCE, complete_series, list_of_numbers, parse_json
from lstm_fcn.serving.encode import Encoder
from lstm_fcn.serving.endpoint import Endpoint
from lstm_fcn.serving.models import LoadedModel
from lstm_fcn.serving.predictor import Predictions

PREFIX = "/v2"
ROUTES = "GET /v2, /v2/health/live, /v2/health/ready, /v2/models/NAME and POST /v2/models/NAME/infer"
BINARY = "Inference-Header-Content-Length"  # an extension of some servers
INPUT = "series"
USUAL = tuple(name for name in OUTPUTS if name != "explanation")  # if a request names no outputs
NUMBERS = ("FP64", "FP32", "FP16", "INT64", "INT32", "INT16", "INT8", "UINT64", "UINT32", "UINT16", "UINT8")


def add_routes(app: Flask, endpoint: Endpoint) -> None:
    """Add the paths of the protocol."""
    model_path = f"{PREFIX}/models/<name>"

    @app.get(PREFIX)
    def server() -> Response:
        return jsonify(name="lstm-fcn", version=__version__, extensions=[])

    @app.get(f"{PREFIX}/health/live")
    def live() -> Response:
        return jsonify(live=True)

    @app.get(f"{PREFIX}/health/ready")
    def ready() -> Response:
        """A worker accepts connections only once it can predict."""
        return jsonify(ready=True)

    @app.get(f"{model_path}/ready")
    def model_ready(name: str) -> Response:
        return jsonify(name=endpoint.find(name).name, ready=True)

    @app.get(model_path)
    def model(name: str) -> Response:
        return jsonify(_describe(endpoint.find(name)))

    @app.post(f"{model_path}/infer")
    def infer(name: str) -> Response:
        return endpoint.answer(name, Inference)


def error_response(message: str, status: int) -> Response:
    """An error in the form of the protocol."""
    response = jsonify(error=message)
    response.status_code = status
    return response


class Inference:
    """A request: its complete series, float64 `[N, M, length]`, and the outputs that it wants."""

    def __init__(self, body: bytes, model: LoadedModel) -> None:
        """Decode the body of the current request. Raises `UserError`: it is invalid, and why."""
        if BINARY in request.headers:
            raise UserError(f"{SOURCE}: binary tensors are not supported; send the data as JSON (binary_data=False).")
        document = parse_json(body, SOURCE)
        inputs = document.get("inputs") if isinstance(document, dict) else None
        if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
            raise UserError(f'{SOURCE}: "inputs" must be a list of one tensor, {INPUT!r}.')
        self._model = model
        self._id = document.get("id")
        if not isinstance(self._id, str | None):
            raise UserError(f'{SOURCE}: "id" is {shorten(self._id)}; it must be a string.')
        self._outputs = _outputs(document.get("outputs"))
        self.series = [_decode(inputs[0], model.predictor.metadata)]

    def respond(self, predictions: Predictions) -> Response:
        """The response with the tensors that the request wants."""
        head = {"model_name": self._model.name}
        if self._id is not None:
            head["id"] = self._id
        tensors = ", ".join(_encode_tensor(name, self._model.encoder, predictions) for name in self._outputs)
        return Response(f'{json.dumps(head)[:-1]}, "outputs": [{tensors}]}}', content_type=JSON)


def _outputs(wanted: Any) -> Sequence[str]:
    """The names of the tensors to return."""
    if not wanted:
        return USUAL
    try:
        names = [tensor["name"] for tensor in wanted]
    except (TypeError, KeyError):
        names = []
    unknown = [name for name in names if name not in OUTPUTS]
    if unknown or not names:
        what = shorten(unknown[0]) if unknown else shorten(wanted)
        raise UserError(f"{SOURCE}: there is no output {what}; the outputs are {', '.join(OUTPUTS)}.")
    return names


def _decode(tensor: dict[str, Any], metadata: Metadata) -> NDArray[np.float64]:
    """The series of a tensor `[N, M, L]`, or `[N, L]` for one variable, with its data flat or nested."""
    place = f"{SOURCE}, input {shorten(tensor.get('name'))}"
    if tensor.get("name") != INPUT:
        raise UserError(f"{place}: the input of the model is {INPUT!r}.")
    if tensor.get("datatype") not in NUMBERS:
        raise UserError(f"{place} has the datatype {shorten(tensor.get('datatype'))}; it must be FP64 or FP32.")
    shape, data = tensor.get("shape"), tensor.get("data")
    if not isinstance(shape, list) or not all(type(size) is int and 0 <= size < 2**32 for size in shape):
        raise UserError(f"{place}: the shape {shorten(shape)} must be a list of sizes.")
    if not isinstance(data, list):
        raise UserError(f"{place}: the data must be a list of numbers; binary data is not supported.")
    for _ in range(2):
        if data and isinstance(data[0], list):
            data = [value for part in data for value in (part if isinstance(part, list) else [part])]
    values = list_of_numbers(data, place)
    if int(np.prod(shape, dtype=object)) != len(values):
        raise UserError(f"{place} has {len(values)} values, but the shape is {shape}.")
    return complete_series(values.reshape(shape), place, metadata)


def _describe(model: LoadedModel) -> dict[str, Any]:
    """The metadata of a model: the tensors that it takes and returns."""
    problem = model.predictor.metadata.problem
    length = -1 if problem.preprocessing.any_length else problem.length
    inputs = [{"name": INPUT, "datatype": "FP64", "shape": [-1, problem.num_variables, length]}]
    sizes = {"predicted_label": [], "probability": [], "probabilities": [len(problem.classes)]}
    outputs = []
    for name in USUAL:
        datatype = ("INT64" if problem.has_header else "BYTES") if name == "predicted_label" else "FP32"
        shape = [len(problem.classes)] if datatype == "INT64" else sizes[name]
        outputs.append({"name": name, "datatype": datatype, "shape": [-1, *shape]})
    return {"name": model.name, "platform": "onnxruntime_onnx", "inputs": inputs, "outputs": outputs}


def _encode_tensor(name: str, encoder: Encoder, predictions: Predictions) -> str:
    datatype, shape, cells = encoder.tensor(name, predictions)
    return f'{{"name": "{name}", "datatype": "{datatype}", "shape": {shape}, "data": [{", ".join(cells)}]}}'
