"""The look of every picture, how labels are shortened in it, and how it is saved.

pyplot and its global state are not used: no display is needed, and any thread may draw. Labels are never parsed as
markup.
"""

import contextlib
import io
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lstm_fcn.container.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType  # not in matplotlib 3.10

# A palette for readers with any kind of colour vision (Okabe and Ito 2008).
BLUE, VERMILION, GREY, DARK = "#0072b2", "#d55e00", "#8a8a8a", "#333333"
FOR, NEUTRAL, AGAINST = "#c23b00", "#bdbdbd", "#005b9a"  # not white in the middle: lines must stay visible
ACTIVATION_COLOURS = LinearSegmentedColormap.from_list("activation", [AGAINST, "#4f9bd0", NEUTRAL, "#ef8a4c", FOR])

DPI = 200  # of a PNG
DPI_WITHIN_SVG = 144  # of the parts that an SVG holds as images
STYLE: "dict[RcKeyType, Any]" = {
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
    "savefig.bbox": "tight",
    "savefig.pad_inches": 0.1,
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

_drawing = threading.RLock()


@contextlib.contextmanager
def house_style() -> Iterator[None]:
    """Draw in the project's style, whatever the user's own settings are.

    matplotlib's settings are global, so one thread draws at a time.
    """
    with _drawing, mpl.rc_context(), warnings.catch_warnings():
        # The font lacks some scripts: a PNG then shows boxes, an SVG still holds the text.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def ticks(most: int, integer: bool = False) -> MaxNLocator:
    """At most `most` ticks at round numbers."""
    return MaxNLocator(most, steps=[1, 2, 5, 10], integer=integer, min_n_ticks=1 if integer else 2)


# Labels


def printable(text: str) -> str:
    """Replace characters that XML does not allow or that change how the text around them reads."""
    return "".join(map(_printable, text))


def _printable(character: str) -> str:
    if character.isprintable() or character in "\u200c\u200d":  # these two join letters or keep them apart
        return character
    return " " if character.isspace() else "\N{REPLACEMENT CHARACTER}"


def shorten(label: str, width: int) -> str:
    """A label of at most `width` characters; a long one keeps both ends, as either may distinguish it from others."""
    label = printable(label)
    if len(label) <= width:
        return label
    tail = (width - 1) // 2
    return label[: width - 1 - tail] + "\N{HORIZONTAL ELLIPSIS}" + label[len(label) - tail :]


def shorten_alike(labels: Sequence[str], widths: range = range(16, 33, 4)) -> list[str]:
    """Labels shortened to the smallest of the widths at which they still differ, or else to the largest."""
    found: list[str] = []
    for width in widths:
        found = [shorten(label, width) for label in labels]
        if len(set(found)) == len(set(labels)):
            break
    return found


# Files


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write `name.png`. The same picture always has the same bytes.

    PNG only, because notebooks, issue trackers and slides all show it; the HTML report embeds SVG instead.

    Raises:
        UserError: the folder is not writable.
    """
    write_atomically((folder / f"{name}.png", png(figure)))


@house_style()
def png(figure: Figure) -> bytes:
    """The figure as a PNG, cropped to what is drawn."""
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


@house_style()
def svg(figure: Figure) -> bytes:
    """The figure as an SVG of exactly its size."""
    file = io.BytesIO()
    figure.set_dpi(DPI_WITHIN_SVG)
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    FigureCanvasSVG(figure).print_svg(file, metadata=nothing)  # type: ignore[no-untyped-call]
    return file.getvalue()
