"""The learning rate over time."""

from typing import Any

import torch

from lstm_fcn.container.hyperparameters import Hyperparameters


class Schedule:
    """Sets the learning rate of an optimizer according to the hyperparameter `lr-schedule`."""

    def __init__(self, settings: Hyperparameters, optimizer: torch.optim.Optimizer, steps_per_epoch: int) -> None:
        """Schedule `settings.epochs` epochs; the optimizer's current learning rate is the highest one."""
        self.optimizer = optimizer
        self.plateau: torch.optim.lr_scheduler.ReduceLROnPlateau | None = None
        self.one_cycle: torch.optim.lr_scheduler.OneCycleLR | None = None
        if settings.lr_schedule == "plateau":
            # As in the paper's code: a cube root of 2, the training loss, and an absolute threshold.
            self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimizer, factor=2 ** (-1 / 3), patience=100, min_lr=1e-4, threshold=1e-4, threshold_mode="abs"
            )
        elif settings.lr_schedule == "one-cycle":
            # One more step than the training takes, because the last learning rate is set after the last step.
            steps = settings.epochs * steps_per_epoch + 1
            self.one_cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=self.lr, total_steps=steps)

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def after_step(self) -> None:
        """Set the learning rate of the next step."""
        if self.one_cycle is not None:
            self.one_cycle.step()

    def after_epoch(self, train_loss: float) -> None:
        """Set the learning rate of the next epoch."""
        if self.plateau is not None:
            self.plateau.step(train_loss)

    def state(self) -> dict[str, Any]:
        """State for `load`, as JSON values."""
        groups = [{"lr": group["lr"], "betas": list(group["betas"])} for group in self.optimizer.param_groups]
        scheduler = self.plateau or self.one_cycle
        return {"groups": groups, "scheduler": scheduler.state_dict() if scheduler else None}

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state` returned."""
        for group, saved in zip(self.optimizer.param_groups, state["groups"], strict=True):
            group |= {"lr": saved["lr"], "betas": tuple(saved["betas"])}
        scheduler = self.plateau or self.one_cycle
        if scheduler is not None:
            scheduler.load_state_dict(state["scheduler"])
