"""The search for good hyperparameters, with Optuna: what is searched, the study, and the trials.

This process keeps the study. Each trial is trained in a process of its own by the functions of a training job; that
process knows nothing of the study, and only says what a training log says. So a trial that is pruned, crashes or runs
out of memory is a process that ends, and whatever happens to this one, the study in its database stays whole.
"""

import contextlib
import hashlib
import json
import logging
import math
import multiprocessing
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.samplers import BaseSampler, GridSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError
from tqdm import tqdm

from lstm_fcn.container.channels import Source, data_files
from lstm_fcn.container.cores import available_cores
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.files import check_writable
from lstm_fcn.container.hyperparameters import Hyperparameters, parse_hyperparameters
from lstm_fcn.container.metrics import METRICS, Metric
from lstm_fcn.training.data.reading import prepare_worker

# What is searched where no ranges are given, as `parse_range` reads it.
PRESETS: dict[str, dict[str, str]] = {
    "default": {
        "recurrent": "lstm,alstm,gru",
        "hidden-size": "8,64,128",
        "num-layers": "1,2",
        "dropout": "0.2:0.9",
        "lr": "0.0001:0.01:log",
        "batch-size": "16:128:log",
    },
    "paper-grid": {"hidden-size": "8,64,128"},  # Karim et al. 2017 and 2019: all three are tried
}

STEPS = 10  # a trial is judged after each tenth of its epochs, so that trials with other numbers of epochs compare
FIRST_STEP = 4  # to be pruned at; before, the learning rate of one-cycle has not passed its peak
FULL_TRIALS = 5  # before any is pruned
POLL = 1.0  # seconds between looks at a study that others work on, too
ALIVE = 10.0  # seconds between the signs of life of a trial
ABANDONED = 60.0  # seconds without one after which a trial is given to somebody else
EPOCH = re.compile(r"(?:fine-tuning round: (\d+), )?epoch: (\d+)/(\d+), train_loss: ")
LOST = (SQLAlchemyError, StorageInternalError)

_processes = multiprocessing.get_context("forkserver")
# Loaded once and not by every trial: torch, and a part of it that an optimizer asks for.
_processes.set_forkserver_preload([__name__, "lstm_fcn.training.job", "torch._dynamo"])


@dataclass(frozen=True)
class Search:
    """What is searched: trials of one search can be compared.

    space: the values that hyperparameters are tuned over.
    fixed: the other hyperparameters, as far as they were set.
    """

    channels: dict[str, Source]
    objective: Metric
    space: dict[str, BaseDistribution]
    fixed: dict[str, str]

    @cached_property
    def identity(self) -> dict[str, object]:
        """What the search is, kept in the study; JSON knows all of it."""
        return {
            "objective": self.objective.name,
            "ranges": {name: describe_range(values) for name, values in sorted(self.space.items())},
            "hyperparameters": dict(sorted(self.fixed.items())),
            "data": {name: _digest(source) for name, source in sorted(self.channels.items())},
        }

    @property
    def maximize(self) -> bool:
        return self.objective.objective == "Maximize"

    @property
    def combinations(self) -> int | None:
        """How many there are, if every hyperparameter has a list of values."""
        lists = [values.choices for values in self.space.values() if isinstance(values, CategoricalDistribution)]
        return math.prod(map(len, lists)) if len(lists) == len(self.space) else None

    def hyperparameters(self, trial: optuna.Trial | FrozenTrial) -> dict[str, str]:
        """The tuned ones of a trial, as a job takes them."""
        return {name: _text(value, self.space[name]) for name, value in trial.params.items()}


@dataclass(frozen=True)
class TrialResult:
    """A trial: how it ended, and what it reached.

    state: complete, pruned, failed (by its hyperparameters), interrupted (and replaced), or running.
    value: of the objective, for the weights that were kept; of a pruned trial that of its best epoch.
    hyperparameters: those that are tuned.
    metrics: of the weights that were kept.
    """

    number: int
    state: str
    value: float | None
    hyperparameters: dict[str, str]
    epochs: int = 0
    seconds: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True)
