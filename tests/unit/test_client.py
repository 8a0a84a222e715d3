"""`lstm-fcn` as a command: its options, its help and its errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from lstm_fcn.client import local
from lstm_fcn.client.__main__ import COMMANDS, EXTRAS, lstm_fcn, main
from lstm_fcn.client.local import train
from lstm_fcn.client.options import given_hyperparameters
from lstm_fcn.container.hyperparameters import PARAMETERS


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in COMMANDS)


def test_every_hyperparameter_is_an_option_of_train() -> None:
    options = {option for parameter in train.params for option in parameter.opts}
    assert {f"--{name}" for name in PARAMETERS} <= options


def test_only_what_is_given_goes_into_the_job() -> None:
    options = {"epochs": 200, "lr_schedule": "one-cycle", "lr": None, "hidden_size": None, "other": 3}
    assert given_hyperparameters(options) == {"epochs": "200", "lr-schedule": "one-cycle"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--output", "model"], "Missing option '--training'"),
        (["train", "--training", "nothing.csv", "--output", "model"], "Path 'nothing.csv' does not exist"),
        (["train", "--epochs", "-1"], "-1 is not in the range 0<=x<=20000"),
        (["train", "--lr-schedule", "cosine"], "'cosine' is not one of 'plateau', 'one-cycle', 'constant'"),
        (["train", "--epoch", "3"], "Did you mean '--epochs'?"),
        (["predict", "nothing", "-"], "There is no folder nothing; give the --output folder of lstm-fcn train."),
        (["serve", "nothing"], "There is no folder nothing; give the --output folder of lstm-fcn train."),
        (["transform", "nothing", "-", "-"], "nothing holds no model: model.json is missing"),
        (["trian"], "No such command 'trian'"),
    ],
)
def test_wrong_use_is_explained(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err


def test_a_package_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(EXTRAS, "tune", {"tune": "no_such_package"})
    assert main(["tune"]) == 2
    expected = "tune needs the package no_such_package, which is not installed: pip install 'lstm-fcn[tune]'."
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("command", [["transform"], ["evaluate"], ["sagemaker", "train"]])
def test_help_names_the_command_that_was_typed(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: lstm-fcn {' '.join(command)} [OPTIONS]")


@pytest.mark.parametrize(
    ("line", "done"),
    [
        ("epoch: 3/20, train_loss: 0.5, lr: 0.1, left: 0:00:01", 3),
        ("round: 2, epoch: 3/20, train_loss: 0.5, lr: 0.1, left: 0:00:01", 43),
    ],
)
def test_the_progress_bar_counts_the_epochs_of_all_rounds(
    line: str, done: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def run_module(*_: object, **__: object) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(stdout=[line + "\n", "saved: /job/model\n"], wait=lambda: 0)

    monkeypatch.setattr(local, "_run_module", run_module)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert local._run_job(tmp_path, {"/job/model": "mine"}, rounds=3) == 0
    captured = capsys.readouterr()
    assert captured.out == "saved: mine\n"
    assert f"{done}/60" in captured.err


def test_completion_is_offered() -> None:
    environment = {"_LSTM_FCN_COMPLETE": "bash_complete", "COMP_WORDS": "lstm-fcn ev", "COMP_CWORD": "1"}
    result = CliRunner().invoke(lstm_fcn, prog_name="lstm-fcn", env=environment)
    assert "evaluate" in result.output
