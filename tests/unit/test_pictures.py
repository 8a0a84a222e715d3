import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray

from lstm_fcn.container.errors import UserError
from lstm_fcn.training.output import charts, explanations, layers, style
from lstm_fcn.training.output.explanations import Example

RNG = np.random.default_rng(0)


def example(length: int = 60, variables: int = 1, **changes: Any) -> Example:
    """A random walk; its first half speaks for the class, its second half against it."""
    values: dict[str, Any] = {
        "series": RNG.normal(size=(variables, length)).cumsum(axis=1),
        "predicted": "up",
        "probability": 0.9,
        "activation": np.where(np.arange(length) < length / 2, 2.0, -1.0).astype(np.float32),
    }
    return Example(**values | changes)


def texts(figure: Figure) -> str:
    """What is written in a picture, labels of ticks left out."""
    return "\n".join(text.get_text() for text in figure.findobj(Text) if isinstance(text, Text))


def svg_texts(figure: Figure) -> str:
    """All that is written in a picture, as a reader of its SVG finds it."""
    root = ElementTree.fromstring(style.svg(figure))  # noqa: S314
    return "\n".join(node.text or "" for node in root.iter("{http://www.w3.org/2000/svg}text"))


def coloured_line(axes: Axes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points `[P, 2]` of a panel's coloured line, and the values `[P - 1]` that colour the pieces between them."""
    (line,) = (artist for artist in axes.collections if isinstance(artist, LineCollection))
    pieces, colours = line.get_segments(), line.get_array()
    assert colours is not None
    points = np.concatenate([pieces[0][:1], *(piece[1:] for piece in pieces)])
    return points, np.repeat(colours, [len(piece) - 1 for piece in pieces])


# Class activation maps


@pytest.mark.parametrize("length", [2, 15, 150, 5000])
def test_the_colours_of_a_line_are_those_of_its_time_steps(length: int) -> None:
    shown = example(length)
    points, colours = coloured_line(explanations.class_activation_map(shown).axes[0])
    np.testing.assert_allclose(points[[0, -1], 1], shown.series[0, [0, -1]])
    middle = (points[1:, 0] + points[:-1, 0]) / 2
    assert (colours[middle < 0.4 * (length - 1)] > 0).all()
    assert (colours[middle > 0.7 * (length - 1)] < 0).all()
    assert len(points) <= explanations.MAX_POINTS + 2


def test_short_series_go_through_all_their_values() -> None:
    shown = example(15)
    points = coloured_line(explanations.class_activation_map(shown).axes[0])[0]
    places = np.searchsorted(points[:, 0], np.arange(15))
    np.testing.assert_allclose(points[places, 1], shown.series[0])


def test_long_series_keep_every_peak() -> None:
    series = np.zeros((1, 5000))
    series[0, [7, 2500, 4990]] = 5, -3, 9
    points = coloured_line(explanations.class_activation_map(example(5000, series=series)).axes[0])[0]
    kept = {(step, value) for step, value in points.tolist() if value}
    assert kept == {(7, 5), (2500, -3), (4990, 9)}


def test_each_variable_has_a_panel_up_to_a_limit() -> None:
    figure = explanations.class_activation_map(example(variables=3))
    assert [axes.get_ylabel() for axes in figure.axes[:3]] == ["variable 1", "variable 2", "variable 3"]
    assert len(figure.axes) == 4  # and the colour bar
    many = explanations.class_activation_map(example(variables=explanations.MAX_VARIABLES + 5))
    assert len(many.axes) == explanations.MAX_VARIABLES + 1
    assert many.axes[-2].get_xlabel() == "time step (5 more variables not shown)"


def test_the_scale_of_colours_is_even_on_both_sides_of_zero() -> None:
    bar = explanations.class_activation_map(example()).axes[-1]
    assert bar.get_ylim() == (-2, 2)
    assert "against the class" in bar.get_ylabel()


def test_titles_say_what_was_predicted_and_mistakes_what_is_true() -> None:
    right = explanations.class_activation_map(example(truth="up")).axes[0]
    assert right.get_title(loc="left") == "class up (0.900)"
    wrong = explanations.class_activation_map(example(truth="down", row=7)).axes[0]
    assert wrong.get_title(loc="left") == "row 7: class up (0.900)\ntrue class: down"


def test_examples_share_one_scale_of_colours() -> None:
    weak = example(activation=np.full(60, 0.1))
    figure = explanations.class_activation_maps([example(), weak, example(), example(), example()])
    lines = [line for axes in figure.axes[:5] for line in axes.collections]
    assert [line.get_clim() for line in lines] == [(-2, 2)] * 5
    assert len([axes for axes in figure.axes if axes.axison and axes.get_xlabel() == "time step"]) == 5


def test_variables_of_one_panel_lie_below_each_other() -> None:
    figure = explanations.class_activation_maps([example(variables=2)])
    first, second = (line for line in figure.axes[0].collections if isinstance(line, LineCollection))
    lowest = min(piece[:, 1].min() for piece in first.get_segments())
    assert lowest > max(piece[:, 1].max() for piece in second.get_segments())


def test_without_activation_series_are_plain_lines() -> None:
    figure = explanations.class_activation_maps([example(activation=None)])
    assert len(figure.axes) == 1  # no colour bar
    assert len(figure.axes[0].get_lines()[0].get_xdata()) == 60  # type: ignore[arg-type]


def test_the_most_confident_mistake_comes_first() -> None:
    figure = explanations.mistakes([example(truth="down", probability=p) for p in (0.6, 0.99, 0.7)])
    titles = [axes.get_title(loc="left") for axes in figure.axes[:3]]
    assert [re.findall(r"0\.\d+", title)[0] for title in titles] == ["0.990", "0.700", "0.600"]


@pytest.mark.parametrize("activation", [np.zeros(1), np.ones(1), None])
def test_a_series_of_one_value(activation: NDArray[np.float64] | None) -> None:
    shown = example(1, activation=activation)
    assert style.svg(explanations.thumbnail(shown, 1.0))


def test_constant_series_and_large_offsets() -> None:
    constant = np.full((2, 40), 1e7)
    assert style.svg(explanations.thumbnail(example(40, series=constant), 1.0))


def test_a_few_strong_steps_do_not_pale_all_others() -> None:
    activation = np.ones(1000)
    activation[3] = 500
    assert explanations.colour_limit([example(1000, activation=activation)]) == 1
    assert explanations.colour_limit([example(1000, activation=np.zeros(1000))]) == 1
    rare = np.zeros(1000)
    rare[3] = 500
    assert explanations.colour_limit([example(1000, activation=rare)]) == 500
    assert explanations.colour_limit([]) == 1


# Layers


def test_context_is_grouped_by_class() -> None:
    labels = np.array([2, 0, 2, 0, 2])
    context = labels[:, None] + np.zeros((5, 30))
    figure = layers.attention_context(RNG.normal(size=(5, 30)), context, labels, ["a", "never", "c"])
    above = figure.axes[0]
    shown = np.asarray(above.images[0].get_array())
    assert shown[:, 0].tolist() == [0, 0, 2, 2, 2]
    assert [label.get_text() for label in above.get_yticklabels()] == ["a", "c"]
    assert above.get_yticks().tolist() == [0.5, 3]
    assert [axes.get_title(loc="left") for axes in figure.axes[1:3]] == ["mean of a", "mean of c"]
    single = layers.attention_context(np.zeros((1, 30)), context[:1], labels[:1], ["a", "never", "c"])
    assert single.axes[1].get_title(loc="left") == "c"


def test_the_mean_series_of_a_class_is_coloured_by_its_mean_context() -> None:
    series = np.stack([np.zeros(30), np.full(30, 2.0)])
    context = np.stack([np.full(30, 1.0), np.full(30, -3.0)])
    figure = layers.attention_context(series, context, np.array([0, 0]), ["a"])
    points, colours = coloured_line(figure.axes[1])
    assert set(points[:, 1]) == {1.0}
    np.testing.assert_allclose(colours, -1, atol=3 / explanations.SHADES / 2)


def test_names_of_small_classes_do_not_overlap() -> None:
    labels = np.repeat(np.arange(60), [200, *[1] * 59])
    names = [f"class {k}" for k in range(60)]
    figure = layers.attention_context(np.zeros((259, 5)), RNG.random((259, 5)), labels, names)
    height = 4.5
    assert np.diff(figure.axes[0].get_yticks()).min() * height / 259 >= 0.13  # inches
    assert figure.get_supxlabel() == "time step (48 more classes not shown)"


def test_the_filters_that_answer_most_are_drawn() -> None:
    responses = np.array([1.0, 9.0, 0.0, 5.0])[:, None] * np.ones((4, 20))
    weights = np.arange(12.0).reshape(4, 3)
    figure = layers.filters(weights, np.full(len(weights), 4), responses, np.zeros(20), count=2)
    drawn = [line for line in figure.axes[2].lines if line.get_marker() == "o"]
    assert np.asarray(drawn[0].get_xdata()).tolist() == [4 * k for k in range(weights.shape[1])]
    left = [axes for axes in figure.axes if axes.get_ylabel().startswith("filter")]
    assert [axes.get_ylabel() for axes in left] == ["filter 2", "filter 4"]
    assert np.asarray(left[0].get_lines()[1].get_ydata()).tolist() == [3, 4, 5]


# Training


def history(epochs: int, **columns: NDArray[np.float64]) -> list[dict[str, float]]:
    defaults = {"train_loss": np.linspace(1, 0.5, epochs), "lr": np.full(epochs, 0.01)}
    series = defaults | columns
    return [
        {"epoch": k + 1, "round": 0, **{name: float(values[k]) for name, values in series.items()}}
        for k in range(epochs)
    ]


def test_curves_are_those_of_the_history() -> None:
    entries = history(5, valid_accuracy=np.array([0.1, 0.5, 0.4, 0.8, 0.7]))
    figure = charts.learning_curves(entries, best_epoch=(4, 0))
    loss, accuracy, rate = figure.axes
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["loss", "accuracy", "learning rate"]
    assert np.asarray(loss.get_lines()[0].get_xdata()).tolist() == [1, 2, 3, 4, 5]
    assert np.asarray(rate.get_lines()[0].get_ydata()).tolist() == [0.01] * 5
    kept = accuracy.get_lines()[1]
    assert np.asarray(kept.get_xydata()).tolist() == [[4, 0.8]]
    assert "selected: epoch 4" in texts(figure)


@pytest.mark.parametrize(("last", "scale"), [(0.5, "linear"), (0.01, "log"), (0.0, "linear")])
def test_loss_over_more_than_a_decade_has_a_logarithmic_scale(last: float, scale: str) -> None:
    figure = charts.learning_curves(history(5, train_loss=np.linspace(1, last, 5)), best_epoch=(5, 0), panels=["loss"])
    assert figure.axes[0].get_yscale() == scale
    assert "mathdefault" not in svg_texts(figure)


def test_rounds_follow_each_other() -> None:
    entries = history(3) + [entry | {"round": 1} for entry in history(2)]
    figure = charts.learning_curves(entries, best_epoch=(2, 1), panels=["loss"])
    curve, kept, start = figure.axes[0].get_lines()[:3]
    assert np.asarray(curve.get_xdata()).tolist() == [1, 2, 3, 4, 5]
    assert np.asarray(kept.get_xdata()).tolist() == [5]
    assert np.asarray(start.get_xdata()).tolist() == [3.5, 3.5]
    assert "selected: epoch 2, round 1" in texts(figure)


def test_many_epochs_are_thinned_out_without_losing_peaks() -> None:
    values = RNG.random(20000) + 1
    values[12345] = 4
    curve = charts.learning_curves(history(20000, train_loss=values), (20000, 0)).axes[0].get_lines()[0]
    assert len(np.asarray(curve.get_xdata())) <= explanations.MAX_POINTS + 2
    assert np.asarray(curve.get_ydata()).max() == 4


def test_one_epoch() -> None:
    assert "selected: epoch 1" in svg_texts(charts.learning_curves(history(1), best_epoch=(1, 0), panels=["loss"]))


def test_what_is_no_number_is_left_out() -> None:
    entries = history(4, train_loss=np.array([1, np.nan, np.inf, 0.5]))
    curve = charts.learning_curves(entries, best_epoch=(4, 0)).axes[0].get_lines()[0]
    assert np.asarray(curve.get_xydata()).tolist() == [[1, 1], [4, 0.5]]


# Results


def test_a_confusion_matrix_has_its_counts_where_they_are() -> None:
    figure = charts.confusion_matrix(np.array([[50, 3], [0, 47]]), ["a", "b"])
    axes = figure.axes[0]
    assert {(text.get_position(), text.get_text()) for text in axes.texts} == {
        ((0, 0), "50"),
        ((1, 0), "3"),
        ((1, 1), "47"),
    }
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b"]


def test_right_is_blue_wrong_is_orange_and_shade_is_the_share_of_the_true_class() -> None:
    matrix = np.array([[1000, 0], [9, 1]])
    shade = np.asarray(charts.confusion_matrix(matrix, ["a", "b"]).axes[0].images[0].get_array())
    assert tuple(shade[0, 0]) == pytest.approx(mpl.colors.to_rgba(style.BLUE))
    assert tuple(shade[0, 1]) == (1, 1, 1, 1)
    red, _, blue, _ = shade[1, 0]
    assert red > blue + 0.5
    assert shade[1, 1].sum() > shade[0, 0].sum()  # one of ten: a pale blue


def test_many_classes_are_drawn_without_counts_and_with_names_that_fit() -> None:
    figure = charts.confusion_matrix(np.eye(130, dtype=int), [f"class {k}" for k in range(130)])
    assert not figure.axes[0].texts
    assert len(figure.axes[0].get_xticks()) <= charts.MAX_NAMED


def test_classes_without_rows_are_no_division_by_zero() -> None:
    assert "true class" in svg_texts(charts.confusion_matrix(np.zeros((2, 2), dtype=int), ["a", "b"]))


def test_targets_are_bars_of_those_that_have_them_and_those_that_do_not() -> None:
    matrices = np.array([[[90, 10], [5, 15]], [[100, 0], [0, 0]]])
    figure = charts.target_matrices(matrices, ["first", "second"])
    widths = [[bar.get_width() for bar in axes.patches] for axes in figure.axes]  # type: ignore[attr-defined]
    np.testing.assert_allclose(widths, [[0.75, 0, 0.25, 0], [0.9, 1, 0.1, 0]])
    assert [text.get_text() for text in figure.axes[0].texts] == ["15", "5", "none"]
    assert [text.get_text() for text in figure.axes[1].texts] == ["90", "10", "100"]


def test_shortened_names_still_differ() -> None:
    names = ["walking upstairs with a heavy bag", "walking downstairs with a heavy bag", "sitting"]
    found = style.shorten_alike(names)
    assert len(set(found)) == 3
    assert found[2] == "sitting"
    assert max(map(len, found)) < 30
    assert style.shorten("abcdefghij", 5) == "ab\N{HORIZONTAL ELLIPSIS}ij"


# Texts and files


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("<script>", "<script>"),
        ("$\\frac{", "$\\frac{"),
        ("a\x00b\u202e", "a\ufffdb\ufffd"),
        ("a\nb", "a b"),
        ("\N{CJK UNIFIED IDEOGRAPH-884C}", "\N{CJK UNIFIED IDEOGRAPH-884C}"),
    ],
)
def test_labels_are_shown_as_they_are(label: str, shown: str) -> None:
    assert shown in svg_texts(charts.confusion_matrix(np.eye(2, dtype=int), [label, "b"])).split("\n")
    assert f"class {shown} (0.900)" in texts(explanations.class_activation_map(example(predicted=label)))


