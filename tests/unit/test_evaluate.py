import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score
from torch import Tensor, nn

from lstm_fcn.training import evaluate as evaluate_module
from lstm_fcn.training.data import Dataset
from lstm_fcn.training.distributed import Group
from lstm_fcn.training.evaluate import evaluate, even_batches, measure_scores, set_exact_batch_norm
from lstm_fcn.training.model import LSTMFCN, Ensemble
from tests.unit.groups import run_together


def never() -> bool:
    return False


def make_set(series: Tensor, labels: Tensor | None = None) -> Dataset:
    return Dataset(series, torch.zeros(len(series), dtype=torch.int64) if labels is None else labels)


def test_batches_are_even_and_cover_everything() -> None:
    sizes = [len(batch) for batch in even_batches(torch.arange(129), 2)]
    assert sizes == [65, 64]
    assert torch.equal(torch.cat(list(even_batches(torch.arange(1000), 143))), torch.arange(1000))
    assert [len(batch) for batch in even_batches(torch.arange(5), 1)] == [5]


def test_exact_statistics_make_evaluation_equal_to_training_on_one_batch() -> None:
    torch.manual_seed(0)
    network = LSTMFCN(30, 3, dropout=0.0)
    series = 5 + 3 * torch.randn(40, 1, 30)
    with torch.no_grad():
        expected = network.train()(series)
    set_exact_batch_norm(network, network, make_set(series), 1, never)
    assert not network.training
    # Training divides by the biased variance, the running one is unbiased: 40 * 30 values each.
    torch.testing.assert_close(network(series), expected, atol=1e-2, rtol=1e-2)


def test_statistics_are_the_average_over_batches_and_momentum_stays() -> None:
    network = nn.Sequential(nn.BatchNorm2d(1, momentum=0.01))
    series = torch.arange(8.0).reshape(8, 1, 1, 1).repeat(1, 1, 1, 4)
    set_exact_batch_norm(network, network, make_set(series), 4, never)
    norm = network[0]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    torch.testing.assert_close(norm.running_mean, torch.tensor([3.5]))
    assert norm.momentum == 0.01
    assert not norm.training


def test_averaging_ends_when_it_must() -> None:
    seen: list[int] = []
    network = nn.Sequential(nn.BatchNorm2d(1))
    network.register_forward_hook(lambda *_: seen.append(1))
    set_exact_batch_norm(network, network, make_set(torch.randn(100, 1, 1, 5)), 10, lambda: len(seen) == 3)
    assert len(seen) == 3


@pytest.mark.parametrize("cuts", [[12], [4], [0]])
def test_statistics_of_several_processes_are_the_average_over_the_batches_of_all(cuts: list[int]) -> None:
    series = (
        torch.randn(16, 1, 1, 5, generator=torch.Generator().manual_seed(0)) + torch.arange(16.0)[:, None, None, None]
    )
    parts = series.tensor_split(cuts)

    def average(group: Group) -> tuple[Tensor, Tensor]:
        network = nn.Sequential(norm := nn.BatchNorm2d(1))
        set_exact_batch_norm(network, network, make_set(parts[group.rank]), 2, never, group)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        return norm.running_mean, norm.running_var

    first, second = run_together(2, average)
    assert first == second
    batches = [
        part[torch.randperm(len(part), generator=torch.Generator().manual_seed(0))].tensor_split(2)
        for part in parts
        if len(part)
    ]
    means = torch.stack([batch.mean() for pair in batches for batch in pair])
    variances = torch.stack([batch.var() for pair in batches for batch in pair])
    torch.testing.assert_close(first, (means.mean()[None], variances.mean()[None]))


def test_metrics_by_hand() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    labels = torch.tensor([0, 1, 1])
    weights = torch.tensor([0.5, 2.0])
    losses = -torch.log_softmax(logits, dim=1)[torch.arange(3), labels] * weights[labels]
    metrics = evaluate(nn.Identity(), make_set(logits, labels), weights, Group())
    assert set(metrics) == {"loss", "accuracy"}
    assert abs(metrics["loss"] - losses.mean().item()) < 1e-6
    assert abs(metrics["accuracy"] - 2 / 3) < 1e-6


def test_metrics_of_several_classes_a_row_by_hand() -> None:
    logits = torch.tensor([[2.0, -1.0], [0.5, 1.0], [-3.0, -0.5]])
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    weights = torch.tensor([[0.5, 2.0], [1.0, 3.0]])  # of 0 and 1, for each target
    chosen = torch.tensor([[2.0, 1.0], [0.5, 3.0], [0.5, 1.0]])
    likelihood = torch.where(labels == 1, logits.sigmoid(), 1 - logits.sigmoid())
    metrics = evaluate(nn.Identity(), make_set(logits, labels), weights, Group())
    assert metrics["loss"] == pytest.approx((-likelihood.log() * chosen).mean().item())
    assert metrics["accuracy"] == pytest.approx(2 / 3)  # a row counts if all of it is right


def test_metrics_do_not_depend_on_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = torch.randn(50, 2), torch.arange(50) % 2
    whole = evaluate(nn.Identity(), make_set(logits, labels), torch.ones(2), Group(), scores=True)
    monkeypatch.setattr(evaluate_module, "EVALUATION_BATCH", 7)
    parts = evaluate(nn.Identity(), make_set(logits, labels), torch.ones(2), Group(), scores=True)
    assert parts == pytest.approx(whole)
    assert set(whole) == {"loss", "accuracy", "balanced_accuracy", "f1", "auc"}


