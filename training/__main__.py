"""`train`: the one place where an exception becomes a failure file and an exit code."""

import contextlib
import logging
import sys
import traceback

from container.errors import AlgorithmError, UserError
from container.optml import OptML
from training.stop import StopBeforeTraining, StopSignal

USAGE = """Usage: train

Trains an LSTM-FCN on the CSV files in input/data/training below SAGEMAKER_BASE_DIR (default /opt/ml),
with validation data in input/data/validation if there is any, and writes the model to model/.
Settings are read from input/config/hyperparameters.json, an object of names and values:
"""
STOPPED = 143  # what a shell reports of a process that SIGTERM ended


def main() -> int:
    """Run the training job that lies below the root folder; returns the process's exit code (T55)."""
    if sys.argv[1:]:
        from container.hyperparameters import help_text

        print(f"{USAGE}\n{help_text()}")
        return 0 if sys.argv[1:] in (["--help"], ["-h"]) else UserError.exit_code
    # Everything heavy is imported later: a signal must find its handler within the first second (T61).
    stop = StopSignal()
    stop.listen()
    logging.basicConfig(stream=sys.stdout, format="%(message)s")
    logging.getLogger("training").setLevel(logging.INFO)
    optml = OptML.from_environment()
    try:
        from training.job import run

        run(optml, stop)
    except UserError as error:
        return _fail(optml, f"UserError: {error}", UserError.exit_code)
    except StopBeforeTraining:
        return _fail(optml, "Stopped before the first training step; there is no model to save.", STOPPED)
    except Exception as error:  # noqa: BLE001 - all that is left is our fault, and must still be reported
        # A stop can surface as another error where it interrupted an import.
        if stop.requested and not stop.training_started:
            return _fail(optml, "Stopped before the first training step; there is no model to save.", STOPPED)
        traceback.print_exc()
        cause = str(error) if isinstance(error, AlgorithmError) else f"{type(error).__name__}: {error}"
        return _fail(optml, f"AlgorithmError: {cause}", AlgorithmError.exit_code)
    with contextlib.suppress(OSError):
        optml.failure.unlink(missing_ok=True)
    return 0


def _fail(optml: OptML, text: str, exit_code: int) -> int:
    """Tell the platform and the log why; that the file cannot be written changes nothing else (T56)."""
    print(text, file=sys.stderr, flush=True)
    with contextlib.suppress(OSError):
        optml.failure.parent.mkdir(parents=True, exist_ok=True)
        optml.failure.write_text(text + "\n", encoding="utf-8")
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
