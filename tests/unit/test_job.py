import math

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from lstm_fcn.container.errors import UserError
from lstm_fcn.container.hyperparameters import parse_hyperparameters
from lstm_fcn.container.problem import Problem, Scaling, Task
from lstm_fcn.training.distributed import Group
from lstm_fcn.training.fit import check_batch_size, class_weights, describe_schedule, guessing_loss
from lstm_fcn.training.job import CURVE_POINTS, thin_out
from lstm_fcn.training.loop import BestEpoch

BALANCED = parse_hyperparameters({"class-weight": "balanced"})


def make_problem(task: Task, counts: list[int], total: int) -> Problem:
    return Problem(
        task=task,
        classes=tuple(f"y{k}" for k in range(len(counts))),
        class_counts=tuple(counts),
        series_count=total,
        length=8,
        scaling=Scaling(method="none"),
    )


@pytest.mark.parametrize("counts", [[5, 5], [1, 9], [3, 1, 6]])
def test_class_weights_are_those_of_scikit_learn(counts: list[int]) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    expected = compute_class_weight("balanced", classes=np.arange(len(counts)), y=labels)
    found = class_weights(BALANCED, make_problem("multiclass", counts, sum(counts)))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("task", ["binary", "multilabel"])
def test_each_independent_class_has_weights_for_0_and_1(task: Task) -> None:
    counts = [2] if task == "binary" else [2, 5, 9]
    found = class_weights(BALANCED, make_problem(task, counts, 10))
    for row, count in zip(found, counts, strict=True):
        labels = np.repeat([0, 1], [10 - count, count])
        np.testing.assert_allclose(row, compute_class_weight("balanced", classes=np.array([0, 1]), y=labels), rtol=1e-6)


def test_what_never_comes_weighs_nothing_in_the_balance() -> None:
    assert class_weights(BALANCED, make_problem("multiclass", [2, 0, 6], 8)).tolist() == [2, 1, pytest.approx(2 / 3)]
    assert class_weights(BALANCED, make_problem("multilabel", [8, 0, 4], 8)).tolist() == [[1, 1], [1, 1], [1, 1]]


@pytest.mark.parametrize(("task", "shape"), [("multiclass", (2,)), ("multilabel", (2, 2))])
def test_without_balance_all_weigh_the_same(task: Task, shape: tuple[int, ...]) -> None:
    found = class_weights(parse_hyperparameters({"class-weight": "none"}), make_problem(task, [1, 9], 10))
    assert torch.equal(found, torch.ones(shape))


def test_the_processes_of_a_job_share_each_batch() -> None:
    check_batch_size(parse_hyperparameters({"batch-size": "1"}), Group())
    check_batch_size(parse_hyperparameters({"batch-size": "4"}), Group(0, 4))
    check_batch_size(parse_hyperparameters({"batch-size": "16", "fine-tune-rounds": "2"}), Group(0, 4))
    with pytest.raises(
        UserError,
        match=r"batch-size=3 is too small for 4 processes, .* Set batch-size to at least 4\.",
    ):
        check_batch_size(parse_hyperparameters({"batch-size": "3"}), Group(0, 4))
    with pytest.raises(UserError, match=r"batch-size=15 .* \(in the last fine-tuning round of 3\)"):
        check_batch_size(parse_hyperparameters({"batch-size": "15", "fine-tune-rounds": "2"}), Group(0, 4))


@pytest.mark.parametrize("epochs", [1, 7, CURVE_POINTS, 3 * CURVE_POINTS])
def test_curves_have_few_points_and_the_epoch_that_was_kept(epochs: int) -> None:
    history = [{"round": 0, "epoch": epoch, "train_loss": 1 / 3, "lr": 0.1} for epoch in range(1, epochs + 1)]
    kept = max(1, epochs // 2)
    curves = thin_out(history, BestEpoch(kept, {}))
    found = [entry["epoch"] for entry in curves]
    assert found == sorted(set(found))
    assert {1, kept, epochs} <= set(found)
    assert len(found) == epochs if epochs <= CURVE_POINTS else CURVE_POINTS <= len(found) <= CURVE_POINTS + 1
    assert curves[0]["train_loss"] == 0.333333


@pytest.mark.parametrize(
    ("task", "counts", "total", "expected"),
    [
        ("binary", [5, 5], 10, math.log(2)),
        ("multiclass", [8, 2, 0], 10, -0.8 * math.log(0.8) - 0.2 * math.log(0.2)),
        ("multilabel", [5, 10], 10, math.log(2) / 2),
    ],
)
def test_the_loss_of_guessing(task: Task, counts: list[int], total: int, expected: float) -> None:
    assert guessing_loss(make_problem(task, counts, total)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ([], "schedule: batch-size=16, epochs=3, 9 steps"),
        (["epochs"], "schedule: batch-size=16, epochs=3, 9 steps; epochs chosen for 40 training series"),
    ],
)
def test_the_log_says_how_long_training_takes_and_why(chosen: list[str], expected: str) -> None:
    settings = parse_hyperparameters({"batch-size": "16", "epochs": "3"})
    assert describe_schedule(settings, 40, chosen) == expected
