"""The table of hyperparameters: names, types, ranges, defaults, presets, search ranges and help.

Parsing, help texts, command-line options, the SageMaker specification, tuning and `docs/hyperparameters.md` are
generated from `Hyperparameters`: `python -m lstm_fcn.container.hyperparameters > docs/hyperparameters.md`.
"""

import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from lstm_fcn.container.errors import UserError

# Added by SageMaker and its SDKs to the user's hyperparameters; they have no effect on training (T21).
_PLATFORM_PREFIXES = ("sagemaker_", "_tuning_objective_metric")

# What each preset sets. A hyperparameter that the user sets always wins.
PRESETS: dict[str, dict[str, str]] = {
    "default": {},
    "best": {"ensemble-size": "4"},
    # Karim et al. 2017, section 4, and the code published with it.
    "paper": {
        "epochs": "2000",
        "lr": "0.001",
        "lr-schedule": "plateau",
        "batch-size": "128",
        "class-weight": "balanced",
        "views": "values",
        "dilations": "1",
        "kernel-features": "0",
    },
}


Views = Literal["auto", "values", "differences", "deviations", "values+differences", "values+differences+deviations"]


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


def search(text: str, by_default: bool = False) -> dict[str, Any]:
    """The range in which tuning searches, in the notation of `container.ranges`."""
    return {"search": text, "searched_by_default": by_default}


