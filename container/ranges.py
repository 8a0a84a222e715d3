"""Search ranges of hyperparameters, for tuning on this machine and on SageMaker.

The notation: `8,64,128` lists values; `0.2:0.9` is every number between both bounds, bounds included;
`0.0001:0.1:log` is the same on a logarithmic scale.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from lstm_fcn.container.errors import UserError
from lstm_fcn.container.hyperparameters import PARAMETERS, parse_hyperparameters
from lstm_fcn.container.metrics import METRICS_BY_NAME

SCALES = ("auto", "linear", "log", "reverse-log")


@dataclass(frozen=True)
class Range:
    """The values to search for one hyperparameter: a list, or everything between two bounds.

    values: the list, as text; empty for a range between bounds.
    low, high: the bounds, both included; None for a list.
    scale: one of `SCALES`; `auto` is linear, or left to the service.
    """

    name: str
    values: tuple[str, ...] = ()
    low: int | float | None = None
    high: int | float | None = None
    scale: str = "auto"

    def __str__(self) -> str:
        if self.low is None:
            return ",".join(self.values)
        return f"{self.low}:{self.high}" + ("" if self.scale == "auto" else f":{self.scale}")


def parse_range(name: str, text: str) -> Range:
    """Read a range from its notation; every value in it must be allowed for the hyperparameter.

    Raises:
        UserError: the name is unknown or not tunable, or the text is not a range of allowed values.
    """
    if name not in PARAMETERS:
        parse_hyperparameters({name: "0"})  # raises: it suggests the nearest name
    if not PARAMETERS[name].search:
        tunable = ", ".join(p.name for p in PARAMETERS.values() if p.search)
        raise UserError(f"{name} cannot be tuned; set it to a single value. Tunable: {tunable}.")
    if ":" not in text:
        values = tuple(dict.fromkeys(str(_parse_value(name, value)) for value in text.split(",")))
        if len(values) < 2:
            raise UserError(f"{name}={text} is a single value, not a range; set {name} instead of tuning it.")
        return Range(name, values)
    low_text, high_text, *rest = text.split(":")
    if len(rest) > 1 or not set(rest) <= set(SCALES):
        raise UserError(
            f"{name}={text} is not a range; write LOW:HIGH, LOW:HIGH:SCALE or VALUE,VALUE,VALUE. "
            f"Scales: {', '.join(SCALES)}."
        )
    low, high = _parse_value(name, low_text), _parse_value(name, high_text)
    if isinstance(low, str) or isinstance(high, str):
        raise UserError(f"{name}={text}: {name} is not a number; list the values to try: {name}=VALUE,VALUE.")
    if low >= high:
        raise UserError(f"{name}={text}: the lower bound must be less than the upper bound.")
    scale = rest[0] if rest else "auto"
    if scale == "log" and low <= 0:
        raise UserError(f"{name}={text}: the lower bound of a logarithmic range must be greater than 0.")
    if scale == "reverse-log" and not 0 <= low < high < 1:
        raise UserError(f"{name}={text}: a reverse logarithmic range must lie between 0 (included) and 1 (excluded).")
    return Range(name, (), low, high, scale)


def default_ranges(excluded: Iterable[str] = ()) -> list[Range]:
    """The ranges that are searched if the user names none, without the hyperparameters in `excluded`."""
    wanted = (p for p in PARAMETERS.values() if p.searched_by_default and p.name not in set(excluded))
    return [parse_range(p.name, p.search) for p in wanted]


def check_search(objective: str, ranges: Collection[Range], fixed: Mapping[str, str], has_validation: bool) -> None:
    """Check that the objective can be measured, and that the ranges fit the fixed hyperparameters.

    Raises:
        UserError: what contradicts what.
    """
    if objective not in METRICS_BY_NAME:
        raise UserError(f"Unknown objective {objective!r}; supported: {', '.join(METRICS_BY_NAME)}.")
    if not ranges:
        raise UserError("No hyperparameter has a range, so there is nothing to tune; add a range or set fewer values.")
    for item in ranges:
        if item.name in fixed:
            raise UserError(
                f"{item.name} is set to {fixed[item.name]} and also has the range {item}; use only one of them."
            )
        for value in item.values or (item.low, item.high):
            parse_hyperparameters({**fixed, item.name: str(value)})  # allowed beside the fixed ones
    held_out = parse_hyperparameters(fixed).validation_fraction > 0
    if objective.startswith("valid_") and not has_validation and not held_out:
        raise UserError(
            f"The objective {objective} needs validation data: give --validation, or hold out part of the training "
            "data, for example validation-fraction=0.2."
        )


def parse_assignments(option: str, texts: Iterable[str]) -> dict[str, str]:
    """`NAME=VALUE` pairs from a command line.

    Args:
        option: the option that gave the texts, for messages.
        texts: such as `epochs=400`.

    Raises:
        UserError: a text is not NAME=VALUE, or a name occurs twice.
    """
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise UserError(f"{option} {text} must be NAME=VALUE.")
        if name in pairs:
            raise UserError(f"{option} sets {name} twice.")
        pairs[name] = value
    return pairs


def explicit(values: Mapping[str, str]) -> dict[str, str]:
    """The hyperparameters in `values`, checked and in their usual spelling; values of a preset are not added.

    Raises:
        UserError: as `parse_hyperparameters`.
    """
    known = parse_hyperparameters(values).model_dump(by_alias=True)
    return {name: str(known[name]) for name in values if name in known}


def _parse_value(name: str, text: str) -> int | float | str:
    values = parse_hyperparameters({name: text}).model_dump(by_alias=True, exclude_unset=True)
    if name not in values:
        raise UserError(f"{name}={text!r} is empty; give a value.")
    value: int | float | str = values[name]
    return value
