import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lstm_fcn.training import evaluate as evaluate_module
from lstm_fcn.training.data.datasets import Dataset
from lstm_fcn.training.distributed import Group
from lstm_fcn.training.evaluate import evaluate, even_batches, set_exact_batch_norm
from lstm_fcn.training.network.model import LSTMFCN, Ensemble
from tests.unit.groups import run_together
from tests.unit.test_scores import expected_scores


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

    def test_each_network_has_separate_exact_statistics(self) -> None:
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
