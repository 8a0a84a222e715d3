"""A step as a CUDA graph, on a stand-in for CUDA: what is captured is computed again at each replay."""

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from lstm_fcn.training.data.datasets import Dataset
from lstm_fcn.training.network.model import LSTMFCN, Ensemble
from lstm_fcn.training.step import GraphedStep, TrainingStep, capture_step, make_optimizer


class StandIn:
    """A graph whose replay writes into the very tensors of the capture, as a real one does."""

    def __init__(self) -> None:
        self.replay: Callable[[], None] = lambda: None


@contextlib.contextmanager
def nothing(*_: object) -> Iterator[None]:
    yield


@pytest.fixture(autouse=True)
def _cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = SimpleNamespace(wait_stream=lambda _: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "stream", nothing)
    monkeypatch.setattr(torch.cuda, "graph", nothing)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", StandIn)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    capture = GraphedStep._capture

    def capture_and_make_replayable(
        self: GraphedStep, picked: Tensor
    ) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor, list[Tensor | None]]:
        graph, positions, result, gradients = capture(self, picked)

        def replay() -> None:
            result.copy_(self._compute(positions))
            for parameter, gradient in zip(self._parameters, gradients, strict=True):
                if gradient is not None and parameter.grad is not None:
                    gradient.copy_(parameter.grad)

        graph.replay = replay  # type: ignore[method-assign]
        return graph, positions, result, gradients

    monkeypatch.setattr(GraphedStep, "_capture", capture_and_make_replayable)


def make(*kinds: str, variables: int = 1) -> tuple[nn.Module, TrainingStep, Dataset]:
    """A network with a recurrent block of this kind, or an ensemble of several."""
    torch.manual_seed(0)
    members = [LSTMFCN(8, 2, variables, kind, hidden_size=2, filters=(3, 4, 3), dropout=0.0) for kind in kinds]
    network = (members[0] if len(members) == 1 else Ensemble(members)).train()
    step = TrainingStep(network, make_optimizer(network, 0.01), torch.ones(2))
    return network, step, Dataset(torch.randn(20, variables, 8), torch.arange(20) % 2)


@pytest.mark.parametrize(("kinds", "variables"), [(["lstm"], 1), (["alstm"], 3), (["lstm", "gru"], 3)])
def test_graphed_steps_of_changing_size_are_those_of_eager_steps(kinds: list[str], variables: int) -> None:
    eager, step, training = make(*kinds, variables=variables)
    network, other, _ = make(*kinds, variables=variables)
    graphed = GraphedStep(other, training)
    order = torch.Generator().manual_seed(1)
    for size in (5, 4, 5, 5, 4):
        picked = torch.randperm(20, generator=order)[:size]
        torch.testing.assert_close(graphed(picked), step(*training.batch(picked)))
    for found, expected in zip(network.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(found, expected)


def test_what_cannot_be_captured_is_run_eagerly(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _, step, _ = make("lstm")
    on_gpu = SimpleNamespace(device=SimpleNamespace(type="cuda"), series=SimpleNamespace(is_cuda=True))

    def fail(_: GraphedStep) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(GraphedStep, "try_out", fail)
    assert capture_step(step, on_gpu, gpus=1) is None  # type: ignore[arg-type]
    assert "steps: eager, because they cannot be captured as a CUDA graph: operation not permitted" in caplog.text


@pytest.mark.parametrize(("gpus", "processes", "on_gpu"), [(2, 1, True), (1, 2, True), (1, 1, False)])
def test_a_graph_needs_one_gpu_that_holds_the_data(gpus: int, processes: int, on_gpu: bool) -> None:
    _, step, _ = make("lstm")
    step.processes = processes
    training = SimpleNamespace(device=SimpleNamespace(type="cuda"), series=SimpleNamespace(is_cuda=on_gpu))
    assert capture_step(step, training, gpus=gpus) is None  # type: ignore[arg-type]
