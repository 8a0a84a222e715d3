"""Hyperparameters as command-line options, from the table in `container.hyperparameters`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from lstm_fcn.container.errors import UserError
from lstm_fcn.container.hyperparameters import PARAMETERS, Parameter

Command = TypeVar("Command", bound=Callable[..., object])


def hyperparameter_options(command: Command) -> Command:
    """Add an option for each hyperparameter to a command (`--epochs 200`), and `--hyperparameters` for a file of them.

    `given_hyperparameters` reads them from the keyword arguments that the command is called with.
    """
    for parameter in reversed(PARAMETERS.values()):
        option = click.option(
            f"--{parameter.name}",
            parameter.name.replace("-", "_"),
            type=_type(parameter),
            help=f"{parameter.help} [{parameter.default}]",
        )
        command = option(command)
    return click.option(
        "--hyperparameters",
        "hyperparameter_file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="JSON file of hyperparameters, such as the one that `lstm-fcn tune` writes; the options below override it",
    )(command)


def given_hyperparameters(options: dict[str, Any]) -> dict[str, str]:
    """The hyperparameters among a command's options that were given, and those of the file that was given.

    Raises:
        UserError: the file cannot be read.
    """
    file = options.get("hyperparameter_file")
    given = {name.replace("_", "-"): value for name, value in options.items() if value is not None}
    in_file = read_hyperparameters(file) if file else {}
    return in_file | {name: str(given[name]) for name in PARAMETERS if name in given}


def read_hyperparameters(path: Path) -> dict[str, str]:
    """Hyperparameters from a JSON file, in the form of a training job's `hyperparameters.json`.

    Names and values are checked with the rest of the hyperparameters, by `parse_hyperparameters`.

    Raises:
        UserError: the file cannot be read, or does not hold a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f'{path} must hold a JSON object such as {{"epochs": "400"}}, not {type(content).__name__}.')
    return {name: "" if value is None else str(value) for name, value in content.items()}


def _type(parameter: Parameter) -> "click.ParamType[Any]":  # generic since click 8.2
    if parameter.kind == "choice":
        return click.Choice(parameter.choices, case_sensitive=False)
    if parameter.kind == "integer":
        return click.IntRange(parameter.low, parameter.high)  # type: ignore[arg-type]
    return click.FloatRange(parameter.low, parameter.high)


def spread_options(command: Command) -> Command:
    """Add the options `--workers` and `--ray` to a command."""
    command = click.option(
        "--ray", "cluster", metavar="ADDRESS", help="address of a Ray cluster to use: auto or HOST:PORT"
    )(command)
    return click.option("--workers", type=click.IntRange(1), help="processes [one per core]")(command)
