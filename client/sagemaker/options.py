"""Command-line options of `lstm-fcn sagemaker`, made from the settings of jobs and endpoints."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from functools import reduce
from typing import Any, get_origin

import click

from lstm_fcn.client.sagemaker.jobs import KINDS
from lstm_fcn.client.sagemaker.request import BASE_NAME, Common
from lstm_fcn.container.hyperparameters import PARAMETERS
from lstm_fcn.container.ranges import Range, default_ranges, parse_assignments, parse_range

Decorator = Callable[[Any], Any]


def options(*decorators: Decorator) -> Decorator:
    """Several options as one decorator; `--help` lists them in this order."""
    return lambda command: reduce(lambda decorated, option: option(decorated), reversed(decorators), command)


def settings_options(settings: type, *excluded: str) -> Decorator:
    """An option for each field of a dataclass of settings; required options come first, common ones last."""
    common = {item.name for item in fields(Common)}
    chosen = [item for item in fields(settings) if item.name not in excluded]
    chosen.sort(key=lambda item: (not _is_required(item), item.name in common and item.name not in ("image", "role")))
    return options(*map(_option, chosen))


def _is_required(item: "Field[Any]") -> bool:
    return item.default is MISSING and item.default_factory is MISSING


def _option(item: "Field[Any]") -> Decorator:
    details = item.metadata
    arguments: dict[str, Any] = {"help": details.get("help"), "metavar": details.get("metavar")}
    if item.type is bool:
        arguments |= {"is_flag": True}
    elif get_origin(item.type) is Mapping:
        arguments |= {"multiple": True, "callback": _assignments}
    elif get_origin(item.type) is Sequence:
        arguments |= {"multiple": True}
    elif _is_required(item):
        arguments |= {"required": True}
    else:
        arguments |= {"default": item.default or None, "show_default": True}
    if choices := details.get("choices"):
        arguments |= {"type": click.Choice(choices, case_sensitive=False), "metavar": f"[{'|'.join(choices)}]"}
    elif item.type in (int, int | None):
        arguments |= {"type": click.IntRange(1 if item.default else 0)}
    elif item.type is float:
        arguments |= {"type": float}
    return click.option("--" + (details.get("name") or item.name.replace("_", "-")), item.name, **arguments)


def _assignments(_: click.Context, parameter: click.Parameter, values: Iterable[str]) -> dict[str, str]:
    return parse_assignments(parameter.opts[0], values)


def _ranges(_: click.Context, __: click.Parameter, values: Iterable[str]) -> list[Range]:
    """`lr=0.0001:0.1:log`, or a name alone for the default range of a hyperparameter."""
    found = []
    for text in values:
        name, equals, notation = text.partition("=")
        known = PARAMETERS.get(name)
        found.append(parse_range(name, notation if equals or not known else known.search))
    return found


RANGE = click.option(
    "--range",
    "ranges",
    multiple=True,
    metavar="NAME=RANGE",
    callback=_ranges,
    help="such as lr=0.0001:0.1:log or hidden-size=8,64,128; a name alone selects its default range "
    f"[{', '.join(item.name for item in default_ranges())}]",
)
CAPTURE = click.option(
    "--data-capture", type=(click.IntRange(1, 100), str), metavar="PERCENT S3", help="keep requests and responses"
)
FROM_JOB = click.option("--from-job", default="", metavar="NAME", help="model of this training job")
DRY_RUN = click.option("--dry-run", is_flag=True, help="print the requests and create nothing")
NAMING = options(
    click.option("--name", default="", help="[base name and time]"),
    click.option("--base-name", default=BASE_NAME, show_default=True),
    DRY_RUN,
)
KIND = click.option("--kind", type=click.Choice(list(KINDS)), callback=lambda _, __, label: KINDS.get(label))
