"""One optimisation step."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def weighted_cross_entropy(logits: Tensor, labels: Tensor, class_weights: Tensor) -> Tensor:
    """Sum over the batch of each series' cross-entropy times its class's weight, as Keras weights classes."""
    return F.cross_entropy(logits, labels, weight=class_weights, reduction="sum")


def make_optimizer(network: nn.Module, lr: float) -> torch.optim.Adam:
    """Adam as the paper uses it, in one kernel for all parameters."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return torch.optim.Adam(trained, lr=lr, fused=True)


class TrainingStep:
    """Forward, backward, update. Nothing here waits for the device."""

    def __init__(self, forward: nn.Module, optimizer: torch.optim.Optimizer, class_weights: Tensor) -> None:
        self.forward = forward
        self.optimizer = optimizer
        self.class_weights = class_weights

    def __call__(self, series: Tensor, labels: Tensor) -> Tensor:
        """One step on float32 `[B, 1, T]` and int64 `[B]`; returns `[summed loss, number correct]`."""
        self.optimizer.zero_grad(set_to_none=True)
        logits = self.forward(series)
        loss = weighted_cross_entropy(logits, labels, self.class_weights)
        torch.autograd.backward(loss / len(labels))
        self.optimizer.step()
        with torch.no_grad():
            correct = (logits.argmax(dim=1) == labels).sum()
            return torch.stack([loss.detach(), correct.float()])
