"""The report of a training job: `report.html`, `metrics.json` and `curves.csv`.

The page is one file that loads nothing and runs nothing: it has no script, its policy forbids outside resources, and
the template escapes all text, so that no label can become markup.
"""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from lstm_fcn.container.files import write_atomically
from lstm_fcn.training.output import charts, explanations
from lstm_fcn.training.output.evaluation import Evaluation
from lstm_fcn.training.output.explanations import Example
from lstm_fcn.training.output.style import ACTIVATION_COLOURS, printable, svg

HEADLINES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1": "F1, mean of classes",
    "auc": "AUC",
    "loss": "loss",
}
UNDEFINED = "\N{EN DASH}"


@dataclass(frozen=True)
class Report:
    """The content of a report.

    metrics: over all data, named as in the log: `train_loss`, `valid_accuracy`, ...
    history: for each epoch `epoch`, `round`, its metrics and `lr`.
    best_epoch: epoch and round of the model's weights.
    configuration, defaults: hyperparameters by name.
    data: description of the data by name: task, length, rows.
    class_counts: rows of each class by the name of the data, such as `training`.
    """

    title: str
    evaluation: Evaluation
    metrics: Mapping[str, float]
    history: Sequence[Mapping[str, float]]
    best_epoch: tuple[int, int]
    configuration: Mapping[str, str]
    defaults: Mapping[str, str]
    data: Mapping[str, str]
    class_counts: Mapping[str, Sequence[int]]
    versions: Mapping[str, str]
    examples: Sequence[Example] = ()
    mistakes: Sequence[Example] = ()

    @property
    def continuations(self) -> int:
        """Rounds after the last fine-tuning round, because the network had not learned the training data."""
        rounds = max((int(entry.get("round", 0)) for entry in self.history), default=0)
        return max(0, rounds - int(self.configuration.get("fine-tune-rounds", 0)))


def write_report(folder: Path, report: Report) -> None:
    """Write `report.html`, `metrics.json` and `curves.csv`; each file is complete or absent.

    Raises:
        UserError: the folder is not writable.
    """
    contents = {"metrics.json": metrics_json(report), "curves.csv": curves_csv(report), "report.html": page(report)}
    for name, text in contents.items():
        write_atomically((folder / name, text.encode()))


