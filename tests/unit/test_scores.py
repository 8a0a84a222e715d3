import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, roc_auc_score
from torch import Tensor

from lstm_fcn.training.scores import count_correct, measure_scores
from tests.unit.groups import run_together


def expected_scores(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The scores by scikit-learn."""
    if labels.ndim == 1:
        predicted = logits.argmax(axis=1)
        scores = {
            "accuracy": accuracy_score(labels, predicted),
            "balanced_accuracy": np.mean([(predicted == labels)[labels == k].mean() for k in np.unique(labels)]),
            "f1": f1_score(labels, predicted, average="macro", zero_division=0),
        }
        if set(predicted) <= set(labels) and len(set(labels)) > 1:  # it warns otherwise
            assert scores["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, predicted))
        if logits.shape[1] == 2 and len(set(labels)) == 2:
            scores["auc"] = roc_auc_score(labels, logits[:, 1] - logits[:, 0])
        return scores
    predicted = logits > 0
    changing = [k for k in range(labels.shape[1]) if 0 < labels[:, k].sum() < len(labels)]
    recalls = [
        [(predicted[:, k] == c)[labels[:, k] == c].mean() for c in np.unique(labels[:, k])]
        for k in range(labels.shape[1])
    ]
    scores = {
        "accuracy": accuracy_score(labels, predicted),
        "balanced_accuracy": np.mean([np.mean(recall) for recall in recalls]),
        "f1": f1_score(labels, predicted, average="macro", zero_division=0),
    }
    if len(changing) == labels.shape[1]:
        pairs = zip(labels.T, predicted.T, strict=True)
        if all(set(guess) <= set(truth) for truth, guess in pairs):
            by_column = [balanced_accuracy_score(labels[:, k], predicted[:, k]) for k in changing]
            assert scores["balanced_accuracy"] == pytest.approx(np.mean(by_column))
    if changing:
        scores["auc"] = roc_auc_score(labels[:, changing], logits[:, changing], average="macro")
    return scores


@st.composite
def predictions(draw: st.DrawFn, independent: bool) -> tuple[Tensor, Tensor]:
    rows, classes = draw(st.integers(1, 30)), draw(st.integers(2, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    logits = torch.from_numpy(rng.normal(size=(rows, classes)).astype(np.float32).round(1))  # rounded, so that some tie
    if independent:
        share = draw(st.sampled_from([0.05, 0.5, 0.95]))
        return logits - 0.05, torch.from_numpy((rng.random((rows, classes)) < share).astype(np.float32))
    return logits, torch.from_numpy(rng.integers(0, draw(st.integers(1, classes)), size=rows))


@given(predictions(independent=False) | predictions(independent=True))
def test_scores_equal_those_of_scikit_learn(case: tuple[Tensor, Tensor]) -> None:
    logits, labels = case
    expected = expected_scores(logits.numpy(), labels.numpy())
    assert measure_scores(logits, labels) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("independent", [False, True])
def test_probabilities_have_the_scores_of_their_logits(classes: int, independent: bool) -> None:
    generator = torch.Generator().manual_seed(classes)
    logits = torch.randn(50, classes, dtype=torch.float64, generator=generator)
    labels = torch.randint(2, (50, classes), generator=generator) if independent else torch.arange(50) % classes
    probabilities = logits.sigmoid() if independent else logits.softmax(dim=1)
    assert measure_scores(probabilities.numpy(), labels.numpy(), threshold=0.5) == pytest.approx(
        measure_scores(logits, labels)
    )


@pytest.mark.parametrize("seed", range(5))
def test_one_target_is_scored_as_two_classes(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(40, 1, generator=generator)
    labels = (torch.rand(40, 1, generator=generator) < 0.3).float()
    truth, predicted = labels[:, 0].numpy(), (logits[:, 0] > 0).numpy()
    expected = {
        "accuracy": accuracy_score(truth, predicted),
        "balanced_accuracy": balanced_accuracy_score(truth, predicted),
        "f1": f1_score(truth, predicted, average="macro", zero_division=0),
        "auc": roc_auc_score(truth, logits[:, 0].numpy()),
    }
    assert measure_scores(logits, labels) == pytest.approx(expected)
    assert measure_scores(logits.sigmoid(), labels.long(), threshold=0.5) == pytest.approx(expected)


@given(predictions(independent=False) | predictions(independent=True), st.integers(1, 3))
def test_rows_of_all_processes_are_scored_together(case: tuple[Tensor, Tensor], size: int) -> None:
    logits, labels = case
    parts = list(zip(logits.tensor_split(size), labels.tensor_split(size), strict=True))
    whole = measure_scores(logits, labels)
    for found in run_together(size, lambda group: measure_scores(*parts[group.rank], group)):
        assert found == pytest.approx(whole)


def test_more_than_two_classes_have_no_auc() -> None:
    assert set(measure_scores(torch.randn(9, 3), torch.arange(9) % 3)) == {"accuracy", "balanced_accuracy", "f1"}


@pytest.mark.parametrize("labels", [torch.zeros(3, dtype=torch.int64), torch.ones(3, 2)])
def test_labels_that_never_change_have_no_auc(labels: Tensor) -> None:
    scores = measure_scores(torch.randn(3, 2), labels)
    assert "auc" not in scores
    assert all(map(math.isfinite, scores.values()))


@pytest.mark.parametrize("labels", [torch.arange(4) % 2, torch.eye(2).repeat(2, 1)])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_outputs_that_are_not_finite_have_no_scores(labels: Tensor, bad: float) -> None:
    assert measure_scores(torch.full((4, 2), bad), labels) == {}


def test_a_series_is_correct_if_all_of_its_targets_are() -> None:
    logits = torch.tensor([[2.0, -1.0], [1.0, 1.0], [-1.0, -1.0]])
    assert count_correct(logits, torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])).item() == 2
    assert count_correct(logits, torch.tensor([0, 1, 1])).item() == 1
