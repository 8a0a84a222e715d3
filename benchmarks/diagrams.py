"""Pictures that compare classifiers, each as PNG and as SVG with the same content.

The same input gives the same SVG, byte for byte, with the same version of matplotlib.
"""

import math
import textwrap
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

# Colours of Okabe and Ito, which colour-blind people tell apart.
BLUE, ORANGE, GREY, BLACK = "#0072B2", "#D55E00", "#767676", "#222222"
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so pictures are alike on all machines
    "font.size": 10,
    "text.color": BLACK,
    "text.parse_math": False,  # a dollar in a name is a dollar
    "axes.edgecolor": GREY,
    "axes.labelcolor": BLACK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": GREY,
    "xtick.labelcolor": BLACK,
    "ytick.color": GREY,
    "ytick.labelcolor": BLACK,
    "svg.hashsalt": "lstm-fcn",
}

# The critical difference diagram, in inches.
AXIS_WIDTH = 5.5
LINE_HEIGHT = 0.18  # of a name
FIRST_BAR, BAR_STEP = 0.17, 0.12  # below the axis
NAME_LENGTH = 36  # characters in a line

# The data sets named in a scatter plot: how many, and the places tried, in points and degrees from the data set.
LABELS = 6
DISTANCES = (6, 15, 28, 42, 60)
ANGLES = (0, 180, 45, 135, -45, -135, 90, -90)
LEADER = {"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}  # a line to a far name


def draw_critical_difference(
    mean_ranks: "pd.Series[float]", cliques: Sequence[Sequence[str]], ours: Collection[str], note: str, path: Path
) -> None:
    """The diagram of Demsar (2006): methods at their mean ranks, and bars over those that do not differ.

    Args:
        mean_ranks: of each method, best first.
        cliques: the methods that a bar joins, in the order of `mean_ranks`.
        ours: methods drawn in colour.
        note: what a bar means; written below.
        path: of the pictures, without `.png` and `.svg`.
    """
    low = math.floor(mean_ranks.min())
    high = max(math.ceil(mean_ranks.max()), low + 1)
    places = (mean_ranks - low) / (high - low) * AXIS_WIDTH
    half = math.ceil(len(places) / 2)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(AXIS_WIDTH, 1))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        _draw_rank_axis(axes, low, high)
        top = _draw_bars(axes, [places[list(clique)].tolist() for clique in cliques])
        bottom = max(
            _draw_names(axes, "left", mean_ranks[:half], places, ours, top),
            _draw_names(axes, "right", mean_ranks[half:][::-1], places, ours, top),
        )
        below = _wrap(note, 100)
        axes.text(AXIS_WIDTH / 2, bottom + 0.12, below, ha="center", va="top", fontsize=8.5, color=GREY)
        # An inch is a unit of both axes; what lies outside the axes is in the picture too, however long a name is.
        axes.set(xlim=(0, AXIS_WIDTH), ylim=(bottom, 0))
        figure.set_size_inches(AXIS_WIDTH, bottom)
        _save(figure, path)


def _draw_rank_axis(axes: Axes, low: int, high: int) -> None:
    axes.plot([0, AXIS_WIDTH], [0, 0], color=GREY, linewidth=1, clip_on=False)
    step = max(1, round((high - low) / 10))
    for rank in range(low, high + 1):
        x = (rank - low) / (high - low) * AXIS_WIDTH
        numbered = (rank - low) % step == 0
        axes.plot([x, x], [0, -0.07 if numbered else -0.04], color=GREY, linewidth=1, clip_on=False)
        if numbered:
            axes.text(x, -0.1, str(rank), ha="center", va="bottom")
    axes.text(AXIS_WIDTH / 2, -0.33, "mean rank (1 is best)", ha="center", va="bottom")


def _draw_bars(axes: Axes, bars: Sequence[Sequence[float]]) -> float:
    """A bar for each clique, with a dot at each member; overlapping ones lie below each other. Returns their end."""
    ends: list[float] = []  # of the last bar on each level
    for bar in bars:
        level = next((level for level, end in enumerate(ends) if end < bar[0] - 0.2), len(ends))
        ends[level : level + 1] = [bar[-1]]
        heights = [FIRST_BAR + BAR_STEP * level] * len(bar)
        axes.plot(bar, heights, color=BLACK, linewidth=3, marker="o", markersize=6, markeredgewidth=0, zorder=3)
    return FIRST_BAR + BAR_STEP * len(ends) + 0.1


def _draw_names(
    axes: Axes,
    side: Literal["left", "right"],
    mean_ranks: "pd.Series[float]",
    places: "pd.Series[float]",
    ours: Collection[str],
    top: float,
) -> float:
    """The methods of one side, outermost first, each with a line to its place. Returns where the last one ends."""
    edge, outwards = (-0.15, -1) if side == "left" else (AXIS_WIDTH + 0.15, 1)
    align: Literal["left", "right"] = "right" if side == "left" else "left"
    rank_width = 0.5 if places.index.size < 10 else 0.6
    for name, rank in zip(map(str, mean_ranks.index), mean_ranks, strict=True):
        text = _wrap(name, NAME_LENGTH)
        height = LINE_HEIGHT * len(text.splitlines()) + 0.05
        y = top + height / 2
        color, weight = (BLUE, "bold") if name in ours else (BLACK, "normal")
        axes.plot([places[name], places[name], edge], [0, y, y], color=color, linewidth=1.2, clip_on=False)
        axes.text(edge + 0.06 * outwards, y, f"{rank:.2f}", ha=align, va="center", color=color, weight=weight)
        axes.text(*(edge + rank_width * outwards, y, text), ha=align, va="center", color=color, weight=weight)
        top += height
    return top


