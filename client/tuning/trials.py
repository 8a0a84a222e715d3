"""Running the trials of a search: one process per trial, several at a time.

This process owns the study. A trial process knows nothing about the study: it trains and sends its progress. A trial
that is pruned, crashes or runs out of memory is therefore only a process that ends, and the study stays consistent.

`Study.optimize` is not used, because it starts a trial without checking how many trials other machines have started,
and records heartbeats in threads that print a traceback when the database is lost.
"""

import contextlib
import logging
import math
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.trial import TrialState
from tqdm import tqdm

from lstm_fcn.client.tuning.search import Search, TuningResult, make_search
from lstm_fcn.client.tuning.study import (
    DATABASE_ERRORS,
    OUTCOME,
    describe_database_error,
    is_finished,
    open_study,
    quiet,
    read_result,
    requeue,
)
from lstm_fcn.container.channels import Source
from lstm_fcn.container.cores import available_cores, wait_passively
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.hyperparameters import parse_hyperparameters
from lstm_fcn.container.metrics import EpochLine, Metric
from lstm_fcn.container.progress import training_log
from lstm_fcn.training.stop import prepare_worker

STEPS = 10  # trials are compared after each tenth of their epochs, because their numbers of epochs may differ
POLL_SECONDS = 1.0  # between checks of a study that other machines also work on

_processes = multiprocessing.get_context("forkserver")
# Import torch once, not in every trial. Optimizers import torch._dynamo.
_processes.set_forkserver_preload([__name__, "lstm_fcn.training.fit", "torch._dynamo"])


def tune(
    training: Path | Sequence[Path],
    storage: Path | str,
    trials: int = 20,
    *,
    validation: Path | Sequence[Path] = (),
    objective: str = "valid_accuracy",
    ranges: Mapping[str, str] | None = None,
    hyperparameters: Mapping[str, str] | None = None,
    workers: int | None = None,
    study_name: str = "lstm-fcn",
    pruning: bool = True,
    minutes: float | None = None,
    search_seed: int | None = None,
) -> TuningResult:
    """Search for the hyperparameters with the best objective.

    Call it again with the same storage to resume the study. Several processes, on one machine or on many, may share a
    study. Ctrl-C ends the search and returns the results so far. In a script, call it below
    `if __name__ == "__main__":`, because it starts processes that import the script.

    Args:
        training: labelled series: CSV files or folders of them, as for `lstm-fcn train`.
        storage: SQLite file of the study, on a local disk, or the URL of a database server.
        trials: number of trials that the study has at the end. Interrupted trials are repeated.
        validation: labelled series; without them, set `validation-fraction` among the hyperparameters.
        objective: name of a metric in `container.metrics`.
        ranges: what to tune, in the notation of `container.ranges`; None: the default ranges of all hyperparameters
            that are not set.
        hyperparameters: fixed for all trials.
        workers: number of trials that run at a time; None: one per core.
        study_name: name within the storage.
        pruning: end trials early that are worse than the median of the others.
        minutes: time after which no trial is started.
        search_seed: seed of Optuna's sampler.

    Raises:
        UserError: data, hyperparameters or storage cannot be used, or the study belongs to another search.
    """
    wait_passively()
    search = make_search(training, validation, objective, ranges, hyperparameters or {})
    check_data(search)
    study, database = open_study(search, storage, study_name, trials, pruning, search_seed)
    deadline = math.inf if minutes is None else time.monotonic() + 60 * minutes
    wanted = trials if search.combinations is None else min(trials, search.combinations)
    try:
        stopped = Trials(study, database, search, wanted, workers or available_cores(), deadline).run()
        return read_result(study, search, stopped)
    except DATABASE_ERRORS as error:
        raise UserError(
            f"The connection to the storage was lost: {describe_database_error(error)}. Run the same search again to "
            "resume it."
        ) from error


def check_data(search: Search) -> None:
    """Read the data once and print its size, so that what is wrong for every trial ends the search before the first.

    Raises:
        UserError: the data is invalid, or the machine does not have the device that the hyperparameters ask for.
    """
    import torch

    from lstm_fcn.training.data.loading import load
    from lstm_fcn.training.devices import choose_placement
    from lstm_fcn.training.distributed import Group

    settings = parse_hyperparameters(search.fixed)
    with training_log(logging.StreamHandler(sys.stdout)):
        load(search.channels, settings, Group())
        if not torch.cuda.is_available():  # on a GPU, this process would only occupy memory
            choose_placement(settings.precision, Group(), settings.device)


