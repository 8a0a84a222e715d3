"""Epochs, schedule, best weights, stop signal."""

import copy
import logging
import math
import time
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, nn

from container.errors import UserError
from container.hyperparameters import Hyperparameters
from container.metrics import metric_text
from training.devices import MixedPrecision, Placement, parallel_forward
from training.evaluate import evaluate, even_batches, set_exact_batch_norm
from training.step import TrainingStep, make_optimizer
from training.stop import StopBeforeTraining, StopSignal

logger = logging.getLogger(__name__)

PROGRESS_INTERVAL = 30.0  # seconds between lines within an epoch that takes longer


@dataclass(frozen=True)
class TensorSet:
    """Scaled series, float32 `[N, 1, T]`, and labels, int64 `[N]`, on the device that trains."""

    series: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Fitted:
    """The weights that were kept: from which epoch, and what they reach."""

    epoch: int
    metrics: dict[str, float]


class Loop:
    """The training of one network: its data, its optimizer, and the best weights so far."""

    def __init__(
        self,
        network: nn.Module,
        training: TensorSet,
        validation: TensorSet | None,
        class_weights: Tensor,
        settings: Hyperparameters,
        placement: Placement,
        stop: StopSignal,
    ) -> None:
        """Prepare to train `network` on `training`; `class_weights` is float32 `[classes]`."""
        self.network = network
        self.training = training
        self.validation = validation
        self.class_weights = class_weights
        self.settings = settings
        self.stop = stop
        # Evaluation runs on one device: batch statistics must not be split over GPUs.
        self.evaluation_forward = MixedPrecision(network, placement.bfloat16)
        optimizer = make_optimizer(network, settings.lr)
        self.step = TrainingStep(parallel_forward(network, placement), optimizer, class_weights)
        self.steps_per_epoch = math.ceil(len(training.labels) / settings.batch_size)
        self.schedule = Schedule(settings, optimizer, self.steps_per_epoch)
        self.shuffle = torch.Generator().manual_seed(settings.seed)
        self.started = time.monotonic()
        self.best_loss = math.inf
        self.best_weights: dict[str, Tensor] | None = None
        self.best = Fitted(0, {})

    def fit(self) -> Fitted:
        """Train the network and leave it with the weights of the best epoch, ready to be evaluated or exported.

        The best epoch is that of the lowest validation loss, or training loss where there is no validation
        data. A stop signal ends training at the next step; the best epoch so far is kept, or, within the first
        epoch, the weights as they are.

        Raises:
            UserError: the loss is not a finite number in the first epoch already.
            StopBeforeTraining: a stop came before the first step.
        """
        self.stop.training_started = True
        for epoch in range(1, self.settings.epochs + 1):
            if not self._run_epoch(epoch):
                break
        return self._finish()

    def _run_epoch(self, epoch: int) -> bool:
        """Train one epoch, print its line, keep its weights if they are the best; False if it must be the last."""
        metrics = self._train(epoch)
        if self.validation is not None and not self.stop.requested:
            metrics |= self._validate(self.validation)
        if not self._is_finite(metrics):
            self._diverged(epoch)
            return False
        if self.stop.requested:
            logger.info("stop requested in epoch %d", epoch)
            if self.best_weights is None:
                self.best = Fitted(epoch, metrics)
            return False
        decisive = metrics.get("valid_loss", metrics["train_loss"])
        if decisive < self.best_loss:
            self.best_loss = decisive
            self.best_weights = copy.deepcopy(self.network.state_dict())
            self.best = Fitted(epoch, metrics)
        self._print_line(epoch, metrics)
        self.schedule.after_epoch(metrics["train_loss"])
        return True

    def _finish(self) -> Fitted:
        """Load the best weights, give them exact batch statistics and measure them, all in float32."""
        if self.best_weights is not None:
            self.network.load_state_dict(self.best_weights)
        logger.info("measuring the weights of epoch %d", self.best.epoch)
        forward = MixedPrecision(self.network, bfloat16=False)
        batch_size = self.settings.batch_size
        set_exact_batch_norm(self.network, forward, self.training.series, batch_size, lambda: self.stop.out_of_time)
        if self.stop.requested:
            return self.best  # there may be no time to measure again
        metrics = self._measure("train", self.training, forward)
        if self.validation is not None:
            metrics |= self._measure("valid", self.validation, forward)
        return Fitted(self.best.epoch, metrics)

    def _train(self, epoch: int) -> dict[str, float]:
        """One pass over the shuffled training set; metrics are of the batches as they were trained on."""
        self.network.train()
        totals = torch.zeros(2, dtype=torch.float64, device=self.training.series.device)
        seen = 0
        last_line = time.monotonic()
        order = torch.randperm(len(self.training.labels), generator=self.shuffle).to(self.training.series.device)
        for number, batch in enumerate(even_batches(order, self.settings.batch_size), 1):
            if self.stop.requested:
                break
            totals += self.step(self.training.series[batch], self.training.labels[batch])
            self.schedule.after_step()
            seen += len(batch)
            if time.monotonic() - last_line > PROGRESS_INTERVAL:
                last_line = time.monotonic()
                logger.info("epoch: %d/%d, step: %d/%d", epoch, self.settings.epochs, number, self.steps_per_epoch)
        if seen == 0 and self.best_weights is None:
            raise StopBeforeTraining
        loss, accuracy = (totals / max(seen, 1)).tolist()
        return {"train_loss": loss, "train_accuracy": accuracy}

    def _validate(self, validation: TensorSet) -> dict[str, float]:
        forward = self.evaluation_forward
        batch_size = self.settings.batch_size
        set_exact_batch_norm(self.network, forward, self.training.series, batch_size, lambda: self.stop.requested)
        return self._measure("valid", validation, forward)

    def _measure(self, name: str, data: TensorSet, forward: nn.Module) -> dict[str, float]:
        loss, accuracy = evaluate(forward, data.series, data.labels, self.class_weights)
        return {f"{name}_loss": loss, f"{name}_accuracy": accuracy}

    def _is_finite(self, metrics: dict[str, float]) -> bool:
        """The losses are numbers, and so are the weights: a loss is measured before the step that it leads to."""
        norm = torch.nn.utils.get_total_norm(self.network.parameters())
        return all(map(math.isfinite, metrics.values())) and bool(norm.isfinite())

    def _diverged(self, epoch: int) -> None:
        if self.best_weights is None:
            raise UserError(
                f"Training diverged: the loss or the weights of epoch {epoch} are not finite numbers. "
                f"Use a lower lr than {self.settings.lr:g}, or scaling=dataset or series if it is none."
            )
        logger.warning(
            "WARNING: the loss or the weights of epoch %d are not finite numbers; training ends with "
            "the best epoch so far. A lower lr than %g may help.",
            epoch,
            self.settings.lr,
        )

    def _print_line(self, epoch: int, metrics: dict[str, float]) -> None:
        per_epoch = (time.monotonic() - self.started) / epoch
        left = timedelta(seconds=round(per_epoch * (self.settings.epochs - epoch)))
        logger.info(
            "epoch: %d/%d, %s, lr: %.6f, left: %s",
            epoch,
            self.settings.epochs,
            metric_text(metrics),
            self.schedule.lr,
            left,
        )


class Schedule:
    """The learning rate over time, by the hyperparameter `lr-schedule`."""

    def __init__(self, settings: Hyperparameters, optimizer: torch.optim.Optimizer, steps_per_epoch: int) -> None:
        self.optimizer = optimizer
        self.plateau: torch.optim.lr_scheduler.ReduceLROnPlateau | None = None
        self.one_cycle: torch.optim.lr_scheduler.OneCycleLR | None = None
        if settings.lr_schedule == "plateau":
            # As in the paper's code: by a cube root of 2, on the training loss, in absolute terms.
            self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimizer, factor=2 ** (-1 / 3), patience=100, min_lr=1e-4, threshold=1e-4, threshold_mode="abs"
            )
        elif settings.lr_schedule == "one-cycle":
            # One step more than is taken: the last learning rate is set after the last step.
            steps = settings.epochs * steps_per_epoch + 1
            self.one_cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=settings.lr, total_steps=steps)

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def after_step(self) -> None:
        if self.one_cycle is not None:
            self.one_cycle.step()

    def after_epoch(self, train_loss: float) -> None:
        if self.plateau is not None:
            self.plateau.step(train_loss)
