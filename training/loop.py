"""The training loop: epochs and rounds of them, best weights, checkpoints, stops."""

import copy
import logging
import math
import time
from dataclasses import asdict, dataclass
from datetime import timedelta

import torch
from torch import Tensor, nn

from lstm_fcn.container.errors import UserError
from lstm_fcn.container.hyperparameters import Hyperparameters
from lstm_fcn.container.metrics import EpochLine
from lstm_fcn.training.checkpoint import Checkpoint, Checkpoints, share
from lstm_fcn.training.data.datasets import Dataset
from lstm_fcn.training.devices import MixedPrecision, Placement, parallel_forward
from lstm_fcn.training.distributed import Group
from lstm_fcn.training.evaluate import evaluate, even_batches, set_exact_batch_norm
from lstm_fcn.training.schedule import Schedule
from lstm_fcn.training.step import TrainingStep, capture_step, make_optimizer
from lstm_fcn.training.stop import Interrupted, StopBeforeTraining, StopSignal

logger = logging.getLogger(__name__)

MOST_CONTINUATIONS = 2  # rounds after the last one of a network that has not learned the training data
PROGRESS_INTERVAL = 30.0  # seconds between progress lines within a long epoch


@dataclass(frozen=True)
class BestEpoch:
    """Epoch, round and metrics of the selected weights.

    batches: number of batches that the training set was split into; the batch statistics of the weights depend on it.
    """

    epoch: int
    metrics: dict[str, float]
    round: int = 0
    batches: int = 1

    @property
    def place(self) -> str:
        return f"epoch {self.epoch}" + (f" of round {self.round}" if self.round else "")


@dataclass
class Position:
    """Progress of the training: `step` steps of epoch `epoch` of round `round` are done."""

    round: int = 0
    epoch: int = 1
    step: int = 0


