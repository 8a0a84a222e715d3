"""A plot of recordings with what was predicted when."""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from lstm_fcn.container.moments import has_timestamps
from lstm_fcn.container.recording import NANOSECONDS, Preparation, Times, Values
from lstm_fcn.training.output.explanations import MAX_POINTS, MAX_VARIABLES, extremes
from lstm_fcn.training.output.style import GREY, house_style, printable, shorten_alike, ticks

# Okabe and Ito 2008, without the colours that lines have.
COLOURS = ("#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#f0e442", "#d55e00", "#0072b2", "#999999")


class Drawn(NamedTuple):
    """A recording: times `[n]` and values `[n, M]` of its rows; starts, ends and classes of its events, `[k]`.

    truth: true events, as starts, ends and classes; empty if they are unknown.
    """

    name: str
    times: Times
    values: Values
    starts: Times
    ends: Times
    classes: NDArray[np.int64]
    truth: tuple[Times, Times, NDArray[np.int64]] | None = None


@house_style()
def draw_recordings(recordings: Sequence[Drawn], preparation: Preparation, classes: Sequence[str]) -> Figure:
    """A panel for each recording: its values, each variable scaled to the panel, and a coloured strip of its events."""
    height = 0.7 + 1.5 * len(recordings)
    figure = Figure(figsize=(8, height), layout="constrained")
    panels = figure.subplots(len(recordings), 1, squeeze=False)[:, 0]
    for axes, recording in zip(panels, recordings, strict=True):
        _draw(axes, recording, preparation)
    shown = sorted({int(k) for recording in recordings for k in recording.classes})
    names = shorten_alike([classes[k] for k in shown])
    patches = [Patch(color=_colour(k), label=name) for k, name in zip(shown, names, strict=True)]
    figure.legend(handles=patches, loc="outside upper left", ncols=6)
    return figure


def _draw(axes: Axes, recording: Drawn, preparation: Preparation) -> None:
    variables = min(recording.values.shape[1], MAX_VARIABLES)
    for k in range(variables):
        known = ~np.isnan(recording.values[:, k])
        times, values = _axis(recording.times[known], preparation), recording.values[known, k]
        if not len(values):
            continue
        stretches = np.linspace(0, len(values), min(len(values), MAX_POINTS // 2), endpoint=False)
        picked = extremes(values, stretches.astype(np.int64))
        low, high = float(values.min()), float(values.max())
        scaled = (values[picked] - low) / ((high - low) or 1.0)
        shade = mpl.colormaps["Greys"](0.85 - 0.45 * k / variables)
        axes.plot(times[picked], scaled, color=shade, linewidth=0.8)
    strips = [(recording.starts, recording.ends, recording.classes, -0.16)]
    if recording.truth is not None:
        strips.append((*recording.truth, -0.32))
    step = np.array([preparation.every or 0])
    for starts, ends, classes, bottom in strips:
        left, right = _axis(starts, preparation), _axis(ends + step, preparation)
        for start, end, label in zip(left, right, classes.tolist(), strict=True):
            axes.fill_between([start, end], bottom, bottom + 0.13, color=_colour(label), linewidth=0)
            axes.axvspan(start, end, color=_colour(label), alpha=0.12, linewidth=0) if bottom == -0.16 else None
    axes.set_ylim(-0.05 - 0.16 * len(strips), 1.05)
    axes.set_yticks([])
    axes.set_title(printable(recording.name))
    if has_timestamps(preparation):
        locator = AutoDateLocator()  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    else:
        axes.xaxis.set_major_locator(ticks(8))
        axes.set_xlabel(preparation.time or "row", color=GREY)


def _axis(times: Times, preparation: Preparation) -> NDArray[np.generic]:
    """Times as matplotlib takes them."""
    if has_timestamps(preparation):
        return times.astype("datetime64[ns]")
    return times / NANOSECONDS[preparation.unit or "s"] if preparation.time else times


def _colour(label: int) -> str:
    return COLOURS[label % len(COLOURS)]