class TuningResult:
    """What came out.

    trials: in their order, with those of other machines that share the study.
    importances: of each tuned hyperparameter for being among the better half (PED-ANOVA, Watanabe et al. 2023), in all
        1; none while there are too few trials.
    stopped: by Ctrl-C.
    """

    search: Search
    trials: list[TrialResult]
    importances: dict[str, float]
    stopped: bool = False

    @property
    def ranking(self) -> list[TrialResult]:
        """Complete trials, the best first; of equal values, that of the lowest loss."""
        sign = -1 if self.search.maximize else 1

        def place(trial: TrialResult) -> tuple[float, float, int]:
            loss = trial.metrics.get("valid_loss", trial.metrics.get("train_loss", 0.0))
            return sign * (trial.value or 0.0), loss, trial.number

        return sorted((trial for trial in self.trials if trial.state == "complete"), key=place)

    @property
    def hyperparameters(self) -> dict[str, str]:
        """The best ones, for `train`: those that were set, and the tuned ones that are not the defaults."""
        tuned = self.ranking[0].hyperparameters
        changed = parse_hyperparameters(tuned).model_dump(by_alias=True, exclude_defaults=True)
        return self.search.fixed | {name: text for name, text in tuned.items() if name in changed}


def tune(
    training: Path | Sequence[Path],
    storage: Path | str,
    trials: int = 20,
    *,
    validation: Path | Sequence[Path] = (),
    objective: str = "valid_accuracy",
    ranges: Mapping[str, str] | None = None,
    preset: str = "default",
    hyperparameters: Mapping[str, str] | None = None,
    workers: int | None = None,
    study_name: str = "lstm-fcn",
    pruning: bool = True,
    minutes: float | None = None,
    seed: int | None = None,
) -> TuningResult:
    """Search for the hyperparameters of the best objective; call it below `if __name__ == "__main__":` in a script.

    Called again with the same storage, it goes on with the same study, and so do several calls at a time, on one
    machine or on many. Ctrl-C ends it with what there is.

    Args:
        training: labelled series, CSV files or folders of them, as for `train`.
        storage: file of the study (SQLite, on a disk of this machine), or the URL of a database server.
        trials: that the study is to have in the end; interrupted ones do not count.
        validation: likewise; without it, `validation-fraction` among the hyperparameters.
        objective: name of a metric of `container.metrics`.
        ranges: what is tuned, as `parse_range` reads it; None: that of `preset`, but for what `hyperparameters` sets.
        preset: a name in `PRESETS`.
        hyperparameters: of all trials.
        workers: trials at a time; None: one for each core.
        study_name: within the storage.
        pruning: end trials early that are worse than the median of the others.
        minutes: after which no trial is started.
        seed: of Optuna's sampler.

    Raises:
        UserError: data, hyperparameters or storage cannot be used, or the study is one of another search.
    """
    search = make_search(training, validation, objective, ranges, preset, hyperparameters or {})
    check_data(search)
    study = open_study(search, storage, study_name, trials, pruning, seed)
    deadline = math.inf if minutes is None else time.monotonic() + 60 * minutes
    wanted = trials if search.combinations is None else min(trials, search.combinations)
    try:
        stopped = Trials(study, search, wanted, workers or available_cores(), deadline).run()
        return read_result(study, search, stopped)
    except LOST as error:
        raise UserError(f"The storage was lost: {_cause(error)}. The same call goes on when it is back.") from error


# What is searched


def make_search(
    training: Path | Sequence[Path],
    validation: Path | Sequence[Path],
    objective: str,
    ranges: Mapping[str, str] | None,
    preset: str,
    hyperparameters: Mapping[str, str],
) -> Search:
    """The search that `tune` describes, if there can be one. Raises `UserError` otherwise."""
    metric = next((metric for metric in METRICS if metric.name == objective), None)
    if metric is None:
        raise UserError(f"There is no objective {objective!r}; known are {', '.join(m.name for m in METRICS)}.")
    settings = parse_hyperparameters(hyperparameters)
    fixed = {name: str(value) for name, value in settings.model_dump(by_alias=True, exclude_unset=True).items()}
    if ranges is None:
        if preset not in PRESETS:
            raise UserError(f"There is no preset {preset!r}; known are {', '.join(PRESETS)}.")
        ranges = {name: text for name, text in PRESETS[preset].items() if name not in fixed}
    if not ranges:
        raise UserError("All hyperparameters are set, and none has a range to be searched.")
    for name in ranges:
        if name in fixed:
            raise UserError(f"{name} is set to {fixed[name]} and has the range {ranges[name]}; give one of them.")
    space = {name: parse_range(name, text) for name, text in ranges.items()}
    channels = {"training": _find_files("training", training)}
    if validation:
        channels["validation"] = _find_files("validation", validation)
    held_out = settings.validation_fraction > 0 or "validation-fraction" in space
    if objective.startswith("valid") and not held_out and "validation" not in channels:
        raise UserError(
            f"The objective {objective} needs validation data: give a validation file, or a validation-fraction of "
            "the training data such as 0.2."
        )
    return Search(channels, metric, space, fixed)


