"""The HTTP interface: `/ping`, `/invocations`, `/execution-parameters` and an optional page; nothing else (S14)."""

import contextlib
import logging
import re
import time
from functools import lru_cache
from itertools import count

from flask import Flask, Request, Response, g, jsonify, request
from werkzeug.exceptions import (
    BadRequest,
    HTTPException,
    MethodNotAllowed,
    NotFound,
    RequestEntityTooLarge,
    ServiceUnavailable,
)

from lstm_fcn.container import artifact
from lstm_fcn.container.cores import available_cores
from lstm_fcn.container.errors import AlgorithmError, UserError
from lstm_fcn.container.media_types import CSV, RESPONSE_TYPES
from lstm_fcn.serving.admission import MAX_REQUESTS, Admission
from lstm_fcn.serving.decode import decode
from lstm_fcn.serving.encode import Encoder, ResponseFormat
from lstm_fcn.serving.negotiation import choose_format, request_type
from lstm_fcn.serving.page import render
from lstm_fcn.serving.predictor import Predictor
from lstm_fcn.serving.recordings import decode_recordings, join_predictions
from lstm_fcn.serving.settings import MEBIBYTE, Settings

logger = logging.getLogger(__name__)

ROUTES = "GET /ping, POST /invocations and GET /execution-parameters"
BATCH_PAYLOAD_MIB = 6  # the platform's default for one request of a batch job
BATCH_PRODUCT_MIB = 100  # maximum of payload times concurrent requests (S27)
DISCARDED_MIB = 1024  # maximum of a refused body that is read so that the client sees the response
READ_SIZE = 64 * 1024
MAX_PREDICTION_THREADS = 8  # per worker; each needs a copy of the model, and there are other workers
MAX_BODIES = 8  # total size of the admitted bodies, in bodies of the largest size
CHUNKED_SIZE = MEBIBYTE  # assumed for a body without Content-Length


def application() -> Flask:
    """Create the application in a gunicorn worker: read the environment and load the model."""
    started = time.perf_counter()
    settings, threads = Settings.from_environment(), min(available_cores(), MAX_PREDICTION_THREADS)
    predictor = Predictor(*artifact.load(settings.model_folder), threads, settings.precision)
    logger.info("model loaded in %.0f ms; engine: %s", 1000 * (time.perf_counter() - started), predictor.engine)
    return create_app(predictor, settings)


