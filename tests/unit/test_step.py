import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from torch import Tensor, nn

from training.data import Dataset
from training.model import LSTMFCN
from training.step import TrainingStep, capture_step, count_correct, make_optimizer, weighted_loss


def make_network(classes: int = 2) -> LSTMFCN:
    torch.manual_seed(0)
    return LSTMFCN(8, classes, hidden_size=2, filters=(3, 4, 3), dropout=0.0)


def make_step(network: nn.Module, classes: int = 2, processes: int = 1) -> TrainingStep:
    return TrainingStep(network, make_optimizer(network, 0.01), torch.ones(classes), processes)


def weights(network: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in network.parameters()]


def test_the_loss_of_one_class_a_row_is_that_of_scikit_learn() -> None:
    logits, labels = torch.randn(20, 3), torch.arange(20) % 3
    class_weights = torch.tensor([0.5, 1.0, 3.0])
    rows = class_weights[labels].numpy()
    expected = log_loss(labels.numpy(), logits.double().softmax(dim=1).numpy(), sample_weight=rows, normalize=False)
    assert weighted_loss(logits, labels, class_weights).item() == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_independent_classes_is_the_mean_of_those_of_scikit_learn() -> None:
    logits = torch.randn(20, 2)
    labels = torch.stack([torch.arange(20) % 2, torch.arange(20) % 5 == 0], dim=1).float()
    class_weights = torch.tensor([[0.5, 2.0], [1.0, 4.0]])
    expected = np.mean(
        [
            log_loss(
                labels[:, k].numpy(),
                logits[:, k].double().sigmoid().numpy(),
                sample_weight=class_weights[k][labels[:, k].long()].numpy(),
                normalize=False,
            )
            for k in range(2)
        ]
    )
    assert weighted_loss(logits, labels, class_weights).item() == pytest.approx(expected, rel=1e-5)


def test_a_series_is_right_if_all_of_its_classes_are() -> None:
    assert count_correct(torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([1, 1])).item() == 1
    logits = torch.tensor([[1.0, -2.0], [3.0, 0.5], [-1.0, -1.0]])
    assert count_correct(logits, torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])).item() == 2


def test_a_step_returns_the_summed_loss_and_the_number_that_is_right() -> None:
    network = make_network().train()
    series, labels = torch.randn(6, 1, 8), torch.arange(6) % 2
    logits = make_network().train()(series)
    loss, correct = make_step(network)(series, labels).tolist()
    assert loss == pytest.approx(weighted_loss(logits, labels, torch.ones(2)).item(), rel=1e-5)
    assert correct == count_correct(logits, labels).item()


def test_a_step_lowers_the_loss_of_its_batch() -> None:
    network = make_network().train()
    step, series, labels = make_step(network), torch.randn(6, 1, 8), torch.arange(6) % 2
    losses = [step(series, labels)[0].item() for _ in range(20)]
    assert losses[-1] < losses[0]


def test_gradients_are_those_of_the_mean_over_the_batch() -> None:
    network, reference = make_network().train(), make_network().train()
    series, labels = torch.randn(6, 1, 8), torch.arange(6) % 2
    make_step(network).compute_gradients(series, labels, batch_size=6)
    torch.autograd.backward(nn.functional.cross_entropy(reference(series), labels))
    for found, expected in zip(network.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad)


def test_processes_that_share_a_step_average_to_the_gradient_of_the_whole_batch() -> None:
    # Without batch normalisation, whose statistics are each process's own, the parts add up.
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(8, 2))
    series, labels = torch.randn(10, 1, 8), torch.arange(10) % 2
    gradients = []
    for part in (slice(0, 7), slice(7, 10), slice(10, 10)):
        network.zero_grad()
        make_step(network, processes=3).compute_gradients(series[part], labels[part], batch_size=10)
        gradients.append([parameter.grad for parameter in network.parameters()])
    network.zero_grad()
    make_step(network).compute_gradients(series, labels, batch_size=10)
    for parameter, *parts in zip(network.parameters(), *gradients, strict=True):
        assert all(part is not None for part in parts)
        torch.testing.assert_close(torch.stack(parts).mean(dim=0), parameter.grad)


@pytest.mark.parametrize("labels", [torch.empty(0, dtype=torch.int64), torch.empty(0, 2)])
def test_a_step_without_series_changes_no_weights_but_takes_part(labels: Tensor) -> None:
    network = make_network().train()
    calls: list[int] = []
    network.register_forward_hook(lambda *_: calls.append(1))
    before = weights(network)
    result = make_step(network)(torch.empty(0, 1, 8), labels, 5)
    assert result.tolist() == [0, 0]
    assert calls == [1]
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in trained)
    assert all(torch.equal(old, new) for old, new in zip(before, weights(network), strict=True))


def test_what_multiplies_zeros_is_left_out_of_the_optimizer() -> None:
    network = make_network()
    optimizer = make_optimizer(network, 0.01)
    in_optimizer = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    left_out = {name for name, parameter in network.named_parameters() if id(parameter) not in in_optimizer}
    assert left_out == {"lstm.0.weight_hh_l0", "lstm.0.bias_hh_l0"}


def test_on_a_cpu_nothing_is_captured() -> None:
    network = make_network()
    training = Dataset(torch.zeros(2, 1, 8), torch.tensor([0, 1]))
    assert capture_step(make_step(network), training, gpus=0) is None
