"""One training step: eager, or captured as a CUDA graph."""

import logging

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lstm_fcn.training.data.datasets import Dataset
from lstm_fcn.training.network.model import join_logits
from lstm_fcn.training.scores import count_correct

logger = logging.getLogger(__name__)


def weighted_loss(logits: Tensor, labels: Tensor, class_weights: Tensor) -> Tensor:
    """Sum over the batch of the cross-entropy of each series times the weight of its class, as in Keras.

    Args:
        logits: float32 `[B, C]`.
        labels: int64 `[B]`; or for independent classes 0 and 1, float32 `[B, C]`, and then the loss of a series is the
            mean of the binary cross-entropy over the classes.
        class_weights: float32 `[C]`; or the weights of 0 and 1 of each class, `[C, 2]`.
    """
    if labels.ndim == 1:
        return F.cross_entropy(logits, labels, weight=class_weights, reduction="sum")
    weights = torch.where(labels > 0.5, class_weights[:, 1], class_weights[:, 0])
    return F.binary_cross_entropy_with_logits(logits, labels, weight=weights, reduction="sum") / labels.shape[1]


def make_optimizer(network: nn.Module, lr: float) -> torch.optim.Adam:
    """Adam with the settings of the paper, as one kernel for all parameters."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return torch.optim.Adam(trained, lr=lr, fused=True)


class TrainingStep:
    """Forward, backward, update. Nothing here waits for the device."""

    def __init__(
        self, forward: nn.Module, optimizer: torch.optim.Optimizer, class_weights: Tensor, processes: int = 1
    ) -> None:
        """Prepare steps that `processes` processes share; the backward pass of `forward` averages their gradients."""
        self.forward = forward
        self.optimizer = optimizer
        self.class_weights = class_weights
        self.processes = processes

    def __call__(self, series: Tensor, labels: Tensor, batch_size: int | None = None) -> Tensor:
        """Train one step on series, float32 `[B, M, T]`, and their labels; return `[summed loss, number correct]`.

        For an ensemble, the loss is the mean over its networks, and accuracy is computed from the averaged
        probabilities.

        `batch_size` is the number of series in this step over all processes, by default B. B may be 0 if another
        process has series.
        """
        self.optimizer.zero_grad(set_to_none=True)
        result = self.compute_gradients(series, labels, batch_size or len(labels))
        self.optimizer.step()
        return result

    def compute_gradients(self, series: Tensor, labels: Tensor, batch_size: int) -> Tensor:
        """Forward and backward pass, without the update."""
        if len(labels) == 0:
            # Contribute zeros to the sum of the gradients.
            torch.autograd.backward(self.forward(series.new_zeros(1, *series.shape[1:])).sum() * 0.0)
            return torch.zeros(2, device=labels.device)
        logits = self.forward(series)
        members = 1 if logits.ndim == 2 else logits.shape[1]
        # Each network of an ensemble is trained by its own loss, as if it were alone.
        every = labels if members == 1 else labels.repeat_interleave(members, dim=0)
        loss = weighted_loss(logits.flatten(0, -2), every, self.class_weights)
        torch.autograd.backward(loss * (self.processes / batch_size))
        with torch.no_grad():
            correct = count_correct(join_logits(logits, labels.ndim > 1), labels)
            return torch.stack([loss.detach() / members, correct.float()])


class GraphedStep:
    """A step on one GPU that holds the data: captured once for each batch size, then replayed.

    The time of a step of such a small network is dominated by kernel launches. As a graph, gathering the batch, forward
    and backward pass are one launch. The update is another launch, outside the graph, because a one-cycle schedule
    changes Adam's first beta, which would be constant in a graph.
    """

    WARM_UP = 3  # steps before the capture, as torch requires; they change batch statistics but no weights

    def __init__(self, step: TrainingStep, training: Dataset) -> None:
        self.step = step
        self.training = training
        self._parameters = [parameter for group in step.optimizer.param_groups for parameter in group["params"]]
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor, Tensor, list[Tensor | None]]] = {}

    def __call__(self, picked: Tensor) -> Tensor:
        """Train one step on the series at positions `picked`, int64 `[B]`; return `[summed loss, number correct]`."""
        if len(picked) not in self._graphs:
            self._graphs[len(picked)] = self._capture(picked)
        graph, positions, result, gradients = self._graphs[len(picked)]
        positions.copy_(picked)
        graph.replay()
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        self.step.optimizer.step()
        return result.clone()

    def try_out(self) -> None:
        """Capture a graph and discard it. Raises `RuntimeError` if that is not possible here."""
        self._capture(torch.arange(min(2, len(self.training)), device=self.training.device))

    def _capture(self, picked: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor, list[Tensor | None]]:
        positions = picked.clone()
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(self.WARM_UP):
                self._compute(positions)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        self.step.optimizer.zero_grad(set_to_none=True)  # the graph allocates its gradients
        with torch.cuda.graph(graph):
            result = self._compute(positions)
        return graph, positions, result, [parameter.grad for parameter in self._parameters]

    def _compute(self, positions: Tensor) -> Tensor:
        self.step.optimizer.zero_grad(set_to_none=True)
        series, labels = self.training.batch(positions)
        return self.step.compute_gradients(series, labels, len(labels))


def capture_step(step: TrainingStep, training: Dataset, gpus: int) -> GraphedStep | None:
    """Capture the step as a CUDA graph if it runs on a single GPU that holds the data; else return None."""
    if training.device.type != "cuda":
        return None
    if gpus > 1 or step.processes > 1 or not training.series.is_cuda:
        logger.info("steps: eager; a CUDA graph needs a single GPU that holds the data")
        return None
    graphed = GraphedStep(step, training)
    try:
        graphed.try_out()
    except RuntimeError as error:
        logger.warning("WARNING: steps: eager, because they cannot be captured as a CUDA graph: %s", error)
        torch.cuda.synchronize()
        return None
    logger.info("steps: one CUDA graph each")
    return graphed
