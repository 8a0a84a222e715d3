"""`serve`: check the model, then run gunicorn."""

import os
import signal
import sys

from container.errors import UserError

USAGE = """Usage: serve

Serves the model in model/ below SAGEMAKER_BASE_DIR (default /opt/ml) over HTTP on port 8080:
GET /ping, GET /execution-parameters, and POST /invocations, which takes CSV, one series a row without a
label, and answers with CSV, one label a row; or, where the training data had a header, takes one with the
columns of values, and answers with targets and probabilities. Environment variables:
  SAGEMAKER_BIND_TO_PORT          port to listen on (8080)
  SAGEMAKER_MODEL_SERVER_WORKERS  worker processes (one for each core)
  SAGEMAKER_MODEL_SERVER_TIMEOUT  seconds after which a worker that hangs is replaced (60)
  SAGEMAKER_MAX_PAYLOAD_IN_MB     largest request (25; in a batch job 100)
"""


def main() -> int:
    """Serve until stopped; returns an exit code that is not 0 if that cannot be (S5)."""
    if sys.argv[1:]:
        print(USAGE)
        return 0 if sys.argv[1:] in (["--help"], ["-h"]) else UserError.exit_code
    # A process with number 1 ignores SIGTERM until it has a handler; gunicorn sets its own later (S8).
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # Before anything loads a linear algebra library: its threads would compete with the predictions'.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        _announce()
    except UserError as error:
        print(f"UserError: {error}", file=sys.stderr)
        return UserError.exit_code
    from gunicorn.app.wsgiapp import run

    sys.argv = ["serve", "--config", "python:serving.gunicorn_conf"]
    run()
    return 0


def _announce() -> None:
    """Say what will be served. Raises `UserError` if there is no usable model or a setting is wrong."""
    from container import artifact
    from serving.settings import Settings

    settings = Settings.from_environment()
    metadata, _ = artifact.load(settings.model_folder)
    print(
        f"serving {settings.model_folder}: {len(metadata.classes)} classes, series of {metadata.length} values; "
        f"port {settings.port}, {settings.workers} worker(s) of {settings.inference_threads} thread(s)",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
