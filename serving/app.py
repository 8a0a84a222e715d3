"""The HTTP interface: SageMaker's paths for one model (S14) or many (S34), those of the Open Inference Protocol, and on
request `/metrics` and a page.
"""

import contextlib
import logging
import os
import re
import time
from functools import partial
from itertools import count
from pathlib import Path

from flask import Flask, Request, Response, g, jsonify, request
from werkzeug.exceptions import (
    HTTPException,
    MethodNotAllowed,
    NotFound,
    RequestEntityTooLarge,
    ServiceUnavailable,
)

from lstm_fcn.container import artifact
from lstm_fcn.container.cores import available_cores
from lstm_fcn.container.errors import AlgorithmError, UserError
from lstm_fcn.container.memory import available_memory
from lstm_fcn.serving import metrics, multi_model, open_inference
from lstm_fcn.serving.endpoint import Endpoint
from lstm_fcn.serving.invocation import Invocation
from lstm_fcn.serving.metrics import Metrics, Steps
from lstm_fcn.serving.models import ManyModels, Models, OneModel
from lstm_fcn.serving.page import render
from lstm_fcn.serving.predictor import Predictor
from lstm_fcn.serving.registry import Registry
from lstm_fcn.serving.settings import MEBIBYTE, STATE, Settings

logger = logging.getLogger(__name__)

BATCH_PAYLOAD_MIB = 6  # the platform's default for one request of a batch job
BATCH_PRODUCT_MIB = 100  # maximum of payload times concurrent requests (S27)
DISCARDED_MIB = 1024  # maximum of a refused body that is read so that the client sees the response
READ_SIZE = 64 * 1024
MAX_PREDICTION_THREADS = 8  # per worker; each needs a copy of the model, and there are other workers
PREDICTING = ("invocations", "invoke", "infer")  # endpoints that are counted and logged
HTML = "text/html; charset=utf-8"
MEMORY_SHARE = 0.8  # of the container's memory, that many models may take


def application() -> Flask:
    """Create the application in a gunicorn worker: read the environment and load the model, or find the models."""
    started = time.perf_counter()
    settings, threads = Settings.from_environment(), min(available_cores(), MAX_PREDICTION_THREADS)
    state = Path(os.environ[STATE]) if STATE in os.environ else None
    counts = Metrics(state if settings.metrics else None)
    if settings.models_folder:
        registry = Registry(Path(os.environ[STATE]) / "models", settings.models_folder)
        memory = settings.model_memory_mib * MEBIBYTE or int(available_memory() * MEMORY_SHARE)
        many = ManyModels(registry, memory // settings.workers, threads, settings.precision, counts)
        return create_app(many, settings, counts)
    predictor = Predictor(*artifact.load(settings.model_folder), threads, settings.precision)
    one = OneModel(predictor, settings.model_name)
    seconds = time.perf_counter() - started
    counts.add_model(one.model.name, predictor.engine, predictor.metadata.problem, seconds)
    logger.info("model loaded in %.0f ms; engine: %s", 1000 * seconds, predictor.engine)
    return create_app(one, settings, counts)


def create_app(models: Models, settings: Settings, counts: Metrics | None = None) -> Flask:
    """Create the web application for one model or many."""
    app = Flask(__name__, static_folder=None)
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    counts = counts or Metrics()
    endpoint = Endpoint(models, settings, counts.in_progress)

    def invoke(name: str) -> Response:
        return endpoint.answer(name, partial(Invocation, settings))

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

    open_inference.add_routes(app, endpoint)
    if isinstance(models, ManyModels):
        multi_model.add_routes(app, models, invoke)
    if isinstance(models, OneModel):
        name = models.model.name
        app.add_url_rule("/invocations", "invocations", lambda: invoke(name), methods=["POST"])
    if isinstance(models, OneModel) and settings.page:
        html, headers = render(models.model.predictor.metadata, endpoint.max_body)
        app.add_url_rule("/", "page", lambda: Response(html, headers=headers, content_type=HTML))
    if settings.metrics:
        app.add_url_rule("/metrics", "metrics", lambda: Response(counts.text(), content_type=metrics.CONTENT_TYPE))
    _register_error_handlers(app, settings)
    _register_log(app, counts if settings.metrics else None)
    return app


def _register_error_handlers(app: Flask, settings: Settings) -> None:
    """Turn every error into a status and a short text, never a traceback (S21)."""
    rules = sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule)
    methods = ("GET", "POST", "DELETE")
    found = [f"{name} {rule.rule}" for rule in rules for name in methods if name in (rule.methods or ())]
    routes = ", ".join(found).replace("<name>", "NAME")

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
        is_route = error.description == type(error).description  # otherwise a model is not found
        response = _text(f"{error.name}; supported: {routes}." if is_route else str(error.description), error.code)
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


def _register_log(app: Flask, counts: Metrics | None) -> None:
    """Count and log each request for predictions: its id, status, rows and the time of each step."""
    numbers = count(1)

    @app.before_request
    def start() -> None:
        g.steps = Steps()

    @app.after_request
    def log(response: Response) -> Response:
        if request.endpoint not in PREDICTING:
            return response
        if counts:
            counts.add_request(g.steps, response.status_code)
        if logger.isEnabledFor(logging.INFO):
            given = request.headers.get("X-Amzn-SageMaker-Inference-Id", "")
            parts = [f"id={given if re.fullmatch('[!-~]{1,64}', given) else next(numbers)}"]
            if request.endpoint != "invocations":
                parts.append(f"model={g.steps.model or '-'}")
            parts += [f"status={response.status_code}", f"rows={g.steps.rows}"]
            parts += [f"{step}_ms={milliseconds:.2f}" for step, milliseconds in g.steps.milliseconds.items()]
            if response.status_code >= 400:
                parts.append(f"error={response.get_data(as_text=True).strip()!r}")
            logger.info("invocation %s", " ".join(parts))
        return response


def _discard_body(incoming: Request) -> None:
    """Read the rest of a body: a client that is still sending does not see a response."""
    stream = incoming.environ["wsgi.input"]
    with contextlib.suppress(Exception):  # the response does not depend on it
        for _ in range(DISCARDED_MIB * MEBIBYTE // READ_SIZE):
            if not stream.read(READ_SIZE):
                break


def _text(message: str, status: int) -> Response:
    """An error in the form of the protocol of the request."""
    if request.path.startswith(f"{open_inference.PREFIX}/"):
        return open_inference.error_response(message, status)
    return Response(message + "\n", status=status, content_type="text/plain; charset=utf-8")
