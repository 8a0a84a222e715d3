import numpy as np
import onnx
import pytest
import torch

from container.artifact import Scaling
from container.errors import AlgorithmError
from training import export
from training.export import export_graph, export_weights, largest_difference
from training.model import LSTMFCN, Classifier, Scaler

ROWS = np.random.default_rng(0).normal(size=(9, 1, 24)) + 1e7


def make(method: str, num_layers: int = 1) -> Classifier:
    torch.manual_seed(0)
    scaling = Scaling.model_validate({"method": method, "mean": 1e7, "std": 1.0})
    return Classifier(Scaler(scaling), LSTMFCN(24, 3, num_layers=num_layers, filters=(4, 6, 5))).eval()


@pytest.mark.parametrize("method", ["dataset", "series"])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_the_graph_agrees_with_torch_for_any_batch_size(method: str, num_layers: int) -> None:
    classifier = make(method, num_layers)
    graph = export_graph(classifier, ROWS)
    for rows in (ROWS, ROWS[:1], ROWS[:2]):
        assert largest_difference(classifier, graph, rows) < 1e-6


def test_without_scaling() -> None:
    classifier = make("none")
    assert largest_difference(classifier, export_graph(classifier, ROWS - 1e7), ROWS - 1e7) < 1e-6


def test_the_same_network_gives_the_same_bytes() -> None:
    assert export_graph(make("dataset"), ROWS) == export_graph(make("dataset"), ROWS)
    assert export_weights(make("dataset")) == export_weights(make("dataset"))


def test_the_graph_carries_nothing_of_the_machine_that_made_it() -> None:
    graph = export_graph(make("dataset"), ROWS)
    assert b".py" not in graph
    assert b"/training" not in graph
    onnx.checker.check_model(onnx.load_from_string(graph), full_check=True)


@pytest.mark.parametrize("difference", [2e-4, float("nan")])
def test_a_graph_that_differs_is_not_written(monkeypatch: pytest.MonkeyPatch, difference: float) -> None:
    monkeypatch.setattr(export, "largest_difference", lambda *_: difference)
    with pytest.raises(AlgorithmError, match="differs from the trained network by"):
        export_graph(make("dataset"), ROWS)


def test_the_difference_is_measured_on_the_graph() -> None:
    graph = export_graph(make("dataset"), ROWS)
    other = make("dataset")
    torch.nn.init.normal_(other.network.linear.weight)
    assert largest_difference(other, graph, ROWS) > 1e-2
