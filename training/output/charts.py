"""Plots of training and results: learning curves, confusion matrix, correct and wrong predictions by target."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

from lstm_fcn.training.output.explanations import MAX_POINTS, Series, extremes
from lstm_fcn.training.output.style import BLUE, DARK, GREY, VERMILION, house_style, shorten_alike, ticks

PANELS = {
    "loss": {"training": "train_loss", "validation": "valid_loss"},
    "accuracy": {"training": "train_accuracy", "validation": "valid_accuracy"},
    "learning rate": {"": "lr"},  # needs no legend
}
CURVE_COLOURS = {"training": BLUE, "validation": VERMILION, "": DARK}

CORRECT = LinearSegmentedColormap.from_list("correct", ["white", BLUE])
WRONG = LinearSegmentedColormap.from_list("wrong", ["white", VERMILION])
MAX_WITH_COUNTS = 20  # classes whose counts fit into a confusion matrix
MAX_NAMED = 50  # classes whose names fit beside it


@house_style()
def learning_curves(
    history: Sequence[Mapping[str, float]], best_epoch: tuple[int, int], panels: Sequence[str] = tuple(PANELS)
) -> Figure:
    """Loss, accuracy and learning rate over the epochs; rounds follow one another.

    Args:
        history: for each epoch `epoch`, `round` and any of `train_loss`, `train_accuracy`, `valid_loss`,
            `valid_accuracy`, `lr`.
        best_epoch: epoch and round of the model's weights; not marked if missing from the history.
        panels: names from `PANELS`.
    """
    places, starts = _places(history)
    names = [(int(entry["epoch"]), int(entry.get("round", 0))) for entry in history]
    best_place = float(places[names.index(best_epoch)]) if best_epoch in names else None
    figure = Figure(figsize=(0.2 + 3.4 * len(panels), 2.6), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for label, key in PANELS[panel].items():
            values = np.array([entry.get(key, np.nan) for entry in history], dtype=np.float64)
            _draw_curve(axes, places, values, label, best_place)
        for start in starts:
            axes.axvline(start, color=GREY, linewidth=0.8, linestyle=":", label="new round", zorder=1)
        _finish_curves(axes, panel)
    if best_place is not None:
        text = f"selected: epoch {best_epoch[0]}" + (f", round {best_epoch[1]}" if best_epoch[1] else "")
        figure.axes[0].plot([], [], "o", color=DARK, markerfacecolor="white", markersize=4.5, label=text)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    legend = dict(zip(labels, handles, strict=True))
    figure.legend(list(legend.values()), list(legend), loc="outside upper left", ncols=2 if len(panels) == 1 else 4)
    return figure


def _places(history: Sequence[Mapping[str, float]]) -> tuple[Series, list[float]]:
    """The horizontal place of each epoch, counted over all rounds, and the start of each round but the first."""
    places: list[float] = []
    starts: list[float] = []
    current, offset = history[0].get("round", 0), 0.0
    for entry in history:
        if entry.get("round", 0) != current:
            current, offset = entry.get("round", 0), places[-1]
            starts.append(offset + 0.5)
        places.append(offset + entry["epoch"])
    return np.array(places, dtype=np.float64), starts


def _draw_curve(axes: Axes, places: Series, values: Series, label: str, best_place: float | None) -> None:
    known = np.isfinite(values)
    if not known.any():
        return
    places, values = places[known], values[known]
    drawn = np.arange(len(values))
    if len(values) > MAX_POINTS:
        drawn = extremes(values, np.linspace(0, len(values), MAX_POINTS // 2, endpoint=False).astype(np.int64))
    colour = CURVE_COLOURS[label]
    width, marker = (0.8 if len(values) > MAX_POINTS else 1.4), ("." if len(values) == 1 else "")
    axes.plot(places[drawn], values[drawn], color=colour, label=label, linewidth=width, marker=marker)
    if best_place is not None and best_place in places:
        value = values[places == best_place][0]
        axes.plot(best_place, value, "o", color=colour, markerfacecolor="white", markersize=4.5, zorder=3)


def _finish_curves(axes: Axes, panel: str) -> None:
    axes.set_title(panel)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(ticks(5, integer=True))
    low, high = axes.dataLim.intervaly
    if panel == "loss" and 0 < 10 * low < high:
        axes.set_yscale("log")
        decades = np.log10(high / low)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 3 else (1,)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    if panel == "accuracy":
        axes.set_ylim(top=min(axes.get_ylim()[1], 1.02))


@house_style()
def confusion_matrix(matrix: NDArray[np.integer], classes: Sequence[str]) -> Figure:
    """Counts `[C, C]`, a row for each true class, a column for each predicted class; shaded by the share of the row.

    Blue is correct, orange is wrong. With many classes the counts are left out.
    """
    count = len(classes)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    named = range(0, count, -(-count // MAX_NAMED))
    names, font_size = shorten_alike([classes[k] for k in named]), 8 if count <= MAX_WITH_COUNTS else 6
    longest = max(map(len, names))
    size = float(np.clip(1.2 + 0.42 * count, 2.8, 7.0)) + 0.06 * longest
    figure = Figure(figsize=(size + 0.2, size), layout="constrained")
    axes = figure.subplots()
    # The square root keeps rare mistakes visible.
    shade = np.where(np.eye(count, dtype=bool)[..., None], CORRECT(shares), WRONG(np.sqrt(shares)))
    axes.imshow(shade, interpolation="nearest")
    axes.set_title("blue: correct, orange: wrong;\ndarker: a larger share of the true class", fontsize=8)
    axes.set_xticks(named, names, fontsize=font_size, rotation=90 if longest > 3 else 0)
    axes.set_yticks(named, names, fontsize=font_size)
    axes.tick_params(length=0)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.grid(visible=False)
    for side in axes.spines.values():
        side.set_visible(True)
    if count <= MAX_WITH_COUNTS:
        _write_counts(axes, matrix, shares)
    return figure


def _write_counts(axes: Axes, matrix: NDArray[np.integer], shares: Series) -> None:
    size = min(9, 30 / len(str(matrix.max())))
    for row, column in zip(*np.nonzero(matrix), strict=True):
        dark = shares[row, column] > (0.5 if row == column else 0.35)
        colour = "white" if dark else DARK
        text = axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=colour, fontsize=size)
        text.set_in_layout(False)  # measuring the texts would take most of the time


@house_style()
def target_matrices(matrices: NDArray[np.integer], targets: Sequence[str]) -> Figure:
    """Counts of independent targets, `[C, 2, 2]` by truth and prediction (0 or 1), as bars of shares.

    On the left the rows that have the target, on the right the rows without it; blue is correct, orange is wrong.
    """
    count = len(targets)
    height = float(np.clip(0.3 * count, 0.3, 9.0))
    figure = Figure(figsize=(6, 1.1 + height))
    figure.set_layout_engine("constrained", w_pad=0.12)
    places = np.arange(count)
    for axes, truth in zip(figure.subplots(1, 2, sharey=True), (1, 0), strict=True):
        correct, wrong = matrices[:, truth, truth], matrices[:, truth, 1 - truth]
        total = np.maximum(correct + wrong, 1)
        axes.barh(places, correct / total, color=BLUE, height=0.7, label="correct")
        axes.barh(places, wrong / total, left=correct / total, color=VERMILION, height=0.7, label="wrong")
        axes.set_xlim(0, 1)
        axes.set_xticks([0, 0.5, 1])
        axes.set_xlabel("share of these rows")
        axes.grid(visible=False, axis="y")
        axes.set_title("rows with the target" if truth else "rows without it", fontsize=8)
        axes.tick_params(axis="y", length=0)
        if count <= 2 * MAX_WITH_COUNTS:
            for k in range(count):
                _write_pair(axes, k, int(correct[k]), int(wrong[k]))
    axes = figure.axes[0]
    named = range(0, count, -(-count // (2 * MAX_NAMED)))
    font_size = 8 if count <= 2 * MAX_WITH_COUNTS else 6
    axes.set_yticks(named, shorten_alike([targets[k] for k in named]), fontsize=font_size)
    axes.set_ylim(count - 0.5, -0.5)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return figure


def _write_pair(axes: Axes, place: int, correct: int, wrong: int) -> None:
    """Write both counts at the ends of their bar."""
    if not correct + wrong:
        axes.text(0.01, place, "none", ha="left", va="center", fontsize=8)
    if correct:
        axes.text(0.01, place, str(correct), ha="left", va="center", color="white", fontsize=8)
    if wrong:
        axes.text(0.99, place, str(wrong), ha="right", va="center", color="white", fontsize=8)


@house_style()
def accuracy_histogram(accuracies: Sequence[float]) -> Figure:
    """How many models have which accuracy."""
    figure = Figure(figsize=(6.8, 2.6), layout="constrained")
    axes = figure.subplots()
    axes.hist(accuracies, bins=40, range=(0, 1), color=BLUE)
    axes.set(xlim=(0, 1), xlabel="accuracy", ylabel="models")
    axes.yaxis.set_major_locator(ticks(5, integer=True))
    return figure