def test_the_same_picture_has_the_same_bytes() -> None:
    shown = example(20, variables=5)

    def draw(_: int) -> tuple[bytes, bytes]:
        return style.svg(explanations.thumbnail(shown, 1.0)), style.png(explanations.thumbnail(shown, 1.0))

    with ThreadPoolExecutor(4) as threads:
        found = set(threads.map(draw, range(4)))
    assert len(found) == 1
    ((svg, png),) = found
    assert b"date" not in svg
    assert b"Software" not in png


def test_the_users_own_settings_neither_matter_nor_change() -> None:
    shown = example()
    with mpl.rc_context({"lines.linewidth": 9, "text.usetex": True}):
        svg = style.svg(explanations.thumbnail(shown, 1.0))
        assert (mpl.rcParams["lines.linewidth"], mpl.rcParams["text.usetex"]) == (9, True)
    assert svg == style.svg(explanations.thumbnail(shown, 1.0))


def test_pictures_are_saved_as_png(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    style.save(explanations.class_activation_map(example()), folder, "map")
    assert [path.name for path in folder.iterdir()] == ["map.png"]
    assert (folder / "map.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_cannot_be_saved_is_the_users_to_mend(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match=r"file/map\.png cannot be written: "):
        style.save(explanations.thumbnail(example(), 1.0), tmp_path / "file", "map")


def test_neither_torch_nor_pyplot_is_imported() -> None:
    code = "import sys, lstm_fcn.training.output.report; print({'torch', 'matplotlib.pyplot'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
