import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from torch import Tensor, nn

from lstm_fcn.training.data.datasets import Dataset
from lstm_fcn.training.network.model import LSTMFCN, Ensemble, join_logits
from lstm_fcn.training.scores import count_correct
from lstm_fcn.training.step import TrainingStep, capture_step, make_optimizer, weighted_loss


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
    assert left_out == {"recurrent.0.weight_hh_l0", "recurrent.0.bias_hh_l0"}


def test_on_a_cpu_nothing_is_captured() -> None:
    network = make_network()
    training = Dataset(torch.zeros(2, 1, 8), torch.tensor([0, 1]))
    assert capture_step(make_step(network), training, gpus=0) is None


class TestEnsemble:
    """The networks of an ensemble are trained together, each as if it were alone."""

    series = torch.randn(6, 3, 8, generator=torch.Generator().manual_seed(0))
    labels = pytest.mark.parametrize(
        ("labels", "class_weights"),
        [
            (torch.arange(6) % 2, torch.tensor([0.5, 2.0])),
            (torch.eye(2).repeat(3, 1), torch.tensor([[0.5, 2.0], [1.0, 3.0]])),
        ],
        ids=["shared", "independent"],
    )

    @staticmethod
    def make(size: int = 3) -> list[LSTMFCN]:
        torch.manual_seed(0)
        kinds = ("lstm", "alstm", "gru")
        members = [LSTMFCN(8, 2, 3, kind, hidden_size=2, filters=(3, 4, 3), dropout=0.0) for kind in kinds[:size]]
        for member in members:
            nn.init.normal_(member.linear.weight)
        return members

    @labels
    def test_each_member_has_the_gradient_that_it_has_alone(self, labels: Tensor, class_weights: Tensor) -> None:
        together, alone = Ensemble(self.make()).train(), self.make()
        TrainingStep(together, make_optimizer(together, 0.01), class_weights).compute_gradients(self.series, labels, 6)
        for member, single in zip(together.members, alone, strict=True):
            step = TrainingStep(single.train(), make_optimizer(single, 0.01), class_weights)
            step.compute_gradients(self.series, labels, 6)
            for found, expected in zip(member.parameters(), single.parameters(), strict=True):
                if expected.requires_grad:
                    torch.testing.assert_close(found.grad, expected.grad)

    @labels
    def test_after_some_steps_each_member_is_what_it_is_alone(self, labels: Tensor, class_weights: Tensor) -> None:
        together, alone = Ensemble(self.make()).train(), self.make()
        for network in (together, *alone):
            # Adam would blow up what is rounded differently: the gradients of biases that the batch's mean undoes.
            optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1, momentum=0.5)
            step = TrainingStep(network.train(), optimizer, class_weights)
            for size in (6, 4, 6):
                step(self.series[:size], labels[:size])
        before = self.make()
        for k, single in enumerate(alone):
            found = together.members[k].state_dict()
            torch.testing.assert_close(found, single.state_dict())
            assert not torch.equal(found["linear.weight"], before[k].linear.weight)

    @labels
    def test_the_loss_is_the_mean_of_theirs_and_they_decide_together(
        self, labels: Tensor, class_weights: Tensor
    ) -> None:
        members = self.make()
        together = Ensemble(self.make()).train()
        step = TrainingStep(together, make_optimizer(together, 0.01), class_weights)
        logits = torch.stack([member.train()(self.series) for member in members], dim=1)
        loss, correct = step(self.series, labels).tolist()
        losses = [weighted_loss(logits[:, k], labels, class_weights).item() for k in range(3)]
        assert len({round(value, 3) for value in losses}) == 3
        assert loss == pytest.approx(np.mean(losses), rel=1e-5)
        assert correct == count_correct(join_logits(logits, labels.ndim > 1), labels).item()

    @labels
    def test_a_step_without_series_takes_part(self, labels: Tensor, class_weights: Tensor) -> None:
        together = Ensemble(self.make()).train()
        step = TrainingStep(together, make_optimizer(together, 0.01), class_weights)
        assert step(self.series[:0], labels[:0], 5).tolist() == [0, 0]
        trained = [parameter for parameter in together.parameters() if parameter.requires_grad]
        assert all(parameter.grad is not None and not parameter.grad.any() for parameter in trained)
