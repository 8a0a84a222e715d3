import numpy as np
import pytest

from lstm_fcn.container.errors import UserError
from lstm_fcn.training.data.splits import draw_validation_rows
from lstm_fcn.training.distributed import Group


def test_each_class_gives_its_share() -> None:
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    drawn = draw_validation_rows(labels, 0.2, 0, Group())
    assert np.bincount(labels[drawn]).tolist() == [12, 6, 2]


def test_each_combination_of_targets_gives_its_share() -> None:
    targets = np.repeat(np.array([[0, 0], [1, 0], [1, 1]], dtype=np.float32), [20, 10, 10], axis=0)
    drawn = draw_validation_rows(targets, 0.2, 0, Group())
    assert targets[drawn].tolist() == [[0, 0]] * 4 + [[1, 0]] * 2 + [[1, 1]] * 2


def test_the_seed_decides() -> None:
    first, same, other = (draw_validation_rows(np.arange(50) % 3, 0.3, seed, Group()).tolist() for seed in (1, 1, 2))
    assert first == same != other
    assert sum(first) == 15


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("counts", [[9, 1], [2, 1, 1], [8, 1, 1], [2, 2, 1]])
def test_a_class_of_one_series_is_trained_on(counts: list[int], fraction: float) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    drawn = draw_validation_rows(labels, fraction, 0, Group())
    assert drawn.any()
    assert not {k for k, count in enumerate(counts) if count == 1} & set(labels[drawn].tolist())


def test_fewer_rows_than_classes_are_drawn_at_random(caplog: pytest.LogCaptureFixture) -> None:
    drawn = draw_validation_rows(np.repeat(np.arange(10), 4), 0.1, 0, Group())
    assert drawn.sum() == 4
    message = "WARNING: 4 validation series cannot represent each of 10 classes; they are drawn at random"
    assert message in caplog.messages


@pytest.mark.parametrize(("labels", "fraction"), [([0, 0, 1, 1], 0.1), ([0, 1, 2], 0.5)])
def test_less_than_one_series_is_refused(labels: list[int], fraction: float) -> None:
    with pytest.raises(UserError, match=f"validation-fraction={fraction} of {len(labels)} series is less than one"):
        draw_validation_rows(np.array(labels), fraction, 0, Group())
