"""Hyperparameters as options of a command, and from a file."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from lstm_fcn.client.options import given_hyperparameters, hyperparameter_options
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.hyperparameters import PARAMETERS


@click.command()
@hyperparameter_options
def command(**options: object) -> None:
    click.echo(given_hyperparameters(options))


def given(*arguments: str) -> str:
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    return result.output.strip()


def test_every_hyperparameter_is_an_option() -> None:
    options = {option for parameter in command.params for option in parameter.opts}
    assert options == {f"--{name}" for name in PARAMETERS} | {"--hyperparameters"}


def test_options_override_the_file(tmp_path: Path) -> None:
    path = tmp_path / "hyperparameters.json"
    path.write_text('\ufeff{"lr": "0.01", "epochs": 7, "recurrent": null}')
    assert given("--hyperparameters", str(path), "--lr", "0.002") == "{'lr': '0.002', 'epochs': '7', 'recurrent': ''}"
    assert given("--lr-schedule", "Constant") == "{'lr-schedule': 'constant'}"
    assert given() == "{}"


@pytest.mark.parametrize(
    ("content", "message"),
    [("[1]", "must hold a JSON object such as .*, not list"), ("{", "h.json cannot be read as JSON: Expecting")],
)
def test_a_file_without_hyperparameters_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "h.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        given("--hyperparameters", str(path))