class Hyperparameters(BaseModel):
    """The settings of a training job. Ranges include both ends."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=lambda name: name.replace("_", "-"), populate_by_name=False
    )

    preset: Annotated[Literal["default", "best", "paper"], _Choice] = Field(
        "default",
        description="default: one network and kernel features; best: four different networks, more accurate and "
        "about four times as slow; paper: the network of Karim et al. 2017 alone, with their "
        "settings. Hyperparameters that are set explicitly override the preset",
    )
    task: Annotated[Literal["auto", "binary", "multiclass", "multilabel"], _Choice] = Field(
        "auto",
        description="auto: multilabel if in any row not exactly one `y` column is 1, else binary or multiclass",
    )
    num_variables: Integer = Field(
        1,
        ge=1,
        le=10000,
        description="variables of each series; a row without header holds all values of the first variable, then "
        "all values of the next. A header with columns `x_<variable>_<step>` sets it automatically",
    )
    recurrent: Annotated[Literal["lstm", "alstm", "gru", "rnn", "dense", "none"], _Choice] = Field(
        "lstm",
        description="recurrent block; alstm: LSTM with attention; dense: a dense layer in its place; none: the "
        "convolutions alone",
        json_schema_extra=search("lstm,alstm,gru", by_default=True),
    )
    views: Annotated[Views, _Choice] = Field(
        "auto",
        description="what the network sees of each variable: its values, their first differences, their deviations "
        "from the mean series of the training set. auto: values and differences; in an ensemble, each network has "
        "other views (see [models](models.md))",
        json_schema_extra=search("values,values+differences,values+differences+deviations"),
    )
    convolutions: Switch = Field("true", description="false: the recurrent block alone")
    dimension_shuffle: Switch = Field(
        "true",
        description="true: the recurrent block sees each variable as one step; false: each time step as one",
        json_schema_extra=search("true,false"),
    )
    squeeze_excite: Annotated[Literal["auto", "true", "false"], _Choice] = Field(
        "auto",
        description="squeeze-and-excite after the first two convolutions (MLSTM-FCN); auto: for several variables",
        json_schema_extra=search("true,false"),
    )
    ensemble_size: Integer = Field(
        1,
        ge=1,
        le=100,
        description="networks, from the seeds `seed`, `seed` + 1, ...; their probabilities are averaged",
    )
    num_layers: Integer = Field(
        1,
        ge=1,
        le=8,
        description="recurrent layers, one after the other",
        json_schema_extra=search("1,2", by_default=True),
    )
    hidden_size: Integer = Field(
        8,
        ge=1,
        le=4096,
        description="cells of each recurrent layer",
        json_schema_extra=search("8,64,128", by_default=True),
    )
    dropout: Number = Field(
        0.8,
        ge=0.0,
        le=0.99,
        description="dropout rate after each recurrent layer",
        json_schema_extra=search("0.2:0.9", by_default=True),
    )
    filters_1: Integer = Field(
        128, ge=1, le=4096, description="filters of the first convolution", json_schema_extra=search("32,64,128,256")
    )
    filters_2: Integer = Field(
        256, ge=1, le=4096, description="filters of the second convolution", json_schema_extra=search("64,128,256,512")
    )
    filters_3: Integer = Field(
        128, ge=1, le=4096, description="filters of the third convolution", json_schema_extra=search("32,64,128,256")
    )
    kernel_size_1: Integer = Field(
        8, ge=1, le=1024, description="width of the first convolution, in time steps", json_schema_extra=search("4:16")
    )
    kernel_size_2: Integer = Field(
        5, ge=1, le=1024, description="width of the second convolution, in time steps", json_schema_extra=search("3:9")
    )
    kernel_size_3: Integer = Field(
        3, ge=1, le=1024, description="width of the third convolution, in time steps", json_schema_extra=search("2:5")
    )
    dilations: Annotated[Literal["auto", "1", "1+2", "1+2+4", "1+2+4+8"], _Choice] = Field(
        "auto",
        description="distances, in time steps, between the weights of the first convolution; its filters are divided "
        "among several, which see patterns of different length. auto: 1+2+4+8; in an ensemble, the networks differ",
        json_schema_extra=search("1,1+2+4+8"),
    )
    kernel_features: Integer = Field(
        2000,
        ge=0,
        le=20000,
        description="features of fixed convolutional kernels (Dempster et al. 2021), read by a linear layer whose "
        "probabilities are averaged with those of the networks. Rounded to a multiple of 84; 0: networks alone",
    )
    lr: Number = Field(
        0.005,
        ge=1e-7,
        le=1.0,
        description="learning rate of Adam; the peak of a one-cycle schedule",
        json_schema_extra=search("0.0001:0.01:log", by_default=True),
    )
    batch_size: Integer = Field(
        0,
        ge=0,
        le=65536,
        description="maximum number of series in one step; the series of an epoch are spread evenly over its steps. "
        "0: an eighth of the training series, at least 16 and at most 64",
        json_schema_extra=search("16:128:log", by_default=True),
    )
    epochs: Integer = Field(
        0,
        ge=0,
        le=20000,
        description="passes over the training data. 0: so many that there are enough steps and no more (see "
        "[models](models.md)); a network that has not learned the training data by then is trained on",
    )
    seed: Integer = Field(0, ge=0, le=2**31 - 1, description="seed of every random number")
    scaling: Annotated[Literal["dataset", "series", "none"], _Choice] = Field(
        "dataset",
        description="scale by mean and standard deviation: of the training set, or of each series",
        json_schema_extra=search("dataset,series"),
    )
    missing_values: Annotated[Literal["error", "interpolate"], _Choice] = Field(
        "error", description="empty and NaN cells: refused, or interpolated linearly between their neighbours"
    )
    length_policy: Annotated[Literal["error", "pad", "resample"], _Choice] = Field(
        "error",
        description="series of different length: refused, padded with their last value, or resampled to the length "
        "of the longest row. Missing values at the end of a row are then the end of the series",
    )
    class_weight: Annotated[Literal["balanced", "none"], _Choice] = Field(
        "none",
        description="balanced: a rare class counts as much as a frequent one; none: every series counts the same",
    )
    lr_schedule: Annotated[Literal["plateau", "one-cycle", "constant"], _Choice] = Field(
        "one-cycle",
        description="one-cycle: rises to lr, then falls to almost zero over all epochs; plateau (the paper): "
        "multiplied by 2^(-1/3) after 100 epochs without a lower training loss, down to 1e-4",
        json_schema_extra=search("plateau,one-cycle"),
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
        description="share of the training data held out for validation, the same share of each class",
    )
    cross_validation_folds: Integer = Field(
        0,
        ge=0,
        le=100,
        description="without validation data: predict each of this many parts of the training data by a model that was "
        "trained on the others, report the result as validation metrics, then train the model on all data; 0: do not",
    )
    checkpoint_epochs: Integer = Field(
        0, ge=0, le=20000, description="epochs from one checkpoint to the next; 0: by time only"
    )
    checkpoint_minutes: Number = Field(
        5.0, ge=0.0, le=1440.0, description="minutes from one checkpoint to the next; 0: by epochs only"
    )
    device: Annotated[Literal["auto", "cpu", "gpu"], _Choice] = Field(
        "auto",
        description="where to train; auto: on the GPUs of the machine; on the CPU if it has none; an error if torch "
        "cannot use a GPU of the machine",
    )
    precision: Annotated[Literal["auto", "float32", "bfloat16"], _Choice] = Field(
        "auto",
        description="arithmetic of the training steps; auto: bfloat16 where the hardware has it. The model is float32",
    )

    def with_schedule(self, series: int) -> "Hyperparameters":
        """The same settings, with `batch-size=0` and `epochs=0` replaced by what suits this many training series."""
        batch_size = self.batch_size or min(max(series // 8, 16), 64)
        return self.model_copy(
            update={"batch_size": batch_size, "epochs": self.epochs or choose_epochs(series, batch_size)}
        )


MANY_SERIES = 512  # for more, the steps grow with the square root of their number
STEPS = 1600  # for that many series
MOST_EPOCHS = 200


def choose_epochs(series: int, batch_size: int) -> int:
    """Epochs for this many training series: `MOST_EPOCHS` for up to `MANY_SERIES` of them."""
    steps = STEPS * math.sqrt(max(1.0, series / MANY_SERIES))
    return max(1, min(MOST_EPOCHS, round(steps / math.ceil(series / batch_size))))


@dataclass(frozen=True)
class Parameter:
    """One row of the table.

    low, high: bounds of a number, both included; None for a choice.
    choices: the allowed values of a choice; empty for a number.
    search: range in which tuning searches, in the notation of `container.ranges`; empty: not tunable. A
        hyperparameter is not tunable if it describes the data, defines the objective, only improves the model by
        taking more time, is the seed, or has no influence on the model.
    searched_by_default: tuned if the user names no ranges.
    """

    name: str
    kind: Literal["integer", "number", "choice"]
    default: int | float | str
    help: str
    low: int | float | None = None
    high: int | float | None = None
    choices: tuple[str, ...] = ()
    search: str = ""
    searched_by_default: bool = False

    @property
    def allowed(self) -> str:
        """The allowed values in words: `an integer from 1 to 8`, `dataset, series or none`."""
        if self.kind == "choice":
            return ", ".join(self.choices[:-1]) + " or " + self.choices[-1]
        kind = "an integer" if self.kind == "integer" else "a number"
        return f"{kind} from {self.low} to {self.high}"


def _read_table() -> dict[str, Parameter]:
    table = {}
    for name, schema in Hyperparameters.model_json_schema()["properties"].items():
        table[name] = Parameter(
            name=name,
            kind="choice" if "enum" in schema else schema["type"],
            default=schema["default"],
            help=schema["description"],
            low=schema.get("minimum"),
            high=schema.get("maximum"),
            choices=tuple(schema.get("enum", ())),
            search=schema.get("search", ""),
            searched_by_default=schema.get("searched_by_default", False),
        )
    return table


PARAMETERS = _read_table()


def parse_hyperparameters(raw: Mapping[str, Any]) -> Hyperparameters:
    """Hyperparameters from a job's strings (T18 to T22), completed by their preset.

    Raises:
        UserError: names every unknown name, wrong type and value out of range at once (M10).
    """
    given = {}
    for name, value in raw.items():
        if name.startswith(_PLATFORM_PREFIXES):
            continue
        decoded = _decode(value)
        if decoded is None or decoded in ("None", "null", ""):
            # Not set by the caller (T19): the default, unless the parameter has a choice called none.
            if name in PARAMETERS and "none" not in PARAMETERS[name].choices:
                continue
            decoded = "none"
        given[name] = decoded
    preset = PRESETS.get(str(given.get("preset")).lower(), {})
    try:
        settings = Hyperparameters.model_validate(preset | given)
    except ValidationError as error:
        problems = [_problem(str(item["loc"][0]), raw) for item in error.errors()]
        raise UserError("Hyperparameters: " + " ".join(problems)) from error
    if settings.recurrent == "none" and settings.convolutions == "false":
        raise UserError(
            "Hyperparameters: recurrent=none with convolutions=false leaves no network; change one of them."
        )
    if settings.cross_validation_folds == 1:
        raise UserError("Hyperparameters: cross-validation-folds=1 leaves nothing to train on; use at least 2, or 0.")
    return settings


def changed(hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameters of a model that differ from the defaults."""
    usual = parse_hyperparameters({}).model_dump(by_alias=True)
    return {name: value for name, value in hyperparameters.items() if value != usual.get(name)}


