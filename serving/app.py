"""The HTTP surface: `/ping`, `/invocations`, `/execution-parameters`; nothing else (S14) but, if asked for, a page."""

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

from lstm_fcn.container.cores import available_cores
from lstm_fcn.container.errors import AlgorithmError, UserError
from lstm_fcn.container.media_types import CSV, RESPONSE_TYPES
from lstm_fcn.serving.admission import Admission
from lstm_fcn.serving.decode import decode
from lstm_fcn.serving.encode import Encoder
from lstm_fcn.serving.negotiation import Reply, choose_reply, request_type
from lstm_fcn.serving.page import render
from lstm_fcn.serving.predictor import Predictor
from lstm_fcn.serving.settings import MEBIBYTE, Settings

logger = logging.getLogger(__name__)

ROUTES = "GET /ping, POST /invocations and GET /execution-parameters"
BATCH_PAYLOAD_MIB = 6  # the platform's default for one request of a batch job
BATCH_PRODUCT_MIB = 100  # at most: payload times concurrent requests (S27)
DISCARDED_MIB = 1024  # of a body that is not wanted, read before the reply so that the client gets to see it
READ_SIZE = 64 * 1024
LANES = 8  # of a worker, for its large requests: cores at most, each with a copy of the model; there are other workers
QUEUE = 128  # requests that a worker takes on at a time; more are told to come back
QUEUE_BODIES = 8  # of the largest size allowed: how much all of them may hold together
CHUNKED = MEBIBYTE  # what a body is taken for that does not say its size; such streams are few


def application() -> Flask:
    """The application as a gunicorn worker starts it: settings from the environment, the model loaded."""
    started = time.perf_counter()
    settings = Settings.from_environment()
    predictor = Predictor(settings.model_folder, min(available_cores(), LANES), settings.precision)
    logger.info("model loaded in %.0f ms; engine: %s", 1000 * (time.perf_counter() - started), predictor.engine)
    return create_app(predictor, settings)


