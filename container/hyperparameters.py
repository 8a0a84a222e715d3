"""The table of hyperparameters: names, types, ranges, defaults and help.

Parsing, `train --help` and the page in `docs/` all come from `Hyperparameters`.
`python -m lstm_fcn.container.hyperparameters > docs/hyperparameters.md` writes the page.
"""

import difflib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from lstm_fcn.container.errors import UserError

# Written by the platform and its SDKs beside the user's own, with no meaning for us (T21).
_PLATFORM_PREFIXES = ("sagemaker_", "_tuning_objective_metric")


def _decode(value: object) -> object:
    """Undo the four encodings in which one value may arrive (T19): `abc`, `"abc"`, `True`, `1e-05`."""
    if isinstance(value, bool):
        return str(value)  # pydantic would take True for the number 1
    if not isinstance(value, str):
        return value
    text = value.strip()
    try:
        decoded = json.loads(text)
    except ValueError:
        return text
    # Numbers stay text so that "007" and "1e400" are judged by the field's own rules.
    return decoded.strip() if isinstance(decoded, str) else text


def _whole_number(value: object) -> object:
    """`10`, `10.0` and `1e1` are all the integer 10 (T20)."""
    if not isinstance(value, str):
        return value
    number = float(value)
    if "_" in value or not number.is_integer() or abs(number) > 2**53:
        raise ValueError(value)
    return int(number)


