import torch
from torch import nn

from training.evaluate import evaluate, even_batches, set_exact_batch_norm
from training.model import LSTMFCN


def never() -> bool:
    return False


def test_batches_are_even_and_cover_everything() -> None:
    sizes = [len(batch) for batch in even_batches(torch.arange(129), 128)]
    assert sizes == [65, 64]
    assert torch.equal(torch.cat(list(even_batches(torch.arange(1000), 7))), torch.arange(1000))
    assert [len(batch) for batch in even_batches(torch.arange(5), 128)] == [5]


def test_exact_statistics_make_evaluation_equal_to_training_on_one_batch() -> None:
    torch.manual_seed(0)
    network = LSTMFCN(30, 3, dropout=0.0)
    series = 5 + 3 * torch.randn(40, 1, 30)
    with torch.no_grad():
        expected = network.train()(series)
    set_exact_batch_norm(network, network, series, 40, never)
    assert not network.training
    # Training divides by the biased variance, the running one is unbiased: 40 * 30 values each.
    torch.testing.assert_close(network(series), expected, atol=1e-2, rtol=1e-2)


def test_statistics_are_the_average_over_batches_and_momentum_stays() -> None:
    network = nn.Sequential(nn.BatchNorm2d(1, momentum=0.01))
    series = torch.arange(8.0).reshape(8, 1, 1, 1).repeat(1, 1, 1, 4)
    set_exact_batch_norm(network, network, series, 2, never)
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
    set_exact_batch_norm(network, network, torch.randn(100, 1, 1, 5), 10, lambda: len(seen) == 3)
    assert len(seen) == 3


def test_metrics_by_hand() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    labels = torch.tensor([0, 1, 1])
    weights = torch.tensor([0.5, 2.0])
    losses = -torch.log_softmax(logits, dim=1)[torch.arange(3), labels] * weights[labels]
    loss, accuracy = evaluate(nn.Identity(), logits, labels, weights)
    assert abs(loss - losses.mean().item()) < 1e-6
    assert abs(accuracy - 2 / 3) < 1e-6
