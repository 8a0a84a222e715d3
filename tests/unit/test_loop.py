import dataclasses
import logging
import math

import pytest
import torch
from torch import Tensor

from container.errors import UserError
from container.hyperparameters import Hyperparameters, parse_hyperparameters
from training.devices import Placement
from training.loop import Fitted, Loop, Schedule, TensorSet
from training.model import LSTMFCN
from training.stop import StopBeforeTraining, StopSignal

CPU = Placement(torch.device("cpu"), gpus=0, bfloat16=False)


def make_set(rows: int = 24, length: int = 16, seed: int = 0) -> TensorSet:
    """Ramps up and down with noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % 2
    ramps = (1.0 - 2.0 * labels)[:, None] * torch.linspace(-1, 1, length)
    return TensorSet((ramps + 0.3 * torch.randn(rows, length, generator=generator))[:, None], labels)


def train(
    training: TensorSet, validation: TensorSet | None = None, stop: StopSignal | None = None, **settings: str
) -> tuple[LSTMFCN, Fitted]:
    torch.manual_seed(0)
    network = LSTMFCN(training.series.shape[-1], 2, hidden_size=2, filters=(4, 4, 4))
    names = {name.replace("_", "-"): value for name, value in settings.items()}
    parsed = parse_hyperparameters({"epochs": "5", "lr": "0.01", **names})
    return network, Loop(network, training, validation, torch.ones(2), parsed, CPU, stop or StopSignal()).fit()


def epoch_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith("epoch: ")]


def value(line: str, name: str) -> float:
    return float(line.split(f"{name}: ")[1].split(",")[0])


def test_the_epoch_of_the_lowest_validation_loss_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    training, validation = make_set(), make_set(seed=1)
    # Labels that training contradicts: the better it fits, the worse validation gets.
    validation = dataclasses.replace(validation, labels=1 - validation.labels)
    network, fitted = train(training, validation, epochs="30")
    losses = [value(line, "valid_loss") for line in epoch_lines(caplog)]
    assert len(losses) == 30
    assert fitted.epoch == losses.index(min(losses)) + 1 < 30
    assert fitted.metrics["valid_loss"] == pytest.approx(min(losses), abs=1e-4)
    assert not network.training


def test_without_validation_the_epoch_of_the_lowest_training_loss_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    _, fitted = train(make_set(), epochs="12", lr="1")
    losses = [value(line, "train_loss") for line in epoch_lines(caplog)]
    assert fitted.epoch == losses.index(min(losses)) + 1
    assert set(fitted.metrics) == {"train_loss", "train_accuracy"}


def test_it_learns() -> None:
    _, fitted = train(make_set(), make_set(seed=1), epochs="60")
    assert fitted.metrics["valid_accuracy"] >= 0.95


def test_same_seed_same_weights_and_another_seed_others() -> None:
    first, second, other = (train(make_set(), seed=seed)[0].state_dict() for seed in ("3", "3", "4"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(("batch_size", "rows"), [("1", 6), ("5", 24), ("65536", 24)])
def test_batch_sizes(batch_size: str, rows: int) -> None:
    _, fitted = train(make_set(rows), batch_size=batch_size, epochs="2")
    assert math.isfinite(fitted.metrics["train_loss"])


@pytest.mark.parametrize("schedule", ["plateau", "one-cycle", "constant"])
def test_one_step_in_all(schedule: str) -> None:
    _, fitted = train(make_set(), epochs="1", lr_schedule=schedule)
    assert fitted.epoch == 1


def test_divergence_in_the_first_epoch_is_a_clear_error() -> None:
    broken = make_set()
    broken.series[0, 0, 0] = math.nan
    with pytest.raises(UserError, match="Training diverged: the loss or the weights of epoch 1 are not finite numbers"):
        train(broken)


def test_divergence_later_keeps_the_best_epoch(caplog: pytest.LogCaptureFixture) -> None:
    network = LSTMFCN(16, 2, hidden_size=2, filters=(4, 4, 4))
    calls = []

    def poison(module: torch.nn.Module, _: object, output: Tensor) -> Tensor:
        calls.append(1)
        return output * math.nan if module.training and len(calls) > 3 else output

    hook = network.register_forward_hook(poison)
    settings = parse_hyperparameters({"epochs": "9", "lr": "0.01"})
    fitted = Loop(network, make_set(), None, torch.ones(2), settings, CPU, StopSignal()).fit()
    hook.remove()
    assert fitted.epoch <= 3
    assert math.isfinite(fitted.metrics["train_loss"])
    assert any("training ends with the best epoch so far" in record.getMessage() for record in caplog.records)


def test_weights_that_are_not_numbers_are_not_kept(caplog: pytest.LogCaptureFixture) -> None:
    network = LSTMFCN(16, 2, hidden_size=2, filters=(4, 4, 4))
    settings = parse_hyperparameters({"epochs": "9"})
    loop = Loop(network, make_set(), None, torch.ones(2), settings, CPU, StopSignal())
    step, calls = loop.step, []

    def step_too_far(series: Tensor, labels: Tensor) -> Tensor:
        calls.append(1)
        result = step(series, labels)  # its loss was measured before the weights changed
        if len(calls) == 2:
            torch.nn.init.constant_(network.linear.weight, math.nan)
        return result

    loop.step = step_too_far  # type: ignore[assignment]
    assert loop.fit().epoch == 1
    assert "the loss or the weights of epoch 2" in caplog.text


def test_a_stop_ends_training_at_the_next_step_and_keeps_a_model() -> None:
    stop = StopSignal()
    steps = []

    def request_stop(*_: object) -> None:
        steps.append(1)
        if len(steps) == 2:
            stop._handle(15, None)

    torch.manual_seed(0)
    network = LSTMFCN(16, 2, hidden_size=2, filters=(4, 4, 4))
    hook = network.register_forward_hook(request_stop)
    settings = parse_hyperparameters({"epochs": "500", "batch-size": "4"})
    fitted = Loop(network, make_set(), None, torch.ones(2), settings, CPU, stop).fit()
    hook.remove()
    assert fitted.epoch == 1
    assert len(steps) == 2 + 6  # the six batches of the exact statistics after two steps
    assert math.isfinite(fitted.metrics["train_loss"])


def test_a_stop_before_the_first_step_leaves_nothing_to_save() -> None:
    stop = StopSignal()
    stop.training_started = True
    stop._handle(15, None)
    with pytest.raises(StopBeforeTraining):
        train(make_set(), stop=stop)


class TestSchedule:
    @staticmethod
    def make(steps_per_epoch: int = 1, **settings: str) -> Schedule:
        optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=float(settings.get("lr", "0.001")))
        names = {name.replace("_", "-"): text for name, text in settings.items()}
        parsed: Hyperparameters = parse_hyperparameters(names)
        schedule = Schedule(parsed, optimizer, steps_per_epoch)
        optimizer.step()
        return schedule

    def test_plateau_is_that_of_the_paper(self) -> None:
        schedule = self.make(lr_schedule="plateau")
        rates = []
        for _ in range(1500):
            schedule.after_epoch(0.5)
            rates.append(schedule.lr)
        # The first epoch sets the mark, the 101st after it that brings nothing lowers the rate.
        assert rates[100] == 0.001
        assert rates[101] == pytest.approx(0.001 * 2 ** (-1 / 3))
        assert rates[202] == pytest.approx(0.001 * 2 ** (-2 / 3))
        assert rates[-1] == pytest.approx(1e-4)

    def test_plateau_waits_while_the_loss_falls(self) -> None:
        schedule = self.make(lr_schedule="plateau")
        for epoch in range(500):
            schedule.after_epoch(1 - 0.001 * epoch)
        assert schedule.lr == 0.001

    def test_one_cycle_rises_to_lr_and_falls_to_almost_zero(self) -> None:
        schedule = self.make(steps_per_epoch=4, epochs="25", lr="0.01", lr_schedule="one-cycle")
        rates = []
        for _ in range(100):
            rates.append(schedule.lr)
            schedule.after_step()
        assert max(rates) == pytest.approx(0.01, rel=0.01)
        assert rates[0] < 0.001
        assert schedule.lr < 1e-6

    def test_constant(self) -> None:
        schedule = self.make(lr="0.01", lr_schedule="constant")
        schedule.after_step()
        schedule.after_epoch(1.0)
        assert schedule.lr == 0.01
