"""Hyperparameters as command-line options, from the table in `container.hyperparameters`."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from lstm_fcn.container.hyperparameters import PARAMETERS, Parameter

Command = TypeVar("Command", bound=Callable[..., object])


def hyperparameter_options(command: Command) -> Command:
    """Give a command an option for each hyperparameter: `--epochs 200`; None where it is not given."""
    for parameter in reversed(PARAMETERS.values()):
        option = click.option(
            f"--{parameter.name}",
            parameter.name.replace("-", "_"),
            type=_type(parameter),
            help=f"{parameter.help} [{parameter.default}]",
        )
        command = option(command)
    return command


def given_hyperparameters(options: dict[str, Any]) -> dict[str, str]:
    """The hyperparameters among a command's options that were given, as a job takes them."""
    given = {name.replace("_", "-"): value for name, value in options.items() if value is not None}
    return {name: str(given[name]) for name in PARAMETERS if name in given}


def _type(parameter: Parameter) -> click.ParamType[Any]:
    if parameter.kind == "choice":
        return click.Choice(parameter.choices, case_sensitive=False)
    if parameter.kind == "integer":
        return click.IntRange(parameter.low, parameter.high)  # type: ignore[arg-type]
    return click.FloatRange(parameter.low, parameter.high)