def _problem(name: str, raw: Mapping[str, Any]) -> str:
    if name not in PARAMETERS:
        close = difflib.get_close_matches(name.lower().replace("_", "-"), PARAMETERS, n=1)
        advice = f"did you mean {close[0]}?" if close else f"supported: {', '.join(PARAMETERS)}."
        return f"{name} is unknown; {advice}"
    return f"{name}={raw[name]} must be {PARAMETERS[name].allowed}."


def markdown_table() -> str:
    """The hyperparameters as a Markdown table."""
    rows = ["| name | default | values | description |", "|---|---|---|---|"]
    rows += [f"| `{p.name}` | {p.default} | {p.allowed} | {p.help} |" for p in PARAMETERS.values()]
    return "\n".join(rows)


def preset_table() -> str:
    """What each preset changes, as a Markdown table."""
    rows = ["| preset | sets |", "|---|---|"]
    for name, values in PRESETS.items():
        rows.append(f"| `{name}` | {', '.join(f'`{n}={v}`' for n, v in values.items()) or 'the defaults below'} |")
    return "\n".join(rows)


PAGE = """# Hyperparameters

You need to set none of them. To set some:

| where | how |
|---|---|
| `lstm-fcn train`, `lstm-fcn tune` | `--epochs 400 --recurrent gru`, or `--hyperparameters FILE.json` |
| a training job: `input/config/hyperparameters.json` | `{"epochs": "400", "recurrent": "gru"}` |
| `lstm-fcn sagemaker train`, `lstm-fcn sagemaker tune` | `--set epochs=400 --set recurrent=gru` |

Unknown names, wrong types and values out of range are refused, all at once, before any data is read. Values may be JSON
strings or numbers: `"10"`, `10` and `10.0` are the same integer. An empty value, `None` or `null` selects the default
(except where `none` is one of the allowed values). Names starting with `sagemaker_` and the name
`_tuning_objective_metric` are reserved by SageMaker and ignored.

{presets}

The networks that these settings describe are explained in [models](models.md). To search for good values, see
[tuning](tuning.md).

{table}

This page is generated from the table in `container/hyperparameters.py`:
`python -m lstm_fcn.container.hyperparameters > docs/hyperparameters.md`.
"""


def help_text() -> str:
    """The hyperparameters as plain text, for `train --help`."""
    return "\n".join(f"  {p.name:<14} {p.default!s:<9} {p.allowed}\n{'':26}{p.help}" for p in PARAMETERS.values())


if __name__ == "__main__":
    print(PAGE.replace("{presets}", preset_table()).replace("{table}", markdown_table()), end="")