def expected_scores(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The scores by scikit-learn."""
    if labels.ndim == 1:
        predicted = logits.argmax(axis=1)
        scores = {
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


class TestScores:
    """Balanced accuracy, F1 and AUC."""

    @settings(deadline=None)  # others may use the cores, too
    @given(predictions(independent=False) | predictions(independent=True))
    def test_they_are_those_of_scikit_learn(self, case: tuple[Tensor, Tensor]) -> None:
        logits, labels = case
        expected = expected_scores(logits.numpy(), labels.numpy())
        assert measure_scores(logits, labels, Group()) == pytest.approx(expected, abs=1e-6)

    @pytest.mark.parametrize("seed", range(5))
    def test_of_one_target_too(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn(40, 1, generator=generator)
        labels = (torch.rand(40, 1, generator=generator) < 0.3).float()
        truth, predicted = labels[:, 0].numpy(), (logits[:, 0] > 0).numpy()
        assert measure_scores(logits, labels, Group()) == pytest.approx(
            {
                "balanced_accuracy": balanced_accuracy_score(truth, predicted),
                "f1": f1_score(truth, predicted, average="macro", zero_division=0),
                "auc": roc_auc_score(truth, logits[:, 0].numpy()),
            }
        )

    @settings(deadline=None)
    @given(predictions(independent=False) | predictions(independent=True), st.integers(1, 3))
    def test_the_rows_of_all_processes_count_together(self, case: tuple[Tensor, Tensor], size: int) -> None:
        logits, labels = case
        parts = list(zip(logits.tensor_split(size), labels.tensor_split(size), strict=True))
        whole = measure_scores(logits, labels, Group())
        for found in run_together(size, lambda group: measure_scores(*parts[group.rank], group)):
            assert found == pytest.approx(whole)

    def test_more_than_two_classes_have_no_auc(self) -> None:
        assert set(measure_scores(torch.randn(9, 3), torch.arange(9) % 3, Group())) == {"balanced_accuracy", "f1"}

    @pytest.mark.parametrize("labels", [torch.zeros(3, dtype=torch.int64), torch.ones(3, 2)])
    def test_labels_that_never_change_have_no_auc(self, labels: Tensor) -> None:
        scores = measure_scores(torch.randn(3, 2), labels, Group())
        assert "auc" not in scores
        assert all(map(math.isfinite, scores.values()))

    @pytest.mark.parametrize("labels", [torch.arange(4) % 2, torch.eye(2).repeat(2, 1)])
    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_of_a_network_that_diverged_they_are_no_error(self, labels: Tensor, bad: float) -> None:
        assert measure_scores(torch.full((4, 2), bad), labels, Group()) == {}


def test_a_process_without_series_takes_part() -> None:
    logits, labels = torch.randn(10, 2), torch.arange(10) % 2
    sets = [make_set(logits, labels), make_set(logits[:0], labels[:0])]

    def measure(group: Group) -> dict[str, Any]:
        return evaluate(nn.Identity(), sets[group.rank], torch.ones(2), group, scores=True)

    whole = evaluate(nn.Identity(), sets[0], torch.ones(2), Group(), scores=True)
    for found in run_together(2, measure):
        assert found == pytest.approx(whole)


class TestEnsemble:
    """What several networks say together is measured, not what each of them says."""

    @pytest.mark.parametrize("independent", [False, True])
    def test_metrics_are_those_of_the_average_of_the_probabilities(self, independent: bool) -> None:
        logits = 3 * torch.randn(20, 4, 3, generator=torch.Generator().manual_seed(0))  # [series, networks, classes]
        flat = torch.arange(20) % 3
        if independent:
            labels, weights = (torch.arange(60).reshape(20, 3) % 4 == 0).float(), torch.tensor([[0.5, 2.0]] * 3)
            probabilities = logits.sigmoid().mean(dim=1)
            likelihood = torch.where(labels == 1, probabilities, 1 - probabilities)
            losses = -likelihood.log() * torch.where(labels == 1, 2.0, 0.5)
            correct = ((probabilities > 0.5) == (labels == 1)).all(dim=1)
        else:
            labels, weights = flat, torch.tensor([0.5, 1.0, 2.0])
            probabilities = logits.softmax(dim=2).mean(dim=1)
            losses = -probabilities[torch.arange(20), flat].log() * weights[flat]
            correct = probabilities.argmax(dim=1) == flat
        metrics = evaluate(nn.Identity(), make_set(logits, labels), weights, Group(), scores=True)
        assert metrics["loss"] == pytest.approx(losses.mean().item(), rel=1e-4)
        assert metrics["accuracy"] == pytest.approx(correct.float().mean().item())
        expected = expected_scores(
            probabilities.logit().numpy() if independent else probabilities.numpy(), labels.numpy()
        )
        assert {name: metrics[name] for name in expected} == pytest.approx(expected)

    def test_each_network_has_exact_statistics_of_its_own(self) -> None:
        torch.manual_seed(0)
        members = [LSTMFCN(12, 2, 2, filters=(3, 3, 3), squeeze_excite=True) for _ in range(2)]
        series = 5 + 3 * torch.randn(40, 2, 12)
        alone = [copy.deepcopy(member) for member in members]
        ensemble = Ensemble(members)
        for network in (ensemble, *alone):
            set_exact_batch_norm(network, network, make_set(series), 4, never)
        for member, single in zip(members, alone, strict=True):
            torch.testing.assert_close(member.state_dict(), single.state_dict())
        first, second = (dict(member.named_buffers())["fcn.2.norm.running_mean"] for member in members)
        assert not torch.allclose(first, second)
