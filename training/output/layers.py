"""Plots of what the layers of a network do: attention, and the filters of a convolution."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lstm_fcn.training.output.charts import MAX_WITH_COUNTS
from lstm_fcn.training.output.explanations import (
    MAX_POINTS,
    MAX_VARIABLES,
    Series,
    draw_colour_bar,
    draw_line,
    limit_of,
)
from lstm_fcn.training.output.style import ACTIVATION_COLOURS, DARK, GREY, VERMILION, house_style, shorten, ticks


@house_style()
def attention_context(
    series: Series,
    context: NDArray[np.floating],
    labels: NDArray[np.integer],
    classes: Sequence[str],
    label: str = "context",
) -> Figure:
    """The context vectors that the attention LSTM computes for K series of one variable.

    At the top an image with a row for each series, grouped by class; below it the mean series of each class, coloured
    by the mean context.

    Args:
        series: float64 `[K, T]`.
        context: float `[K, T]`.
        labels: int `[K]`, indices into `classes`.
        classes: class names; classes without series are left out.
        label: of the colour scale.
    """
    counts = np.bincount(labels, minlength=len(classes))
    present = np.flatnonzero(counts).tolist()
    shown = present[:MAX_VARIABLES]
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    height = min(4.5, 1.2 + 0.06 * len(series))
    figure = Figure(figsize=(9, 0.9 + height + 1.5 * rows), layout="constrained")
    grid = figure.add_gridspec(1 + rows, columns, height_ratios=[height, *[1.5] * rows])
    limit = limit_of([context])

    image = figure.add_subplot(grid[0, :])
    ordered = context[np.argsort(labels, kind="stable")]
    image.imshow(ordered, cmap=ACTIVATION_COLOURS, norm=Normalize(-limit, limit), aspect="auto")
    _mark_groups(image, counts[present], [classes[k] for k in present], height)
    image.set_title(f"attention to {len(series)} series")
    panels = [figure.add_subplot(grid[1 + place // columns, place % columns]) for place in range(len(shown))]
    for axes, k in zip(panels, shown, strict=True):
        draw_line(axes, series[labels == k].mean(axis=0), context[labels == k].mean(axis=0), limit)
        axes.set_title(("mean of " if counts[k] > 1 else "") + shorten(classes[k], 18))
    omitted = len(present) - len(shown)
    figure.supxlabel("time step" + (f" ({omitted} more classes not shown)" if omitted else ""), fontsize=8)
    draw_colour_bar(figure, [image, *panels], limit, label)
    return figure


def _mark_groups(axes: Axes, counts: NDArray[np.integer], names: Sequence[str], height: float) -> None:
    """Label the groups of rows of an image that is `height` inches high, and separate them by thin lines."""
    ends = np.cumsum(counts)
    for end in ends[:-1]:
        axes.axhline(end - 0.5, color="white", linewidth=0.8 if len(names) <= MAX_WITH_COUNTS else 0.3)
    middles = ends - counts / 2 - 0.5
    labelled = _spaced(middles, gap=0.14 * ends[-1] / height)
    axes.set_yticks(middles[labelled], [shorten(names[k], 16) for k in labelled])
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(ticks(8, integer=True))
    axes.grid(visible=False)


def _spaced(places: NDArray[np.floating], gap: float) -> list[int]:
    """Indices of ascending places that are at least `gap` apart."""
    chosen: list[int] = []
    for k, place in enumerate(places.tolist()):
        if not chosen or place - places[chosen[-1]] >= gap:
            chosen.append(k)
    return chosen


@house_style()
def filters(
    weights: Series, dilations: NDArray[np.integer], responses: Series, series: Series, count: int = 8
) -> Figure:
    """The filters of a convolution that respond most strongly to a series, each beside its response.

    Args:
        weights: float `[n, width]`.
        dilations: time steps from one weight to the next, int `[n]`.
        responses: float `[n, T]`, after the activation function.
        series: float64 `[T]`.
        count: maximum number of filters.
    """
    strongest = np.argsort(-np.abs(responses).mean(axis=1), kind="stable")[:count]
    rows = 1 + len(strongest)
    figure = Figure(figsize=(8, 0.8 + 0.8 * rows), layout="constrained")
    panels = figure.subplots(rows, 2, width_ratios=[1, 4], sharex="col", squeeze=False)
    panels[0, 0].set_axis_off()
    draw_line(panels[0, 1], series, None, 1.0, MAX_POINTS)
    panels[0, 1].set_title("series")
    largest = float(np.abs(weights[strongest]).max()) * 1.1 or 1.0
    for row, k in enumerate(strongest.tolist(), start=1):
        left, right = panels[row]
        left.axhline(0, color=GREY, linewidth=0.6)
        left.plot(
            dilations[k] * np.arange(weights.shape[1]),
            weights[k],
            color=DARK,
            marker="o",
            markersize=2.5 if weights.shape[1] <= 40 else 0,
        )
        left.set_ylim(-largest, largest)
        left.set_ylabel(f"filter {k + 1}", rotation=0, ha="right", va="center")
        left.set_yticks([])
        left.xaxis.set_major_locator(ticks(4, integer=True))
        draw_line(right, responses[k], None, 1.0, MAX_POINTS)
        right.get_lines()[0].set_color(VERMILION)
        right.yaxis.set_major_locator(ticks(3))
    panels[1, 0].set_title("weights")
    panels[1, 1].set_title("response after the activation function")
    panels[-1, 0].set_xlabel("time step of the filter")
    panels[-1, 1].set_xlabel("time step")
    return figure