def parse_range(name: str, text: str) -> BaseDistribution:
    """The values to try of a hyperparameter.

    `8,64,128` is one of these, `0.2:0.9` a number between both, ends included, and `0.0001:0.1:log` likewise, as likely
    in each order of magnitude.

    Raises:
        UserError: it is none of these, or the table of hyperparameters has no such name or does not allow the values.
    """
    if ":" not in text:
        choices = list(dict.fromkeys(_parse_value(name, choice) for choice in text.split(",")))
        if len(choices) < 2:
            raise UserError(f"{name}={text} is one value and no range; set it instead.")
        return CategoricalDistribution(choices)
    low_text, high_text, *rest = text.split(":")
    if rest not in ([], ["log"]):
        raise UserError(f"{name}={text} is no range; write LOW:HIGH, LOW:HIGH:log or VALUE,VALUE,VALUE.")
    low, high = _parse_value(name, low_text), _parse_value(name, high_text)
    if isinstance(low, str) or isinstance(high, str):
        raise UserError(f"{name}={text}: {name} is no number; list the values to try, {name}=VALUE,VALUE.")
    if low >= high:
        raise UserError(f"{name}={text}: a range goes from a lower to a higher value.")
    if rest and low <= 0:
        raise UserError(f"{name}={text}: a logarithmic range starts above 0.")
    if isinstance(low, int):
        return IntDistribution(low, int(high), log=bool(rest))
    return FloatDistribution(low, high, log=bool(rest))


def _parse_value(name: str, text: str) -> int | float | str:
    values = parse_hyperparameters({name: text}).model_dump(by_alias=True, exclude_unset=True)
    if name not in values:
        raise UserError(f"{name}={text!r} is no value.")
    value: int | float | str = values[name]
    return value


def describe_range(values: BaseDistribution) -> str:
    """As `parse_range` reads it."""
    if isinstance(values, IntDistribution | FloatDistribution):
        return f"{values.low}:{values.high}" + (":log" if values.log else "")
    if isinstance(values, CategoricalDistribution):
        return ",".join(map(str, values.choices))
    raise TypeError(values)


def _text(value: Any, values: BaseDistribution) -> str:
    """A sampled value as a job takes it; four digits of a number are as good as seventeen, and can be read."""
    return f"{value:.4g}" if isinstance(values, FloatDistribution) else str(value)


def _find_files(name: str, paths: Path | Sequence[Path]) -> Source:
    files: list[Path] = []
    for path in map(Path, [paths] if isinstance(paths, Path | str) else paths):
        if not path.exists():
            raise UserError(f"There is no {name} file {path}.")
        files += data_files(path) if path.is_dir() else [path]
    if not files:
        raise UserError(f"There are no {name} files with content; a folder is to hold CSV files.")
    return Source(name, files[0].parent, tuple(files))


def _digest(source: Source) -> str:
    """Of the contents of the files; several machines may have them in other places."""
    digest = hashlib.sha256()
    for path in source.files:
        try:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    return digest.hexdigest()[:16]


# The study


