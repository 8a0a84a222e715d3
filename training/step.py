"""One optimisation step: eager, or on a GPU as a captured graph."""

import logging

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lstm_fcn.training.data.datasets import Dataset
from lstm_fcn.training.network.model import join_logits
from lstm_fcn.training.scores import count_correct

logger = logging.getLogger(__name__)


def weighted_loss(logits: Tensor, labels: Tensor, class_weights: Tensor) -> Tensor:
    """Sum over the batch of each series' cross-entropy times its class's weight, as Keras weights classes.

    Args:
        logits: float32 `[B, C]`.
        labels: int64 `[B]`; or float32 `[B, C]` of 0 and 1, for classes that are independent of each other: then it
            is the mean over the classes of the binary cross-entropy.
        class_weights: float32 `[C]`; or `[C, 2]`, the weights of 0 and 1 of each class.
    """
    if labels.ndim == 1:
        return F.cross_entropy(logits, labels, weight=class_weights, reduction="sum")
    weights = torch.where(labels > 0.5, class_weights[:, 1], class_weights[:, 0])
    return F.binary_cross_entropy_with_logits(logits, labels, weight=weights, reduction="sum") / labels.shape[1]


def make_optimizer(network: nn.Module, lr: float) -> torch.optim.Adam:
    """Adam as the paper uses it, in one kernel for all parameters."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return torch.optim.Adam(trained, lr=lr, fused=True)


class TrainingStep:
    """Forward, backward, update. Nothing here waits for the device."""

    def __init__(
        self, forward: nn.Module, optimizer: torch.optim.Optimizer, class_weights: Tensor, processes: int = 1
    ) -> None:
        """`processes` share each step; the backward pass of `forward` averages their gradients."""
        self.forward = forward
        self.optimizer = optimizer
        self.class_weights = class_weights
        self.processes = processes

    def __call__(self, series: Tensor, labels: Tensor, batch_size: int | None = None) -> Tensor:
        """One step on float32 `[B, M, T]` and their labels; returns `[summed loss, number correct]`.

        Of an ensemble, the loss is the mean over its networks; what is correct, they decide together.

        `batch_size` is the number of series that all processes together have in this step, by default B. B may be 0
        where others have some.
        """
        self.optimizer.zero_grad(set_to_none=True)
        result = self.compute_gradients(series, labels, batch_size or len(labels))
        self.optimizer.step()
        return result

    def compute_gradients(self, series: Tensor, labels: Tensor, batch_size: int) -> Tensor:
        """The step without its last part, the update."""
        if len(labels) == 0:
            # Takes part in the sum of the gradients with zeros.
            torch.autograd.backward(self.forward(series.new_zeros(1, *series.shape[1:])).sum() * 0.0)
            return torch.zeros(2, device=labels.device)
        logits = self.forward(series)
        members = 1 if logits.ndim == 2 else logits.shape[1]
        # Each network of an ensemble follows its own loss, as if it were alone.
        every = labels if members == 1 else labels.repeat_interleave(members, dim=0)
        loss = weighted_loss(logits.flatten(0, -2), every, self.class_weights)
        torch.autograd.backward(loss * (self.processes / batch_size))
        with torch.no_grad():
            correct = count_correct(join_logits(logits, labels.ndim > 1), labels)
            return torch.stack([loss.detach() / members, correct.float()])


class GraphedStep:
    """A step on one GPU that holds the data: captured once for each batch size, then replayed.

    A step of a network this small is bound by the launches of its kernels. Gathering the batch, forward and backward
    are one launch as a graph; the update is one more, outside the graph because a one-cycle schedule changes Adam's
    first beta, which a graph would keep as it was.
    """

    WARM_UP = 3  # steps before the capture, as torch wants them; they change batch statistics only, not weights

    def __init__(self, step: TrainingStep, training: Dataset) -> None:
        self.step = step
        self.training = training
        self._parameters = [parameter for group in step.optimizer.param_groups for parameter in group["params"]]
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor, Tensor, list[Tensor | None]]] = {}

    def __call__(self, picked: Tensor) -> Tensor:
        """One step on the series at the positions `picked`, int64 `[B]`; returns `[summed loss, number correct]`."""
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
        """Capture a graph and drop it. Raises `RuntimeError` if that does not work here."""
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
        self.step.optimizer.zero_grad(set_to_none=True)  # so that the graph has gradients of its own
        with torch.cuda.graph(graph):
            result = self._compute(positions)
        return graph, positions, result, [parameter.grad for parameter in self._parameters]

    def _compute(self, positions: Tensor) -> Tensor:
        self.step.optimizer.zero_grad(set_to_none=True)
        series, labels = self.training.batch(positions)
        return self.step.compute_gradients(series, labels, len(labels))


def capture_step(step: TrainingStep, training: Dataset, gpus: int) -> GraphedStep | None:
    """The step as a graph where that can be had: one GPU, which holds the data too. The log says which it is."""
    if training.device.type != "cuda":
        return None
    if gpus > 1 or step.processes > 1 or not training.series.is_cuda:
        logger.info("steps: eager; a CUDA graph needs a single GPU that holds the data")
        return None
    graphed = GraphedStep(step, training)
    try:
        graphed.try_out()
    except RuntimeError as error:
        logger.warning("WARNING: steps: eager; they cannot be captured as a CUDA graph: %s", error)
        torch.cuda.synchronize()
        return None
    logger.info("steps: one CUDA graph each")
    return graphed