class TrialProcess:
    """A process that trains one trial. It ends when this process ends.

    slot: number of the worker, from 0.
    epochs: how many it has trained, as far as it has reported.
    """

    def __init__(self, search: Search, values: dict[str, str], slot: int, cores: Sequence[int]) -> None:
        """Start training with all hyperparameters `values` on these cores, and on GPU `slot` if there are several."""
        self.slot = slot
        self.epochs = 0
        self.started = time.monotonic()
        self.connection, sender = _processes.Pipe(duplex=False)
        arguments = (sender, search.channels, search.objective, values, slot, set(cores))
        self.process = _processes.Process(target=_run_trial, args=arguments)
        self.process.start()
        sender.close()

    def receive(self) -> tuple[str, Any]:
        """Receive `progress` (step, best objective so far), `done` (metrics) or `failed` (error)."""
        try:
            kind, self.epochs, content = self.connection.recv()
        except EOFError:
            self.process.join()
            code = self.process.exitcode
            hint = "; the machine may have run out of memory" if code == -signal.SIGKILL else ""
            return "failed", f"The process of the trial ended with exit code {code}{hint}."
        return kind, content

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


@dataclass
class Trials:
    """Runs trials on this machine until the study has as many finished trials as wanted.

    seen: running trials that have a heartbeat.
    """

    study: optuna.Study
    database: RDBStorage
    search: Search
    wanted: int
    workers: int = 1
    deadline: float = math.inf
    running: dict[TrialProcess, optuna.Trial] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)
    last_heartbeat: float = -math.inf

    def run(self) -> bool:
        """Run trials. Returns True if Ctrl-C ended the search."""
        finished = sum(map(is_finished, self.study.get_trials(deepcopy=False)))
        with tqdm(total=self.wanted, initial=finished, unit="trial", disable=None) as self.bar:
            try:
                while self._count_finished() < self.wanted:
                    self.heartbeat()
                    in_time = time.monotonic() < self.deadline
                    if not in_time and not self.running:
                        self.bar.write(f"Time is up after {self._count_finished()} of {self.wanted} trials.")
                        break
                    if not (in_time and self._start_trial()):
                        self._receive()
            except KeyboardInterrupt:
                return True
            finally:
                self._stop_all()
        return False

    def heartbeat(self) -> None:
        """Record that the trials of this machine are alive; requeue the trials of machines that no longer do.

        Optuna never treats a trial without any heartbeat as abandoned, such as one whose machine died immediately after
        creating it. Therefore the first machine that sees a running trial records a heartbeat for it.
        """
        if time.monotonic() - self.last_heartbeat < (self.database.get_heartbeat_interval() or 0):
            return
        self.last_heartbeat = time.monotonic()
        for trial in self.running.values():
            self._record_heartbeat(trial)
        with quiet():
            fail_stale_trials(self.study)
        for other in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if other.number not in self.seen:
                self._record_heartbeat(other)

    def _record_heartbeat(self, trial: optuna.Trial | optuna.trial.FrozenTrial) -> None:
        self.database.record_heartbeat(trial._trial_id)
        self.seen.add(trial.number)

    def _count_finished(self) -> int:
        finished = sum(map(is_finished, self.study.get_trials(deepcopy=False)))
        self.bar.n = min(finished, self.wanted)
        self.bar.refresh()
        return finished

    def _start_trial(self) -> bool:
        """Start a trial if a worker is free and a trial is left to run."""
        free = set(range(self.workers)) - {process.slot for process in self.running}
        if not free or (trial := self.claim()) is None:
            return False
        slot = min(free)
        cores = sorted(os.sched_getaffinity(0))[: available_cores()]
        cores = cores[slot :: self.workers] or [cores[slot % len(cores)]]
        values = self.search.fixed | self.search.sampled(trial)
        self.running[TrialProcess(self.search, values, slot, cores)] = trial
        return True

    def claim(self) -> optuna.Trial | None:
        """Create a trial, or take an interrupted one; None if enough trials are finished or running.

        If two machines take the last trial at the same moment, one of them requeues it.
        """
        if self._count_claimed() >= self.wanted:
            return None
        with quiet():
            trial = self.study.ask(self.search.space)
        if self._count_claimed(before=trial.number) >= self.wanted:
            requeue(self.study, trial.number)
            return None
        self._record_heartbeat(trial)
        return trial

    def _count_claimed(self, before: float = math.inf) -> int:
        trials = self.study.get_trials(deepcopy=False)
        return sum(t.number < before and (is_finished(t) or t.state == TrialState.RUNNING) for t in trials)

    def _receive(self) -> None:
        """Wait a moment for messages of the trials, and handle them."""
        processes = {process.connection: process for process in self.running}
        if not processes:
            time.sleep(POLL_SECONDS)
        for connection in wait(list(processes), POLL_SECONDS):
            process = processes[connection]  # type: ignore[index]
            try:
                self._handle(process, *process.receive())
            except UpdateFinishedTrialError:  # this machine was suspended, and another one has replaced the trial
                self._drop(process)

    def _handle(self, process: TrialProcess, kind: str, content: Any) -> None:
        objective, trial = self.search.objective, self.running[process]
        if kind == "progress":
            step, best = content
            if best is None:
                raise UserError(
                    f"The objective {objective.name} ({objective.meaning}) is not available for this data; choose "
                    "another objective."
                )
            trial.report(best, step)
            if trial.should_prune():
                self._finish(process, TrialState.PRUNED, f"{objective.name} {best:.4f}, pruned")
        elif kind == "done":
            text = f"{objective.name} {content[objective.name]:.4f}"
            self._finish(process, TrialState.COMPLETE, text, metrics=content)
        else:
            self._finish(process, TrialState.FAIL, f"failed: {content}", error=content)

    def _finish(
        self, process: TrialProcess, state: TrialState, text: str, metrics: Mapping[str, float] = {}, error: str = ""
    ) -> None:
        trial = self._drop(process)
        seconds = round(time.monotonic() - process.started, 1)
        outcome = {"epochs": process.epochs, "seconds": seconds, "metrics": metrics, "error": error}
        trial.set_user_attr(OUTCOME, outcome)
        self.study.tell(trial, metrics.get(self.search.objective.name), state)
        values = " ".join(f"{name}={value}" for name, value in self.search.sampled(trial).items())
        self.bar.write(
            f"[{self._count_finished()}/{self.wanted}] trial {trial.number}: {text}, {process.epochs} epochs, "
            f"{seconds:.0f} s; {values}"
        )
        sys.stdout.flush()

    def _drop(self, process: TrialProcess) -> optuna.Trial:
        process.stop()
        return self.running.pop(process)

    def _stop_all(self) -> None:
        """Stop the trials that are still running, and requeue them."""
        for process in self.running:
            process.stop()
        with contextlib.suppress(*DATABASE_ERRORS):
            for trial in self.running.values():
                requeue(self.study, trial.number)


