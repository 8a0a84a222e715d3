import dataclasses
import itertools
import logging
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lstm_fcn.container.errors import UserError
from lstm_fcn.container.hyperparameters import Hyperparameters, parse_hyperparameters
from lstm_fcn.training.checkpoint import Checkpoints
from lstm_fcn.training.data.datasets import Dataset
from lstm_fcn.training.devices import Placement
from lstm_fcn.training.loop import BestEpoch, Loop
from lstm_fcn.training.network.model import LSTMFCN, make_network
from lstm_fcn.training.schedule import Schedule
from lstm_fcn.training.stop import StopBeforeTraining, StopSignal

SMALL = {"hidden-size": "2", "filters-1": "4", "filters-2": "4", "filters-3": "4"}
CPU = Placement(torch.device("cpu"), gpus=0, bfloat16=False)


def make_set(rows: int = 24, length: int = 16, seed: int = 0, variables: int = 1) -> Dataset:
    """Ramps up and down with noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % 2
    ramps = (1.0 - 2.0 * labels)[:, None, None] * torch.linspace(-1, 1, length)
    return Dataset(ramps + 0.3 * torch.randn(rows, variables, length, generator=generator), labels)


def train(
    training: Dataset, validation: Dataset | None = None, stop: StopSignal | None = None, **settings: Any
) -> tuple[nn.Module, BestEpoch]:
    loop = make_loop(training, validation, stop, **settings)
    return loop.network, loop.fit()


def make_loop(
    training: Dataset,
    validation: Dataset | None = None,
    stop: StopSignal | None = None,
    checkpoints: Checkpoints | None = None,
    weights_seed: int = 0,
    unfitted_loss: float = math.inf,
    **settings: Any,
) -> Loop:
    """A loop over a small network; hyperparameters are written with underscores for dashes."""
    names = {name.replace("_", "-"): value for name, value in settings.items()}
    parsed = parse_hyperparameters(SMALL | {"preset": "paper", "epochs": "5", "lr": "0.01"} | names)
    _, variables, length = training.series.shape
    network = make_network(parsed.model_copy(update={"seed": weights_seed}), variables, length, 2)
    weights = torch.ones(2) if training.labels.ndim == 1 else torch.ones(2, 2)
    stop = stop or StopSignal()
    return Loop(
        network, training, validation, weights, parsed, CPU, stop, checkpoints=checkpoints, unfitted_loss=unfitted_loss
    )


def epoch_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [message for message in caplog.messages if "epoch: " in message and "train_loss: " in message]


def value(line: str, name: str) -> float:
    return float(line.split(f"{name}: ")[1].split(",")[0])


def test_the_epoch_of_the_lowest_validation_loss_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    training, validation = make_set(), make_set(seed=1)
    # Labels that training contradicts: the better it fits, the worse validation gets.
    validation = dataclasses.replace(validation, labels=1 - validation.labels)
    network, best = train(training, validation, epochs="30")
    losses = [value(line, "valid_loss") for line in epoch_lines(caplog)]
    assert len(losses) == 30
    assert best.epoch == losses.index(min(losses)) + 1 < 30
    assert best.metrics["valid_loss"] == pytest.approx(min(losses), abs=1e-4)
    assert not network.training


def test_without_validation_the_epoch_of_the_lowest_training_loss_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    _, best = train(make_set(), epochs="12", lr="1")
    losses = [value(line, "train_loss") for line in epoch_lines(caplog)]
    assert best.epoch == losses.index(min(losses)) + 1
    assert set(best.metrics) == {"train_loss", "train_accuracy"}


def test_it_learns() -> None:
    _, best = train(make_set(), make_set(seed=1), epochs="60")
    assert best.metrics["valid_accuracy"] >= 0.95


@pytest.mark.parametrize(
    ("variables", "settings"),
    [
        (1, {"recurrent": "gru", "convolutions": "false", "dimension_shuffle": "false", "hidden_size": "8"}),
        (2, {"recurrent": "alstm", "squeeze_excite": "true"}),
        (2, {"recurrent": "none"}),
        (1, {"recurrent": "dense", "convolutions": "false", "dropout": "0.1"}),
        (2, {"ensemble_size": "2"}),
    ],
)
def test_all_of_the_family_learns(variables: int, settings: dict[str, Any]) -> None:
    training, validation = (make_set(variables=variables, seed=seed) for seed in (0, 1))
    _, best = train(training, validation, epochs="40", lr="0.02", **({"dropout": "0.2"} | settings))
    assert best.metrics["valid_accuracy"] >= 0.95


def test_same_seed_same_weights_and_another_seed_others() -> None:
    first, second, other = (train(make_set(), seed=seed)[0].state_dict() for seed in ("3", "3", "4"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(("batch_size", "rows"), [("1", 6), ("5", 24), ("65536", 24)])
def test_batch_sizes(batch_size: str, rows: int) -> None:
    _, best = train(make_set(rows), batch_size=batch_size, epochs="2")
    assert math.isfinite(best.metrics["train_loss"])


@pytest.mark.parametrize("schedule", ["plateau", "one-cycle", "constant"])
def test_one_step_in_all(schedule: str) -> None:
    _, best = train(make_set(), epochs="1", lr_schedule=schedule)
    assert best.epoch == 1


@pytest.mark.parametrize("validation", [None, make_set(seed=1)])
def test_divergence_in_the_first_epoch_is_a_clear_error(validation: Dataset | None) -> None:
    broken = make_set()
    broken.series[0, 0, 0] = math.nan
    with pytest.raises(UserError, match="Training diverged: the loss or the weights are not finite in epoch 1"):
        train(broken, validation)


@pytest.mark.parametrize("validation", [None, make_set(seed=1)])
def test_divergence_later_keeps_the_best_epoch(caplog: pytest.LogCaptureFixture, validation: Dataset | None) -> None:
    network = LSTMFCN(16, 2, hidden_size=2, filters=(4, 4, 4))
    calls = []

    def poison(module: torch.nn.Module, _: object, output: Tensor) -> Tensor:
        calls.append(1)
        return output * math.nan if module.training and len(calls) > 12 else output

    hook = network.register_forward_hook(poison)
    settings = parse_hyperparameters({"preset": "paper", "epochs": "20", "lr": "0.01"})
    best = Loop(network, make_set(), validation, torch.ones(2), settings, CPU, StopSignal()).fit()
    hook.remove()
    assert best.epoch <= 12
    assert math.isfinite(best.metrics["train_loss"])
    assert any("The best epoch so far is used" in message for message in caplog.messages)


def test_weights_that_are_not_numbers_are_not_kept(caplog: pytest.LogCaptureFixture) -> None:
    network = LSTMFCN(16, 2, hidden_size=2, filters=(4, 4, 4))
    settings = parse_hyperparameters({"preset": "paper", "epochs": "9"})
    loop = Loop(network, make_set(), None, torch.ones(2), settings, CPU, StopSignal())
    step, calls = loop.step, []

    def step_too_far(series: Tensor, labels: Tensor, batch_size: int) -> Tensor:
        calls.append(1)
        result = step(series, labels, batch_size)  # its loss was measured before the weights changed
        if len(calls) == 2:
            torch.nn.init.constant_(network.linear.weight, math.nan)
        return result

    loop.step = step_too_far  # type: ignore[assignment]
    assert loop.fit().epoch == 1
    assert "the loss or the weights are not finite in epoch 2" in caplog.text


def test_a_stop_ends_training_at_the_next_step_and_keeps_a_model() -> None:
    stop = StopSignal()
    steps = []

    def request_stop(*_: object) -> None:
        steps.append(1)
        if len(steps) == 2:
            stop.handle(15, None)

    torch.manual_seed(0)
    network = LSTMFCN(16, 2, hidden_size=2, filters=(4, 4, 4))
    hook = network.register_forward_hook(request_stop)
    settings = parse_hyperparameters({"preset": "paper", "epochs": "500", "batch-size": "4"})
    best = Loop(network, make_set(), None, torch.ones(2), settings, CPU, stop).fit()
    hook.remove()
    assert best.epoch == 1
    assert len(steps) == 2 + 6  # the six batches of the exact statistics after two steps
    assert math.isfinite(best.metrics["train_loss"])


def test_a_stop_before_the_first_step_leaves_nothing_to_save() -> None:
    stop = StopSignal()
    stop.training_started = True
    stop.handle(15, None)
    with pytest.raises(StopBeforeTraining):
        train(make_set(), stop=stop)


def flipped(dataset: Dataset) -> Dataset:
    """Labels that training contradicts: the better it fits, the worse it gets on these."""
    return dataclasses.replace(dataset, labels=1 - dataset.labels)


def test_independent_classes_are_learned() -> None:
    training = make_set()
    both = torch.stack([training.labels, 1 - training.labels], dim=1).float()
    _, best = train(dataclasses.replace(training, labels=both), epochs="60")
    assert best.metrics["train_accuracy"] >= 0.95


def test_a_part_of_the_rows_is_trained_on_as_if_it_were_all() -> None:
    training, rows = make_set(), torch.arange(0, 24, 2)
    part = dataclasses.replace(training, rows=rows)
    copied = Dataset(training.series[rows].clone(), training.labels[rows].clone())
    first, second = (train(dataset, batch_size="5")[0].state_dict() for dataset in (part, copied))
    assert all(torch.equal(first[name], second[name]) for name in first)


class TestEarlyStopping:
    @pytest.mark.parametrize("patience", [1, 7])
    def test_training_ends_after_so_many_epochs_without_a_lower_validation_loss(
        self, caplog: pytest.LogCaptureFixture, patience: int
    ) -> None:
        caplog.set_level(logging.INFO)
        _, best = train(make_set(), flipped(make_set(seed=1)), epochs="200", early_stopping_patience=str(patience))
        losses = [value(line, "valid_loss") for line in epoch_lines(caplog)]
        assert best.epoch == losses.index(min(losses)) + 1
        assert len(losses) == best.epoch + patience
        assert f"early stopping: the validation loss has not decreased for {patience} epochs" in caplog.messages

    def test_without_validation_data_the_training_loss_decides(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        _, best = train(make_set(), epochs="200", lr="1", early_stopping_patience="3")
        assert len(epoch_lines(caplog)) == best.epoch + 3 < 200
        assert "early stopping: the training loss has not decreased for 3 epochs" in caplog.messages

    def test_without_patience_all_epochs_are_trained(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        train(make_set(), flipped(make_set(seed=1)), epochs="30")
        assert len(epoch_lines(caplog)) == 30

    def test_patience_starts_again_in_each_round(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        settings: dict[str, Any] = {"epochs": "200", "early_stopping_patience": "4", "fine_tune_rounds": "2"}
        _, best = train(make_set(), flipped(make_set(seed=1)), **settings)
        rounds: dict[str, list[float]] = {}
        for line in epoch_lines(caplog):
            rounds.setdefault(line.split("epoch: ")[0], []).append(value(line, "valid_loss"))
        assert list(rounds) == ["", "round: 1, ", "round: 2, "]
        lowest = math.inf
        for losses in rounds.values():
            lower = [k for k, loss in enumerate(losses) if loss < min([lowest, *losses[:k]])]
            assert len(losses) == (lower[-1] + 1 if lower else 0) + 4
            lowest = min(lowest, *losses)
        assert best.metrics["valid_loss"] == pytest.approx(lowest, abs=1e-4)


class TestFineTuning:
    def test_each_round_halves_lr_and_batch_size(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        loop = make_loop(
            make_set(), epochs="2", batch_size="12", fine_tune_rounds="2", lr="0.01", lr_schedule="constant"
        )
        sizes: list[int] = []
        loop.network.register_forward_hook(
            lambda module, inputs, _: sizes.append(len(inputs[0])) if module.training else None
        )
        loop.fit()
        assert sizes == [12] * 4 + [6] * 8 + [3] * 16
        assert [value(line, "lr") for line in epoch_lines(caplog)] == [0.01, 0.01, 0.005, 0.005, 0.0025, 0.0025]
        assert "fine-tuning round 1: lr 0.005, batch size 6" in caplog.messages
        assert "fine-tuning round 2: lr 0.0025, batch size 3" in caplog.messages
        starts = [line.split(", train_loss")[0] for line in epoch_lines(caplog)]
        assert starts[:3] == ["epoch: 1/2", "epoch: 2/2", "round: 1, epoch: 1/2"]

    def test_a_batch_has_at_least_one_series(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        train(make_set(4), epochs="1", batch_size="2", fine_tune_rounds="3")
        assert "fine-tuning round 3: lr 0.00125, batch size 1" in caplog.messages

    def test_each_round_starts_from_the_best_weights_so_far(self) -> None:
        loop = make_loop(make_set(), flipped(make_set(seed=1)), epochs="12", fine_tune_rounds="1")
        starts: list[dict[str, Tensor]] = []
        begin_round = loop._begin_round

        def note() -> None:
            assert loop.best_weights is not None
            begin_round()
            starts.append({name: tensor.clone() for name, tensor in loop.network.state_dict().items()})
            assert all(torch.equal(starts[0][name], tensor) for name, tensor in loop.best_weights.items())
            assert loop.best.epoch < 12

        loop._begin_round = note  # type: ignore[method-assign]
        loop.fit()
        assert len(starts) == 1

    def test_the_best_weights_of_all_rounds_are_kept(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        _, best = train(make_set(), make_set(seed=1), epochs="6", batch_size="12", fine_tune_rounds="2")
        losses = [value(line, "valid_loss") for line in epoch_lines(caplog)]
        lowest = losses.index(min(losses))
        assert (best.round, best.epoch) == (lowest // 6, lowest % 6 + 1)
        assert best.place == f"epoch {best.epoch} of round {best.round}"

    def test_each_round_has_a_new_schedule(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        train(make_set(), epochs="20", lr_schedule="one-cycle", fine_tune_rounds="1", lr="0.4")
        rates = [value(line, "lr") for line in epoch_lines(caplog)]
        assert max(rates[:20]) == pytest.approx(0.4, rel=0.05)
        assert max(rates[20:]) == pytest.approx(0.2, rel=0.05)
        assert rates[19] < 0.001 > rates[39]


class TestContinuation:
    """A network that has not learned the training data is trained on."""

    def test_two_rounds_at_most(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        loop = make_loop(make_set(), epochs="3", lr_schedule="one-cycle", lr="0.01", unfitted_loss=1e-6)
        loop.fit()
        assert [(entry["round"], entry["epoch"]) for entry in loop.history] == [
            (k, epoch) for k in range(3) for epoch in (1, 2, 3)
        ]
        found = [message for message in caplog.messages if message.startswith("continued for 3 more epochs")]
        assert len(found) == 2
        assert re.fullmatch(r"continued .*: the training loss of 0\.\d{3} is above 0\.000", found[0])
        assert max(entry["lr"] for entry in loop.history[6:]) > 0.005  # not halved

    def test_not_once_it_has_learned(self) -> None:
        loop = make_loop(make_set(), epochs="3", unfitted_loss=10.0)
        loop.fit()
        assert len(loop.history) == 3


SETTINGS: dict[str, dict[str, Any]] = {
    "plateau": {"lr_schedule": "plateau"},
    "one-cycle": {"lr_schedule": "one-cycle"},
    "constant": {"lr_schedule": "constant"},
    "fine-tuning": {"lr_schedule": "one-cycle", "fine_tune_rounds": "2", "epochs": "2"},
    "early stopping": {"early_stopping_patience": "1", "fine_tune_rounds": "1", "lr": "0.5", "epochs": "4"},
    "continued": {"lr_schedule": "one-cycle", "epochs": "1", "unfitted_loss": 1e-6},
    "members that differ": {"ensemble_size": "3", "views": "auto", "dilations": "auto"},
    "ensemble": {"ensemble_size": "2", "recurrent": "gru", "dimension_shuffle": "false"},
}


class KilledError(Exception):
    """What a test raises in the place of a SIGKILL."""


class TestResuming:
    """A job that is interrupted and started again ends exactly as if nothing had happened."""

    @classmethod
    def make(
        cls,
        folder: Path | None,
        validates: bool,
        weights_seed: int = 0,
        stop: StopSignal | None = None,
        **settings: Any,
    ) -> Loop:
        settings = {"epochs": "3", "batch_size": "8", "checkpoint_minutes": "0"} | settings
        checkpoints = None if folder is None else Checkpoints(folder, {})
        validation = flipped(make_set(10, seed=1)) if validates else None
        return make_loop(make_set(), validation, stop, checkpoints, weights_seed, **settings)

    @staticmethod
    def after(loop: Loop, steps: int, action: Callable[[], None]) -> None:
        """Do something at the end of that many training steps."""
        count = itertools.count(1)

        def hook(module: torch.nn.Module, *_: object) -> None:
            if module.training and next(count) == steps:
                action()

        loop.network.register_forward_hook(hook)

    @staticmethod
    def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
        """Lines of epochs, without the time that is left; the log is empty afterwards."""
        found = [re.sub(r", left: .*", "", line) for line in epoch_lines(caplog)]
        caplog.clear()
        return found

    @staticmethod
    def assert_same(loop: Loop, best: BestEpoch, expected_loop: Loop, expected: BestEpoch) -> None:
        assert best == expected
        assert loop.history == expected_loop.history
        weights, expected_weights = loop.network.state_dict(), expected_loop.network.state_dict()
        assert all(torch.equal(weights[name], expected_weights[name]) for name in expected_weights)

    @pytest.mark.parametrize("validates", [False, True])
    @pytest.mark.parametrize("name", SETTINGS)
    def test_after_a_stop_anywhere(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, validates: bool
    ) -> None:
        caplog.set_level(logging.INFO)
        whole = self.make(None, validates, **SETTINGS[name])
        expected = whole.fit()
        expected_lines = self.lines(caplog)
        for steps in (1, 3, 4, 8):  # within an epoch, after its last step, with the next one begun
            folder = tmp_path / str(steps)
            folder.mkdir()
            stop = StopSignal()
            first = self.make(folder, validates, stop=stop, **SETTINGS[name])
            self.after(first, steps, lambda stop=stop: stop.handle(15, None))  # type: ignore[misc]
            first.fit()
            lines = self.lines(caplog)
            assert list(folder.iterdir())
            second = self.make(folder, validates, weights_seed=99, **SETTINGS[name])
            self.assert_same(second, second.fit(), whole, expected)
            assert any(message.startswith("resumed: epoch ") for message in caplog.messages)
            assert lines + self.lines(caplog) == expected_lines

    @pytest.mark.parametrize("validates", [False, True])
    @pytest.mark.parametrize("name", SETTINGS)
    @pytest.mark.parametrize("rhythm", [{"checkpoint_epochs": "1"}, {"checkpoint_minutes": "0.0000001"}])
    def test_after_a_kill_it_resumes_from_the_last_checkpoint(
        self, tmp_path: Path, name: str, validates: bool, rhythm: dict[str, Any]
    ) -> None:
        def kill() -> None:
            raise KilledError

        whole = self.make(None, validates, **SETTINGS[name])
        expected = whole.fit()
        first = self.make(tmp_path, validates, **SETTINGS[name], **rhythm)
        self.after(first, 5, kill)
        with pytest.raises(KilledError):
            first.fit()
        second = self.make(tmp_path, validates, weights_seed=99, **SETTINGS[name], **rhythm)
        self.assert_same(second, second.fit(), whole, expected)

    def test_after_several_stops(self, tmp_path: Path) -> None:
        whole = self.make(None, validates=True, epochs="4")
        expected = whole.fit()
        for seed, steps in enumerate((2, 2, 3, 1)):
            stop = StopSignal()
            loop = self.make(tmp_path, validates=True, weights_seed=seed, stop=stop, epochs="4")
            self.after(loop, steps, lambda stop=stop: stop.handle(15, None))  # type: ignore[misc]
            loop.fit()
        last = self.make(tmp_path, validates=True, weights_seed=99, epochs="4")
        self.assert_same(last, last.fit(), whole, expected)

    def test_after_a_stop_while_the_validation_data_is_measured(self, tmp_path: Path) -> None:
        whole = self.make(None, validates=True)
        expected = whole.fit()
        stop = StopSignal()
        first = self.make(tmp_path, validates=True, stop=stop)
        calls = itertools.count(1)

        def hook(module: torch.nn.Module, *_: object) -> None:
            if not module.training and next(calls) == 6:  # of the second epoch
                stop.handle(15, None)

        first.network.register_forward_hook(hook)
        first.fit()
        second = self.make(tmp_path, validates=True, weights_seed=99)
        self.assert_same(second, second.fit(), whole, expected)

    def test_checkpoints_change_nothing(self, tmp_path: Path) -> None:
        whole = self.make(None, validates=True)
        expected = whole.fit()
        saving = self.make(tmp_path, validates=True, checkpoint_minutes="0.0000001")
        self.assert_same(saving, saving.fit(), whole, expected)

    def test_they_are_written_every_so_many_epochs(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        self.make(tmp_path, False, epochs="7", checkpoint_epochs="3").fit()
        saved = [message for message in caplog.messages if message.startswith("checkpoint: ")]
        assert saved == ["checkpoint: epoch 4, step 0", "checkpoint: epoch 7, step 0"]

    def test_none_is_written_without_a_rhythm_or_a_stop(self, tmp_path: Path) -> None:
        self.make(tmp_path, False).fit()
        assert list(tmp_path.iterdir()) == []

    def test_a_stop_before_the_first_step_ends_as_before(self, tmp_path: Path) -> None:
        stop = StopSignal()
        stop.training_started = True
        stop.handle(15, None)
        with pytest.raises(StopBeforeTraining):
            self.make(tmp_path, False, stop=stop).fit()

    def test_a_stop_right_after_resuming_keeps_the_model_and_the_place(self, tmp_path: Path) -> None:
        whole = self.make(None, validates=True)
        expected = whole.fit()
        stop = StopSignal()
        first = self.make(tmp_path, validates=True, stop=stop)
        self.after(first, 4, lambda: stop.handle(15, None))
        best = first.fit()
        again = self.make(tmp_path, validates=True, weights_seed=7, stop=stop)
        assert again.fit() == best
        last = self.make(tmp_path, validates=True, weights_seed=99)
        self.assert_same(last, last.fit(), whole, expected)


class TestSchedule:
    @staticmethod
    def make(steps_per_epoch: int = 1, **settings: Any) -> Schedule:
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