def _lower_case(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


_Choice = BeforeValidator(_lower_case)
Integer = Annotated[int, BeforeValidator(_whole_number)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Switch = Annotated[Literal["true", "false"], _Choice]


class Hyperparameters(BaseModel):
    """What a user can set for a training job. Ranges include both ends."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=lambda name: name.replace("_", "-"), populate_by_name=False
    )

    task: Annotated[Literal["auto", "binary", "multiclass", "multilabel"], _Choice] = Field(
        "auto",
        description="auto: multilabel if a row's `y` columns hold several ones or none, else binary or multiclass",
    )
    num_variables: Integer = Field(
        1,
        ge=1,
        le=10000,
        description="variables of each series; a headerless row has all values of the first one, then those of the "
        "next. A header with columns `x_<variable>_<step>` tells it by itself",
    )
    recurrent: Annotated[Literal["lstm", "alstm", "gru", "rnn", "dense", "none"], _Choice] = Field(
        "lstm",
        description="recurrent block; alstm: LSTM with attention; dense: a dense layer in its place; none: the "
        "convolutions alone",
    )
    convolutions: Switch = Field("true", description="false: the recurrent block alone")
    dimension_shuffle: Switch = Field(
        "true", description="true: the recurrent block sees each variable as one step; false: each time step as one"
    )
    squeeze_excite: Annotated[Literal["auto", "true", "false"], _Choice] = Field(
        "auto",
        description="squeeze-and-excite after the first two convolutions (MLSTM-FCN); auto: for several variables",
    )
    ensemble_size: Integer = Field(
        1,
        ge=1,
        le=100,
        description="networks, from the seeds `seed`, `seed` + 1, ...; their probabilities are averaged",
    )
    num_layers: Integer = Field(1, ge=1, le=8, description="recurrent layers, one after the other")
    hidden_size: Integer = Field(8, ge=1, le=4096, description="cells of each recurrent layer")
    dropout: Number = Field(0.8, ge=0.0, le=0.99, description="dropout rate after each recurrent layer")
    filters_1: Integer = Field(128, ge=1, le=4096, description="filters of the first convolution")
    filters_2: Integer = Field(256, ge=1, le=4096, description="filters of the second convolution")
    filters_3: Integer = Field(128, ge=1, le=4096, description="filters of the third convolution")
    kernel_size_1: Integer = Field(8, ge=1, le=1024, description="width of the first convolution, in time steps")
    kernel_size_2: Integer = Field(5, ge=1, le=1024, description="width of the second convolution, in time steps")
    kernel_size_3: Integer = Field(3, ge=1, le=1024, description="width of the third convolution, in time steps")
    lr: Number = Field(0.001, ge=1e-7, le=1.0, description="learning rate of Adam; the peak of a one-cycle schedule")
    batch_size: Integer = Field(
        128,
        ge=1,
        le=65536,
        description="series in one step, at most; an epoch's series are spread evenly over its steps",
    )
    epochs: Integer = Field(2000, ge=1, le=20000, description="passes over the training data")
    seed: Integer = Field(0, ge=0, le=2**31 - 1, description="seed of every random number")
    scaling: Annotated[Literal["dataset", "series", "none"], _Choice] = Field(
        "dataset",
        description="scale by mean and standard deviation: of the training set, or of each series",
    )
    missing_values: Annotated[Literal["error", "interpolate"], _Choice] = Field(
        "error", description="empty and NaN cells: refused, or filled on the line between their neighbours"
    )
    length_policy: Annotated[Literal["error", "pad", "resample"], _Choice] = Field(
        "error",
        description="series of different length: refused, padded with their last value, or resampled to the length "
        "of the longest row. Missing values at the end of a row are then the end of the series",
    )
    class_weight: Annotated[Literal["balanced", "none"], _Choice] = Field(
        "balanced", description="balanced: a rare class counts as much as a frequent one"
    )
    lr_schedule: Annotated[Literal["plateau", "one-cycle", "constant"], _Choice] = Field(
        "plateau",
        description="plateau (the paper): times 2^(-1/3) after 100 epochs without a lower training loss, down to 1e-4; "
        "one-cycle: up to lr and down to almost zero over all epochs, which needs far fewer of them",
    )
    fine_tune_rounds: Integer = Field(
        0,
        ge=0,
        le=10,
        description="further rounds of `epochs` each (the paper's algorithm 1), from the best weights so far, with "
        "lr and batch-size halved each time",
    )
    early_stopping_patience: Integer = Field(
        0,
        ge=0,
        le=20000,
        description="epochs without a lower validation loss (training loss without validation data) after which a "
        "round ends; 0: never",
    )
    validation_fraction: Number = Field(
        0.0,
        ge=0.0,
        le=0.9,
        description="share of the training data held out for validation, drawn from each class alike",
    )
    checkpoint_epochs: Integer = Field(
        0, ge=0, le=20000, description="epochs from one checkpoint to the next; 0: by time only"
    )
    checkpoint_minutes: Number = Field(
        5.0, ge=0.0, le=1440.0, description="minutes from one checkpoint to the next; 0: by epochs only"
    )
    precision: Annotated[Literal["auto", "float32", "bfloat16"], _Choice] = Field(
        "auto",
        description="arithmetic of the training steps; auto: bfloat16 where the hardware has it. The model is float32",
    )


def parse_hyperparameters(raw: Mapping[str, Any]) -> Hyperparameters:
    """Hyperparameters from a job's strings (T18 to T22).

    Raises:
        UserError: names every unknown name, wrong type and value out of range at once (M10).
    """
    fields = fields_by_name()
    given = {}
    for name, value in raw.items():
        if name.startswith(_PLATFORM_PREFIXES):
            continue
        decoded = _decode(value)
        if decoded is None or decoded in ("None", "null", ""):
            # Unset on the caller's side (T19): the default, unless the field has a choice called none.
            if name in fields and "none" not in _choices(fields[name]):
                continue
            decoded = "none"
        given[name] = decoded
    try:
        settings = Hyperparameters.model_validate(given)
    except ValidationError as error:
        problems = [_problem(str(item["loc"][0]), raw) for item in error.errors()]
        raise UserError("Hyperparameters: " + " ".join(problems)) from error
    if settings.recurrent == "none" and settings.convolutions == "false":
        raise UserError(
            "Hyperparameters: recurrent=none with convolutions=false leaves no network; change one of them."
        )
    return settings


def _problem(name: str, raw: Mapping[str, Any]) -> str:
    fields = fields_by_name()
    if name not in fields:
        close = difflib.get_close_matches(name.lower().replace("_", "-"), fields, n=1)
        advice = f"did you mean {close[0]}?" if close else f"known are {', '.join(fields)}."
        return f"{name} is unknown; {advice}"
    return f"{name}={raw[name]} must be {_allowed(fields[name])}."


def fields_by_name() -> dict[str, FieldInfo]:
    """The table: what is declared of each hyperparameter, by its name."""
    return {name.replace("_", "-"): info for name, info in Hyperparameters.model_fields.items()}


def _allowed(info: FieldInfo) -> str:
    """The values that a field takes, in words: `an integer from 1 to 8`, `dataset, series or none`."""
    choices = _choices(info)
    if choices:
        return ", ".join(choices[:-1]) + " or " + choices[-1]
    low = next(item.ge for item in info.metadata if isinstance(item, Ge))
    high = next(item.le for item in info.metadata if isinstance(item, Le))
    kind = "an integer" if info.annotation is int else "a number"
    return f"{kind} from {low} to {high}"


def _choices(info: FieldInfo) -> tuple[str, ...]:
    return get_args(info.annotation) if get_origin(info.annotation) is Literal else ()


def markdown_table() -> str:
    """The hyperparameters as a Markdown table."""
    rows = ["| name | default | values | meaning |", "|---|---|---|---|"]
    for name, info in fields_by_name().items():
        rows.append(f"| `{name}` | {info.default} | {_allowed(info)} | {info.description} |")
    return "\n".join(rows)


PAGE = """# Hyperparameters

| where | how |
|---|---|
| `lstm-fcn train` | `--epochs 200 --lr-schedule one-cycle` |
| a training job: `input/config/hyperparameters.json` | `{"epochs": "200", "lr-schedule": "one-cycle"}` |
| `lstm-fcn tune`, `lstm-fcn sagemaker train` and `tune` | `--set epochs=200 --set lr-schedule=one-cycle` |

What is not given takes its default; what is unknown, of the wrong type or out of range is refused, all of it at once,
before any data is read. Values may be JSON strings or numbers: `"10"`, `10` and `10.0` are the same integer. An empty
value, `None` or `null` stands for the default, where `none` is no value itself. Names that start with `sagemaker_`, and
`_tuning_objective_metric`, are SageMaker's own and are passed over.

The defaults are the paper's protocol. For results like it in a tenth of the time use `epochs` 200, `lr` 0.005,
`lr-schedule` one-cycle. Which networks they make: [models](models.md). How to search for good ones:
[tuning](tuning.md).

{table}

This page comes from the table in `container/hyperparameters.py`:
`python -m lstm_fcn.container.hyperparameters > docs/hyperparameters.md`.
"""


def help_text() -> str:
    """The hyperparameters as plain text, for `train --help`."""
    return "\n".join(
        f"  {name:<14} {info.default!s:<9} {_allowed(info)}\n{'':26}{info.description}"
        for name, info in fields_by_name().items()
    )


if __name__ == "__main__":
    print(PAGE.replace("{table}", markdown_table()), end="")
