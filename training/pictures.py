"""Pictures of a model: what it sees in a series, how it was trained, what it gets wrong.

Each function makes a figure from arrays and plain values, in one house style. pyplot and its global state are not
used: no display is needed, and any thread may draw. Labels are taken as they are, not as markup.
"""

import contextlib
import io
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from matplotlib.typing import RcKeyType
from numpy.typing import NDArray

from lstm_fcn.container.files import write_atomically

# Colours that people with any kind of colour vision tell apart (Okabe and Ito 2008).
BLUE, VERMILION, GREY, DARK = "#0072b2", "#d55e00", "#9a9a9a", "#333333"
FOR, NEUTRAL, AGAINST = "#c23b00", "#bdbdbd", "#005b9a"  # not white in the middle: lines stay visible
SPEAKS = LinearSegmentedColormap.from_list("speaks", [AGAINST, "#4f9bd0", NEUTRAL, "#ef8a4c", FOR])

DPI = 200  # of a PNG
DPI_WITHIN_SVG = 144  # of what is not drawn as lines there
STYLE: dict[RcKeyType, Any] = {
    "figure.dpi": DPI,
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same layout on every machine
    "font.size": 9,
    "text.color": DARK,
    "text.parse_math": False,  # a class may be called $1
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.labelsize": 8,
    "axes.labelcolor": DARK,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": False,
    "grid.color": "#ececec",
    "grid.linewidth": 0.6,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": DARK,
    "ytick.labelcolor": DARK,
    "lines.linewidth": 1.4,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "none",  # text stays text: small, searchable, and in any script
    "svg.hashsalt": "lstm-fcn",
}
MOST_POINTS = 1000  # of a line across the whole figure; more cannot be told apart
MOST_VARIABLES = 12  # drawn of a multivariate series
SHADES = 20  # of the colour of a line, for each sign

_one_at_a_time = threading.RLock()
Series = NDArray[np.float64]


@dataclass(frozen=True)
class Example:
    """A series, and what a model makes of it.

    series: float64 `[M, T]`, finite, in the user's units.
    predicted: the class that `probability` and `activation` belong to.
    truth: the true class, None if it is not known.
    activation: float `[T]`, how much each time step adds to the logit of `predicted` (the class activation map of
        Zhou et al. 2016); None if the model has none.
    row: of the data, counted from 1.
    """

    series: Series
    predicted: str
    probability: float
    truth: str | None = None
    activation: NDArray[np.floating] | None = None
    row: int | None = None

    @property
    def is_mistake(self) -> bool:
        return self.truth is not None and self.truth != self.predicted


@contextlib.contextmanager
def house_style() -> Iterator[None]:
    """The look of every picture, whatever a user's own settings are; for one thread at a time, as these are global."""
    with _one_at_a_time, mpl.rc_context(), warnings.catch_warnings():
        # A label in a script that the font lacks: boxes in the PNG; the SVG has the text itself.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


# Series and class activation maps


@house_style()
def class_activation_map(example: Example) -> Figure:
    """A series, coloured by how much each time step speaks for the predicted class; a panel for each variable."""
    shown = min(len(example.series), MOST_VARIABLES)
    figure = Figure(figsize=(8, 0.9 + max(2.0, 1.0 * shown)), layout="constrained")
    panels = figure.subplots(shown, 1, sharex=True, squeeze=False)[:, 0]
    limit = colour_limit([example])
    for k, axes in enumerate(panels):
        _draw_line(axes, example.series[k], example.activation, limit, MOST_POINTS, width=2.2)
        if len(example.series) > 1:
            axes.set_ylabel(f"variable {k + 1}")
    _title(panels[0], example)
    panels[-1].set_xlabel(_time_step(example))
    if example.activation is not None:
        _colour_bar(figure, list(panels), limit)
    return figure


