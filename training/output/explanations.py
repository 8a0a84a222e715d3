"""Plots of series, coloured by how much each time step speaks for a class."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lstm_fcn.training.output.style import (
    ACTIVATION_COLOURS,
    BLUE,
    DARK,
    VERMILION,
    house_style,
    shorten,
    ticks,
)

MAX_POINTS = 1000  # of a line across the whole figure; more are not distinguishable
MAX_VARIABLES = 12  # variables drawn of a multivariate series
SHADES = 20  # colours of a line, for each sign

Series = NDArray[np.float64]


@dataclass(frozen=True)
class Example:
    """A series and its prediction.

    series: float64 `[M, T]`, finite, in the user's units.
    predicted: the class that `probability` and `activation` belong to.
    truth: the true class; None if unknown.
    activation: float `[T]`, how much each time step adds to the logit of `predicted` (the class activation map of
        Zhou et al. 2016); None for a network without convolutions.
    row: row of the data, counted from 1; None if unknown.
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


@house_style()
def class_activation_map(example: Example) -> Figure:
    """One series, with a panel for each variable."""
    shown = min(len(example.series), MAX_VARIABLES)
    figure = Figure(figsize=(8, 0.9 + max(2.0, 1.0 * shown)), layout="constrained")
    panels = figure.subplots(shown, 1, sharex=True, squeeze=False)[:, 0]
    limit = colour_limit([example])
    for k, axes in enumerate(panels):
        draw_line(axes, example.series[k], example.activation, limit, MAX_POINTS, width=2.2)
        if len(example.series) > 1:
            axes.set_ylabel(f"variable {k + 1}")
    _set_title(panels[0], example)
    panels[-1].set_xlabel(_time_label(example))
    if example.activation is not None:
        draw_colour_bar(figure, list(panels), limit)
    return figure


