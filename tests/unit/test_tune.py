"""What is searched, who takes which trial, and what is written of a search; nothing is trained here."""

import csv
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from click.testing import CliRunner
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from lstm_fcn.client.study import (
    PRESETS,
    Search,
    TrialResult,
    Trials,
    TuningResult,
    describe_range,
    give_back,
    is_done,
    make_sampler,
    make_search,
    open_study,
    parse_range,
    read_result,
)
from lstm_fcn.client.tune import best_table, history, report, slices, trials_csv, tune, write_results
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.hyperparameters import Hyperparameters, parse_hyperparameters
from tests.programs import labelled_csv

optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.fixture
def training(tmp_path: Path) -> Path:
    path = tmp_path / "train.csv"
    path.write_text(labelled_csv())
    return path


def search_for(training: Path, ranges: dict[str, str] | None = None, **options: Any) -> Search:
    """A search with held-out validation data."""
    arguments = {"validation": (), "objective": "valid_accuracy", "preset": "default", "hyperparameters": {}} | options
    arguments["hyperparameters"] = {"validation-fraction": "0.5"} | arguments["hyperparameters"]
    return make_search(training, ranges=ranges, **arguments)


# What is searched


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_within_the_table_and_around_its_defaults(preset: str) -> None:
    defaults = Hyperparameters().model_dump(by_alias=True)
    for name, text in PRESETS[preset].items():
        values = parse_range(name, text)
        assert describe_range(values) == text
        assert values._contains(values.to_internal_repr(defaults[name]))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("hidden-size", "8,64,128", CategoricalDistribution((8, 64, 128))),
        ("hidden-size", "8,8.0,9", CategoricalDistribution((8, 9))),
        ("recurrent", "lstm,none", CategoricalDistribution(("lstm", "none"))),
        ("convolutions", "true,FALSE", CategoricalDistribution(("true", "false"))),
        ("hidden-size", "8:128", IntDistribution(8, 128)),
        ("batch-size", "8:1e2:log", IntDistribution(8, 100, log=True)),
        ("dropout", "0:0.5", FloatDistribution(0, 0.5)),
        ("lr", "1e-4:0.1:log", FloatDistribution(1e-4, 0.1, log=True)),
    ],
)
def test_ranges(name: str, text: str, expected: BaseDistribution) -> None:
    values = parse_range(name, text)
    assert values == expected
    assert parse_range(name, describe_range(values)) == expected


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("hidden-sise", "8,64", "hidden-sise is unknown; did you mean hidden-size?"),
        ("lr", "0.001:5", "lr=5 must be a number from 1e-07 to 1.0."),
        ("hidden-size", "8,9.5", "hidden-size=9.5 must be an integer from 1 to 4096."),
        ("recurrent", "lstm,transformer", "recurrent=transformer must be lstm, alstm"),
        ("recurrent", "lstm:gru", "recurrent is no number; list the values"),
        ("lr", "0.1:0.01", "from a lower to a higher value"),
        ("lr", "0.1:0.1", "from a lower to a higher value"),
        ("dropout", "0:0.5:log", "a logarithmic range starts above 0"),
        ("lr", "0.1:0.2:linear", "is no range; write LOW:HIGH, LOW:HIGH:log or"),
        ("lr", "0.1:0.2:log:log", "is no range; write LOW:HIGH, LOW:HIGH:log or"),
        ("lr", "0.1", "is one value and no range; set it instead"),
        ("lr", "0.1,", "lr='' is no value"),
        ("lr", ":0.1", "lr='' is no value"),
        ("sagemaker_region", "a,b", "sagemaker_region='a' is no value"),
    ],
)
def test_wrong_ranges_are_refused(name: str, text: str, message: str) -> None:
    with pytest.raises(UserError) as refused:
        parse_range(name, text)
    assert message in str(refused.value)