@house_style()
def class_activation_maps(examples: Sequence[Example], title: str = "Examples") -> Figure:
    """Examples side by side, on one scale of colours. Variables are drawn one above the other, each by its own scale.

    Raises:
        ValueError: there are no examples.
    """
    columns = 2 if len(examples) == 4 else min(3, len(examples))
    rows = -(-len(examples) // columns)
    figure = Figure(figsize=(1.2 + 3.1 * columns, 0.8 + 1.9 * rows), layout="constrained")
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    limit = colour_limit(examples)
    for axes, example in zip(panels, examples, strict=False):
        _draw_example(axes, example, limit)
        _title(axes, example)
        axes.set_xlabel(_time_step(example))
    for axes in panels[len(examples) :]:
        axes.set_axis_off()
    if any(example.activation is not None for example in examples):
        _colour_bar(figure, list(panels), limit)
    return figure


def mistakes(examples: Sequence[Example]) -> Figure:
    """The series that the model is most confidently wrong about, those of the highest probability first."""
    ordered = sorted(examples, key=lambda example: -example.probability)
    return class_activation_maps(ordered, "The most confident mistakes")


@house_style()
def thumbnail(example: Example, limit: float) -> Figure:
    """An example without title and legend, beside others; `limit` is the `colour_limit` of all of them."""
    height = max(1.7, 0.2 * min(len(example.series), MOST_VARIABLES))
    figure = Figure(figsize=(3.4, height), layout="constrained")
    _draw_example(figure.subplots(), example, limit)
    return figure


def colour_limit(examples: Iterable[Example]) -> float:
    """The common end of the scale of colours: few steps go beyond, so that one of them does not pale all others."""
    return _limit([example.activation for example in examples if example.activation is not None])


def _limit(values: Sequence[NDArray[np.floating]]) -> float:
    sizes = np.abs(np.concatenate([np.ravel(part) for part in values])) if values else np.zeros(1)
    return float(np.quantile(sizes, 0.98)) or float(sizes.max()) or 1.0


def _draw_example(axes: Axes, example: Example, limit: float) -> None:
    """All variables in one panel."""
    if len(example.series) == 1:
        _draw_line(axes, example.series[0], example.activation, limit)
        return
    shown = example.series[:MOST_VARIABLES]
    for k, values in enumerate(shown):
        low, high = values.min(), values.max()
        scaled = (values - low) / (high - low) if high > low else np.full(len(values), 0.5)
        _draw_line(axes, scaled * 0.85 - k, example.activation, limit, MOST_POINTS // 5)
    axes.set_yticks(0.4 - np.arange(len(shown)), [str(k + 1) for k in range(len(shown))])
    axes.tick_params(axis="y", labelsize=min(8, 80 / len(shown)), length=0)
    axes.set_ylabel("variable")
    axes.grid(visible=False, axis="y")
    for line in axes.collections:
        line.set_rasterized(len(shown) > 3)  # thousands of pieces


def _draw_line(
    axes: Axes,
    values: Series,
    colours: NDArray[np.floating] | None,
    limit: float,
    points: int = MOST_POINTS // 3,
    width: float = 1.6,
) -> None:
    """A series `[T]`, coloured by as many `colours` from -limit to limit, or in one colour."""
    width *= min(1.0, max(0.5, points / (1.5 * len(values))))  # else long ones become a block
    steps, values, colours = _thin_out(values, colours, points)
    if colours is None:
        marker = "o" if len(values) == 1 else ""
        axes.plot(steps, values, color=BLUE, linewidth=min(width, 1.4), marker=marker, markersize=3)
    elif len(values) == 1:
        axes.scatter(steps, values, c=colours, cmap=SPEAKS, vmin=-limit, vmax=limit, s=12)
    else:
        axes.add_collection(_coloured_line(steps, values, colours, limit, width))
    axes.margins(x=0.01, y=0.08)
    axes.autoscale_view()
    if len(values) == 1:
        axes.set_xlim(-0.5, 0.5)
    axes.yaxis.set_major_locator(_ticks(4))
    axes.xaxis.set_major_locator(_ticks(6, integer=True))


def _ticks(most: int, integer: bool = False) -> MaxNLocator:
    return MaxNLocator(most, steps=[1, 2, 5, 10], integer=integer, min_n_ticks=1 if integer else 2)


def _coloured_line(steps: Series, values: Series, colours: Series, limit: float, width: float) -> LineCollection:
    """Pieces of equal colour as one line each, which is smaller and has no gaps between them."""
    shades = np.round((colours[:-1] + colours[1:]) / 2 / limit * SHADES)
    starts = [0, *(np.flatnonzero(np.diff(shades)) + 1).tolist()]
    points = np.stack([steps, values], axis=1)
    pieces = [points[start : end + 1] for start, end in zip(starts, [*starts[1:], len(shades)], strict=True)]
    line = LineCollection(pieces, cmap=SPEAKS, norm=Normalize(-limit, limit), linewidths=width, capstyle="round")
    line.set_array(shades[starts] / SHADES * limit)
    return line


def _thin_out(
    values: Series, colours: NDArray[np.floating] | None, points: int
) -> tuple[Series, Series, Series | None]:
    """Steps, values and colours of a line of about `points` points that looks like that of all T values.

    Of a long series, the smallest and largest value of each stretch are kept, with the stretch's mean colour. A
    short one gets points between its values, so that colours flow.
    """
    length = len(values)
    if length > points:
        starts = np.linspace(0, length, points // 2, endpoint=False).astype(np.int64)
        kept = _extremes(values, starts)
        if colours is not None:
            means = np.add.reduceat(colours.astype(np.float64), starts) / np.diff([*starts, length])
            colours = means[np.searchsorted(starts, kept, side="right") - 1]
        return kept.astype(np.float64), values[kept], colours
    steps = np.arange(length, dtype=np.float64)
    if colours is None:
        return steps, values, None
    finer = np.linspace(0, length - 1, (length - 1) * (points // length) + 1)
    return finer, np.interp(finer, steps, values), np.interp(finer, steps, colours)


def _extremes(values: Series, starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the smallest and the largest value of each stretch are, and both ends."""
    found = [0, len(values) - 1]
    for start, stretch in zip(starts.tolist(), np.split(values, starts[1:]), strict=True):
        found += [start + int(stretch.argmin()), start + int(stretch.argmax())]
    return np.unique(np.array(found, dtype=np.int64))


def _title(axes: Axes, example: Example) -> None:
    """What was predicted; in the colour of mistakes, and with the truth, if it is one."""
    place = "" if example.row is None else f"row {example.row}: "
    text = f"{place}class {shorten(example.predicted, 16)} ({example.probability:.3f})"
    if example.is_mistake:
        text += f"\ntrue class: {shorten(example.truth or '', 30)}"
    axes.set_title(text, color=VERMILION if example.is_mistake else DARK)


def _time_step(example: Example) -> str:
    left_out = len(example.series) - MOST_VARIABLES
    return "time step" if left_out <= 0 else f"time step ({left_out} more variables are not drawn)"


def _colour_bar(
    figure: Figure,
    panels: list[Axes],
    limit: float,
    label: str = "against the class (below 0), for it (above)",
) -> None:
    bar = figure.colorbar(
        mpl.cm.ScalarMappable(Normalize(-limit, limit), SPEAKS),
        ax=panels,
        label=label,
        aspect=12 * figure.get_figheight(),
        fraction=0.04,
        pad=0.02,
        extend="both",
        extendfrac=0.02,
    )
    bar.outline.set_visible(False)
    bar.locator = _ticks(6)
    bar.update_ticks()


# Layers


@house_style()
def attention_context(
    series: Series,
    context: NDArray[np.floating],
    labels: NDArray[np.integer],
    classes: Sequence[str],
    label: str = "context",
) -> Figure:
    """What the attention of the LSTM makes of K series of one variable.

    Above, the context of each series over time, series of one class together; below, for each class the mean
    series, coloured by the mean context.

    Args:
        series: float64 `[K, T]`.
        context: float `[K, T]`.
        labels: int `[K]`, places in `classes`.
        classes: their names; those without series are left out.
        label: what the context is.
    """
    counts = np.bincount(labels, minlength=len(classes))
    present = np.flatnonzero(counts).tolist()
    shown = present[:MOST_VARIABLES]
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    height = min(4.5, 1.2 + 0.06 * len(series))
    figure = Figure(figsize=(9, 0.9 + height + 1.5 * rows), layout="constrained")
    grid = figure.add_gridspec(1 + rows, columns, height_ratios=[height, *[1.5] * rows])
    limit = _limit([context])

    above = figure.add_subplot(grid[0, :])
    ordered = context[np.argsort(labels, kind="stable")]
    above.imshow(ordered, cmap=SPEAKS, norm=Normalize(-limit, limit), aspect="auto")
    _mark_groups(above, counts[present], [classes[k] for k in present], height)
    above.set_title(f"attention to {len(series)} series")
    panels = [figure.add_subplot(grid[1 + place // columns, place % columns]) for place in range(len(shown))]
    for axes, k in zip(panels, shown, strict=True):
        _draw_line(axes, series[labels == k].mean(axis=0), context[labels == k].mean(axis=0), limit)
        axes.set_title(("mean of " if counts[k] > 1 else "") + shorten(classes[k], 18))
    left_out = len(present) - len(shown)
    figure.supxlabel("time step" + (f" ({left_out} more classes are not drawn)" if left_out else ""), fontsize=8)
    _colour_bar(figure, [above, *panels], limit, label)
    return figure


def _mark_groups(axes: Axes, counts: NDArray[np.integer], names: Sequence[str], height: float) -> None:
    """Name the groups of rows beside an image that is `height` inches high, and part them by thin lines."""
    ends = np.cumsum(counts)
    for end in ends[:-1]:
        axes.axhline(end - 0.5, color="white", linewidth=0.8 if len(names) <= MOST_COUNTED else 0.3)
    middles = ends - counts / 2 - 0.5
    named = _spaced(middles, gap=0.14 * ends[-1] / height)
    axes.set_yticks(middles[named], [shorten(names[k], 16) for k in named])
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(_ticks(8, integer=True))
    axes.grid(visible=False)


def _spaced(places: NDArray[np.floating], gap: float) -> list[int]:
    """Which of the ascending places can have a label, if labels need a `gap` between them."""
    chosen: list[int] = []
    for k, place in enumerate(places.tolist()):
        if not chosen or place - places[chosen[-1]] >= gap:
            chosen.append(k)
    return chosen


@house_style()
def filters(weights: Series, responses: Series, series: Series, count: int = 8) -> Figure:
    """The filters of a convolution that answer most to a series, each beside its answer.

    Args:
        weights: float `[n, width]`.
        responses: float `[n, T]`, after the activation function.
        series: float64 `[T]`.
        count: how many are drawn, at most.
    """
    strongest = np.argsort(-np.abs(responses).mean(axis=1), kind="stable")[:count]
    rows = 1 + len(strongest)
    figure = Figure(figsize=(8, 0.8 + 0.8 * rows), layout="constrained")
    panels = figure.subplots(rows, 2, width_ratios=[1, 4], sharex="col", squeeze=False)
    panels[0, 0].set_axis_off()
    _draw_line(panels[0, 1], series, None, 1.0, MOST_POINTS)
    panels[0, 1].set_title("the series")
    largest = float(np.abs(weights[strongest]).max()) * 1.1 or 1.0
    for row, k in enumerate(strongest.tolist(), start=1):
        left, right = panels[row]
        left.axhline(0, color=GREY, linewidth=0.6)
        left.plot(weights[k], color=DARK, marker="o", markersize=2.5 if weights.shape[1] <= 40 else 0)
        left.set_ylim(-largest, largest)
        left.set_ylabel(f"filter {k + 1}", rotation=0, ha="right", va="center")
        left.set_yticks([])
        left.xaxis.set_major_locator(_ticks(4, integer=True))
        _draw_line(right, responses[k], None, 1.0, MOST_POINTS)
        right.get_lines()[0].set_color(VERMILION)
        right.yaxis.set_major_locator(_ticks(3))
    panels[1, 0].set_title("weights")
    panels[1, 1].set_title("response, after the activation function")
    panels[-1, 0].set_xlabel("time step of the filter")
    panels[-1, 1].set_xlabel("time step")
    return figure


# Training

PANELS = {
    "loss": {"training": "train_loss", "validation": "valid_loss"},
    "accuracy": {"training": "train_accuracy", "validation": "valid_accuracy"},
    "learning rate": {"": "lr"},  # needs no legend
}
CURVE_COLOURS = {"training": BLUE, "validation": VERMILION, "": DARK}


@house_style()
def learning_curves(
    history: Sequence[Mapping[str, float]], kept: tuple[int, int], panels: Sequence[str] = tuple(PANELS)
) -> Figure:
    """Loss, accuracy and learning rate over the epochs, of all fine-tuning rounds one after the other.

    Args:
        history: of each epoch `epoch`, `round` and what there is of `train_loss`, `train_accuracy`, `valid_loss`,
            `valid_accuracy`, `lr`.
        kept: epoch and round whose weights are the model; not marked if they are not in the history.
        panels: which of `PANELS` to draw.
    """
    places, starts = _places(history)
    names = [(int(entry["epoch"]), int(entry.get("round", 0))) for entry in history]
    kept_place = float(places[names.index(kept)]) if kept in names else None
    figure = Figure(figsize=(0.2 + 3.4 * len(panels), 2.6), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for label, key in PANELS[panel].items():
            values = np.array([entry.get(key, np.nan) for entry in history], dtype=np.float64)
            _draw_curve(axes, places, values, label, kept_place)
        for start in starts:
            axes.axvline(start, color=GREY, linewidth=0.8, linestyle=":", label="new round", zorder=1)
        _finish_curves(axes, panel)
    if kept_place is not None:
        kept_text = f"kept: epoch {kept[0]}" + (f", round {kept[1]}" if kept[1] else "")
        figure.axes[0].plot([], [], "o", color=DARK, markerfacecolor="white", markersize=4.5, label=kept_text)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    legend = dict(zip(labels, handles, strict=True))
    figure.legend(list(legend.values()), list(legend), loc="outside upper left", ncols=2 if len(panels) == 1 else 4)
    return figure


def _places(history: Sequence[Mapping[str, float]]) -> tuple[Series, list[float]]:
    """Where each epoch lies if rounds are put one behind the other, and where rounds after the first begin."""
    places: list[float] = []
    starts: list[float] = []
    current, offset = history[0].get("round", 0), 0.0
    for entry in history:
        if entry.get("round", 0) != current:
            current, offset = entry.get("round", 0), places[-1]
            starts.append(offset + 0.5)
        places.append(offset + entry["epoch"])
    return np.array(places, dtype=np.float64), starts


def _draw_curve(axes: Axes, places: Series, values: Series, label: str, kept_place: float | None) -> None:
    known = np.isfinite(values)
    if not known.any():
        return
    places, values = places[known], values[known]
    drawn = np.arange(len(values))
    if len(values) > MOST_POINTS:
        drawn = _extremes(values, np.linspace(0, len(values), MOST_POINTS // 2, endpoint=False).astype(np.int64))
    colour = CURVE_COLOURS[label]
    width, marker = (0.8 if len(values) > MOST_POINTS else 1.4), ("." if len(values) == 1 else "")
    axes.plot(places[drawn], values[drawn], color=colour, label=label, linewidth=width, marker=marker)
    if kept_place is not None and kept_place in places:
        value = values[places == kept_place][0]
        axes.plot(kept_place, value, "o", color=colour, markerfacecolor="white", markersize=4.5, zorder=3)


def _finish_curves(axes: Axes, panel: str) -> None:
    axes.set_title(panel)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(_ticks(5, integer=True))
    low, high = axes.dataLim.intervaly
    if panel == "loss" and 0 < 10 * low < high:
        axes.set_yscale("log")
        decades = np.log10(high / low)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 3 else (1,)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    if panel == "accuracy":
        axes.set_ylim(top=min(axes.get_ylim()[1], 1.02))


# Results

RIGHT = LinearSegmentedColormap.from_list("right", ["white", BLUE])
WRONG = LinearSegmentedColormap.from_list("wrong", ["white", VERMILION])
MOST_COUNTED = 20  # classes whose counts fit into a confusion matrix
MOST_NAMED = 50  # classes whose names fit beside it


@house_style()
def confusion_matrix(matrix: NDArray[np.integer], classes: Sequence[str]) -> Figure:
    """Counts `[C, C]`, true classes down and predicted classes across; shaded by their share of the true class.

    Blue is right, orange is wrong. Many classes are drawn without counts.
    """
    count = len(classes)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    named = range(0, count, -(-count // MOST_NAMED))
    names, size_of_names = shorten_alike([classes[k] for k in named]), 8 if count <= MOST_COUNTED else 6
    longest = max(map(len, names))
    size = float(np.clip(1.2 + 0.42 * count, 2.8, 7.0)) + 0.06 * longest
    figure = Figure(figsize=(size + 0.2, size), layout="constrained")
    axes = figure.subplots()
    # A rare mistake is meant to be seen, too: the root of its share.
    shade = np.where(np.eye(count, dtype=bool)[..., None], RIGHT(shares), WRONG(np.sqrt(shares)))
    axes.imshow(shade, interpolation="nearest")
    axes.set_title("blue is right, orange is wrong;\ndarker: a larger share of the true class", fontsize=8)
    axes.set_xticks(named, names, fontsize=size_of_names, rotation=90 if longest > 3 else 0)
    axes.set_yticks(named, names, fontsize=size_of_names)
    axes.tick_params(length=0)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.grid(visible=False)
    for side in axes.spines.values():
        side.set_visible(True)
    if count <= MOST_COUNTED:
        _write_counts(axes, matrix, shares)
    return figure


def _write_counts(axes: Axes, matrix: NDArray[np.integer], shares: Series) -> None:
    size = min(9, 30 / len(str(matrix.max())))
    for row, column in zip(*np.nonzero(matrix), strict=True):
        strong = shares[row, column] > (0.5 if row == column else 0.35)
        colour = "white" if strong else DARK
        text = axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=colour, fontsize=size)
        text.set_in_layout(False)  # which would take most of the time


@house_style()
def target_matrices(matrices: NDArray[np.integer], targets: Sequence[str]) -> Figure:
    """Counts of independent targets, `[C, 2, 2]` by truth and prediction of 0 and 1, as bars of shares.

    On the left the rows that have the target, on the right those that have not; blue is right, orange is wrong.
    """
    count = len(targets)
    height = float(np.clip(0.3 * count, 0.3, 9.0))
    figure = Figure(figsize=(6, 1.1 + height))
    figure.set_layout_engine("constrained", w_pad=0.12)
    places = np.arange(count)
    for axes, truth in zip(figure.subplots(1, 2, sharey=True), (1, 0), strict=True):
        right, wrong = matrices[:, truth, truth], matrices[:, truth, 1 - truth]
        total = np.maximum(right + wrong, 1)
        axes.barh(places, right / total, color=BLUE, height=0.7, label="right")
        axes.barh(places, wrong / total, left=right / total, color=VERMILION, height=0.7, label="wrong")
        axes.set_xlim(0, 1)
        axes.set_xticks([0, 0.5, 1])
        axes.set_xlabel("share of these rows")
        axes.grid(visible=False, axis="y")
        axes.set_title("rows that have the target" if truth else "rows that do not", fontsize=8)
        axes.tick_params(axis="y", length=0)
        if count <= 2 * MOST_COUNTED:
            for k in range(count):
                _write_pair(axes, k, int(right[k]), int(wrong[k]))
    axes = figure.axes[0]
    named = range(0, count, -(-count // (2 * MOST_NAMED)))
    axes.set_yticks(named, shorten_alike([targets[k] for k in named]), fontsize=8 if count <= 2 * MOST_COUNTED else 6)
    axes.set_ylim(count - 0.5, -0.5)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return figure


def _write_pair(axes: Axes, place: int, right: int, wrong: int) -> None:
    """Both counts of a bar, at its ends."""
    if not right + wrong:
        axes.text(0.01, place, "none", ha="left", va="center", fontsize=8)
    if right:
        axes.text(0.01, place, str(right), ha="left", va="center", color="white", fontsize=8)
    if wrong:
        axes.text(0.99, place, str(wrong), ha="right", va="center", color="white", fontsize=8)


# Texts and files


def printable(text: str) -> str:
    """The text without characters that XML does not know, or that change how the text around them reads."""
    return "".join(map(_printable, text))


def _printable(character: str) -> str:
    if character.isprintable() or character in "\u200c\u200d":  # which join letters or keep them apart
        return character
    return " " if character.isspace() else "\N{REPLACEMENT CHARACTER}"


def shorten(label: str, width: int) -> str:
    """A label of at most `width` characters: both ends of a long one, as either may tell it from others."""
    label = printable(label)
    if len(label) <= width:
        return label
    tail = (width - 1) // 2
    return label[: width - 1 - tail] + "\N{HORIZONTAL ELLIPSIS}" + label[len(label) - tail :]


def shorten_alike(labels: Sequence[str], widths: range = range(16, 33, 4)) -> list[str]:
    """Shortened labels, as long as it takes to tell them apart, if that is possible at all."""
    found: list[str] = []
    for width in widths:
        found = [shorten(label, width) for label in labels]
        if len(set(found)) == len(set(labels)):
            break
    return found


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write `name.png` and `name.svg`; the same picture has the same bytes.

    Raises:
        UserError: the folder cannot be written to.
    """
    write_atomically((folder / f"{name}.png", png(figure)), (folder / f"{name}.svg", svg(figure)))


@house_style()
def png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.set_dpi(DPI)
    FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})  # type: ignore[no-untyped-call]
    return file.getvalue()


@house_style()
def svg(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.set_dpi(DPI_WITHIN_SVG)
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    FigureCanvasSVG(figure).print_svg(file, metadata=nothing)  # type: ignore[no-untyped-call]
    return file.getvalue()