# In the process of a trial


def _run_trial(
    sender: Connection,
    channels: dict[str, Source],
    objective: Metric,
    values: dict[str, str],
    slot: int,
    cores: set[int],
) -> None:
    """Train and send messages; see `TrialProcess.receive`."""
    prepare_worker()
    os.sched_setaffinity(0, cores)
    reporter = Reporter(sender, objective, 1 + int(values.get("fine-tune-rounds", 0)))
    with contextlib.suppress(BrokenPipeError), training_log(reporter):  # a broken pipe: the search has ended
        try:
            reporter.send("done", _train(channels, values, slot))
        except UserError as error:
            reporter.send("failed", str(error))
        except Exception as error:  # noqa: BLE001 - such as lack of memory: a failed trial does not end the search
            reporter.send("failed", f"{type(error).__name__}: {error}")


class Reporter(logging.Handler):
    """Log handler that sends the progress of a training after each tenth of its epochs."""

    def __init__(self, connection: Connection, objective: Metric, rounds: int) -> None:
        """Report `objective` of a training of this many rounds, fine-tuning included."""
        super().__init__()
        self.connection, self.objective, self.rounds = connection, objective, rounds
        self.epochs = self.step = 0
        self.best: float | None = None

    def send(self, kind: str, content: Any) -> None:
        self.connection.send((kind, self.epochs, content))

    def emit(self, record: logging.LogRecord) -> None:
        line = EpochLine.parse(record.getMessage())
        if line is None:
            return
        self.epochs = line.round * line.epochs + line.epoch
        value = line.metrics.get(self.objective.name)
        if value is not None:
            better = max if self.objective.objective == "Maximize" else min
            self.best = value if self.best is None else better(self.best, value)
        step = self.epochs * STEPS // (line.epochs * self.rounds)
        if self.step < step < STEPS or value is None:
            self.step = step
            self.send("progress", (step, self.best))  # of the best epoch so far, because a single epoch is noisy


def _train(channels: dict[str, Source], values: dict[str, str], slot: int) -> dict[str, float]:
    """Train as a training job does. Returns the metrics of the best weights."""
    import torch

    from lstm_fcn.training.data.loading import load
    from lstm_fcn.training.devices import choose_placement
    from lstm_fcn.training.distributed import Group
    from lstm_fcn.training.fit import fit

    settings = parse_hyperparameters(values)
    data = load(channels, settings, Group())
    placement = choose_placement(settings.precision, Group(), settings.device)
    if placement.gpus > 1:  # each trial uses one of them
        placement = replace(placement, device=torch.device("cuda", slot % placement.gpus), gpus=1)
        torch.cuda.set_device(placement.device)
    return fit(data, settings, placement).best.metrics
