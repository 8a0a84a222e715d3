"""Plots that compare classifiers over many data sets: critical difference diagram and scatter plot."""

import math
import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from lstm_fcn.training.output.style import BLUE, DARK, GREY, VERMILION, house_style

FONT_SIZE = 10

# The critical difference diagram, in inches.
AXIS_WIDTH = 5.5
LINE_HEIGHT = 0.18  # of a name
FIRST_BAR, BAR_STEP = 0.17, 0.12  # below the axis
NAME_LENGTH = 36  # characters in a line
MAX_NAMES = 6  # in a scatter plot
HALO = withStroke(linewidth=3, foreground="white")  # keeps a name that crosses a line legible


@house_style()
def critical_difference(
    mean_ranks: "pd.Series[float]", cliques: Sequence[Sequence[str]], highlighted: Collection[str], note: str
) -> Figure:
    """The diagram of Demsar (2006): methods at their mean ranks, and bars over methods that do not differ.

    Args:
        mean_ranks: by method, best first.
        cliques: the methods joined by each bar, in the order of `mean_ranks`.
        highlighted: methods drawn in blue.
        note: the meaning of the bars; written below the diagram.
    """
    low = math.floor(mean_ranks.min())
    high = max(math.ceil(mean_ranks.max()), low + 1)
    places = (mean_ranks - low) / (high - low) * AXIS_WIDTH
    half = math.ceil(len(places) / 2)
    figure = Figure(figsize=(AXIS_WIDTH, 1))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    _draw_rank_axis(axes, low, high)
    top = _draw_bars(axes, [places[list(clique)].tolist() for clique in cliques])
    bottom = max(
        _draw_names(axes, "left", mean_ranks[:half], places, highlighted, top),
        _draw_names(axes, "right", mean_ranks[half:][::-1], places, highlighted, top),
    )
    axes.text(AXIS_WIDTH / 2, bottom + 0.12, _wrap(note, 100), ha="center", va="top", fontsize=8.5)
    # One unit of both axes is one inch. Long names may lie outside the axes; `save` includes them.
    axes.set(xlim=(0, AXIS_WIDTH), ylim=(bottom, 0))
    figure.set_size_inches(AXIS_WIDTH, bottom)
    return figure


def _draw_rank_axis(axes: Axes, low: int, high: int) -> None:
    axes.plot([0, AXIS_WIDTH], [0, 0], color=GREY, linewidth=1, clip_on=False)
    step = max(1, round((high - low) / 10))
    for rank in range(low, high + 1):
        x = (rank - low) / (high - low) * AXIS_WIDTH
        numbered = (rank - low) % step == 0
        axes.plot([x, x], [0, -0.07 if numbered else -0.04], color=GREY, linewidth=1, clip_on=False)
        if numbered:
            axes.text(x, -0.1, str(rank), ha="center", va="bottom", fontsize=FONT_SIZE)
    axes.text(AXIS_WIDTH / 2, -0.33, "mean rank (1 is best)", ha="center", va="bottom", fontsize=FONT_SIZE)


def _draw_bars(axes: Axes, bars: Sequence[Sequence[float]]) -> float:
    """A bar for each clique, with a dot at each member; overlapping bars are stacked. Returns the lower end."""
    ends: list[float] = []  # right end of the last bar on each level
    for bar in bars:
        level = next((level for level, end in enumerate(ends) if end < bar[0] - 0.2), len(ends))
        ends[level : level + 1] = [bar[-1]]
        heights = [FIRST_BAR + BAR_STEP * level] * len(bar)
        axes.plot(bar, heights, color=DARK, linewidth=3, marker="o", markersize=6, markeredgewidth=0, zorder=3)
    return FIRST_BAR + BAR_STEP * len(ends) + 0.1


def _draw_names(
    axes: Axes,
    side: Literal["left", "right"],
    mean_ranks: "pd.Series[float]",
    places: "pd.Series[float]",
    highlighted: Collection[str],
    top: float,
) -> float:
    """The methods of one side, outermost first, each with a line to its rank. Returns the lower end."""
    edge, outwards = (-0.15, -1) if side == "left" else (AXIS_WIDTH + 0.15, 1)
    align: Literal["left", "right"] = "right" if side == "left" else "left"
    rank_width = 0.5 if places.index.size < 10 else 0.6
    for name, rank in zip(map(str, mean_ranks.index), mean_ranks, strict=True):
        text = _wrap(name, NAME_LENGTH)
        height = LINE_HEIGHT * len(text.splitlines()) + 0.05
        y = top + height / 2
        color, weight = (BLUE, "bold") if name in highlighted else (DARK, "normal")
        axes.plot([places[name], places[name], edge], [0, y, y], color=color, linewidth=1.2, clip_on=False)
        style: dict[str, Any] = {"ha": align, "va": "center", "color": color, "weight": weight, "fontsize": FONT_SIZE}
        axes.text(edge + 0.06 * outwards, y, f"{rank:.2f}", **style)
        axes.text(edge + rank_width * outwards, y, text, **style)
        top += height
    return top


