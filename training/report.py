"""The report of a training job: `report.html`, `metrics.json` and `curves.csv`.

The page is one file that needs nothing else, opens from the disk, and cannot load or run anything: it holds no script,
and its policy forbids every outside resource. It is built as a tree of elements, so that no label can become markup.
"""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, multilabel_confusion_matrix, precision_recall_fscore_support

from lstm_fcn.container.files import write_atomically
from lstm_fcn.training import pictures
from lstm_fcn.training.pictures import Example, printable


@dataclass(frozen=True)
class Evaluation:
    """What the model says of rows whose classes are known.

    part: which data they are of.
    rows: how many rows that data has; if more than N, this is a sample of them.
    truth: int `[N]`, places in `classes`; or `[N, C]` of 0 and 1, if each class has a probability of its own.
    probabilities: float `[N, C]`.
    numbers: int `[N]`, which rows of the user's data they are, counted from 1; None: the first N.
    """

    part: Literal["training", "validation"]
    rows: int
    classes: Sequence[str]
    truth: NDArray[np.integer]
    probabilities: NDArray[np.floating]
    numbers: NDArray[np.integer] | None = None

    @property
    def independent(self) -> bool:
        return self.truth.ndim > 1

    @property
    def predictions(self) -> NDArray[np.int64]:
        """In the form of `truth`."""
        found = self.probabilities > 0.5 if self.independent else self.probabilities.argmax(axis=1)
        return found.astype(np.int64)

    @property
    def confidence(self) -> NDArray[np.floating]:
        """Probabilities of the predictions, in the form of `truth`."""
        found: NDArray[np.floating] = self.probabilities
        return np.maximum(found, 1 - found) if self.independent else found[np.arange(len(found)), self.predictions]

    def confusion(self) -> NDArray[np.int64]:
        """Counts by true and predicted class, `[C, C]`; or `[C, 2, 2]` of independent classes."""
        count = multilabel_confusion_matrix if self.independent else confusion_matrix
        found: NDArray[np.int64] = count(*self._labels(), labels=self._names())
        return found

    def scores(self) -> NDArray[np.float64]:
        """Precision, recall, F1 and number of rows of each class, `[C, 4]`; NaN where there is none."""
        found = precision_recall_fscore_support(*self._labels(), labels=self._names(), zero_division=np.nan)
        return np.stack(found, axis=1).astype(np.float64)

    def _labels(self) -> tuple[NDArray[np.integer], NDArray[np.int64]]:
        """As scikit-learn wants them: one target is one column."""
        alone = self.independent and len(self.classes) == 1
        return (self.truth[:, 0], self.predictions[:, 0]) if alone else (self.truth, self.predictions)

    def _names(self) -> list[int]:
        return [1] if self.independent and len(self.classes) == 1 else list(range(len(self.classes)))

    def typical(self, limit: int = 6) -> list[tuple[int, int]]:
        """Rows that are predicted right, with their class: of each class alike, as far as the limit goes, and of high
        and low probability.
        """
        right = self.predictions == self.truth
        if not self.independent:
            groups = [(k, right & (self.truth == k), self.confidence) for k in range(len(self.classes))]
        else:
            kinds = (1, 0) if len(self.classes) == 1 else (1,)  # with many targets most rows lack most of them
            groups = [
                (k, right[:, k] & (self.truth[:, k] == kind), self.confidence[:, k])
                for k in range(len(self.classes))
                for kind in kinds
            ]
        each = max(1, limit // len(groups))
        chosen: list[tuple[int, int]] = []
        for k, of_group, confidence in groups:
            rows = np.flatnonzero(of_group)
            rows = rows[np.argsort(-confidence[rows], kind="stable")]
            places = np.linspace(0, len(rows), min(each, len(rows)), endpoint=False).astype(np.int64)
            chosen += [(int(row), k) for row in rows[places]]
        return chosen[:limit]

    def mistakes(self, limit: int = 6) -> list[tuple[int, int]]:
        """Wrong predictions, each as its row and class, those of the highest probability first."""
        wrong = np.nonzero(self.predictions != self.truth)
        classes = wrong[1] if self.independent else self.predictions[wrong]
        order = np.argsort(-self.confidence[wrong], kind="stable")[:limit]
        return [(int(wrong[0][k]), int(classes[k])) for k in order]

    def example(
        self, place: tuple[int, int], series: NDArray[np.float64], activation: NDArray[np.floating] | None
    ) -> Example:
        """One of the places that `typical` and `mistakes` choose, with what was predicted.

        Args:
            place: row and class.
            series: float64 `[M, T]`, that row.
            activation: float `[T]`, the class activation map of that class, if there is one.
        """
        row, k = place
        name, probability = self.classes[k], float(self.probabilities[row, k])
        number = row + 1 if self.numbers is None else int(self.numbers[row])
        if not self.independent:
            return Example(series, name, probability, self.classes[self.truth[row]], activation, number)
        truth = name if self.truth[row, k] else f"not {name}"
        if probability > 0.5:
            return Example(series, name, probability, truth, activation, number)
        against = None if activation is None else -activation  # what speaks for the absence of the class
        return Example(series, f"not {name}", 1 - probability, truth, against, number)


@dataclass(frozen=True)
class Report:
    """All that a report says of a job.

    metrics: of the whole data, named as in the log: `train_loss`, `valid_accuracy`, …
    history: of each epoch `epoch`, `round` and its metrics and `lr`.
    kept: epoch and round whose weights are the model.
    configuration, defaults: hyperparameters by name.
    data: whatever describes it, by name: task, length, rows.
    class_counts: rows of each class by the name of the data, such as `training`.
    """

    title: str
    evaluation: Evaluation
    metrics: Mapping[str, float]
    history: Sequence[Mapping[str, float]]
    kept: tuple[int, int]
    configuration: Mapping[str, str]
    defaults: Mapping[str, str]
    data: Mapping[str, str]
    class_counts: Mapping[str, Sequence[int]]
    versions: Mapping[str, str]
    examples: Sequence[Example] = ()
    mistakes: Sequence[Example] = ()


def write_report(folder: Path, report: Report) -> None:
    """Write `report.html`, `metrics.json` and `curves.csv`, each whole or not at all.

    Raises:
        UserError: the folder cannot be written to.
    """
    files = {"metrics.json": metrics_json(report), "curves.csv": curves_csv(report), "report.html": page(report)}
    for name, text in files.items():
        write_atomically((folder / name, text.encode()))


def metrics_json(report: Report) -> str:
    """Figures for programs; null where one is not defined. A line for each entry."""
    evaluation = report.evaluation
    names = ("precision", "recall", "f1")
    classes = [
        {"class": name, **dict(zip(names, map(_finite, row), strict=False)), "rows": int(row[3])}
        for name, row in zip(evaluation.classes, evaluation.scores().tolist(), strict=True)
    ]
    content: dict[str, Any] = {
        "title": report.title,
        "kept": {"epoch": report.kept[0], "round": report.kept[1]},
        "metrics": {name: _finite(value) for name, value in report.metrics.items()},
        "evaluated_on": {"data": evaluation.part, "rows": len(evaluation.truth), "of": evaluation.rows},
        "classes": classes,
        "confusion": evaluation.confusion().tolist(),
    }
    lines = [f"  {json.dumps(name)}: {json.dumps(value, allow_nan=False)}" for name, value in content.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def curves_csv(report: Report) -> str:
    """A row for each epoch; a cell is empty where there is no number."""
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
    """The HTML page."""
    limit = pictures.colour_limit([*report.examples, *report.mistakes])
    of_classes = "right and wrong, by target" if report.evaluation.independent else "confusion matrix"
    sections = {
        "result": _result(report),
        "learning curves": _curves(report),
        of_classes: _confusion(report.evaluation),
        "classes": _classes(report.evaluation),
        "examples": _examples(report.examples, "example", limit),
        "most confident mistakes": _examples(report.mistakes, "mistake", limit),
        "configuration": _configuration(report),
        "data": _data(report),
        "versions": [_definitions(report.versions)],
    }
    narrow = {"configuration", "data"}
    if len(report.evaluation.classes) <= pictures.MOST_COUNTED:
        narrow |= {of_classes, "classes"}
    sections = {name: content for name, content in sections.items() if content}
    head = _element(
        "head",
        _element("meta", charset="utf-8"),
        _element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        _element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        _element("title", report.title),
        style := _element("style"),
    )
    style.text = CSS
    links = [_element("a", name, href=f"#{name.replace(' ', '-')}") for name in sections]
    parts = [
        _element(
            "section",
            _element("h2", name.capitalize()),
            *content,
            id=name.replace(" ", "-"),
            class_="narrow" if name in narrow else "wide",
        )
        for name, content in sections.items()
    ]
    nav = _element("nav", *links, aria_label="sections")
    body = _element("body", _element("header", _element("h1", report.title), nav), _element("main", *parts))
    html = ElementTree.tostring(_element("html", head, body, lang="en"), encoding="unicode", method="html")
    return f"<!DOCTYPE html>\n{html}\n"


def _result(report: Report) -> list[Element]:
    evaluation = report.evaluation
    prefix = "valid_" if evaluation.part == "validation" else "train_"
    tiles = []
    for key, name in HEADLINES.items():
        if prefix + key not in report.metrics:
            continue
        parts = [_element("dt", name), _element("dd", _number(report.metrics[prefix + key]))]
        if prefix == "valid_" and f"train_{key}" in report.metrics:
            training = f"training data: {_number(report.metrics[f'train_{key}'])}"
            parts.append(_element("dd", training, class_="small"))
        tiles.append(_element("div", *parts, class_="tile"))
    text = f"Measured on the {evaluation.part} data, {evaluation.rows:,} rows."
    if len(evaluation.truth) < evaluation.rows:
        text += f" What is said of classes below is of a sample of {len(evaluation.truth):,} of these rows."
    found = [_element("dl", *tiles, class_="tiles"), _element("p", text)]
    if evaluation.part == "training":
        found.append(_element("p", NO_VALIDATION, class_="notice"))
    return found


def _curves(report: Report) -> list[Element]:
    if not report.history:
        return []
    known = {name for entry in report.history for name in entry}
    panels = [name for name, curves in pictures.PANELS.items() if known & set(curves.values())]
    epoch, number = report.kept
    of_round = f" of fine-tuning round {number}" if number else ""
    drawn = [
        _picture(pictures.learning_curves(report.history, report.kept, [name]), f"curve{k}", f"{name} over the epochs")
        for k, name in enumerate(panels)
    ]
    return [
        _element("p", f"Epochs: {len(report.history):,}. The model has the weights of epoch {epoch}{of_round}."),
        _element("div", *(_element("figure", picture) for picture in drawn), class_="grid"),
    ]


def _confusion(evaluation: Evaluation) -> list[Element]:
    matrix = evaluation.confusion()
    if evaluation.independent:
        text = "Of the rows that have a target, and of those that do not, how many are predicted right and wrong."
        figure = pictures.target_matrices(matrix, evaluation.classes)
    else:
        text = "How many rows of each true class, downwards, are predicted as which class."
        figure = pictures.confusion_matrix(matrix, evaluation.classes)
    picture = _picture(figure, "confusion", text)
    return [_element("p", text), _element("figure", picture, class_="scroll")]


def _classes(evaluation: Evaluation) -> list[Element]:
    scores = evaluation.scores()
    rows = [
        [name, *map(_number, row[:3]), f"{row[3]:,.0f}"] for name, row in zip(evaluation.classes, scores, strict=True)
    ]
    means = [_number(float(np.nanmean(column))) if np.isfinite(column).any() else NONE for column in scores.T[:3]]
    rows.append(["mean", *means, f"{len(evaluation.truth):,}"])
    titles = ["target" if evaluation.independent else "class", "precision", "recall", "F1", "rows"]
    table = _table(titles, rows, last_is_summary=True)
    text = "Precision: how many of the rows predicted as a class are of it. Recall: how many of its rows are found."
    return [_element("p", f"{text} F1: the harmonic mean of both."), table]


def _examples(examples: Sequence[Example], name: str, limit: float) -> list[Element]:
    if not examples:
        return []
    figures = []
    for k, example in enumerate(examples):
        place = "" if example.row is None else f"row {example.row:,}: "
        truth: list[str | Element] = []
        if example.is_mistake:
            truth = [_element("br"), "true class ", _element("strong", example.truth or "")]
        caption = _element(
            "figcaption",
            place,
            "predicted ",
            _element("strong", example.predicted),
            f", probability {_number(example.probability)}",
            *truth,
            class_="mistake" if example.is_mistake else "right",
        )
        figure = pictures.thumbnail(example, limit)
        figures.append(_element("figure", _picture(figure, f"{name}{k}", f"{name}: a series over time"), caption))
    found = [_element("div", *figures, class_="grid")]
    if any(len(example.series) > pictures.MOST_VARIABLES for example in examples):
        found.insert(0, _element("p", f"The first {pictures.MOST_VARIABLES} variables of each series are drawn."))
    if any(example.activation is not None for example in examples):
        found.insert(0, _legend(limit))
    return found


def _legend(limit: float) -> Element:
    colours = ", ".join(to_hex(pictures.SPEAKS(place)) for place in np.linspace(0, 1, 9))
    return _element(
        "p",
        "A time step speaks against the predicted class ",
        _element(
            "span",
            f"\N{MINUS SIGN}{limit:.3g}",
            _element("span", class_="scale", style=f"background: linear-gradient(to right, {colours})"),
            f"+{limit:.3g}",
            class_="ends",
        ),
        " or for it, by so much in its logit (class activation map).",
    )


def _configuration(report: Report) -> list[Element]:
    rows = []
    for name, value in report.configuration.items():
        default = report.defaults.get(name, NONE)
        changed = value != default
        rows.append([name, _element("strong", value) if changed else value, default if changed else ""])
    return [
        _element("p", "Bold: differs from the default."),
        _table(["hyperparameter", "value", "default, if it differs"], rows),
    ]


def _data(report: Report) -> list[Element]:
    found = [_definitions(report.data)]
    if report.class_counts:
        columns = zip(*report.class_counts.values(), strict=True)
        rows = [[name, *(f"{n:,}" for n in row)] for name, row in zip(report.evaluation.classes, columns, strict=True)]
        titles = ["target" if report.evaluation.independent else "class"]
        found.append(_table([*titles, *(f"rows, {name} data" for name in report.class_counts)], rows))
    return found


# Pieces of the page


def _element(tag: str, *children: "str | Element", **attributes: str) -> Element:
    """An element; `class_` stands for the attribute class, `_` for a dash."""
    names = {name.rstrip("_").replace("_", "-"): printable(value) for name, value in attributes.items()}
    found = Element(tag, names)
    for child in children:
        if isinstance(child, Element):
            found.append(child)
        elif len(found):
            found[-1].tail = (found[-1].tail or "") + printable(child)
        else:
            found.text = (found.text or "") + printable(child)
    return found


def _table(titles: Sequence[str], rows: "Sequence[Sequence[str | Element]]", last_is_summary: bool = False) -> Element:
    lines = [
        _element("tr", _element("th", row[0], scope="row"), *(_element("td", cell) for cell in row[1:])) for row in rows
    ]
    head = _element("thead", _element("tr", *(_element("th", title, scope="col") for title in titles)))
    foot = [_element("tfoot", lines.pop())] if last_is_summary else []
    return _element("div", _element("table", head, _element("tbody", *lines), *foot), class_="scroll", tabindex="0")


def _definitions(values: Mapping[str, str]) -> Element:
    pairs = [_element("div", _element("dt", name), _element("dd", value)) for name, value in values.items()]
    return _element("dl", *pairs, class_="pairs")


def _picture(figure: Figure, name: str, description: str) -> Element:
    """A figure as part of the page, its ids made its own by `name`."""
    svg = ElementTree.fromstring(pictures.svg(figure))  # noqa: S314  # what matplotlib has just written
    for node in svg.iter():
        node.tag = _local(node.tag)
        attributes = {_local(key): value.replace("url(#", f"url(#{name}-") for key, value in node.attrib.items()}
        if "id" in attributes:
            attributes["id"] = f"{name}-{attributes['id']}"
        if attributes.get("href", "").startswith("#"):
            attributes["href"] = f"#{name}-{attributes['href'][1:]}"
        node.attrib = attributes
    for definitions in svg.findall("defs"):
        for style in definitions.findall("style"):  # it would hold of the whole page
            definitions.remove(style)
    width = figure.get_figwidth() * 96
    svg.attrib = {
        "viewBox": svg.attrib["viewBox"],
        "role": "img",
        "aria-label": description,
        "style": f"--width: {width:.0f}px",
    }
    return svg


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _number(value: float) -> str:
    if not math.isfinite(value):
        return NONE
    return f"{value:.3f}" if 0.0005 <= abs(value) < 1000 or value == 0 else f"{value:.3g}"


NONE = "\N{EN DASH}"
HEADLINES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1": "F1, mean of classes",
    "auc": "AUC",
    "loss": "loss",
}
NO_VALIDATION = (
    "There was no validation data. These figures are of the data that the model was trained on, and say little of how "
    "well it does on new series."
)
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
CSS = """
:root { color-scheme: light dark; --text: #1d2327; --soft: #5b6670; --page: #f5f6f7; --card: #ffffff;
  --line: #dde1e4; --accent: #0072b2; --wrong: #b34700; }
@media screen and (prefers-color-scheme: dark) {
  :root { --text: #e6e9eb; --soft: #9aa5ad; --page: #14181b; --card: #1e2428; --line: #343c42; --accent: #5cb3e6;
    --wrong: #ff9a57; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 72rem; background: var(--page); color: var(--text);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { margin: 0.5rem 0; font-size: 1.6rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 0 0 0.5rem; font-size: 1.15rem; }
p { margin: 0 0 0.75rem; max-width: 48rem; }
nav { display: flex; flex-wrap: wrap; gap: 0.25rem 1rem; margin-bottom: 1rem; font-size: 0.9rem; }
a { color: var(--accent); }
main { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 1rem; }
section { padding: 1rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 0.5rem; }
.wide { grid-column: 1 / -1; }
@media (max-width: 56rem) { .narrow { grid-column: 1 / -1; } }
dl, dd, figure { margin: 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: 0.75rem;
  margin-bottom: 0.75rem; }
.tile { padding: 0.6rem 0.8rem; border: 1px solid var(--line); border-radius: 0.5rem; }
dt, .small { color: var(--soft); font-size: 0.85rem; }
.tile dd { font-size: 1.9rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.tile dd.small { font-size: 0.85rem; line-height: 1.5; }
.notice { padding: 0.6rem 0.8rem; border-left: 0.25rem solid var(--wrong); background: var(--page); }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); gap: 1rem; }
svg { display: block; width: 100%; max-width: var(--width); height: auto; margin: 0 auto; padding: 0.25rem;
  background: #ffffff; border-radius: 0.35rem; }
svg * { stroke-linejoin: round; }
svg text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif !important; }
figcaption { padding: 0.25rem; font-size: 0.9rem; line-height: 1.35; overflow-wrap: anywhere; }
.mistake { color: var(--wrong); }
.scale { display: inline-block; width: 7rem; height: 0.7rem; margin: 0 0.3rem; border-radius: 0.2rem; }
.ends { white-space: nowrap; font-size: 0.85rem; color: var(--soft); }
figure.scroll svg { min-width: calc(0.8 * var(--width)); margin: 0; }
.scroll { overflow: auto; max-height: 60rem; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0 0.3rem 0.9rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child { padding-left: 0; text-align: left; font-weight: normal; overflow-wrap: anywhere; min-width: 4rem; }
thead th { position: sticky; top: 0; background: var(--card); color: var(--soft); font-weight: normal; }
tfoot th, tfoot td { border-bottom: 0; font-weight: 600; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: 0.5rem 1rem;
  margin-bottom: 0.75rem; }
.pairs dd { overflow-wrap: anywhere; }
@page { margin: 1.5cm; }
@media print {
  body { max-width: none; padding: 0; background: none; font-size: 10pt; }
  nav { display: none; }
  section { padding: 0.5rem 0; border: 0; }
  .scroll { max-height: none; overflow: visible; }
  figure, tr, .tile, .notice { break-inside: avoid; }
  h2, h2 + p { break-after: avoid; }
  tfoot { display: table-row-group; }
  .scale { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  thead th { position: static; }
}
"""
