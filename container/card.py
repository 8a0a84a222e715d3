"""The model card: what a model is, how it was made and how to use it, in the form that model hubs show.

It is made from `model.json` alone, so that the same model has the same card wherever it was trained.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from lstm_fcn.container.errors import plural
from lstm_fcn.container.hyperparameters import changed
from lstm_fcn.container.problem import Problem

if TYPE_CHECKING:
    from lstm_fcn.container.artifact import Metadata

MARK = "library_name: lstm-fcn"  # in the first lines of every card
MOST_CLASSES = 50  # that are listed

CARD = """---
{mark}
tags:
- time-series-classification
- lstm-fcn
- onnx
---

# Time series classifier

A {task} classifier of time series: {members} (LSTM-FCN, [Karim et al. 2017](https://doi.org/10.1109/ACCESS.2017.2779939)).
It takes {series} and returns the probability of each of {count} classes.

## Figures

{figures}

## Data

{data}

## Settings

{settings}

## Limits

- It knows the classes of its training data only, and does not notice a series of another kind.
- It expects series that were recorded in the same way: {expected}.
- Its probabilities are not calibrated on new data, and its accuracy falls if the data changes after the training.

## Use

In Python, without torch:

```python
from lstm_fcn import LSTMFCNClassifier

model = LSTMFCNClassifier.load(".")  # this folder
labels = model.predict(series)  # {shape}
```

From a shell: `lstm-fcn predict . {file} --output predictions.csv`, or `lstm-fcn serve .` for HTTP. `model.onnx`
runs in any language that has ONNX Runtime; `model.json` says what it takes.
"""


def model_card(metadata: "Metadata") -> str:
    """The card of a model, as Markdown with a header for model hubs."""
    problem, settings = metadata.problem, metadata.hyperparameters
    networks = plural(settings.get("ensemble-size", 1), "network")
    with_kernels = " and kernel features" if settings.get("kernel-features") else ""
    length = "of any length" if problem.preprocessing.any_length else f"of {problem.length} values"
    shape = [str(problem.num_variables)] if problem.num_variables > 1 else []
    file = "recordings.parquet" if problem.preparation else "series.csv"
    expected = "the same sampling rate, unit and " + ("order of variables" if shape else "scale")
    return CARD.format(
        mark=MARK,
        task=problem.task,
        members=networks + with_kernels,
        series=f"series {length}" + (f", {problem.num_variables} variables each" if shape else ""),
        count=len(problem.classes),
        figures=_figures(metadata),
        data=_data(problem),
        settings=_settings(metadata),
        expected=expected,
        file=file,
        shape=f"[{', '.join(['N', *shape, 'T' if problem.preprocessing.any_length else str(problem.length)])}]",
    )


def may_be_written(path: Path) -> bool:
    """Whether there is no file at `path`, or a model card."""
    try:
        return MARK.encode() in path.read_bytes()[:100]
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _figures(metadata: "Metadata") -> str:
    """The metrics, and first where they come from."""
    settings, metrics = metadata.hyperparameters, metadata.metrics
    held_out = {name: value for name, value in metrics.items() if name.startswith("valid_")}
    if settings.get("cross-validation-folds"):
        origin = (
            f"Estimated by {settings['cross-validation-folds']}-fold cross-validation: each training series was "
            "predicted by a classifier that was trained without its fold. The model itself was trained on all series."
        )
    elif held_out:
        origin = "Measured on validation data, which was not trained on, but by which the best epoch was selected."
        if share := settings.get("validation-fraction"):
            origin += f" It is {share:.0%} of the training data, drawn at random"
            origin += ", whole groups of recordings at a time." if metadata.problem.preparation else "."
    else:
        held_out = metrics
        origin = (
            "**These are figures of the training data; they say little about new series.** Train with validation data "
            "or with `cross-validation-folds` for an estimate."
        )
    return f"{origin}\n\n" + _table(("metric", "value"), ((name, f"{value:.4f}") for name, value in held_out.items()))


def _data(problem: Problem) -> str:
    counts = list(zip(problem.classes, problem.class_counts or [""] * len(problem.classes), strict=True))
    text = ""
    if problem.preparation:
        text = (
            "The series are windows of recordings:\n\n"
            + _table(("", ""), problem.preparation.describe().items())
            + "\n\n"
        )
    text += f"{problem.series_count} training series:\n\n"
    text += _table(("class", "series"), counts[:MOST_CLASSES])
    return text + (f"\n\nand {len(counts) - MOST_CLASSES} more classes." if len(counts) > MOST_CLASSES else "")


def _settings(metadata: "Metadata") -> str:
    """What differs from the defaults, and the versions."""
    rows = ((f"`{name}`", value) for name, value in changed(metadata.hyperparameters).items())
    versions = ", ".join(f"{name} {number}" for name, number in metadata.versions.items())
    return _table(("hyperparameter", "value"), rows) + f"\n\nThe others have their defaults. Made with {versions}."


def _table(head: tuple[str, str], rows: Iterable[tuple[str, object]]) -> str:
    def line(cells: tuple[object, object]) -> str:
        return "| " + " | ".join(" ".join(str(cell).split()).replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(head), "|---|---|", *map(line, rows)])
