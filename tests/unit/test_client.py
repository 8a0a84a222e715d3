"""`lstm-fcn`: its options come from the table of hyperparameters, and its errors say what to do."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from lstm_fcn.client.__main__ import COMMANDS, EXTRAS, lstm_fcn, main
from lstm_fcn.client.local import train
from lstm_fcn.client.options import given_hyperparameters
from lstm_fcn.container.hyperparameters import fields_by_name


def test_help_lists_every_command_without_loading_any() -> None:
    code = "import sys; from lstm_fcn.client.__main__ import main; main(['--help']); print(sorted(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    text, _, modules = result.stdout.rpartition("\n[")
    assert all(f"  {name} " in text for name in COMMANDS)
    for module in ("torch", "onnxruntime", "boto3", "optuna", "pandas", "matplotlib"):
        assert f"'{module}'" not in modules


def test_every_hyperparameter_is_an_option_of_train() -> None:
    options = {option for parameter in train.params for option in parameter.opts}
    assert {f"--{name}" for name in fields_by_name()} <= options


def test_only_what_is_given_goes_into_the_job() -> None:
    options = {"epochs": 200, "lr_schedule": "one-cycle", "lr": None, "hidden_size": None, "other": 3}
    assert given_hyperparameters(options) == {"epochs": "200", "lr-schedule": "one-cycle"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--output", "model"], "Missing option '--training'"),
        (["train", "--training", "nothing.csv", "--output", "model"], "Path 'nothing.csv' does not exist"),
        (["train", "--epochs", "0"], "0 is not in the range 1<=x<=20000"),
        (["train", "--lr-schedule", "cosine"], "'cosine' is not one of 'plateau', 'one-cycle', 'constant'"),
        (["train", "--epoch", "3"], "Did you mean '--epochs'?"),
        (["predict", "nothing", "-"], "There is no folder nothing; it should be the --output of lstm-fcn train."),
        (["serve", "nothing"], "There is no folder nothing; it should be the --output of lstm-fcn train."),
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
    monkeypatch.setitem(EXTRAS, "tune", ("tune", "no_such_package"))
    assert main(["tune"]) == 2
    expected = "tune needs the package no_such_package, which is not installed: pip install 'lstm-fcn[tune]'."
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("command", [["transform"]])
def test_help_names_the_command_that_was_typed(command: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--help"]) == 0
    assert capfd.readouterr().out.startswith(f"usage: lstm-fcn {' '.join(command)} [-h]")


def test_completion_is_offered() -> None:
    environment = {"_LSTM_FCN_COMPLETE": "bash_complete", "COMP_WORDS": "lstm-fcn ev", "COMP_CWORD": "1"}
    result = CliRunner().invoke(lstm_fcn, prog_name="lstm-fcn", env=environment)
    assert "evaluate" in result.output
