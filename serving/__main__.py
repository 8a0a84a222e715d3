"""`serve`: check the model, then run gunicorn."""

import os
import signal
import sys

from lstm_fcn.container.errors import UserError

USAGE = """Usage: serve

Serves the model in model/ below SAGEMAKER_BASE_DIR (default /opt/ml) over HTTP on port 8080:
GET /ping, GET /execution-parameters, and POST /invocations, which takes series without labels as CSV, JSON, JSON Lines
or NPY and returns predictions as CSV, JSON or JSON Lines; and the Open Inference Protocol below /v2. Environment
variables:
  LSTM_FCN_HOST                         address to listen on (0.0.0.0: all interfaces)
  SAGEMAKER_BIND_TO_PORT                port to listen on (8080)
  SAGEMAKER_MODEL_SERVER_WORKERS        worker processes (one per core)
  SAGEMAKER_MODEL_SERVER_TIMEOUT        seconds after which a hung worker is replaced (60, at least 3)
  SAGEMAKER_MAX_PAYLOAD_IN_MB           largest request (25; 100 in a batch transform job)
  SAGEMAKER_INFERENCE_OUTPUT            predicted_label, probability, probabilities, explanation, or several
  SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT  text/csv, application/json or application/jsonlines (as the request)
  SAGEMAKER_CONTAINER_LOG_LEVEL         10 debug, 20 a line per request, 30 warnings only (20)
  LSTM_FCN_PRECISION                    float32 or bfloat16 (float32)
  LSTM_FCN_PAGE                         true: serve a page for trying the model at GET / (false)
  LSTM_FCN_METRICS                      true: serve counts and durations for Prometheus at GET /metrics (false)
  LSTM_FCN_MODEL_NAME                   name of the model below /v2/models (model)
  SAGEMAKER_MULTI_MODEL                 true: serve many models: those in models/, and what POST /models loads (false)
  LSTM_FCN_MODEL_MEMORY_MIB             memory of many models in all workers (80 % of what there is)
"""


def main() -> int:
    """Serve until stopped; returns a non-zero exit code if that is not possible (S5)."""
    if sys.argv[1:]:
        print(USAGE)
        return 0 if sys.argv[1:] in (["--help"], ["-h"]) else UserError.exit_code
    # gunicorn sets its own handler later (S8). An exception would not do: some extension modules turn it into an
    # ImportError while they are imported.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    # The image's script blocks the signal, because process 1 loses one that arrives before it has a handler.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    # Before a linear algebra library is loaded: its threads would compete with the prediction threads.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        _announce()
    except UserError as error:
        print(f"UserError: {error}", file=sys.stderr)
        return UserError.exit_code
    from gunicorn.app.wsgiapp import run

    sys.argv = ["serve", "--config", "python:lstm_fcn.serving.gunicorn_conf"]
    run()
    return 0


def _announce() -> None:
    """Check the model and the settings, and print what is served. Raises `UserError` for an unusable one."""
    from lstm_fcn.container import artifact
    from lstm_fcn.container.csv_reader import describe_length
    from lstm_fcn.container.errors import plural
    from lstm_fcn.container.media_types import CSV
    from lstm_fcn.serving.encode import Encoder, ResponseFormat
    from lstm_fcn.serving.registry import find_models
    from lstm_fcn.serving.settings import Settings

    settings = Settings.from_environment()
    where = f"port {settings.port}, {settings.workers} worker(s), {settings.precision}"
    if settings.models_folder:
        models = plural(len(find_models(settings.models_folder)), "model")
        print(f"serving {settings.models_folder}: {models}, read when they are used; {where}", flush=True)
        return
    metadata, _ = artifact.load(settings.model_folder)
    Encoder(metadata).outputs(ResponseFormat(CSV, settings.outputs))
    print(
        f"serving {settings.model_folder}: {len(metadata.problem.classes)} classes, "
        f"{describe_length(metadata.problem.length, metadata.problem.num_variables, metadata.problem.preprocessing)}; "
        f"{where}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