def create_app(predictor: Predictor, settings: Settings) -> Flask:
    """The web application that answers with `predictor`."""
    app = Flask(__name__, static_folder=None)
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    limit = settings.max_body_mib * MEBIBYTE
    admission = Admission(QUEUE, QUEUE_BODIES * limit, turns=available_cores())
    encoder = Encoder(predictor.metadata)

    @lru_cache(maxsize=256)
    def reply_to(accept: str, media_type: str) -> Reply:
        like_request = media_type if media_type in RESPONSE_TYPES else CSV
        return choose_reply(accept, Reply(settings.reply_type or like_request, settings.outputs))

    @app.get("/ping")
    def ping() -> Response:
        """Health check: a worker takes requests only once its model is loaded (S3)."""
        return Response(status=200)

    @app.get("/execution-parameters")
    def execution_parameters() -> Response:
        """How a batch job should send its requests (S27)."""
        parameters: dict[str, int | str] = {
            "MaxConcurrentTransforms": min(settings.workers, BATCH_PRODUCT_MIB // BATCH_PAYLOAD_MIB),
            "MaxPayloadInMB": min(settings.max_body_mib, BATCH_PAYLOAD_MIB),
        }
        if not settings.local_batch:  # which takes the platform's own spelling for an error (S28)
            parameters["BatchStrategy"] = "MULTI_RECORD"
        return jsonify(parameters)

    @app.post("/invocations")
    def invocations() -> Response:
        """Series in, predictions out: one each, in order (S20, S24)."""
        with admission.admit(CHUNKED if request.content_length is None else min(request.content_length, limit)):
            steps = g.steps
            # Read first: a client that is still sending would not see what is said of its headers.
            body = _read_body(request, limit)
            steps.end("read")
            media_type = request_type(request.headers.get("Content-Type", ""))
            reply = reply_to(request.headers.get("Accept", ""), media_type)
            encoder.outputs(reply)
            with admission.turn(len(body)):
                steps.end("wait")
                series = decode(body, media_type, predictor.metadata)
                steps.rows = len(series)
                steps.end("parse")
                if len(series) == 0:
                    return Response(status=204)
                predictions = predictor.predict(series)
                steps.end("predict")
                text = encoder.encode(predictions, reply)
                steps.end("encode")
        # Replies of a batch job are put one behind the other as they are; elsewhere a newline is noise (S31).
        return Response(text if settings.batch else text.removesuffix("\n"), content_type=reply.content_type)

    if settings.page:
        html, headers = render(predictor.metadata, limit)

        @app.get("/")
        def page() -> Response:
            """For a person who tries the model in a browser."""
            return Response(html, headers=headers, content_type="text/html; charset=utf-8")

    _register_error_handlers(app, settings)
    _register_log(app)
    return app


def _register_error_handlers(app: Flask, settings: Settings) -> None:
    """Every error is a short text and a status; never a traceback (S21)."""
    routes = f"GET /, {ROUTES}" if settings.page else ROUTES

    @app.errorhandler(UserError)
    def user_error(error: UserError) -> Response:
        return _text(str(error), UserError.http_status)

    @app.errorhandler(RequestEntityTooLarge)
    def too_large(_: RequestEntityTooLarge) -> Response:
        _discard_body(request)
        limit = f"The request is larger than {settings.max_body_mib} MiB"
        return _text(f"{limit}; send fewer rows at once, or set SAGEMAKER_MAX_PAYLOAD_IN_MB.", 413)

    @app.errorhandler(ServiceUnavailable)
    def too_many(error: ServiceUnavailable) -> Response:
        _discard_body(request)
        response = _text(error.description or "", 503)
        response.headers["Retry-After"] = str(error.retry_after)
        return response

    @app.errorhandler(NotFound)
    @app.errorhandler(MethodNotAllowed)
    def not_served(error: NotFound | MethodNotAllowed) -> Response:
        _discard_body(request)  # gunicorn gives up on a large one, and closes a connection that it said to keep
        response = _text(f"{error.name}; this server answers {routes}.", error.code)
        if isinstance(error, MethodNotAllowed) and error.valid_methods:
            response.headers["Allow"] = ", ".join(error.valid_methods)
        return response

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        return _text(error.description or error.name, error.code or 500)

    @app.errorhandler(Exception)
    def internal_error(_: Exception) -> Response:
        logger.exception("internal error")
        return _text("The server failed on this request; its log says why.", AlgorithmError.http_status)


def _register_log(app: Flask) -> None:
    """One line for each request to /invocations: its id, what came of it, and where the time went."""
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
    """How long the steps of a request took, for the log."""

    def __init__(self) -> None:
        self.rows = 0
        self.milliseconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def end(self, step: str) -> None:
        """A step ends, and the next one begins."""
        now = time.perf_counter()
        self.milliseconds[step] = 1000 * (now - self._last)
        self._last = now


def _read_body(incoming: Request, limit: int) -> bytes:
    """The whole body, chunked or not (S23). werkzeug's own limit would cut a chunked one off without a word."""
    stream = incoming.environ["wsgi.input"]
    declared = incoming.content_length
    if declared is not None and declared > limit:
        raise RequestEntityTooLarge
    try:
        body: bytes = stream.read(limit + 1)
    except Exception as error:  # the server's own classes: a broken chunk, a connection that was cut or fell silent
        _close_connection(incoming)
        raise BadRequest(f"The request's body cannot be read: {error}.") from error
    if len(body) > limit:
        raise RequestEntityTooLarge
    if declared is not None and len(body) < declared:
        raise BadRequest(f"The request's body ends after {len(body)} of {declared} bytes.")
    return body


def _close_connection(incoming: Request) -> None:
    """Have gunicorn say that it closes the connection, which it does: nobody knows where the next request starts."""
    request_of_server = getattr(getattr(incoming.environ["wsgi.input"], "reader", None), "req", None)
    if request_of_server is not None:
        request_of_server.force_close()


def _discard_body(incoming: Request) -> None:
    """Read what is left of a body: a client that is still sending does not see a reply."""
    stream = incoming.environ["wsgi.input"]
    with contextlib.suppress(Exception):  # the reply stands, whatever becomes of the rest
        for _ in range(DISCARDED_MIB * MEBIBYTE // READ_SIZE):
            if not stream.read(READ_SIZE):
                break


def _text(message: str, status: int) -> Response:
    return Response(message + "\n", status=status, content_type="text/plain; charset=utf-8")