@house_style()
def class_activation_maps(examples: Sequence[Example], title: str = "Examples") -> Figure:
    """Several series side by side, with one colour scale.

    The variables of a series are drawn one above the other, each with its own vertical scale.

    Args:
        examples: at least one.
        title: of the figure.
    """
    columns = 2 if len(examples) == 4 else min(3, len(examples))
    rows = -(-len(examples) // columns)
    figure = Figure(figsize=(1.2 + 3.1 * columns, 0.8 + 1.9 * rows), layout="constrained")
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    limit = colour_limit(examples)
    for axes, example in zip(panels, examples, strict=False):
        _draw_example(axes, example, limit)
        _set_title(axes, example)
        axes.set_xlabel(_time_label(example))
    for axes in panels[len(examples) :]:
        axes.set_axis_off()
    if any(example.activation is not None for example in examples):
        draw_colour_bar(figure, list(panels), limit)
    return figure


def mistakes(examples: Sequence[Example]) -> Figure:
    """Wrongly predicted series, the highest probability first."""
    ordered = sorted(examples, key=lambda example: -example.probability)
    return class_activation_maps(ordered, "Most confident mistakes")


@house_style()
def thumbnail(example: Example, limit: float) -> Figure:
    """A small plot without title and legend; `limit` is the `colour_limit` of all examples beside it."""
    height = max(1.7, 0.2 * min(len(example.series), MAX_VARIABLES))
    figure = Figure(figsize=(3.4, height), layout="constrained")
    _draw_example(figure.subplots(), example, limit)
    return figure


def colour_limit(examples: Iterable[Example]) -> float:
    """The value at both ends of the common colour scale, positive."""
    return limit_of([example.activation for example in examples if example.activation is not None])


def limit_of(values: Sequence[NDArray[np.floating]]) -> float:
    """The 98th percentile of the absolute values, so that a few extreme time steps do not make all others pale."""
    sizes = np.abs(np.concatenate([np.ravel(part) for part in values])) if values else np.zeros(1)
    return float(np.quantile(sizes, 0.98)) or float(sizes.max()) or 1.0


def _draw_example(axes: Axes, example: Example, limit: float) -> None:
    """All variables in one panel."""
    if len(example.series) == 1:
        draw_line(axes, example.series[0], example.activation, limit)
        return
    shown = example.series[:MAX_VARIABLES]
    for k, values in enumerate(shown):
        low, high = values.min(), values.max()
        scaled = (values - low) / (high - low) if high > low else np.full(len(values), 0.5)
        draw_line(axes, scaled * 0.85 - k, example.activation, limit, MAX_POINTS // 5)
    axes.set_yticks(0.4 - np.arange(len(shown)), [str(k + 1) for k in range(len(shown))])
    axes.tick_params(axis="y", labelsize=min(8, 80 / len(shown)), length=0)
    axes.set_ylabel("variable")
    axes.grid(visible=False, axis="y")
    for line in axes.collections:
        line.set_rasterized(len(shown) > 3)  # as lines they would be thousands of elements in an SVG


def draw_line(
    axes: Axes,
    values: Series,
    activation: NDArray[np.floating] | None,
    limit: float,
    points: int = MAX_POINTS // 3,
    width: float = 1.6,
) -> None:
    """Draw a series `[T]`, coloured by its activation `[T]` between -limit and limit, or else in blue."""
    width *= min(1.0, max(0.5, points / (1.5 * len(values))))  # thinner, or a long series becomes a block
    steps, values, colours = _resample(values, activation, points)
    if colours is None:
        marker = "o" if len(values) == 1 else ""
        axes.plot(steps, values, color=BLUE, linewidth=min(width, 1.4), marker=marker, markersize=3)
    elif len(values) == 1:
        axes.scatter(steps, values, c=colours, cmap=ACTIVATION_COLOURS, vmin=-limit, vmax=limit, s=12)
    else:
        axes.add_collection(_coloured_line(steps, values, colours, limit, width))
    axes.margins(x=0.01, y=0.08)
    axes.autoscale_view()
    if len(values) == 1:
        axes.set_xlim(-0.5, 0.5)
    axes.yaxis.set_major_locator(ticks(4))
    axes.xaxis.set_major_locator(ticks(6, integer=True))


def _coloured_line(steps: Series, values: Series, colours: Series, limit: float, width: float) -> LineCollection:
    """A line for each run of equal colour: smaller than one for each segment, and without gaps between them."""
    shades = np.round((colours[:-1] + colours[1:]) / 2 / limit * SHADES)
    starts = [0, *(np.flatnonzero(np.diff(shades)) + 1).tolist()]
    points = np.stack([steps, values], axis=1)
    pieces = [points[start : end + 1] for start, end in zip(starts, [*starts[1:], len(shades)], strict=True)]
    norm = Normalize(-limit, limit)
    line = LineCollection(pieces, cmap=ACTIVATION_COLOURS, norm=norm, linewidths=width, capstyle="round")
    line.set_array(shades[starts] / SHADES * limit)
    return line


def _resample(
    values: Series, colours: NDArray[np.floating] | None, points: int
) -> tuple[Series, Series, Series | None]:
    """Steps, values and colours of a line with about `points` points that looks like the line through all T values.

    Of a long series, the minimum and maximum of each stretch are kept, with the stretch's mean colour. A short series
    gets points between its values, so that colours change smoothly.
    """
    length = len(values)
    if length > points:
        starts = np.linspace(0, length, points // 2, endpoint=False).astype(np.int64)
        kept = extremes(values, starts)
        if colours is not None:
            means = np.add.reduceat(colours.astype(np.float64), starts) / np.diff([*starts, length])
            colours = means[np.searchsorted(starts, kept, side="right") - 1]
        return kept.astype(np.float64), values[kept], colours
    steps = np.arange(length, dtype=np.float64)
    if colours is None:
        return steps, values, None
    finer = np.linspace(0, length - 1, (length - 1) * (points // length) + 1)
    return finer, np.interp(finer, steps, values), np.interp(finer, steps, colours)


def extremes(values: Series, starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Indices of the minimum and maximum of each stretch of `values`, and of both ends; ascending."""
    found = [0, len(values) - 1]
    for start, stretch in zip(starts.tolist(), np.split(values, starts[1:]), strict=True):
        found += [start + int(stretch.argmin()), start + int(stretch.argmax())]
    return np.unique(np.array(found, dtype=np.int64))


def _set_title(axes: Axes, example: Example) -> None:
    """Prediction; for a mistake also the true class, in the colour of mistakes."""
    place = "" if example.row is None else f"row {example.row}: "
    text = f"{place}class {shorten(example.predicted, 16)} ({example.probability:.3f})"
    if example.is_mistake:
        text += f"\ntrue class: {shorten(example.truth or '', 30)}"
    axes.set_title(text, color=VERMILION if example.is_mistake else DARK)


def _time_label(example: Example) -> str:
    omitted = len(example.series) - MAX_VARIABLES
    return "time step" if omitted <= 0 else f"time step ({omitted} more variables not shown)"


def draw_colour_bar(
    figure: Figure,
    panels: list[Axes],
    limit: float,
    label: str = "against the class (below 0) or for it (above 0)",
) -> None:
    """Draw the scale of `draw_line` beside the panels."""
    bar = figure.colorbar(
        mpl.cm.ScalarMappable(Normalize(-limit, limit), ACTIVATION_COLOURS),
        ax=panels,
        label=label,
        aspect=12 * figure.get_figheight(),
        fraction=0.04,
        pad=0.02,
        extend="both",
        extendfrac=0.02,
    )
    bar.outline.set_visible(False)
    bar.locator = ticks(6)
    bar.update_ticks()
