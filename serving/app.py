"""The HTTP surface: `/ping`, `/invocations`, `/execution-parameters`; nothing else (S14)."""

import contextlib
import logging
import time

from flask import Flask, Request, Response, jsonify, request
from werkzeug.exceptions import (
    BadRequest,
    HTTPException,
    MethodNotAllowed,
    NotAcceptable,
    NotFound,
    RequestEntityTooLarge,
    UnsupportedMediaType,
)
from werkzeug.http import parse_accept_header

from container.codec import read_series, write_labels, write_targets
from container.errors import AlgorithmError, UserError
from serving.predictor import Predictor
from serving.settings import MEBIBYTE, Settings

logger = logging.getLogger(__name__)

CSV = "text/csv"
ROUTES = "GET /ping, POST /invocations and GET /execution-parameters"
BATCH_PAYLOAD_MIB = 6  # the platform's default for one request of a batch job
BATCH_PRODUCT_MIB = 100  # at most: payload times concurrent requests (S27)
DISCARDED_MIB = 1024  # of a body that is too large, read before the reply so that the client gets to see it
READ_SIZE = 64 * 1024


def application() -> Flask:
    """The application as a gunicorn worker starts it: settings from the environment, the model loaded."""
    started = time.perf_counter()
    settings = Settings.from_environment()
    predictor = Predictor(settings.model_folder, settings.inference_threads)
    logger.info("model loaded in %.0f ms", 1000 * (time.perf_counter() - started))
    return create_app(predictor, settings)


def create_app(predictor: Predictor, settings: Settings) -> Flask:
    """The web application that answers with `predictor`."""
    app = Flask(__name__, static_folder=None)
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False

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
        """CSV of series in, CSV of predictions out: one a line, in order (S20, S24).

        A model of data with a header wants a header, and answers with one.
        """
        # Read first: a client that is still sending would not see what is said of its headers.
        body = _read_body(request, settings.max_body_mib * MEBIBYTE)
        _check_content_type(request)
        _check_accept(request)
        metadata = predictor.metadata
        series = read_series(body, "request", metadata.length, predictor.columns, metadata.preprocessing)
        if len(series) == 0:
            return Response(status=204)
        probabilities = predictor.predict(series)
        if metadata.columns is None:
            text = write_labels(predictor.labels(probabilities))
        else:
            text = write_targets(metadata.classes, predictor.targets(probabilities), probabilities)
        # Replies of a batch job are put one behind the other as they are; elsewhere a newline is noise (S31).
        return Response(text if settings.batch else text.removesuffix("\n"), content_type=f"{CSV}; charset=utf-8")

    _register_error_handlers(app, settings)
    return app


def _register_error_handlers(app: Flask, settings: Settings) -> None:
    """Every error is a short text and a status; never a traceback (S21)."""

    @app.errorhandler(UserError)
    def user_error(error: UserError) -> Response:
        return _text(str(error), UserError.http_status)

    @app.errorhandler(RequestEntityTooLarge)
    def too_large(_: RequestEntityTooLarge) -> Response:
        _discard_body(request)
        limit = f"The request is larger than {settings.max_body_mib} MiB"
        return _text(f"{limit}; send fewer rows at once, or set SAGEMAKER_MAX_PAYLOAD_IN_MB.", 413)

    @app.errorhandler(NotFound)
    @app.errorhandler(MethodNotAllowed)
    def not_served(error: NotFound | MethodNotAllowed) -> Response:
        response = _text(f"{error.name}; this server answers {ROUTES}.", error.code)
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


def _check_content_type(incoming: Request) -> None:
    """No content type means CSV (S16, S17)."""
    if incoming.mimetype not in ("", CSV):
        raise UnsupportedMediaType(f"Content-Type {incoming.mimetype} is not supported; send {CSV}.")


def _check_accept(incoming: Request) -> None:
    """No `Accept`, or one of its ranges covers CSV (S18)."""
    header = incoming.headers.get("Accept", "").strip()
    if not header:
        return
    accepted = {value.split(";")[0].strip().lower() for value, quality in parse_accept_header(header) if quality > 0}
    if not accepted & {CSV, "text/*", "*/*"}:
        raise NotAcceptable(f"Accept {header} cannot be met; predictions come as {CSV}.")


def _read_body(incoming: Request, limit: int) -> bytes:
    """The whole body, chunked or not (S23). werkzeug's own limit would cut a chunked one off without a word."""
    stream = incoming.environ["wsgi.input"]
    declared = incoming.content_length
    if declared is not None and declared > limit:
        raise RequestEntityTooLarge
    try:
        body: bytes = stream.read(limit + 1)
    except Exception as error:  # the server's own classes: a broken chunk, a connection that was cut
        raise BadRequest(f"The request's body cannot be read: {error}") from error
    if len(body) > limit:
        raise RequestEntityTooLarge
    if declared is not None and len(body) < declared:
        raise BadRequest(f"The request's body ends after {len(body)} of {declared} bytes.")
    return body


def _discard_body(incoming: Request) -> None:
    """Read what is left of a body: a client that is still sending does not see a reply."""
    stream = incoming.environ["wsgi.input"]
    with contextlib.suppress(Exception):  # the reply stands, whatever becomes of the rest
        for _ in range(DISCARDED_MIB * MEBIBYTE // READ_SIZE):
            if not stream.read(READ_SIZE):
                break


def _text(message: str, status: int) -> Response:
    return Response(message + "\n", status=status, content_type="text/plain; charset=utf-8")
