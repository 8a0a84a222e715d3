import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from lstm_fcn.benchmarks import diagrams
from lstm_fcn.training.output.style import BLUE, png

pytestmark = pytest.mark.slow


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)]


def test_scatter_counts_and_names() -> None:
    accuracies = pd.DataFrame(
        {r"A $\frac$": [0.9, 0.8, 0.7, 0.31], "B": [0.5, 0.82, 0.7, 0.3]}, index=["far", "near", "equal", "nearest"]
    )
    figure = diagrams.scatter(accuracies)
    found = texts(figure)
    assert {r"A $\frac$ better: 2", "B better: 1", "equal: 1", "accuracy of B", "far", "near"} <= set(found)
    assert "equal" not in found  # on the diagonal
    assert png(figure) == png(diagrams.scatter(accuracies))


def test_scatter_names_points_at_the_edge() -> None:
    """The data sets that differ most have an accuracy of 1 with one method, so that there is no room beside them."""
    accuracies = pd.DataFrame(
        {"A": [1.0, 0.5, 0.72], "B": [0.5, 1.0, 0.7]}, index=["upper left", "lower right", "near"]
    )
    figure = diagrams.scatter(accuracies)
    assert {"upper left", "lower right", "near"} <= set(texts(figure))
    axes = figure.axes[0]
    figure.draw_without_rendering()
    for text in axes.texts:
        box = text.get_window_extent()
        assert axes.bbox.contains(box.x0, box.y0), text
        assert axes.bbox.contains(box.x1, box.y1), text


@pytest.mark.parametrize("values", [[0.5], [0.0, 1.0]])
def test_scatter_of_extremes(values: list[float]) -> None:
    figure = diagrams.scatter(pd.DataFrame({"A": values, "B": values}))
    assert {"A better: 0", "B better: 0", f"equal: {len(values)}"} <= set(texts(figure))


def test_accuracy_over_time() -> None:
    accuracies = {"slow": 0.93, "paper": 0.9, "fast": 0.92, "other paper": 0.9001}
    figure = diagrams.accuracy_over_time(accuracies, {"fast": 10.0, "slow": 2000.0})
    figure.draw_without_rendering()
    assert {*accuracies, "100", "1,000"} <= set(texts(figure))
    points = [np.asarray(collection.get_offsets()).tolist() for collection in figure.axes[0].collections]
    assert points == [[[10.0, 0.92]], [[2000.0, 0.93]]]
    lines = [np.asarray(line.get_ydata()).tolist() for line in figure.axes[0].lines]
    assert lines == [[0.9, 0.9], [0.9001, 0.9001]]
    papers = [text for text in figure.axes[0].texts if "paper" in text.get_text()]
    assert abs(papers[0].get_position()[1] - papers[1].get_position()[1]) > 0.001  # they do not overlap


def test_diagram_has_every_method_and_its_rank() -> None:
    names = ["a method with a name that is much too long for a single line", "B", "C"]
    figure = diagrams.critical_difference(pd.Series([1.25, 2.25, 2.5], names), [["B", "C"]], ["B"], "note")
    wrapped = "a method with a name that is much\ntoo long for a single line"
    assert {"1.25", wrapped, "2.25", "B", "2.50", "C", "note", "mean rank (1 is best)"} <= set(texts(figure))
    assert [text.get_text() for text in figure.axes[0].texts if text.get_color() == BLUE] == ["2.25", "B"]
    (bar,) = [line for line in figure.axes[0].lines if line.get_linewidth() == 3]
    assert mpl.cbook.index_of(bar.get_xdata())[1] == pytest.approx([1.25 / 2 * 5.5, 1.5 / 2 * 5.5])
    with_names = png(figure)
    assert int.from_bytes(with_names[16:20], "big") > 200 * 5.5  # names outside the axes are not cropped