def metrics_json(report: Report) -> str:
    """The metrics for programs, one line for each entry; undefined ones are null."""
    evaluation = report.evaluation
    names = ("precision", "recall", "f1")
    classes = [
        {"class": name, **dict(zip(names, map(_finite, row), strict=False)), "rows": int(row[3])}
        for name, row in zip(evaluation.classes, evaluation.scores().tolist(), strict=True)
    ]
    content: dict[str, Any] = {
        "title": report.title,
        "best_epoch": {"epoch": report.best_epoch[0], "round": report.best_epoch[1]},
        "metrics": {name: _finite(value) for name, value in report.metrics.items()},
        "evaluated_on": {"data": evaluation.part, "rows": len(evaluation.truth), "of": evaluation.rows},
        "classes": classes,
        "confusion": evaluation.confusion().tolist(),
    }
    lines = [f"  {json.dumps(name)}: {json.dumps(value, allow_nan=False)}" for name, value in content.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def curves_csv(report: Report) -> str:
    """A row for each epoch; a cell is empty if its value is missing or not finite."""
    names = list(dict.fromkeys(["round", "epoch", *(name for entry in report.history for name in entry)]))
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow(names)
    for entry in report.history:
        values = [_finite(entry.get(name, 0 if name == "round" else math.nan)) for name in names]
        table.writerow(["" if value is None else f"{value:.9g}" for value in values])
    return file.getvalue()


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


# The page


def page(report: Report) -> str:
    """Render the HTML page, with its pictures and its style sheet inside."""
    evaluation = report.evaluation
    limit = explanations.colour_limit([*report.examples, *report.mistakes])
    draw_matrix = charts.target_matrices if evaluation.independent else charts.confusion_matrix
    colours = [to_hex(ACTIVATION_COLOURS(place)) for place in np.linspace(0, 1, 9)]
    return (
        environment()
        .get_template("report.html")
        .render(
            report=report,
            evaluation=evaluation,
            css=style_sheet(),
            kind="target" if evaluation.independent else "class",
            width_of_classes="narrow" if len(evaluation.classes) <= charts.MAX_WITH_COUNTS else "wide",
            headlines=_headlines(report),
            curves=_curves(report),
            matrix=embed(draw_matrix(evaluation.confusion(), evaluation.classes), "confusion", "confusion matrix"),
            scores=_class_scores(evaluation),
            mean_scores=_mean_scores(evaluation),
            class_count_titles=[f"rows, {name} data" for name in report.class_counts],
            class_counts=_class_counts(report),
            example_groups=[
                ("examples", _example_group(report.examples, "example", limit)),
                ("most confident mistakes", _example_group(report.mistakes, "mistake", limit)),
            ],
            limit=f"{limit:.3g}",
            colours=colours,
            max_variables=explanations.MAX_VARIABLES,
        )
    )


def style_sheet() -> Markup:
    """The style sheet of every page."""
    return Markup(files(__package__).joinpath("report.css").read_text(encoding="utf-8"))  # noqa: S704


def environment() -> jinja2.Environment:
    """The templates beside this module, which escape all text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, package_path=""),
        autoescape=True,
        finalize=_printable,
        undefined=jinja2.StrictUndefined,
        extensions=["jinja2.ext.do"],
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "grouped": "{:,}".format}
    return environment


def _printable(value: object) -> object:
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _headlines(report: Report) -> list[tuple[str, float, float | None]]:
    """Name and value of each metric, and beside a validation metric its value on the training data."""
    validated = report.evaluation.part != "training"
    prefix = "valid_" if validated else "train_"
    return [
        (name, report.metrics[prefix + key], report.metrics.get(f"train_{key}") if validated else None)
        for key, name in HEADLINES.items()
        if prefix + key in report.metrics
    ]


def _curves(report: Report) -> list[Markup]:
    known = {name for entry in report.history for name in entry}
    panels = [name for name, curves in charts.PANELS.items() if known & set(curves.values())]
    figures = [charts.learning_curves(report.history, report.best_epoch, [name]) for name in panels]
    return [
        embed(figure, f"curve{k}", f"{name} by epoch")
        for k, (name, figure) in enumerate(zip(panels, figures, strict=True))
    ]


def _class_scores(evaluation: Evaluation) -> list[list[str]]:
    scores = evaluation.scores()
    return [
        [name, *map(_number, row[:3]), f"{row[3]:,.0f}"] for name, row in zip(evaluation.classes, scores, strict=True)
    ]


def _mean_scores(evaluation: Evaluation) -> list[str]:
    columns = evaluation.scores().T[:3]
    means = [_number(float(np.nanmean(column))) if np.isfinite(column).any() else UNDEFINED for column in columns]
    return ["mean", *means, f"{len(evaluation.truth):,}"]


def _class_counts(report: Report) -> list[list[str]]:
    counts = zip(*report.class_counts.values(), strict=True)
    return [[name, *(f"{n:,}" for n in row)] for name, row in zip(report.evaluation.classes, counts, strict=False)]


def _example_group(examples: Sequence[Example], name: str, limit: float) -> dict[str, Any]:
    return {
        "pictures": [
            (example, embed(explanations.thumbnail(example, limit), f"{name}{k}", "a series over time"))
            for k, example in enumerate(examples)
        ],
        "has_maps": any(example.activation is not None for example in examples),
        "omits_variables": any(len(example.series) > explanations.MAX_VARIABLES for example in examples),
    }


def embed(figure: Figure, name: str, description: str) -> Markup:
    """A figure as an element of the page; `name` makes its ids unique in the page."""
    root = ElementTree.fromstring(svg(figure))  # noqa: S314  # written by matplotlib just now
    for node in root.iter():
        node.tag = _local(node.tag)
        attributes = {_local(key): value.replace("url(#", f"url(#{name}-") for key, value in node.attrib.items()}
        if "id" in attributes:
            attributes["id"] = f"{name}-{attributes['id']}"
        if attributes.get("href", "").startswith("#"):
            attributes["href"] = f"#{name}-{attributes['href'][1:]}"
        node.attrib = attributes
    for definitions in root.findall("defs"):
        for style in definitions.findall("style"):  # it would apply to the whole page
            definitions.remove(style)
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-label": description,
        "style": f"--width: {figure.get_figwidth() * 96:.0f}px",
    }
    return Markup(ElementTree.tostring(root, encoding="unicode", method="html"))  # noqa: S704


def _local(name: str) -> str:
    """The name without its XML namespace."""
    return name.rpartition("}")[2]


def _number(value: float) -> str:
    if not math.isfinite(value):
        return UNDEFINED
    return f"{value:.3f}" if 0.0005 <= abs(value) < 1000 or value == 0 else f"{value:.3g}"