@house_style()
def scatter(accuracies: pd.DataFrame) -> Figure:
    """The accuracies of two methods, a point for each data set; the data sets that differ most are named.

    Args:
        accuracies: `[data sets, 2]`; the first method is on the vertical axis, so it is better above the diagonal.
    """
    first, second = map(str, accuracies.columns)
    y, x = accuracies.to_numpy().T
    low, high = accuracies.to_numpy().min() - 0.02, accuracies.to_numpy().max() + 0.02
    figure = Figure(figsize=(6.2, 6.2), dpi=100, layout="constrained")  # margins below are in pixels at this DPI
    axes = figure.add_subplot()
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.plot([low, high], [low, high], color=GREY, linewidth=1, zorder=1)
    kinds = [(y > x, f"{first} better", BLUE), (y < x, f"{second} better", VERMILION), (y == x, "equal", GREY)]
    for chosen, name, color in kinds:
        label = _wrap(f"{name}: {chosen.sum()}", 30)
        axes.scatter(x[chosen], y[chosen], s=26, color=color, alpha=0.75, linewidths=0, zorder=2, label=label)
    axes.set_xlabel(_wrap(f"accuracy of {second}", 60), fontsize=FONT_SIZE)
    axes.set_ylabel(_wrap(f"accuracy of {first}", 60), fontsize=FONT_SIZE)
    figure.legend(loc="outside upper left", fontsize=FONT_SIZE)
    figure.draw_without_rendering()  # the layout is final, so positions can be measured
    points = axes.transData.transform(np.stack([x, y], axis=1))
    _name_points(axes, accuracies, points)
    return figure


def _name_points(axes: Axes, accuracies: pd.DataFrame, points: NDArray[np.float64]) -> None:
    """Name the data sets farthest from the diagonal that have room for a name.

    A name stands beside its point on the side away from the diagonal; or else beyond it, or on the other side.
    """
    upper = [((-6, 0), "right", "center"), ((-6, 4), "left", "bottom"), ((6, 0), "left", "center")]
    lower = [((6, 0), "left", "center"), ((6, -4), "right", "top"), ((-6, 0), "right", "center")]
    differences = (accuracies.iloc[:, 0] - accuracies.iloc[:, 1]).to_numpy()
    taken: list[Bbox] = []
    for k in np.argsort(-np.abs(differences), kind="stable"):
        if differences[k] == 0 or len(taken) == MAX_NAMES:
            break
        y, x = accuracies.iloc[k]
        for offset, horizontal, vertical in upper if differences[k] > 0 else lower:
            style: dict[str, Any] = {"textcoords": "offset points", "ha": horizontal, "va": vertical, "fontsize": 8.5}
            name = axes.annotate(str(accuracies.index[k]), (x, y), offset, path_effects=[HALO], **style)
            box = name.get_window_extent()
            inside = axes.bbox.contains(*box.min) and axes.bbox.contains(*box.max)
            if not inside or box.count_overlaps(taken) or box.padded(5).count_contains(np.delete(points, k, axis=0)):
                name.remove()
            else:
                taken.append(box)
                break


@house_style()
def accuracy_over_time(accuracies: Mapping[str, float], seconds: Mapping[str, float]) -> Figure:
    """Mean accuracies over the time that methods took; a dashed line for each method whose time is unknown.

    Args:
        accuracies: by method.
        seconds: by method, of those that were run.
    """
    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    axes = figure.add_subplot()
    low, high = min(accuracies.values()), max(accuracies.values())
    gap = max(high - low, 0.001) * 0.1
    axes.set(xscale="log", ylim=(low - gap, high + gap), xlim=(min(seconds.values()) / 2, max(seconds.values()) * 12))
    axes.set_xlabel("seconds to train and predict (all data sets, one core)", fontsize=FONT_SIZE)
    axes.set_ylabel("mean accuracy", fontsize=FONT_SIZE)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    floor = -math.inf  # names of lines are pushed upwards so that they do not overlap
    for accuracy, name in sorted((accuracy, name) for name, accuracy in accuracies.items() if name not in seconds):
        axes.axhline(accuracy, color=GREY, linewidth=1, linestyle="--", zorder=1)
        floor = max(accuracy, floor + gap * 0.45)
        place = (0.995, floor)
        axes.text(*place, name, transform=axes.get_yaxis_transform(), ha="right", va="bottom", fontsize=8.5)
    for name, time in seconds.items():
        axes.scatter(time, accuracies[name], s=40, color=BLUE, zorder=3)
        style: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": 9, "path_effects": [HALO]}
        axes.annotate(_wrap(name, 30), (time, accuracies[name]), (7, 0), **style)
    return figure


def _wrap(text: str, width: int) -> str:
    return textwrap.fill(text, width, break_on_hyphens=False)
