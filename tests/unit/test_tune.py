"""Tuning without training: searches, studies, who runs which trial, and what is written."""

import csv
import json
import logging
import multiprocessing
import re
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from sqlalchemy.exc import OperationalError

from lstm_fcn.client.__main__ import main
from lstm_fcn.client.tuning import trials as trials_module
from lstm_fcn.client.tuning.report import best_table, draw, report, trials_csv, write_results
from lstm_fcn.client.tuning.search import Search, TrialResult, TuningResult, make_search, to_distribution
from lstm_fcn.client.tuning.study import is_finished, make_sampler, open_study, read_result, requeue
from lstm_fcn.client.tuning.trials import Reporter, TrialProcess, Trials, tune
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.hyperparameters import PARAMETERS, parse_hyperparameters
from lstm_fcn.container.metrics import METRICS_BY_NAME, EpochLine
from lstm_fcn.container.ranges import parse_range
from tests.programs import labelled_csv

Study = tuple[optuna.Study, optuna.storages.RDBStorage]
Messages = list[tuple[str, int, Any]]


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tune") / "train.csv"
    path.write_text(labelled_csv())
    return path


def search_for(training: Path, ranges: dict[str, str] | None = None, **options: Any) -> Search:
    """A search with held-out validation data."""
    arguments: dict[str, Any] = {"validation": (), "objective": "valid_accuracy", "hyperparameters": {}} | options
    arguments["hyperparameters"] = {"validation-fraction": "0.5"} | arguments["hyperparameters"]
    return make_search(training, ranges=ranges, **arguments)


# Searches


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("hidden-size", "8,64,128", CategoricalDistribution(("8", "64", "128"))),
        ("recurrent", "lstm,none", CategoricalDistribution(("lstm", "none"))),
        ("hidden-size", "8:128", IntDistribution(8, 128)),
        ("batch-size", "8:1e2:log", IntDistribution(8, 100, log=True)),
        ("dropout", "0:0.5", FloatDistribution(0, 0.5)),
        ("dropout", "0:0.5:linear", FloatDistribution(0, 0.5)),
        ("lr", "1e-4:0.1:log", FloatDistribution(1e-4, 0.1, log=True)),
    ],
)
def test_ranges_become_distributions(name: str, text: str, expected: BaseDistribution) -> None:
    assert to_distribution(parse_range(name, text)) == expected


def test_sampled_values_are_hyperparameters(training: Path) -> None:
    search = search_for(training, {"lr": "1e-7:1e-5:log", "batch-size": "1:9", "dropout": "0:0.99"})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(10):
        trial = study.ask(search.space)
        texts = search.sampled(trial)
        assert parse_hyperparameters(texts).lr == pytest.approx(trial.params["lr"], rel=1e-3)
        assert texts["batch-size"] == str(trial.params["batch-size"])
        assert len(texts["dropout"].lstrip("0.")) <= 4


