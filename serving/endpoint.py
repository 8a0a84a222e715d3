"""From the body of a request to predictions and their response, whatever the protocol."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from flask import Request, Response, g, request
from numpy.typing import NDArray
from werkzeug.exceptions import BadRequest, InternalServerError, RequestEntityTooLarge

from lstm_fcn.container.cores import available_cores
from lstm_fcn.container.errors import UserError
from lstm_fcn.serving.admission import MAX_REQUESTS, Admission
from lstm_fcn.serving.models import LoadedModel, Models
from lstm_fcn.serving.predictor import Predictions
from lstm_fcn.serving.settings import MEBIBYTE, Settings

MAX_BODIES = 8  # total size of the admitted bodies, in bodies of the largest size
CHUNKED_SIZE = MEBIBYTE  # assumed for a body without Content-Length


class Exchange(Protocol):
    """A request in the form of a protocol, and how to answer it."""

    @property
    def series(self) -> Sequence[NDArray[np.float64]]:
        """Parts of complete series, float64 `[n, M, length]`."""

    def respond(self, predictions: Predictions) -> Response:
        """The response with the predictions of all series."""


Form = Callable[[bytes, LoadedModel], Exchange]  # decodes a body for a model; raises `UserError` if it is invalid


class Endpoint:
    """Answers requests for predictions, as many at a time as there is room for."""

    def __init__(self, models: Models, settings: Settings, gauge: "memoryview[float]") -> None:
        """Serve `models`; for `gauge`, see `Admission`."""
        self._models = models
        self.max_body = settings.max_body_mib * MEBIBYTE
        turns = available_cores()
        self._admission = Admission(MAX_REQUESTS, MAX_BODIES * self.max_body, turns, gauge)

    def find(self, name: str) -> LoadedModel:
        """The model of a request, which is not to blame if its files are damaged. For what is raised, see `Models`."""
        try:
            model = self._models.get(name)
        except UserError as error:
            raise InternalServerError(str(error)) from error
        g.steps.model = model.name
        return model

    def answer(self, name: str, form: Form) -> Response:
        """Predict the series of the current request: one prediction each, in the same order (S20, S24)."""
        declared = request.content_length
        with self._admission.admit(CHUNKED_SIZE if declared is None else min(declared, self.max_body)):
            steps = g.steps
            # Read the body first: a client that is still sending would not see an error about its headers.
            body = _read_body(request, self.max_body)
            steps.end("read")
            model = self.find(name)
            with self._admission.turn(len(body)):
                steps.end("wait")
                exchange = form(body, model)
                steps.rows = sum(map(len, exchange.series))
                steps.end("parse")
                if steps.rows == 0:
                    return Response(status=204)
                predictions = join_predictions([model.predictor.predict(part) for part in exchange.series])
                steps.end("predict")
                response = exchange.respond(predictions)
                steps.end("encode")
                steps.predicted = model.predictor.metadata.problem, predictions
                return response


def join_predictions(parts: Sequence[Predictions]) -> Predictions:
    """Predictions one after the other."""
    return parts[0] if len(parts) == 1 else Predictions(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def _read_body(incoming: Request, limit: int) -> bytes:
    """Read the whole body, chunked or not (S23). werkzeug's limit would silently truncate a chunked one."""
    stream = incoming.environ["wsgi.input"]
    declared = incoming.content_length
    if declared is not None and declared > limit:
        raise RequestEntityTooLarge
    try:
        body: bytes = stream.read(limit + 1)
    except Exception as error:  # gunicorn's own classes: an invalid chunk, a closed or silent connection
        _close_connection(incoming)
        raise BadRequest(f"The request body cannot be read: {error}.") from error
    if len(body) > limit:
        raise RequestEntityTooLarge
    if declared is not None and len(body) < declared:
        raise BadRequest(f"The request body ends after {len(body)} of {declared} bytes.")
    return body


def _close_connection(incoming: Request) -> None:
    """Announce that the connection is closed: after an invalid body the start of the next request is unknown.

    gunicorn drops an application's `Connection` header and has no other public way; where its request object is not
    found, the connection is closed unannounced.
    """
    server_request = getattr(getattr(incoming.environ["wsgi.input"], "reader", None), "req", None)
    if server_request is not None:
        server_request.force_close()