def test_sampled_values_are_hyperparameters(training: Path) -> None:
    search = search_for(training, {"lr": "1e-7:1e-5:log", "batch-size": "1:9", "dropout": "0:0.99"})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(10):
        trial = study.ask(search.space)
        texts = search.hyperparameters(trial)
        settings = parse_hyperparameters(texts)
        assert settings.lr == pytest.approx(trial.params["lr"], rel=1e-3)
        assert texts["batch-size"] == str(trial.params["batch-size"])
        assert len(texts["dropout"].lstrip("0.")) <= 4


def test_what_is_set_is_not_searched(training: Path) -> None:
    search = search_for(training, hyperparameters={"lr": "0.01", "hidden-size": "16.0"})
    assert set(search.space) == set(PRESETS["default"]) - {"lr", "hidden-size"}
    assert search.fixed == {"validation-fraction": "0.5", "lr": "0.01", "hidden-size": "16"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "accuracy"}, "There is no objective 'accuracy'; known are train_loss, train_accuracy, valid_"),
        ({"hyperparameters": {"validation-fraction": "0"}}, "valid_accuracy needs validation data: give a validation"),
        ({"hyperparameters": {"epoch": "5"}}, "epoch is unknown; did you mean epochs?"),
        ({"preset": "paper"}, "There is no preset 'paper'; known are default, paper-grid."),
        ({"preset": "paper-grid", "hyperparameters": {"hidden-size": "8"}}, "none has a range to be searched"),
        ({"ranges": {"lr": "0.1:0.2"}, "hyperparameters": {"lr": "0.1"}}, "lr is set to 0.1 and has the range 0.1:0.2"),
        ({"validation": Path("nowhere.csv")}, "There is no validation file nowhere.csv."),
    ],
)
def test_wrong_searches_are_refused(training: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refused:
        search_for(training, **options)
    assert message in str(refused.value)


def test_objectives_that_need_no_validation_data(training: Path, tmp_path: Path) -> None:
    search_for(training, objective="train_loss", hyperparameters={"validation-fraction": "0"})
    search_for(training, validation=training, hyperparameters={"validation-fraction": "0"})
    make_search(training, (), "valid_f1", {"validation-fraction": "0.1:0.2"}, "default", {})
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no training files with content"):
        search_for(tmp_path / "empty")


# The study


def test_a_study_goes_on_with_the_same_search_only(training: Path, tmp_path: Path) -> None:
    file = tmp_path / "a {b} c?.db"
    search = search_for(training)
    study = open_study(search, file, "mine", 5, pruning=True, seed=1)
    study.ask(search.space)
    copy = tmp_path / "elsewhere.csv"
    copy.write_bytes(training.read_bytes())
    assert len(open_study(search_for(copy), file, "mine", 9, pruning=False, seed=None).trials) == 1
    for other, message in [
        (search_for(training, objective="valid_loss"), 'other objective: "valid_accuracy", not "valid_loss"'),
        (search_for(training, {"lr": "0.1:0.2"}), 'other ranges: {"batch-size": "16:128:log", "dropout"'),
        (
            search_for(training, hyperparameters={"epochs": "9"}),
            'other hyperparameters: {"validation-fraction": "0.5"}',
        ),
    ]:
        with pytest.raises(UserError, match="choose another storage or name of the study") as refused:
            open_study(other, file, "mine", 5, pruning=True, seed=1)
        assert message in str(refused.value)
    training.write_text(labelled_csv(seed=3))
    with pytest.raises(UserError, match="made with other data"):
        open_study(search_for(training), file, "mine", 5, pruning=True, seed=1)
    optuna.create_study(storage=study._storage, study_name="theirs").ask()
    with pytest.raises(UserError, match="has a study theirs that is not of this program"):
        open_study(search, file, "theirs", 5, pruning=True, seed=1)


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("{folder}/train.csv", "cannot be used: file is not a database"),
        ("nonsense://host/x", "cannot be used: Can't load plugin: sqlalchemy.dialects:nonsense"),
        ("postgresql://me:secret@localhost:1/x", "postgresql://me:***@localhost:1/x cannot be used: connection failed"),
        ("postgresql://me:secret@localhost:port/x", "is no URL of a database; such a URL is postgresql://USER:"),
        ("{folder}/train.csv/study.db", "folder {folder}/train.csv cannot be written to"),
    ],
)
def test_storages_that_cannot_be_used(
    training: Path, tmp_path: Path, storage: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with pytest.raises(UserError) as refused:
        open_study(search_for(training), storage.format(folder=tmp_path), "x", 5, pruning=True, seed=None)
    assert message.format(folder=tmp_path) in str(refused.value)
    assert "secret" not in str(refused.value)


# Who takes which trial


def take_over(search: Search, study: optuna.Study, wanted: int) -> Trials:
    return Trials(study, search, wanted, workers=2, deadline=time.monotonic() + 60)


def finish(study: optuna.Study, trial: optuna.Trial, value: float = 0.5) -> None:
    trial.set_user_attr("outcome", {"epochs": 3, "seconds": 1.0, "metrics": {"valid_accuracy": value}, "error": ""})
    study.tell(trial, value)


def test_no_more_trials_are_started_than_wanted(training: Path) -> None:
    search = search_for(training)
    study = optuna.create_study()
    trials = take_over(search, study, wanted=3)
    started = [trial for trial in (trials.claim() for _ in range(5)) if trial]
    assert len(started) == 3
    finish(study, started[0])
    assert trials.claim() is None
    started[1].set_user_attr("outcome", {"error": "it diverged"})
    study.tell(started[1], state=TrialState.FAIL)
    assert trials.claim() is None  # it failed by itself, and counts
    give_back(study, started[2].number)
    again = trials.claim()  # it was interrupted, and is replaced
    assert again is not None
    assert again.params == started[2].params
    assert trials.claim() is None
    finish(study, again)
    assert [trial.state for trial in read_result(study, search).trials] == [
        "complete",
        "failed",
        "interrupted",
        "complete",
    ]


def test_of_two_that_take_the_last_trial_one_gives_it_back(training: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = search_for(training)
    study = optuna.create_study()
    trials = take_over(search, study, wanted=1)
    ask = study.ask

    def ask_too_late(space: dict[str, BaseDistribution]) -> optuna.Trial:
        ask(space)  # somebody else, since we have looked
        return ask(space)

    monkeypatch.setattr(study, "ask", ask_too_late)
    assert trials.claim() is None
    states = [trial.state for trial in study.trials]
    assert states == [TrialState.RUNNING, TrialState.FAIL, TrialState.WAITING]


def test_a_grid_has_every_combination_once_however_often_it_is_interrupted(training: Path) -> None:
    search = search_for(training, {"hidden-size": "8,64", "recurrent": "lstm,gru,none"})
    assert search.combinations == 6
    study = optuna.create_study()
    done: list[dict[str, str]] = []
    for attempt in range(40):  # each with a new sampler, as after a new start
        study.sampler = make_sampler(search, 20, seed=attempt)
        trials = take_over(search, study, wanted=6)
        taken = [trial for trial in (trials.claim(), trials.claim()) if trial]
        if not taken:
            break
        for trial in taken[: attempt % 3]:
            finish(study, trial)
            done.append(search.hyperparameters(trial))
        for trial in taken[attempt % 3 :]:
            give_back(study, trial.number)
    assert len(done) == 6
    assert len({tuple(sorted(values.items())) for values in done}) == 6


def test_a_search_without_lists_only_is_no_grid(training: Path) -> None:
    search = search_for(training, {"hidden-size": "8,64", "lr": "0.1:0.2"})
    assert search.combinations is None
    assert isinstance(make_sampler(search, 20, 0), optuna.samplers.TPESampler)
    few = search_for(training, {"hidden-size": "8,64,128"})
    assert isinstance(make_sampler(few, 2, 0), optuna.samplers.TPESampler)


def test_trials_without_a_sign_of_life_are_taken_over(training: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lstm_fcn.client.study.ABANDONED", 30.0)
    now = 1000.0
    monkeypatch.setattr("lstm_fcn.client.study.time", SimpleNamespace(monotonic=lambda: now))
    search = search_for(training)
    study = optuna.create_study()
    dead, alive = study.ask(search.space), study.ask(search.space)
    trials = take_over(search, study, wanted=2)
    for sign in range(3):
        alive.set_user_attr("alive", sign)
        trials.show_life()
        assert trials.claim() is None
        now += 10.5
    alive.set_user_attr("alive", 99)
    trials.show_life()
    assert [trial.state for trial in study.trials][:2] == [TrialState.FAIL, TrialState.RUNNING]
    again = trials.claim()
    assert again is not None
    assert again.params == dead.params


# What is written


def make_result(training: Path, objective: str = "valid_accuracy", **options: Any) -> TuningResult:
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
    return TuningResult(search, trials, {"lr": 0.5, "hidden-size": 0.2, "num-layers": 0.3}, **options)


def test_the_best_is_complete_and_has_the_lowest_loss_among_equals(training: Path) -> None:
    result = make_result(training)
    assert [trial.number for trial in result.ranking] == [4, 2, 6, 0]
    assert [trial.number for trial in make_result(training, "train_loss").ranking] == [0, 6, 4, 2]
    # Defaults are left out: hidden-size 8, lr 0.001.
    assert result.hyperparameters == {"validation-fraction": "0.5", "epochs": "10", "num-layers": "2"}


def test_files(training: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    result = make_result(training)
    write_results(result, folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "history.png",
        "hyperparameters.json",
        "hyperparameters.png",
        "report.md",
        "trials.csv",
    ]
    assert json.loads((folder / "hyperparameters.json").read_text()) == result.hyperparameters
    with (folder / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["number"] for row in rows] == list("0123456")
    assert rows[1]["state"] == "pruned"
    assert rows[1]["valid_accuracy"] == "0.99"
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
    titles = [axes.get_title(loc="left") for axes in slices(result).axes]
    assert titles == ["lr: importance 0.50", "num-layers: importance 0.30", "hidden-size: importance 0.20"]


def test_the_table_is_aligned_and_the_best_come_first(training: Path) -> None:
    lines = best_table(make_result(training)).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["4", "2", "6", "0"]


def test_a_search_with_one_trial_is_drawn(training: Path) -> None:
    result = make_result(training)
    single = TuningResult(result.search, result.trials[:1], {})
    history(single)
    slices(single)
    assert "Set for all trials: epochs=10, validation-fraction=0.5." in report(single)


def test_without_a_complete_trial_there_is_the_table_only(training: Path, tmp_path: Path) -> None:
    result = make_result(training)
    write_results(TuningResult(result.search, result.trials[1:2], {}), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["trials.csv"]
    assert trials_csv(result).count("\n") == 8


def test_importances_need_ten_complete_trials(training: Path) -> None:
    search = search_for(training, {"lr": "0.0001:0.1:log", "hidden-size": "8,64"})
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    for number in range(20):
        if number == 9:
            assert read_result(study, search).importances == {}
        trial = study.ask(search.space)
        finish(study, trial, value=trial.params["lr"])
    found = read_result(study, search).importances
    assert found["lr"] > 0.8 > 0.2 > found["hidden-size"]
    assert all(map(is_done, study.trials))


# The command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "epochs"], "--set epochs must be NAME=VALUE."),
        (["--range", "lr=0.1:0.2", "--range", "lr=0.1:0.3"], "--range gives lr twice."),
        (["--range", "lr=0.1:0.2", "--preset", "default"], "Give --range or --preset, not both."),
        (["--validation-fraction", "0.2", "--set", "validation-fraction=0.3"], "gives validation-fraction twice."),
    ],
)
def test_wrong_options(training: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    base = ["--training", str(training), "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(tune, [*base, *arguments])
    assert isinstance(result.exception, UserError)
    assert message in str(result.exception)