def draw_scatter(accuracies: pd.DataFrame, path: Path) -> None:
    """The accuracies of two methods, a point for each data set, with the most different data sets named.

    Args:
        accuracies: `[data sets, 2]`; the first method is the vertical axis, so it is better above the diagonal.
        path: of the picture, without `.png` and `.svg`.
    """
    first, second = map(str, accuracies.columns)
    y, x = accuracies.to_numpy().T
    kinds = [(y > x, BLUE), (y < x, ORANGE), (y == x, GREY)]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.2, 6.2), layout="constrained")
        axes = figure.add_subplot()
        low, high = _prepare_square(axes, float(accuracies.min().min()), float(accuracies.max().max()))
        axes.plot([low, high], [low, high], color=GREY, linewidth=1, zorder=1)
        for chosen, color in kinds:
            axes.scatter(x[chosen], y[chosen], s=26, color=color, alpha=0.75, linewidths=0, zorder=2)
        axes.set_xlabel(_wrap(f"accuracy of {second}", 60))
        axes.set_ylabel(_wrap(f"accuracy of {first}", 60))
        wins, losses, ties = (int(chosen.sum()) for chosen, _ in kinds)
        figure.draw_without_rendering()  # from here on, it is known where things lie
        points = axes.transData.transform(np.stack([x, y], axis=1))
        steps = np.linspace(0, 0.45, 16)
        texts = [
            _write(
                axes,
                points,
                _wrap(f"{first} better: {wins}", 30),
                [(0.03, 0.97 - step) for step in steps],
                color=BLUE,
                va="top",
            ),
            _write(
                axes,
                points,
                _wrap(f"{second} better: {losses}", 30),
                [(0.97, 0.03 + step) for step in steps],
                color=ORANGE,
                ha="right",
            ),
            _write(
                *(axes, points, f"equal: {ties}", [(0.05 + step, 0.07 + step) for step in steps]),
                color=GREY,
                rotation=45,
                rotation_mode="anchor",
            ),
        ]
        _name_points(axes, accuracies, points, texts)
        _save(figure, path)


def _write(
    axes: Axes, points: NDArray[np.float64], text: str, places: Sequence[tuple[float, float]], **style: Any
) -> Bbox:
    """Write a text at the first of the places (fractions of the axes) where it covers no point. Returns its box."""
    written = axes.text(0, 0, text, transform=axes.transAxes, **style)
    for place in places:
        written.set_position(place)
        box = written.get_window_extent()
        if not box.padded(8).count_contains(points):
            break
    return box


def _prepare_square(axes: Axes, lowest: float, highest: float) -> tuple[float, float]:
    """Equal ranges and ticks on both axes; returns the ends of the range."""
    low, high = math.floor(lowest * 20) / 20, math.ceil(highest * 20) / 20
    low, high = (low, high) if high > low else (low - 0.05, high + 0.05)
    margin = 0.03 * (high - low)
    ticks = [tick for tick in MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(low, high) if low - 1e-9 <= tick <= high]
    low, high = low - margin, high + margin
    axes.set(xlim=(low, high), ylim=(low, high), xticks=ticks, yticks=ticks, aspect="equal")
    axes.grid(color="#E6E6E6", linewidth=0.8)
    axes.set_axisbelow(True)
    return low, high


def _name_points(axes: Axes, accuracies: pd.DataFrame, points: NDArray[np.float64], texts: Sequence[Bbox]) -> None:
    """Name the data sets farthest from the diagonal, where there is room beside their points."""
    differences = (accuracies.iloc[:, 0] - accuracies.iloc[:, 1]).abs().to_numpy()
    taken = list(texts)
    for k in np.argsort(-differences, kind="stable")[:LABELS]:
        if differences[k] == 0:
            break
        y, x = accuracies.iloc[k]
        for distance, angle in ((distance, math.radians(angle)) for distance in DISTANCES for angle in ANGLES):
            offset = (distance * math.cos(angle), distance * math.sin(angle))
            label = axes.annotate(
                *(str(accuracies.index[k]), (x, y), offset),
                textcoords="offset points",
                ha={-1: "right", 0: "center", 1: "left"}[round(math.cos(angle))],
                va={-1: "top", 0: "center", 1: "bottom"}[round(math.sin(angle))],
                fontsize=8.5,
            )
            box = label.get_window_extent()
            with_line = Bbox.union([box, Bbox([points[k], points[k]])])
            if not with_line.count_overlaps(taken) and _is_free(
                box, axes.bbox, points[k], np.delete(points, k, axis=0)
            ):
                taken.append(with_line)
                if distance > DISTANCES[0]:
                    axes.annotate("", (x, y), offset, textcoords="offset points", arrowprops=LEADER)
                break
            label.remove()


def _is_free(box: Bbox, axes: Bbox, point: NDArray[np.float64], others: NDArray[np.float64]) -> bool:
    """Whether a name is within the axes, on its point's side of the diagonal, and clear of all points."""
    left, right, low, high = box.x0 - axes.x0, box.x1 - axes.x0, box.y0 - axes.y0, box.y1 - axes.y0
    above = point[1] - axes.y0 > point[0] - axes.x0
    return (
        (left > 0 and right < axes.width and low > 0 and high < axes.height)
        and (right < low if above else left > high)
        and not box.padded(3).count_contains(point[None])
        and not box.padded(10).count_contains(others)
    )


def _wrap(text: str, width: int) -> str:
    return textwrap.fill(text, width, break_on_hyphens=False)


def _save(figure: Figure, path: Path) -> None:
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
        figure.savefig(
            path.with_name(f"{path.name}.{kind}"), dpi=200, bbox_inches="tight", pad_inches=0.1, metadata=metadata
        )