def open_study(
    search: Search, storage: Path | str, name: str, trials: int, pruning: bool, seed: int | None
) -> optuna.Study:
    """The study of that name, new or with what is there already.

    Raises:
        UserError: the storage cannot be reached or used, or the study is one of another search.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    url = _storage_url(storage)
    shown = sqlalchemy.make_url(url).render_as_string(hide_password=True)
    # The median: with the few dozen trials of a machine there are hardly enough for the brackets of successive
    # halving, which also needs to know after how many epochs a trial shows what it is worth.
    pruner = optuna.pruners.MedianPruner(FULL_TRIALS, FIRST_STEP) if pruning else optuna.pruners.NopPruner()
    try:
        study = _retry(lambda: _load_or_create(search, url, name, pruner))
        count = len(study.get_trials(deepcopy=False))
        known = study.user_attrs.get("search")
        if known is None and not count:
            study.set_user_attr("search", search.identity)
    except ImportError as error:
        raise UserError(f"The storage {shown} needs a database driver: {error.__cause__ or error}.") from error
    except (*LOST, RuntimeError) as error:
        raise UserError(f"The storage {shown} cannot be used: {_cause(error)}.") from error
    if known is None and count:
        raise UserError(f"{shown} has a study {name} that is not of this program; choose another name.")
    for key, value in search.identity.items():
        if known is not None and known.get(key) != value:
            raise UserError(
                f"The study {name} in {shown} was made with other {key}: {json.dumps(known.get(key))}, not "
                f"{json.dumps(value)}. Go on with the same, or choose another storage or name of the study."
            )
    study.sampler = make_sampler(search, trials, None if seed is None else seed + count)
    return study


def _load_or_create(search: Search, url: str, name: str, pruner: optuna.pruners.BasePruner) -> optuna.Study:
    # A database and not Optuna's journal file: it survives the end of a process in the middle of a write, and needs
    # no lock that a killed process would leave behind. Nothing in it is pickled.
    arguments = {"sqlite": {"timeout": 60}, "postgresql": {"connect_timeout": 10}}
    backend = sqlalchemy.make_url(url).get_backend_name()
    database = optuna.storages.RDBStorage(
        url.replace("{", "{{").replace("}", "}}"),
        engine_kwargs={"connect_args": arguments.get(backend, {}), "pool_pre_ping": True},
    )
    return optuna.create_study(
        storage=database,
        study_name=name,
        direction="maximize" if search.maximize else "minimize",
        load_if_exists=True,
        pruner=pruner,
    )


def _retry(function: Callable[[], optuna.Study], times: int = 4) -> optuna.Study:
    """Of several machines that make the tables of a new database at the same time, all but one fail at first."""
    for _ in range(times - 1):
        with contextlib.suppress(SQLAlchemyError, StorageInternalError):
            return function()
        time.sleep(0.5)
    return function()


def _storage_url(storage: Path | str) -> str:
    if "://" in str(storage):
        try:
            sqlalchemy.make_url(str(storage))
        except (SQLAlchemyError, ValueError) as error:
            raise UserError(
                "The storage is no URL of a database; such a URL is postgresql://USER:PASSWORD@HOST/DATABASE."
            ) from error
        return str(storage)
    path = Path(storage).resolve()
    check_writable(path.parent, "study's")
    return sqlalchemy.URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)


def _cause(error: BaseException) -> str:
    """What the database said, without the statement that it was told."""
    origin = getattr(error, "orig", None) or getattr(error.__cause__, "orig", None) or error
    return " ".join(str(origin).split())


def make_sampler(search: Search, trials: int, seed: int | None) -> BaseSampler:
    """Every combination once if that takes no more than the wanted trials, else Optuna's TPE."""
    combinations = search.combinations
    if combinations is None or combinations > trials:
        return TPESampler(seed=seed)
    lists = {n: list(v.choices) for n, v in search.space.items() if isinstance(v, CategoricalDistribution)}
    return _Grid(lists, seed=0)  # on all machines in the same order


class _Grid(GridSampler):
    """Optuna's own would stop `Study.optimize` after the last combination; here nothing is to be stopped."""

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        pass


def is_done(trial: FrozenTrial) -> bool:
    """It counts: it ended by itself, well or not, or was pruned. One that was interrupted is replaced."""
    return trial.state.is_finished() and "outcome" in trial.user_attrs