def create_app(predictor: Predictor, settings: Settings) -> Flask:
    """Create the web application for a loaded model."""
    app = Flask(__name__, static_folder=None)
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    limit = settings.max_body_mib * MEBIBYTE
    admission = Admission(MAX_REQUESTS, MAX_BODIES * limit, turns=available_cores())
    encoder = Encoder(predictor.metadata)

    @lru_cache(maxsize=256)
    def response_format(accept: str, media_type: str) -> ResponseFormat:
        same = media_type if media_type in RESPONSE_TYPES else CSV
        return choose_format(accept, ResponseFormat(settings.response_type or same, settings.outputs))

    @app.get("/ping")
    def ping() -> Response:
        """Health check; a worker accepts connections only once its model is loaded (S3)."""
        return Response(status=200)

    @app.get("/execution-parameters")
    def execution_parameters() -> Response:
        """Recommended settings of a batch transform job (S27)."""
        parameters: dict[str, int | str] = {
            "MaxConcurrentTransforms": min(settings.workers, BATCH_PRODUCT_MIB // BATCH_PAYLOAD_MIB),
            "MaxPayloadInMB": min(settings.max_body_mib, BATCH_PAYLOAD_MIB),
        }
        if not settings.local_batch:  # local mode refuses the platform's spelling (S28)
            parameters["BatchStrategy"] = "MULTI_RECORD"
        return jsonify(parameters)

    @app.post("/invocations")
    def invocations() -> Response:
        """Predict series: one prediction each, in the same order (S20, S24)."""
        with admission.admit(CHUNKED_SIZE if request.content_length is None else min(request.content_length, limit)):
            steps = g.steps
            # Read the body first: a client that is still sending would not see an error about its headers.
            body = _read_body(request, limit)
            steps.end("read")
            media_type = request_type(request.headers.get("Content-Type", ""))
            chosen = response_format(request.headers.get("Accept", ""), media_type)
            encoder.outputs(chosen)
            with admission.turn(len(body)):
                steps.end("wait")
                recordings = decode_recordings(body, media_type, predictor.metadata)
                parts = recordings.series if recordings else [decode(body, media_type, predictor.metadata)]
                steps.rows = sum(map(len, parts))
                steps.end("parse")
                if steps.rows == 0:
                    return Response(status=204)
                predictions = join_predictions([predictor.predict(part) for part in parts])
                steps.end("predict")
                places = recordings.places(predictor.metadata) if recordings else None
                text = encoder.encode(predictions, chosen, places)
                steps.end("encode")
        # A batch transform job concatenates the responses; otherwise a last newline is noise (S31).
        return Response(text if settings.batch else text.removesuffix("\n"), content_type=chosen.content_type)

    if settings.page:
        html, headers = render(predictor.metadata, limit)

        @app.get("/")
        def page() -> Response:
            """The page for trying the model in a browser."""
            return Response(html, headers=headers, content_type="text/html; charset=utf-8")

    _register_error_handlers(app, settings)
    _register_log(app)
    return app


def _register_error_handlers(app: Flask, settings: Settings) -> None:
    """Turn every error into a status and a short text, never a traceback (S21)."""
    routes = f"GET /, {ROUTES}" if settings.page else ROUTES

    @app.errorhandler(UserError)
    def user_error(error: UserError) -> Response:
        return _text(str(error), UserError.http_status)

    @app.errorhandler(RequestEntityTooLarge)
    def too_large(_: RequestEntityTooLarge) -> Response:
        _discard_body(request)
        problem = f"The request is larger than {settings.max_body_mib} MiB"
        return _text(f"{problem}; send fewer rows at once, or raise SAGEMAKER_MAX_PAYLOAD_IN_MB.", 413)

    @app.errorhandler(ServiceUnavailable)
    def overloaded(error: ServiceUnavailable) -> Response:
        _discard_body(request)
        response = _text(error.description or "", 503)
        response.headers["Retry-After"] = str(error.retry_after)
        return response

    @app.errorhandler(NotFound)
    @app.errorhandler(MethodNotAllowed)
    def no_route(error: NotFound | MethodNotAllowed) -> Response:
        _discard_body(request)  # gunicorn would close a connection that it announced to keep
        response = _text(f"{error.name}; supported: {routes}.", error.code)
        if isinstance(error, MethodNotAllowed) and error.valid_methods:
            response.headers["Allow"] = ", ".join(error.valid_methods)
        return response

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        return _text(error.description or error.name, error.code or 500)

    @app.errorhandler(Exception)
    def internal_error(_: Exception) -> Response:
        logger.exception("internal error")
        return _text("Internal error; see the traceback in the log.", AlgorithmError.http_status)


def _register_log(app: Flask) -> None:
    """Log one line for each request to /invocations: its id, status, rows and the time of each step."""
    numbers = count(1)

    @app.before_request
    def start() -> None:
        g.steps = _Steps()

    @app.after_request
    def log(response: Response) -> Response:
        if request.path == "/invocations" and logger.isEnabledFor(logging.INFO):
            given = request.headers.get("X-Amzn-SageMaker-Inference-Id", "")
            parts = [f"id={given if re.fullmatch('[!-~]{1,64}', given) else next(numbers)}"]
            parts += [f"status={response.status_code}", f"rows={g.steps.rows}"]
            parts += [f"{step}_ms={milliseconds:.2f}" for step, milliseconds in g.steps.milliseconds.items()]
            if response.status_code >= 400:
                parts.append(f"error={response.get_data(as_text=True).strip()!r}")
            logger.info("invocation %s", " ".join(parts))
        return response


class _Steps:
    """The duration of each step of a request."""

    def __init__(self) -> None:
        self.rows = 0
        self.milliseconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def end(self, step: str) -> None:
        """End a step; the next one starts now."""
        now = time.perf_counter()
        self.milliseconds[step] = 1000 * (now - self._last)
        self._last = now


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


def _discard_body(incoming: Request) -> None:
    """Read the rest of a body: a client that is still sending does not see a response."""
    stream = incoming.environ["wsgi.input"]
    with contextlib.suppress(Exception):  # the response does not depend on it
        for _ in range(DISCARDED_MIB * MEBIBYTE // READ_SIZE):
            if not stream.read(READ_SIZE):
                break


def _text(message: str, status: int) -> Response:
    return Response(message + "\n", status=status, content_type="text/plain; charset=utf-8")
