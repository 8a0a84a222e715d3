"""Hyperparameters as command-line options, from the table in `container.hyperparameters`."""

from collections.abc import Callable
from typing import Any, TypeVar, get_args, get_origin

import click
from annotated_types import Ge, Le
from pydantic.fields import FieldInfo

from lstm_fcn.container.hyperparameters import fields_by_name

Command = TypeVar("Command", bound=Callable[..., object])


def hyperparameter_options(command: Command) -> Command:
    """Give a command an option for each hyperparameter: `--epochs 200`; None where it is not given."""
    for name, info in reversed(fields_by_name().items()):
        option = click.option(
            f"--{name}", name.replace("-", "_"), type=_type(info), help=f"{info.description} [{info.default}]"
        )
        command = option(command)
    return command


def given_hyperparameters(options: dict[str, Any]) -> dict[str, str]:
    """The hyperparameters among a command's options that were given, as a job takes them."""
    given = {name.replace("_", "-"): value for name, value in options.items() if value is not None}
    return {name: str(given[name]) for name in fields_by_name() if name in given}


def _type(info: FieldInfo) -> click.ParamType[Any]:
    if get_origin(info.annotation) is not None:
        return click.Choice(get_args(info.annotation), case_sensitive=False)
    low = next(item.ge for item in info.metadata if isinstance(item, Ge))
    high = next(item.le for item in info.metadata if isinstance(item, Le))
    return click.IntRange(low, high) if info.annotation is int else click.FloatRange(low, high)  # type: ignore[arg-type]
