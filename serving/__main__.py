"""`serve`: check the model, then become gunicorn."""

import os
import sys

# Before anything loads a linear algebra library: its threads would compete with the predictions'.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from container import artifact
from container.errors import UserError
from serving.settings import Settings

USAGE = """Usage: serve

Serves the model in model/ below SAGEMAKER_BASE_DIR (default /opt/ml) over HTTP on port 8080:
GET /ping, GET /execution-parameters, and POST /invocations, which takes CSV, one series a row without a
label, and answers with CSV, one label a row. Environment variables:
  SAGEMAKER_BIND_TO_PORT          port to listen on (8080)
  SAGEMAKER_MODEL_SERVER_WORKERS  worker processes (one for each core)
  SAGEMAKER_MODEL_SERVER_TIMEOUT  seconds after which a worker that hangs is replaced (60)
  SAGEMAKER_MAX_PAYLOAD_IN_MB     largest request (25; in a batch job 100)
"""


def main() -> int:
    """Serve until stopped; returns only if it cannot, with an exit code that is not 0 (S5)."""
    if sys.argv[1:]:
        print(USAGE)
        return 0 if sys.argv[1:] in (["--help"], ["-h"]) else UserError.exit_code
    try:
        settings = Settings.from_environment()
        metadata, _ = artifact.load(settings.model_folder)
    except UserError as error:
        print(f"UserError: {error}", file=sys.stderr)
        return UserError.exit_code
    print(
        f"serving {settings.model_folder}: {len(metadata.classes)} classes, series of {metadata.length} values; "
        f"port {settings.port}, {settings.workers} worker(s) of {settings.inference_threads} thread(s)",
        flush=True,
    )
    # gunicorn takes over this process, so that it has number 1 in a container and gets its signals (T2).
    os.execv(sys.executable, [sys.executable, "-m", "gunicorn", "--config", "python:serving.gunicorn_conf"])  # noqa: S606
    raise AssertionError("execv does not return")


if __name__ == "__main__":
    sys.exit(main())
