import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from lstm_fcn.container.errors import UserError
from lstm_fcn.container.hyperparameters import Hyperparameters, parse_hyperparameters
from lstm_fcn.container.problem import Problem, Scaling
from lstm_fcn.training.checkpoint import FOLDS, Checkpoint, Checkpoints
from lstm_fcn.training.cross_validation import OutOfFold, Progress, cross_validate, draw_folds, measure
from lstm_fcn.training.data.datasets import Data, Dataset
from lstm_fcn.training.devices import choose_placement
from lstm_fcn.training.distributed import Group
from lstm_fcn.training.stop import Interrupted, StopBeforeTraining, StopSignal
from tests.unit.groups import run_together

SMALL = {"hidden-size": "2", "filters-1": "4", "filters-2": "4", "filters-3": "4", "epochs": "3"}


def make_settings(folds: int, **names: str) -> Hyperparameters:
    return parse_hyperparameters(SMALL | {"kernel-features": "252", "cross-validation-folds": str(folds)} | names)


def make_data(signal: float, count: int = 60, rows: torch.Tensor | None = None) -> Data:
    """Noise, and in class 1 a step of this height in the middle."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    series = torch.randn(count, 1, 20, generator=generator)
    series[:, :, 10:] += signal * labels[:, None, None]
    series_count = count if rows is None else len(rows)
    problem = Problem.model_validate(
        {
            "task": "binary",
            "classes": ("a", "b"),
            "class_counts": (series_count // 2, series_count // 2),
            "series_count": series_count,
            "length": 20,
            "scaling": Scaling(method="none"),
        }
    )
    return Data(problem, Dataset(series, labels, rows=rows), None, series[:1].double().numpy(), "")


def validate(
    data: Data,
    settings: Hyperparameters,
    stop: StopSignal | None = None,
    checkpoints: Checkpoints | None = None,
    group: Group | None = None,
) -> OutOfFold:
    placement = choose_placement("float32", Group(), "cpu")
    return cross_validate(data, settings, placement, group or Group(), stop or StopSignal(), checkpoints)


def test_every_class_has_the_same_share_of_every_fold() -> None:
    labels = np.repeat([0, 1, 2], [50, 23, 4])
    folds = draw_folds(labels, 5, seed=0)
    counts = np.array([np.bincount(folds[labels == k], minlength=5) for k in range(3)])
    assert (counts.max(axis=1) - counts.min(axis=1) <= 1).all()
    assert np.ptp(np.bincount(folds)) <= 1
    assert (draw_folds(labels, 5, seed=0) == folds).all()
    assert (draw_folds(labels, 5, seed=1) != folds).any()
    combinations = np.stack([labels % 2, labels > 0], axis=1)
    assert np.ptp(np.bincount(draw_folds(combinations, 4, seed=0))) <= 1


def test_a_series_is_predicted_by_models_that_have_not_seen_it() -> None:
    """Where there is nothing to learn, they guess, however well they fit their own data."""
    nothing, rule = (validate(make_data(signal), make_settings(4)) for signal in (0.0, 3.0))
    assert nothing.probabilities.shape == (60, 2)
    np.testing.assert_allclose(nothing.probabilities.sum(dim=1), 1, atol=1e-5)
    assert nothing.metrics["valid_accuracy"] < 0.75
    assert rule.metrics["valid_accuracy"] > 0.9
    assert set(rule.metrics) == {"valid_loss", "valid_accuracy", "valid_balanced_accuracy", "valid_f1", "valid_auc"}


def test_only_the_rows_of_the_training_part_are_used() -> None:
    rows = torch.arange(10, 50)
    found = validate(make_data(3.0, rows=rows), make_settings(2))
    assert found.probabilities.shape == (40, 2)
    assert found.metrics["valid_accuracy"] > 0.8


def test_loss_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    probabilities, labels = rng.dirichlet([1, 1, 1], 40), rng.integers(0, 3, 40)
    found = measure(torch.from_numpy(probabilities), torch.from_numpy(labels), Group())
    assert found["valid_loss"] == pytest.approx(log_loss(labels, probabilities, labels=[0, 1, 2]))
    assert found["valid_accuracy"] == (probabilities.argmax(axis=1) == labels).mean()
    targets = rng.integers(0, 2, (40, 3))
    found = measure(torch.from_numpy(probabilities), torch.from_numpy(targets).float(), Group())
    expected = np.mean([log_loss(targets[:, k], probabilities[:, k]) for k in range(3)])
    assert found["valid_loss"] == pytest.approx(expected)


def test_more_folds_than_series_are_refused() -> None:
    with pytest.raises(UserError, match="cross-validation-folds=7 is more than the 6 training series"):
        validate(make_data(1.0, count=6), make_settings(7))


def test_a_stop_ends_it_without_a_model() -> None:
    stop = StopSignal()
    stop.training_started = True  # of the first fold
    stop.handle(15, None)
    with pytest.raises(StopBeforeTraining):
        validate(make_data(1.0), make_settings(3), stop)


class StopAfter(Checkpoints):
    """Requests a stop when so many folds are saved."""

    def __init__(self, folder: Path, folds: int, stop: StopSignal) -> None:
        super().__init__(folder, {}, FOLDS)
        self.folds, self.stop = folds, stop

    def save(self, name: str, checkpoint: Checkpoint) -> None:
        super().save(name, checkpoint)
        if checkpoint.state["folds"] == self.folds:
            self.stop.handle(15, None)


@pytest.mark.parametrize(
    ("resumable", "error"), [(True, "Interrupted after fold 2; run the same command again"), (False, None)]
)
def test_after_a_stop_the_other_folds_follow(
    resumable: bool, error: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    data, settings, stop = make_data(0.5), make_settings(3), StopSignal(resumable)
    with pytest.raises((Interrupted, StopBeforeTraining), match=error):
        validate(data, settings, stop, StopAfter(tmp_path, 2, stop))
    caplog.clear()
    found = validate(data, settings, None, Checkpoints(tmp_path, {}, FOLDS))
    assert [line for line in caplog.messages if "cross-validation" in line][:-1] == [
        "resumed: cross-validation after fold 2"
    ]
    whole = validate(data, settings)
    assert found.probabilities.equal(whole.probabilities)
    assert found.metrics == whole.metrics
    again = validate(data, settings, None, Checkpoints(tmp_path, {}, FOLDS))  # nothing is left to train
    assert again.metrics == whole.metrics


def test_processes_save_and_resume_together(tmp_path: Path) -> None:
    """Each has its own rows; the first one writes."""

    def run(group: Group) -> torch.Tensor:
        first = Checkpoints(tmp_path, {}, FOLDS) if group.is_first else None
        return Progress(20, 2, group, first).probabilities

    def save(group: Group) -> None:
        progress = Progress(20, 2, group, Checkpoints(tmp_path, {}, FOLDS) if group.is_first else None)
        progress.probabilities += group.rank + 1
        progress.save(1)

    run_together(2, save)
    assert [sorted(set(part.flatten().tolist())) for part in run_together(2, run)] == [[1.0], [2.0]]