def read_result(study: optuna.Study, search: Search, stopped: bool = False) -> TuningResult:
    """What is in the study."""
    trials = [
        TrialResult(
            number=trial.number,
            state=_describe_state(trial),
            value=trial.value,
            hyperparameters=search.hyperparameters(trial),
            **trial.user_attrs.get("outcome", {}),
        )
        for trial in study.get_trials(deepcopy=False)
        if trial.state != TrialState.WAITING
    ]
    return TuningResult(search, trials, _importances(study), stopped)


def _describe_state(trial: FrozenTrial) -> str:
    if trial.state == TrialState.FAIL:
        return "failed" if is_done(trial) else "interrupted"
    return trial.state.name.lower()


def _importances(study: optuna.Study) -> dict[str, float]:
    """By the better half of the trials, which are to be five at least, as Optuna advises."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < 10:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # if all are equally good, none is important, and it says so
        return optuna.importance.get_param_importances(study, evaluator=evaluator)


# The trials


class Worker:
    """A process that trains; it ends when this process does."""

    def __init__(
        self, search: Search, values: dict[str, str], slot: int, cores: Sequence[int], read_only: bool = False
    ) -> None:
        """Start training with the hyperparameters `values` on `cores`, and on GPU `slot`; or only read the data."""
        self.rounds = 1 + int(values.get("fine-tune-rounds", 0))
        self.slot = slot
        self.started = time.monotonic()
        self.receiver, sender = _processes.Pipe(duplex=False)
        arguments = (sender, search.channels, values, slot, set(cores), read_only)
        self.process = _processes.Process(target=_work, args=arguments)
        self.process.start()
        sender.close()

    @property
    def seconds(self) -> float:
        return round(time.monotonic() - self.started, 1)

    def hear(self) -> tuple[str, Any]:
        """Wait for the next that it says: a line of its log, or how it ended."""
        try:
            kind, content = self.receiver.recv()
        except EOFError:
            self.process.join()
            code = self.process.exitcode
            hint = ", killed as for lack of memory" if code == -signal.SIGKILL else ""
            return "failed", f"Its process ended with exit code {code}{hint}."
        return kind, content

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.receiver.close()


@dataclass(eq=False)
class Running:
    """A trial of the study, its process, and how far it is: epochs, step of `STEPS`, and best value so far."""

    trial: optuna.Trial
    worker: Worker
    epochs: int = 0
    step: int = 0
    best: float | None = None

    def outcome(self, metrics: dict[str, float] | None = None, error: str = "") -> dict[str, object]:
        return {"epochs": self.epochs, "seconds": self.worker.seconds, "metrics": metrics or {}, "error": error}


def check_data(search: Search) -> None:
    """Read the data once, and print what there is. Raises `UserError` with what is wrong with it."""
    worker = Worker(search, search.fixed, 0, sorted(os.sched_getaffinity(0)), read_only=True)
    try:
        while (message := worker.hear())[0] == "line":
            print(message[1], flush=True)
    finally:
        worker.end()
    if message[0] != "done":
        raise UserError(message[1])


class Trials:
    """The trials that this process takes over, until there are as many as wanted."""

    def __init__(self, study: optuna.Study, search: Search, wanted: int, workers: int, deadline: float) -> None:
        self.study = study
        self.search = search
        self.wanted = wanted
        self.workers = workers
        self.deadline = deadline
        self.running: list[Running] = []
        self.cores = sorted(os.sched_getaffinity(0))[: available_cores()]
        self.signs: dict[int, tuple[object, float]] = {}  # of life: of each trial the last one, and when it came
        self.last_sign = time.monotonic()

    def run(self) -> bool:
        """Train until the study has the wanted trials; True if Ctrl-C came first."""
        earlier = sum(map(is_done, self.study.get_trials(deepcopy=False)))
        with tqdm(total=self.wanted, initial=earlier, unit="trial", disable=None) as self.bar:
            try:
                while self._count_done() < self.wanted:
                    started = time.monotonic() < self.deadline and self._start_one()
                    if not self.running and time.monotonic() >= self.deadline:
                        self.bar.write(f"Time is up after {self._count_done()} of {self.wanted} trials.")
                        break
                    self._hear(0.0 if started else POLL)
                    self.show_life()
            except KeyboardInterrupt:
                return True
            finally:
                self._end_all()
        return False

    def _count_done(self) -> int:
        done = sum(map(is_done, self.study.get_trials(deepcopy=False)))
        self.bar.n = min(done, self.wanted)
        self.bar.refresh()
        return done

    def _start_one(self) -> bool:
        """Start a trial if there is a free worker and one is left to do."""
        free = set(range(self.workers)) - {running.worker.slot for running in self.running}
        if not free or (trial := self.claim()) is None:
            return False
        slot = min(free)
        cores = self.cores[slot :: self.workers] or [self.cores[slot % len(self.cores)]]
        values = self.search.fixed | self.search.hyperparameters(trial)
        self.running.append(Running(trial, Worker(self.search, values, slot, cores)))
        return True

    def claim(self) -> optuna.Trial | None:
        """A new trial, or one that was interrupted; None if enough are done or running.

        Of two machines that take the last one at the same moment, one gives it back.
        """
        if self._count_taken() >= self.wanted:
            return None
        trial = self.study.ask(self.search.space)
        if self._count_taken(before=trial.number) >= self.wanted:
            give_back(self.study, trial.number)
            return None
        return trial

    def _count_taken(self, before: float = math.inf) -> int:
        trials = self.study.get_trials(deepcopy=False)
        return sum(t.number < before and (is_done(t) or t.state == TrialState.RUNNING) for t in trials)

    def _hear(self, seconds: float) -> None:
        """Take in what the trials say, until one ends or the time is over."""
        trials = list(self.running)
        until = time.monotonic() + seconds
        while self.running == trials:
            ready = wait([running.worker.receiver for running in trials], max(0.0, until - time.monotonic()))
            for running in trials:
                if running.worker.receiver not in ready:
                    continue
                try:
                    self._take(running, *running.worker.hear())
                except UpdateFinishedTrialError:  # this process stood still, and somebody else has taken over
                    self._drop(running)
            if time.monotonic() >= until:
                break

    def _take(self, running: Running, kind: str, content: Any) -> None:
        name = self.search.objective.name
        if kind == "line":
            self._take_line(running, content)
        elif kind == "done":
            value = content[name]
            self._finish(running, TrialState.COMPLETE, f"{name} {value:.4f}", running.outcome(content), value)
        elif kind == "failed":
            self._finish(running, TrialState.FAIL, f"failed: {content}", running.outcome(error=content))
        else:  # what is wrong with the data is wrong for all trials
            raise UserError(content)

    def _take_line(self, running: Running, line: str) -> None:
        """Of the line of an epoch, report the objective to the study; the trial may be pruned for it."""
        place = EPOCH.match(line)
        if place is None:
            return
        name = self.search.objective.name
        value = re.search(self.search.objective.regex, line)
        if value is None:
            raise UserError(
                f"This training has no {name} ({self.search.objective.meaning}); its log says:\n{line}\n"
                "Choose another objective."
            )
        done_rounds, epoch, epochs = int(place[1] or 0), int(place[2]), int(place[3])
        running.epochs = done_rounds * epochs + epoch
        better = max if self.search.maximize else min
        running.best = better(float(value[1]), float(value[1]) if running.best is None else running.best)
        step = running.epochs * STEPS // (epochs * running.worker.rounds)
        if not running.step < step < STEPS:
            return
        running.step = step
        running.trial.report(running.best, step)  # not that of one epoch, which is noisy
        if running.trial.should_prune():
            text = f"{name} {running.best:.4f}, pruned"
            self._finish(running, TrialState.PRUNED, text, running.outcome())

    def _finish(
        self, running: Running, state: TrialState, text: str, outcome: dict[str, object], value: float | None = None
    ) -> None:
        self._drop(running)
        running.trial.set_user_attr("outcome", outcome)
        self.study.tell(running.trial, value, state)
        values = " ".join(f"{name}={text}" for name, text in self.search.hyperparameters(running.trial).items())
        self.bar.write(
            f"[{self._count_done()}/{self.wanted}] trial {running.trial.number}: {text}, {running.epochs} epochs, "
            f"{outcome['seconds']:.0f} s; {values}"
        )
        sys.stdout.flush()

    def _drop(self, running: Running) -> None:
        running.worker.end()
        if running in self.running:
            self.running.remove(running)

    def show_life(self) -> None:
        """Give signs of life of the own trials; take back those of others that have given none for long.

        When the last one came is measured here: clocks of several machines need not agree.
        """
        now = time.monotonic()
        if now - self.last_sign > ALIVE:
            self.last_sign = now
            for running in list(self.running):
                try:
                    running.trial.set_user_attr("alive", time.time())
                except UpdateFinishedTrialError:
                    self._drop(running)
        own = {running.trial.number for running in self.running}
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            sign = trial.user_attrs.get("alive")
            last, since = self.signs.get(trial.number, (None, now))
            self.signs[trial.number] = (sign, since if sign == last else now)
            if trial.number not in own and now - self.signs[trial.number][1] > ABANDONED:
                give_back(self.study, trial.number)

    def _end_all(self) -> None:
        """End what still runs; it is done anew by whoever goes on."""
        for running in self.running:
            running.worker.end()
        with contextlib.suppress(*LOST):
            for running in self.running:
                give_back(self.study, running.trial.number)


def give_back(study: optuna.Study, number: int) -> None:
    """Mark a running trial as interrupted; its hyperparameters are tried again by the next who has time."""
    try:
        trial = study.tell(number, state=TrialState.FAIL)
    except (UpdateFinishedTrialError, ValueError):
        return  # somebody else was quicker
    again = optuna.create_trial(
        state=TrialState.WAITING,
        params=trial.params,
        distributions=trial.distributions,
        system_attrs=trial.system_attrs,  # of the grid
    )
    study.add_trial(again)


# In the process of a trial


def _work(
    sender: Connection,
    channels: dict[str, Source],
    values: dict[str, str],
    slot: int,
    cores: set[int],
    read_only: bool,
) -> None:
    """Train, and send the lines of the log; then how it ended: done, failed or unreadable, and metrics or why."""
    prepare_worker()
    os.sched_setaffinity(0, cores)
    log = logging.getLogger("lstm_fcn.training")
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(_Sender(sender))
    with contextlib.suppress(BrokenPipeError):  # nobody listens any more
        try:
            sender.send(("done", _train(channels, parse_hyperparameters(values), slot, read_only)))
        except _UnreadableError as error:
            sender.send(("unreadable", str(error)))
        except UserError as error:
            sender.send(("failed", str(error)))
        except Exception as error:  # noqa: BLE001 - as for lack of memory; it is in the table of trials
            sender.send(("failed", f"{type(error).__name__}: {error}"))


class _Sender(logging.Handler):
    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self.connection = connection

    def emit(self, record: logging.LogRecord) -> None:
        self.connection.send(("line", record.getMessage()))


class _UnreadableError(Exception):
    """The data cannot be used, whatever is done with it."""


def _train(channels: dict[str, Source], settings: Hyperparameters, slot: int, read_only: bool) -> dict[str, float]:
    """The metrics of the weights that a job with these settings keeps."""
    import torch

    from lstm_fcn.training.data.loading import load
    from lstm_fcn.training.devices import choose_placement
    from lstm_fcn.training.distributed import Group
    from lstm_fcn.training.fit import class_weights
    from lstm_fcn.training.loop import Loop
    from lstm_fcn.training.network.model import make_network
    from lstm_fcn.training.stop import StopSignal

    group = Group()
    try:  # each trial reads the data anew: hyperparameters say how
        data = load(channels, settings, group)
    except UserError as error:
        raise _UnreadableError(str(error)) from error
    if read_only:
        return {}
    placement = choose_placement(settings.precision, group, settings.device)
    if placement.gpus > 1:  # a trial has one of them
        placement = replace(placement, device=torch.device("cuda", slot % placement.gpus), gpus=1)
        torch.cuda.set_device(placement.device)
    problem, device = data.problem, placement.device
    network = make_network(settings, problem.num_variables, problem.length, len(problem.classes)).to(device)
    validation = data.validation.to(device) if data.validation else None
    weights = class_weights(settings, problem).to(device)
    loop = Loop(network, data.training.to(device), validation, weights, settings, placement, StopSignal(), group)
    return loop.fit().metrics
