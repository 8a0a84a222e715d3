"""The program `train`: runs a training job and turns exceptions into the failure file and an exit code."""

import contextlib
import logging
import os
import sys
import traceback
from collections.abc import Callable

from lstm_fcn.container.cores import wait_passively
from lstm_fcn.container.errors import AlgorithmError, UserError
from lstm_fcn.container.optml import BY, OptML
from lstm_fcn.training.stop import RESUMABLE, Interrupted, StopBeforeTraining, StopSignal

USAGE = """Usage: train

Trains a time series classifier of the LSTM-FCN family and writes it to model/. All paths are relative to
SAGEMAKER_BASE_DIR (default /opt/ml):
  input/data/training                 CSV files of labelled series
  input/data/validation               labelled series to select the best epoch with (optional)
  input/data/model                    an earlier model to continue training from (optional)
  input/config/hyperparameters.json   an object of names and values (optional)
  checkpoints/                        a restarted job resumes from the latest checkpoint
A job that is stopped by SIGTERM saves the best model so far. Hyperparameters:
"""
STOPPED, INTERRUPTED = 143, 130  # exit codes that shells report for a process ended by SIGTERM or Ctrl-C
NOTHING_TO_SAVE = "Stopped before the first training step; there is no model to save."
NOTHING_TO_RESUME = "Interrupted before the first training step; nothing was saved."


def main() -> int:
    """Run the training job in the root folder; return the exit code of the process (T55)."""
    if sys.argv[1:]:
        from lstm_fcn.container.hyperparameters import help_text

        print(f"{USAGE}\n{help_text()}")
        return 0 if sys.argv[1:] in (["--help"], ["-h"]) else UserError.exit_code
    # Everything heavy is imported later, so that signals are handled within the first second (T61).
    stop = StopSignal(resumable=os.environ.get(RESUMABLE) == "true")
    wait_passively()
    logging.basicConfig(stream=sys.stdout, format="%(message)s")
    logging.getLogger("lstm_fcn.training").setLevel(logging.INFO)
    program = Program(OptML.from_environment(), stop)
    try:
        stop.listen()
        code = program.run()
    except UserError as error:
        return program.fail(f"UserError: {error}", UserError.exit_code)
    except Interrupted as interruption:
        print(interruption, file=sys.stderr, flush=True)
        return INTERRUPTED
    except KeyboardInterrupt:  # the second Ctrl-C
        return INTERRUPTED
    except StopBeforeTraining:
        return program.stop_before_training()
    except Exception as error:  # noqa: BLE001 - an internal error must be reported, too
        # A stop that interrupts an import can surface as another error.
        if stop.requested and not stop.training_started:
            return program.stop_before_training()
        traceback.print_exc()
        cause = str(error) if isinstance(error, AlgorithmError) else f"{type(error).__name__}: {error}"
        return program.fail(f"AlgorithmError: {cause}", AlgorithmError.exit_code)
    if code == 0:
        with contextlib.suppress(OSError):
            program.optml.failure.unlink(missing_ok=True)
    return code


class Program:
    """This process of a job: the only one, one of several on several machines, or the launcher of several."""

    def __init__(self, optml: OptML, stop: StopSignal) -> None:
        self.optml = optml
        self.stop = stop
        self.leave: Callable[[str | None], None] = lambda _: None

    def run(self) -> int:
        """Train, or start the processes that train, and return the exit code."""
        # The configuration is checked before torch is imported, so that a typo is reported at once.
        from lstm_fcn.container.channels import find_channels
        from lstm_fcn.container.hyperparameters import parse_hyperparameters

        settings = parse_hyperparameters(self.optml.hyperparameters())
        if by := os.environ.get(BY):
            from lstm_fcn.training.many import run_many

            run_many(self.optml, by)
            return 0
        resources = self.optml.resources()
        if len(resources.hosts) == 1:  # with several machines, the group reports a failure to the others
            find_channels(self.optml)
        from lstm_fcn.training.distributed import Group, is_worker, launch

        group = Group()
        if len(resources.hosts) > 1 and not is_worker():
            with contextlib.suppress(OSError):
                self.optml.failure.unlink(missing_ok=True)
            return launch(resources, one_process=settings.device == "cpu" or reads_pipes(self.optml))
        if is_worker():
            group = Group.join(resources, self._end_at_once)
            self.leave = group.leave
        from lstm_fcn.training.job import run

        try:
            run(self.optml, self.stop, group)
        except RuntimeError as error:
            group.explain(error)
            raise
        self.leave(None)
        return 0

    def stop_before_training(self) -> int:
        """Report a stop that came before there was anything to save."""
        if not self.stop.resumable:
            return self.fail(NOTHING_TO_SAVE, STOPPED)
        print(NOTHING_TO_RESUME, file=sys.stderr, flush=True)
        return INTERRUPTED

    def fail(self, text: str, exit_code: int) -> int:
        """Write the cause to the failure file, as far as that is possible (T56), and to the log; return `exit_code`."""
        print(text, file=sys.stderr, flush=True)
        with contextlib.suppress(OSError):
            self.optml.failure.parent.mkdir(parents=True, exist_ok=True)
            # Of several processes on one machine, the first to fail knows the cause; the others fail as a consequence.
            with self.optml.failure.open("x" if self._shares_machine() else "w", encoding="utf-8") as file:
                file.write(text + "\n")
        self.leave(text)
        return exit_code

    def _end_at_once(self, loss: AlgorithmError) -> None:
        """End this process from another thread, because the main thread may be waiting for the lost machine."""
        code = self.fail(f"AlgorithmError: {loss}", AlgorithmError.exit_code)
        sys.stdout.flush()
        os._exit(code)

    @staticmethod
    def _shares_machine() -> bool:
        return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1


def reads_pipes(optml: OptML) -> bool:
    """Whether a channel is in Pipe mode, which only one process per machine can read (T36)."""
    config = optml.input_data_config() or {}
    return any(settings.get("TrainingInputMode") == "Pipe" for settings in config.values())


if __name__ == "__main__":
    sys.exit(main())