class Loop:
    """Trains one network, or one ensemble.

    history: metrics of each finished epoch.
    stopping: all processes have agreed to stop.
    """

    def __init__(
        self,
        network: nn.Module,
        training: Dataset,
        validation: Dataset | None,
        class_weights: Tensor,
        settings: Hyperparameters,
        placement: Placement,
        stop: StopSignal,
        group: Group | None = None,
        checkpoints: Checkpoints | None = None,
        saves: bool = False,
        unfitted_loss: float = math.inf,
    ) -> None:
        """Prepare to train `network`.

        Args:
            network: on the device of the data.
            training: this process's part of the training set.
            validation: this process's part of the validation set, if there is one.
            class_weights: float32 `[C]`, or `[C, 2]` for independent classes; on the device.
            settings: the hyperparameters; the batch size is not 0.
            placement: device and precision.
            stop: asked at every step whether to stop.
            group: the processes that train together.
            checkpoints: in the first process of the group, where to save checkpoints.
            saves: the first process of the group saves checkpoints.
            unfitted_loss: while the training loss is higher at the end, training is continued for another round.
        """
        self.network = network
        self.training = training
        self.validation = validation
        self.class_weights = class_weights
        self.settings = settings
        self.stop = stop
        self.group = group or Group()
        self.checkpoints = checkpoints
        self.saves = saves or checkpoints is not None
        self.unfitted_loss = unfitted_loss
        self.placement = placement
        # Evaluation runs on one device, because batch statistics must not be split over GPUs.
        self.evaluation_forward = MixedPrecision(network, placement.bfloat16)
        self.training_forward = parallel_forward(network, placement, self.group)
        self.shuffle = torch.Generator().manual_seed(settings.seed)
        self.epoch_shuffle = self.shuffle.get_state()  # before the order of the current epoch is drawn
        self.sizes: list[int] = self.group.gather("training rows", len(training))
        self.position = Position()
        self.totals = torch.zeros(2, dtype=torch.float64, device=training.device)
        self.stopping = False
        self.best_loss = math.inf
        self.best_weights: dict[str, Tensor] | None = None
        self.best = BestEpoch(0, {})
        self.history: list[dict[str, float]] = []
        self.stale_epochs = 0  # epochs since the lowest loss
        self.started = self.last_checkpoint = time.monotonic()
        self.epochs_done = 0  # since `started`
        self._begin_round()

    def fit(self) -> BestEpoch:
        """Train the network and leave it with the weights of the best epoch, ready to be evaluated or exported.

        The best epoch has the lowest validation loss, or the lowest training loss if there is no validation data. A
        stop signal ends training at the next step; then the best epoch so far is selected, or within the first epoch
        the current weights. With checkpoints, training resumes from the latest one.

        Raises:
            UserError: the loss of the first epoch is not finite; a checkpoint cannot be written or belongs to another
                job.
            StopBeforeTraining: a stop was requested before the first step.
            Interrupted: a stop was requested in a resumable job; a checkpoint is saved.
        """
        self.stop.training_started = True
        if self.saves:
            self._resume()
        while self._run_epoch():
            self.epoch_shuffle = self.shuffle.get_state()
            self.position = Position(self.position.round, self.position.epoch + 1)
            self.epochs_done += 1
            if self.position.epoch > self.settings.epochs or self._out_of_patience():
                if self.position.round >= self.settings.fine_tune_rounds and not self._continues():
                    break
                self.position = Position(self.position.round + 1)
                self._begin_round()
            if self.settings.checkpoint_epochs and (self.position.epoch - 1) % self.settings.checkpoint_epochs == 0:
                self._save_checkpoint()
        if self.stopping and self.stop.resumable:
            raise Interrupted(f"Interrupted after epoch {len(self.history)}; run the same command again to resume it.")
        return self._finish()

    def _begin_round(self) -> None:
        """Start from the best weights, with lr and batch size halved in each fine-tuning round."""
        halvings = min(self.position.round, self.settings.fine_tune_rounds)
        lr = self.settings.lr / 2**halvings
        batch_size = max(1, self.settings.batch_size >> halvings)
        if self.position.round and self.best_weights is not None:
            self.network.load_state_dict(self.best_weights)
        if halvings:
            logger.info("fine-tuning round %d: lr %g, batch size %d", halvings, lr, batch_size)
        self.steps_per_epoch = math.ceil(sum(self.sizes) / batch_size)
        self.stale_epochs = 0
        optimizer = make_optimizer(self.network, lr)
        self.step = TrainingStep(self.training_forward, optimizer, self.class_weights, self.group.size)
        self.graphed = capture_step(self.step, self.training, self.placement.gpus)
        self.schedule = Schedule(self.settings, optimizer, self.steps_per_epoch)

    def _run_epoch(self) -> bool:
        """Train one epoch, log it, remember its weights if they are the best; return whether to continue."""
        metrics = self._train()
        if self.validation is not None and not self.stopping:
            metrics |= self._validate(self.validation)
        if not self._is_finite(metrics):
            self._diverged()
            return False
        if self.stopping:
            logger.info("stop requested in epoch %d", self.position.epoch)
            if self.best_weights is None:
                self.best = BestEpoch(self.position.epoch, metrics, self.position.round, self.steps_per_epoch)
            return False
        decisive = metrics.get("valid_loss", metrics["train_loss"])
        self.stale_epochs += 1
        if decisive < self.best_loss:
            self.stale_epochs = 0
            self.best_loss = decisive
            self.best_weights = copy.deepcopy(self.network.state_dict())
            self.best = BestEpoch(self.position.epoch, metrics, self.position.round, self.steps_per_epoch)
        position = {"round": self.position.round, "epoch": self.position.epoch}
        self.history.append({**position, **metrics, "lr": self.schedule.lr})
        self._print_line(metrics)
        self.schedule.after_epoch(metrics["train_loss"])
        return True

    def _continues(self) -> bool:
        """Whether another round follows because the network has not learned the training data."""
        loss, rounds = self.history[-1]["train_loss"], self.position.round - self.settings.fine_tune_rounds
        if loss <= self.unfitted_loss or rounds >= MOST_CONTINUATIONS:
            return False
        self._log(
            "continued for %d more epochs, as round %d: the training loss of %.3f is above %.3f",
            self.settings.epochs,
            self.position.round + 1,
            loss,
            self.unfitted_loss,
        )
        return True

    def _out_of_patience(self) -> bool:
        patience = self.settings.early_stopping_patience
        if not patience or self.stale_epochs < patience:
            return False
        kind = "training" if self.validation is None else "validation"
        logger.info("early stopping: the %s loss has not decreased for %d epochs", kind, patience)
        return True

    def _finish(self) -> BestEpoch:
        """Load the best weights, compute their exact batch statistics and measure them, all in float32."""
        if self.best_weights is not None:
            self.network.load_state_dict(self.best_weights)
        logger.info("measuring the weights of %s", self.best.place)
        forward = MixedPrecision(self.network, bfloat16=False)
        self._set_exact_batch_norm(forward, self.best.batches, out_of_time=True)
        if self.stopping:
            return self.best  # there may not be enough time to measure again
        metrics = self._measure("train", self.training, forward)
        if self.validation is not None:
            metrics |= self._measure("valid", self.validation, forward)
        return BestEpoch(self.best.epoch, metrics, self.best.round, self.best.batches)

    def _train(self) -> dict[str, float]:
        """Train the remaining steps of the epoch; return metrics of the batches at the time of their step."""
        self.network.train()
        if self.position.step == 0:
            self.totals.zero_()
        last_line = time.monotonic()
        self.shuffle.set_state(self.epoch_shuffle)
        order = torch.randperm(len(self.training), generator=self.shuffle).to(self.training.device)
        for number, picked in enumerate(even_batches(order, self.steps_per_epoch)):
            if number < self.position.step:
                continue  # done before the checkpoint that was resumed
            if self._must_stop():
                break
            if self.graphed is not None:
                self.totals += self.graphed(picked)
            else:
                self.totals += self.step(*self.training.batch(picked), self._series_in_step(number))
            self.schedule.after_step()
            self.position.step += 1
            if time.monotonic() - last_line > PROGRESS_INTERVAL:
                last_line = time.monotonic()
                progress = (self.position.epoch, self.settings.epochs, self.position.step, self.steps_per_epoch)
                self._log("epoch: %d/%d, step: %d/%d", *progress)
        if self.position.step == 0 and self.best_weights is None:
            raise StopBeforeTraining
        seen = sum(map(self._series_in_step, range(self.position.step)))
        loss, correct = self.group.sum(self.totals.clone()).tolist()
        return {"train_loss": loss / max(seen, 1), "train_accuracy": correct / max(seen, 1)}

    def _series_in_step(self, number: int) -> int:
        """Series in a step, over all processes."""
        return sum(size // self.steps_per_epoch + (number < size % self.steps_per_epoch) for size in self.sizes)

    def _must_stop(self) -> bool:
        """Agree with the other processes on whether to stop; save a checkpoint if one is due."""
        minutes = self.settings.checkpoint_minutes
        due = self.saves and minutes > 0 and time.monotonic() - self.last_checkpoint > 60 * minutes
        stop, due = self._any(self.stop.requested, due)
        self.stopping = stop
        if self.saves and (due or stop):
            self._save_checkpoint()
        return self.stopping

    def _any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag, whether it is true in any process."""
        if self.group.size == 1:
            return flags
        return tuple(count > 0 for count in self.group.sum(torch.tensor(flags, dtype=torch.float32)).tolist())

    def _validate(self, validation: Dataset) -> dict[str, float]:
        self._set_exact_batch_norm(self.evaluation_forward, self.steps_per_epoch, out_of_time=False)
        metrics = self._measure("valid", validation, self.evaluation_forward)
        self.stopping = self._any(self.stop.requested)[0]
        if self.stopping and self.saves:
            self._save_checkpoint()
        return metrics

    def _set_exact_batch_norm(self, forward: nn.Module, batches: int, out_of_time: bool) -> None:
        def enough() -> bool:
            return self.stop.out_of_time if out_of_time else self.stop.requested

        set_exact_batch_norm(self.network, forward, self.training, batches, enough, self.group)

    def _measure(self, name: str, data: Dataset, forward: nn.Module) -> dict[str, float]:
        metrics = evaluate(forward, data, self.class_weights, self.group, scores=name == "valid")
        return {f"{name}_{metric}": value for metric, value in metrics.items()}

    def _is_finite(self, metrics: dict[str, float]) -> bool:
        """Whether losses and weights are finite; the weights too, because a loss is measured before its step."""
        norm = torch.nn.utils.get_total_norm(self.network.parameters())
        return all(map(math.isfinite, metrics.values())) and bool(norm.isfinite())

    def _diverged(self) -> None:
        if self.best_weights is None:
            raise UserError(
                f"Training diverged: the loss or the weights are not finite in epoch {self.position.epoch}. "
                f"Use a lower lr than {self.settings.lr:g}, or scaling=dataset or series if it is none."
            )
        logger.warning(
            "WARNING: training diverged: the loss or the weights are not finite in epoch %d. The best epoch so far is "
            "used; a lower lr than %g may help.",
            self.position.epoch,
            self.settings.lr,
        )

    def _print_line(self, metrics: dict[str, float]) -> None:
        position, epochs = self.position, self.settings.epochs
        per_epoch = (time.monotonic() - self.started) / (self.epochs_done + 1)
        epochs_left = (self.settings.fine_tune_rounds - position.round) * epochs + epochs - position.epoch
        line = EpochLine(position.epoch, epochs, metrics, position.round)
        self._log("%s", line.format(self.schedule.lr, timedelta(seconds=round(per_epoch * epochs_left))))

    def _log(self, text: str, *values: object) -> None:
        """Log in the first process only, so that a metric is not reported by every machine (M5)."""
        if self.group.is_first:
            logger.info(text, *values)

    # Checkpoints

    def _save_checkpoint(self) -> None:
        """Save everything that influences the next steps. Every process takes part; the first one writes."""
        self.last_checkpoint = time.monotonic()
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in (self.best_weights or {}).items()}
        tensors |= {f"optimizer.{name}": tensor for name, tensor in self._moments().items()}
        tensors["totals"] = self.group.gather_rows(self.totals[None])
        tensors["random.shuffle"] = self.group.gather_rows(self.epoch_shuffle[None])
        tensors["random.cpu"] = self.group.gather_rows(torch.get_rng_state()[None])
        if self.training.device.type == "cuda":
            tensors["random.cuda"] = self.group.gather_rows(torch.cuda.get_rng_state(self.training.device)[None])
        if self.checkpoints is None:
            return
        state = {
            "position": asdict(self.position),
            "schedule": self.schedule.state(),
            "best": asdict(self.best),
            "best_loss": self.best_loss,
            "stale_epochs": self.stale_epochs,
            "history": self.history,
        }
        position = self.position
        self.checkpoints.save(
            f"round{position.round:02d}-epoch{position.epoch:05d}-step{position.step:08d}", Checkpoint(tensors, state)
        )
        logger.info("checkpoint: epoch %d, step %d", position.epoch, position.step)

    def _resume(self) -> None:
        """Resume from the latest checkpoint of the first process, if there is one."""
        checkpoint = share(self.checkpoints.load_newest() if self.checkpoints else None, self.group)
        if checkpoint is None:
            return
        state, tensors = checkpoint.state, checkpoint.tensors
        self.position = Position(**state["position"])
        self.best_loss, self.best = state["best_loss"], BestEpoch(**state["best"])
        self.history = state["history"]
        weights = self.network.state_dict()
        if "best." + next(iter(weights)) in tensors:
            self.best_weights = {name: _like(weights[name], tensors[f"best.{name}"]) for name in weights}
        self._begin_round()
        self.stale_epochs = state["stale_epochs"]
        self.network.load_state_dict({name: tensors[f"network.{name}"] for name in weights})
        self._load_moments(tensors)
        self.schedule.load(state["schedule"])
        # Copies, because torch reads a generator's state from the start of the storage, not of the row.
        tensors = tensors | {
            name: tensors[name][self.group.rank].clone()
            for name in tensors
            if name == "totals" or name.startswith("random.")
        }
        self.totals.copy_(tensors["totals"])
        self.epoch_shuffle = tensors["random.shuffle"]
        torch.set_rng_state(tensors["random.cpu"])
        if "random.cuda" in tensors and self.training.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["random.cuda"], self.training.device)
        logger.info("resumed: epoch %d, step %d", self.position.epoch, self.position.step)

    def _moments(self) -> dict[str, Tensor]:
        """State of the optimizer for each parameter."""
        parameters = self.step.optimizer.param_groups[0]["params"]
        states = [self.step.optimizer.state.get(parameter, {}) for parameter in parameters]
        return {f"{k}.{name}": tensor for k, state in enumerate(states) for name, tensor in state.items()}

    def _load_moments(self, tensors: dict[str, Tensor]) -> None:
        for k, parameter in enumerate(self.step.optimizer.param_groups[0]["params"]):
            prefix = f"optimizer.{k}."
            saved = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
            # In the memory order of the parameter, as the optimizer creates them: the same sums, bit for bit.
            self.step.optimizer.state[parameter] = {
                name: _like(parameter.detach() if tensor.ndim else tensor.to(parameter.device), tensor)
                for name, tensor in saved.items()
            }


def _like(model: Tensor, values: Tensor) -> Tensor:
    """Copy `values` to the memory order and the device of `model`."""
    return torch.empty_like(model).copy_(values)