def test_hyperparameters_that_are_set_are_not_tuned(training: Path) -> None:
    search = search_for(training, hyperparameters={"lr": "0.01", "hidden-size": "16.0", "preset": "paper"})
    tuned_by_default = {name for name, parameter in PARAMETERS.items() if parameter.searched_by_default}
    assert set(search.ranges) == tuned_by_default - {"lr", "hidden-size"}
    assert search.fixed == {"validation-fraction": "0.5", "lr": "0.01", "hidden-size": "16", "preset": "paper"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "accuracy"}, "Unknown objective 'accuracy'; supported: train_loss, train_accuracy, valid_"),
        ({"hyperparameters": {"validation-fraction": "0"}}, "valid_accuracy needs validation data: give --validation"),
        ({"hyperparameters": {"epoch": "5"}}, "epoch is unknown; did you mean epochs?"),
        ({"ranges": {}}, "No hyperparameter has a range, so there is nothing to tune"),
        (
            {"ranges": {"recurrent": "lstm,none"}, "hyperparameters": {"convolutions": "false"}},
            "leaves no network",
        ),
        ({"ranges": {"lr": "0.001:5"}}, "lr=5 must be a number from 1e-07 to 1.0."),
        ({"ranges": {"dropout": "0:0.5:reverse-log"}}, "dropout=0.0:0.5:reverse-log: local tuning supports the scales"),
        (
            {"ranges": {"lr": "0.1:0.2"}, "hyperparameters": {"lr": "0.1"}},
            "lr is set to 0.1 and also has the range 0.1",
        ),
        ({"validation": Path("nowhere.csv")}, "The validation file nowhere.csv does not exist."),
    ],
)
def test_wrong_searches_are_refused(training: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refused:
        search_for(training, **options)
    assert message in str(refused.value)


def test_objectives_without_held_out_data(training: Path, tmp_path: Path) -> None:
    search_for(training, objective="train_loss", hyperparameters={"validation-fraction": "0"})
    search_for(training, validation=training, hyperparameters={"validation-fraction": "0"})
    with pytest.raises(UserError, match="There are no training files; the folder must contain CSV files"):
        search_for(tmp_path)


# Studies


def test_a_study_continues_with_the_same_search_only(training: Path, tmp_path: Path) -> None:
    file = tmp_path / "a {b} c?.db"
    search = search_for(training)

    def reopen(search: Search, name: str = "mine") -> Study:
        return open_study(search, file, name, 5, pruning=True, seed=1)

    study, database = reopen(search)
    optuna.create_study(storage=database, study_name="theirs").add_trial(optuna.create_trial(value=1.0))
    study.add_trial(optuna.create_trial(value=1.0))
    copy = tmp_path / "elsewhere.csv"
    copy.write_bytes(training.read_bytes())
    assert len(reopen(search_for(copy))[0].trials) == 1
    copy.write_text(labelled_csv(seed=3))
    for other, message in [
        (search_for(training, objective="valid_loss"), 'different objective: "valid_accuracy" instead of "valid_loss"'),
        (search_for(training, {"lr": "0.1:0.2"}), 'different ranges: {"batch-size": "16:128:log", "dropout"'),
        (search_for(training, hyperparameters={"epochs": "9"}), 'different hyperparameters: {"validation-fraction"'),
        (search_for(copy), "was created with different data"),
    ]:
        with pytest.raises(UserError, match="choose another storage or study name") as refused:
            reopen(other)
        assert message in str(refused.value)
    with pytest.raises(UserError, match=r"The study theirs in .* was created by another program"):
        reopen(search, "theirs")


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("{folder}/train.csv", "cannot be used: file is not a database"),
        ("nonsense://host/x", "cannot be used: Can't load plugin: sqlalchemy.dialects:nonsense"),
        ("postgresql://me:secret@localhost:1/x", "postgresql://me:***@localhost:1/x cannot be used: connection failed"),
        ("postgresql://me:secret@localhost:port/x", "is not a database URL; the form is postgresql://USER:"),
        ("{folder}/train.csv/study.db", "folder {folder}/train.csv cannot be written to"),
    ],
)
def test_storages_that_cannot_be_used(
    training: Path, storage: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with pytest.raises(UserError) as refused:
        open_study(search_for(training), storage.format(folder=training.parent), "x", 5, pruning=True, seed=None)
    assert message.format(folder=training.parent) in str(refused.value)
    assert "secret" not in str(refused.value)


# Who runs which trial


@pytest.fixture
def search(training: Path) -> Search:
    return search_for(training, {"lr": "0.0001:0.1:log", "hidden-size": "8,64"})


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    return tmp_path / "study.db"


class MemoryStorage(optuna.storages.InMemoryStorage):
    """Storage that is much faster than a database, in which no trial is ever abandoned."""

    def record_heartbeat(self, trial_id: int) -> None:
        pass

    def get_heartbeat_interval(self) -> int:
        return 10


@pytest.fixture
def in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = MemoryStorage()
    monkeypatch.setattr("lstm_fcn.client.tuning.study._connect", lambda _: memory)


@pytest.fixture
def study(search: Search, storage: Path, in_memory: None) -> Study:  # noqa: ARG001
    return open_study(search, storage, "lstm-fcn", 20, pruning=True, seed=0)


def finish(study: optuna.Study, trial: optuna.Trial, value: float = 0.5) -> None:
    trial.set_user_attr("outcome", {"epochs": 3, "seconds": 1.0, "metrics": {"valid_accuracy": value}, "error": ""})
    study.tell(trial, value)


def states(study: Study, search: Search) -> list[str]:
    return [trial.state for trial in read_result(study[0], search).trials]


def test_no_more_trials_are_started_than_wanted(search: Search, study: Study) -> None:
    trials = Trials(*study, search, wanted=3)
    started = [trial for trial in (trials.claim() for _ in range(5)) if trial]
    assert len(started) == 3
    finish(study[0], started[0])
    assert trials.claim() is None
    started[1].set_user_attr("outcome", {"error": "it diverged"})
    study[0].tell(started[1], state=TrialState.FAIL)
    assert trials.claim() is None  # a failed trial counts
    requeue(study[0], started[2].number)
    requeue(study[0], started[2].number)  # another machine was faster
    repeated = trials.claim()  # an interrupted trial is replaced
    assert repeated is not None
    assert repeated.params == started[2].params
    assert trials.claim() is None
    finish(study[0], repeated)
    assert states(study, search) == ["complete", "failed", "interrupted", "complete"]


def test_of_two_machines_that_take_the_last_trial_one_requeues_it(
    search: Search, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = study[0].ask

    def ask_second(space: dict[str, BaseDistribution]) -> optuna.Trial:
        ask(space)  # another machine, after this one has counted
        return ask(space)

    monkeypatch.setattr(study[0], "ask", ask_second)
    assert Trials(*study, search, wanted=1).claim() is None
    assert [trial.state.name for trial in study[0].trials] == ["RUNNING", "FAIL", "WAITING"]


@pytest.mark.usefixtures("in_memory")
def test_a_grid_tries_every_combination_once_however_often_it_is_interrupted(training: Path, storage: Path) -> None:
    search = search_for(training, {"hidden-size": "8,64", "recurrent": "lstm,gru,none"})
    assert search.combinations == 6
    tried: list[dict[str, str]] = []
    for attempt in range(40):  # each with a new sampler, as after a restart
        study = open_study(search, storage, "grid", 20, pruning=True, seed=attempt)
        trials = Trials(*study, search, wanted=6)
        claimed = [trial for trial in (trials.claim(), trials.claim()) if trial]
        if not claimed:
            break
        for trial in claimed[: attempt % 3]:
            finish(study[0], trial)
            tried.append(search.sampled(trial))
        for trial in claimed[attempt % 3 :]:
            requeue(study[0], trial.number)
    assert len(tried) == 6
    assert len({tuple(sorted(values.items())) for values in tried}) == 6


def test_other_searches_are_not_grids(training: Path) -> None:
    search = search_for(training, {"hidden-size": "8,64", "lr": "0.1:0.2"})
    assert search.combinations is None
    assert isinstance(make_sampler(search, 20, 0), optuna.samplers.TPESampler)
    few = search_for(training, {"hidden-size": "8,64,128"})
    assert isinstance(make_sampler(few, 2, 0), optuna.samplers.TPESampler)


def test_trials_without_a_heartbeat_are_replaced(
    search: Search, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lstm_fcn.client.tuning.study.HEARTBEAT_SECONDS", 1)
    monkeypatch.setattr("lstm_fcn.client.tuning.study.GRACE_SECONDS", 2)
    study, other = (open_study(search, storage, "lstm-fcn", 20, pruning=True, seed=0) for _ in range(2))
    alive = Trials(*study, search, wanted=3)
    alive.running[object()] = alive.claim()  # type: ignore[index, assignment]
    dead = Trials(*other, search, wanted=3).claim()
    with pytest.warns(UserWarning, match="Heartbeat"):
        never_recorded = other[0].ask(search.space)  # its machine died immediately afterwards
    assert dead is not None
    deadline = time.monotonic() + 60
    while states(study, search) != ["running", "interrupted", "interrupted"]:
        assert time.monotonic() < deadline
        alive.heartbeat()
        time.sleep(0.1)
    repeated = [alive.claim(), alive.claim()]
    assert [trial.params for trial in repeated if trial] == [dead.params, never_recorded.params]
    assert alive.claim() is None


# Running trials, with processes that only send messages


class FakeProcess(TrialProcess):
    """A trial process whose messages are known in advance; it ends after the last one, or never."""

    started_with: list[tuple[int, list[int]]] = []  # noqa: RUF012 - slot and cores of each process

    def __init__(self, _search: Search, _values: dict[str, str], slot: int, cores: Any) -> None:
        self.slot, self.epochs, self.started = slot, 0, time.monotonic()
        self.connection, self.sender = multiprocessing.Pipe(duplex=False)
        for message in self.messages(len(self.started_with)):
            self.sender.send(message)
        if not self.hangs:
            self.sender.close()
        self.started_with.append((slot, list(cores)))
        self.process = SimpleNamespace(join=lambda: None, kill=lambda: None, exitcode=-9)  # type: ignore[assignment]

    @staticmethod
    def messages(number: int) -> Messages:
        raise NotImplementedError(number)

    hangs = False


def complete(value: float, steps: int = 9) -> Messages:
    progress: Messages = [("progress", step, (step, value)) for step in range(1, steps + 1)]
    return [*progress, ("done", 10, {"valid_accuracy": value, "valid_loss": 1 - value})]


@pytest.fixture
def fake_processes(in_memory: None, monkeypatch: pytest.MonkeyPatch) -> type[FakeProcess]:  # noqa: ARG001
    monkeypatch.setattr(FakeProcess, "started_with", [])
    monkeypatch.setattr(trials_module, "TrialProcess", FakeProcess)
    monkeypatch.setattr(trials_module, "check_data", lambda _: None)
    monkeypatch.setattr(trials_module, "POLL_SECONDS", 0.01)
    return FakeProcess


@pytest.fixture
def run(
    training: Path, storage: Path, fake_processes: type[FakeProcess], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., TuningResult]:
    """Run `tune` with fake processes; the first argument returns the messages of each process by its number."""

    def run(messages: Callable[[int], Messages], hangs: bool = False, **options: Any) -> TuningResult:
        monkeypatch.setattr(fake_processes, "messages", staticmethod(messages))
        monkeypatch.setattr(fake_processes, "hangs", hangs)
        arguments: dict[str, Any] = {
            "validation": training,
            "ranges": {"lr": "0.01:0.1"},
            "workers": 1,
            "search_seed": 0,
        } | options
        return tune(training, storage, **arguments)

    return run


def test_trials_are_counted_and_printed(run: Callable[..., TuningResult], capsys: pytest.CaptureFixture[str]) -> None:
    result = run(lambda number: complete(0.5 + number / 100), trials=3)
    assert [trial.state for trial in result.trials] == ["complete"] * 3
    assert result.ranking[0].metrics == {"valid_accuracy": 0.52, "valid_loss": 0.48}
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\[3/3\] trial 2: valid_accuracy 0\.5200, 10 epochs, \d+ s; lr=0\.0\d+", lines[2])
    more = run(lambda _: complete(0.9), trials=4)  # the same search with more trials
    assert [trial.value for trial in more.trials] == [0.5, 0.51, 0.52, 0.9]


def test_trials_worse_than_the_median_are_pruned_from_the_fourth_tenth(run: Callable[..., TuningResult]) -> None:
    def messages(number: int) -> Messages:
        return complete(0.1 if number in (3, 6) else 0.8)

    result = run(messages, trials=7)
    assert [trial.number for trial in result.trials if trial.state == "pruned"] == [6]  # 3: too few trials before it
    assert result.trials[6].epochs == 4
    assert result.trials[6].value == 0.1


def test_without_pruning_every_trial_is_complete(run: Callable[..., TuningResult]) -> None:
    result = run(lambda number: complete(0.8 - number / 10), trials=7, pruning=False)
    assert {trial.state for trial in result.trials} == {"complete"}


def test_failed_and_crashed_trials_do_not_end_the_search(
    run: Callable[..., TuningResult], capsys: pytest.CaptureFixture[str]
) -> None:
    crash: Messages = [("progress", 2, (2, 0.5))]
    failure: Messages = [("failed", 1, "OutOfMemoryError: CUDA out of memory")]
    result = run(lambda number: [crash, failure, complete(0.7)][number], trials=3)
    assert [trial.state for trial in result.trials] == ["failed", "failed", "complete"]
    assert result.trials[0].epochs == 2
    assert result.trials[0].error == (
        "The process of the trial ended with exit code -9; the machine may have run out of memory."
    )
    assert result.trials[1].error == "OutOfMemoryError: CUDA out of memory"
    assert "trial 1: failed: OutOfMemoryError" in capsys.readouterr().out


def test_an_objective_that_the_data_does_not_have_ends_the_search(run: Callable[..., TuningResult]) -> None:
    with pytest.raises(UserError, match=r"The objective valid_auc .* is not available for this data; choose another"):
        run(lambda _: [("progress", 1, (0, None))], objective="valid_auc")


def test_ctrl_c_returns_the_results_and_the_next_call_replaces_what_was_running(
    run: Callable[..., TuningResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    receive = Trials._receive

    def interrupt(trials: Trials) -> None:
        if len(FakeProcess.started_with) == 4:
            raise KeyboardInterrupt
        receive(trials)

    monkeypatch.setattr(Trials, "_receive", interrupt)
    stopped = run(lambda number: complete(0.6) if number < 2 else [], hangs=True, trials=4, workers=2)
    assert stopped.stopped
    assert [trial.state for trial in stopped.trials] == ["complete", "complete", "interrupted", "interrupted"]
    monkeypatch.setattr(Trials, "_receive", receive)
    resumed = run(lambda _: complete(0.7), trials=4)
    assert [trial.state for trial in resumed.trials[4:]] == ["complete", "complete"]
    assert [trial.hyperparameters for trial in resumed.trials[4:]] == [t.hyperparameters for t in stopped.trials[2:]]


def test_workers_share_the_cores(run: Callable[..., TuningResult], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 2, 4, 6, 8})
    monkeypatch.setattr(trials_module, "available_cores", lambda: 5)
    run(lambda _: complete(0.7), trials=2, workers=2)
    assert FakeProcess.started_with == [(0, [0, 4, 8]), (1, [2, 6])]
    FakeProcess.started_with.clear()
    run(lambda _: complete(0.7), trials=9, workers=7)
    assert FakeProcess.started_with[:7] == [(0, [0]), (1, [2]), (2, [4]), (3, [6]), (4, [8]), (5, [0]), (6, [2])]


def test_no_trial_starts_after_the_time(run: Callable[..., TuningResult], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lambda _: complete(0.7), trials=3, minutes=0).trials == []
    assert "Time is up after 0 of 3 trials." in capsys.readouterr().out


@pytest.mark.usefixtures("fake_processes")
def test_a_trial_that_another_machine_has_replaced_is_dropped(
    search: Search, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = Trials(*study, search, wanted=1)
    trial = trials.claim()
    assert trial is not None
    monkeypatch.setattr(FakeProcess, "messages", staticmethod(lambda _: complete(0.7)))
    trials.running[FakeProcess(search, {}, 0, [])] = trial
    requeue(study[0], trial.number)  # this machine was suspended
    trials._receive()
    assert trials.running == {}


def test_the_loss_of_the_database_is_reported(
    run: Callable[..., TuningResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(_: object) -> bool:
        raise OperationalError("SELECT 1", None, Exception("server closed the connection"))

    monkeypatch.setattr(Trials, "run", lost)
    with pytest.raises(UserError, match=r"^The connection to the storage was lost: server closed the connection\. Run"):
        run(lambda _: [])


def test_progress_is_sent_after_each_tenth_over_all_rounds() -> None:
    receiver, sender = multiprocessing.Pipe(duplex=False)
    reporter = Reporter(sender, METRICS_BY_NAME["valid_loss"], rounds=2)

    def log(text: str) -> None:
        reporter.emit(logging.LogRecord("", logging.INFO, "", 0, text, None, None))

    log("device: CPU")
    for round_number in range(2):
        for epoch in range(1, 11):
            loss = 1 / (10 * round_number + epoch) if epoch % 2 else 9.0
            log(EpochLine(epoch, 10, {"train_loss": 1.0, "valid_loss": loss}, round_number).format(0.1, timedelta(1)))
    sender.close()
    messages = []
    while receiver.poll():
        try:
            messages.append(receiver.recv())
        except EOFError:
            break
    expected = [1, 1 / 3, 1 / 5, 1 / 7, 1 / 9, 1 / 11, 1 / 13, 1 / 15, 1 / 17]
    assert [message[:2] for message in messages] == [("progress", 2 * step) for step in range(1, 10)]
    assert [message[2][0] for message in messages] == list(range(1, 10))
    assert [message[2][1] for message in messages] == pytest.approx(expected, abs=1e-6)


# Results


def make_result(training: Path, objective: str = "valid_accuracy") -> TuningResult:
    ranges = {"hidden-size": "8,64,128", "lr": "0.0001:0.1:log", "num-layers": "1:3"}
    search = search_for(training, ranges, objective=objective, hyperparameters={"epochs": "10"})

    def trial(number: int, state: str, value: float | None, loss: float = 0.5, error: str = "") -> TrialResult:
        tuned = {"hidden-size": ("8", "64")[number % 2], "lr": "0.001", "num-layers": str(1 + number % 3)}
        metrics = {objective: value, "valid_loss": loss} if state == "complete" and value is not None else {}
        return TrialResult(number, state, value, tuned, 10, 2.5, metrics, error)

    trials = [
        trial(0, "complete", 0.7),
        trial(1, "pruned", 0.99),
        trial(2, "complete", 0.9, loss=0.4),
        trial(3, "failed", None, error="Training diverged, badly."),
        trial(4, "complete", 0.9, loss=0.3),
        trial(5, "interrupted", None),
        trial(6, "complete", 0.8),
    ]
    return TuningResult(search, trials, {"lr": 0.5, "hidden-size": 0.2, "num-layers": 0.3})


def test_the_best_trial_is_complete_and_has_the_lowest_loss_among_equals(training: Path) -> None:
    result = make_result(training)
    assert [trial.number for trial in result.ranking] == [4, 2, 6, 0]
    assert [trial.number for trial in make_result(training, "train_loss").ranking] == [0, 6, 4, 2]
    assert result.hyperparameters == {
        "validation-fraction": "0.5",
        "epochs": "10",
        "hidden-size": "8",
        "lr": "0.001",
        "num-layers": "2",
    }


def test_files(training: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    result = make_result(training)
    write_results(result, folder)
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["hyperparameters.json", "report.md", "trials.csv", "trials.png"]
    assert json.loads((folder / "hyperparameters.json").read_text()) == result.hyperparameters
    with (folder / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["number"] for row in rows] == list("0123456")
    assert (rows[1]["state"], rows[1]["valid_accuracy"]) == ("pruned", "0.99")
    assert rows[3] == {
        "number": "3",
        "state": "failed",
        "valid_accuracy": "",
        "hidden-size": "64",
        "lr": "0.001",
        "num-layers": "1",
        "epochs": "10",
        "seconds": "2.5",
        "error": "Training diverged, badly.",
    }
    text = (folder / "report.md").read_text()
    assert text.startswith("# Tuning: valid_accuracy 0.9000\n")
    assert "Trials: 4 complete, 1 pruned, 1 failed, 1 interrupted. The best is trial 4" in text
    assert "- trial 3: Training diverged, badly." in text
    assert "| `lr` | 0.0001:0.1:log |" in text
    assert "Set for all trials: validation-fraction=0.5, epochs=10." in text
    titles = [axes.get_title(loc="left") for axes in draw(result).axes if axes.axison]
    assert titles == ["trial", "lr: importance 0.50", "num-layers: importance 0.30", "hidden-size: importance 0.20"]


def test_the_table_is_aligned_and_the_best_trial_comes_first(training: Path) -> None:
    lines = best_table(make_result(training)).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["4", "2", "6", "0"]


def test_results_of_a_single_trial(training: Path, tmp_path: Path) -> None:
    result = make_result(training)
    single = TuningResult(result.search, result.trials[:1], {})
    draw(single)
    assert "Failed trials" not in report(single)
    write_results(TuningResult(result.search, result.trials[1:2], {}), tmp_path / "out")  # none is complete
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["trials.csv"]
    assert trials_csv(result).count("\n") == 8


def test_importances_need_ten_complete_trials(search: Search) -> None:
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    for number in range(20):
        if number == 9:
            assert read_result(study, search).importances == {}
        trial = study.ask(search.space)
        finish(study, trial, value=trial.params["lr"])
    found = read_result(study, search).importances
    assert found["lr"] > 0.8 > 0.2 > found["hidden-size"]
    assert all(map(is_finished, study.trials))


# The command


def call(training: Path, tmp_path: Path, *arguments: str) -> int:
    validation = () if "--validation-fraction" in arguments else ("--validation", str(training))
    return main(["tune", "--training", str(training), *validation, "--output", str(tmp_path / "out"), *arguments])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "-1"], "-1 is not in the range 0<=x<=20000"),
        (["--range", "lr"], "--range lr must be NAME=VALUE."),
        (["--range", "lr=0.1:0.2", "--range", "lr=0.1:0.3"], "--range sets lr twice."),
        (["--range", "lr=0.1:0.2", "--lr", "0.1"], "lr is set to 0.1 and also has the range 0.1:0.2"),
    ],
)
def test_wrong_options(
    training: Path, tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(training, tmp_path, *arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out" / "study.db").exists()


@pytest.mark.usefixtures("fake_processes")
def test_the_command_ends_with_files_and_an_exit_code(
    training: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(FakeProcess, "messages", staticmethod(lambda _: complete(0.7)))
    assert call(training, tmp_path, "--range", "hidden-size=8,64,128", "--epochs", "9", "--workers", "1") == 0
    best = tmp_path / "out" / "hyperparameters.json"
    captured = capsys.readouterr()
    assert "[3/3] trial 2" in captured.out  # a grid, not 20 trials
    assert f"best: {best}" in captured.out
    assert json.loads(best.read_text())["epochs"] == "9"
    monkeypatch.setattr(Trials, "run", lambda _: True)
    assert call(training, tmp_path, "--range", "hidden-size=8,64,128", "--epochs", "9") == 130
    assert "Interrupted. Run the same command again to resume the search." in capsys.readouterr().err
    monkeypatch.setattr(Trials, "run", lambda _: False)
    assert call(training, tmp_path, "--study", "empty") == 2
    assert "No trial is complete." in capsys.readouterr().err
