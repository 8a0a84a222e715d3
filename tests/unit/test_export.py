"""Exported graphs of the whole family."""

import functools
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from lstm_fcn.container.errors import AlgorithmError
from lstm_fcn.container.problem import Scaling
from lstm_fcn.serving.predictor import open_session
from lstm_fcn.training import export
from lstm_fcn.training.distributed import Group
from lstm_fcn.training.export import export_graph, export_weights, largest_difference
from lstm_fcn.training.network.kernels import KernelClassifier, KernelFeatures
from lstm_fcn.training.network.model import LSTMFCN, Classifier, Ensemble, Scaler
from lstm_fcn.training.network.views import Views, measure_statistics

LENGTH = 24
AGREEMENT = 2e-6
SMALL: dict[str, Any] = {"hidden_size": 3, "filters": (4, 6, 5)}
VIEWS = ("values", "differences", "deviations")
KINDS = ("lstm", "gru", "rnn", "alstm", "dense")
OVER_TIME = {"dimension_shuffle": False, "convolutions": False}


class Family(NamedTuple):
    """A classifier: how it scales its series, and its network; or several, which are an ensemble."""

    scaling: str
    variables: int
    networks: Sequence[dict[str, Any]]
    independent: bool = False
    kernels: bool = False


FAMILIES = {
    "LSTM-FCN": Family("dataset", 1, [{}]),
    "MLSTM-FCN": Family("series", 3, [{"squeeze_excite": True, "num_layers": 2}]),
    "ALSTM-FCN": Family("dataset", 3, [{"recurrent": "alstm", "num_layers": 2}], independent=True),
    "convolutions alone": Family("none", 3, [{"recurrent": "none"}]),
    "ensemble": Family("series", 2, [{}, {}]),
    "views and dilations": Family("series", 3, [{"views": VIEWS, "dilations": (1, 2, 4, 8), "filters": (16, 8, 8)}]),
    "one variable, seen twice": Family("dataset", 1, [{"views": VIEWS[:2]}], kernels=True),
    "members that differ, kernel features": Family(
        "dataset", 2, [{"views": VIEWS[1:]}, {"dilations": (1, 2)}], independent=True, kernels=True
    ),
    "kernel features without convolutions": Family("dataset", 1, [{"convolutions": False}], kernels=True),
    # All kinds over time steps, in one graph, which is exported sooner than one for each.
    "over time": Family("dataset", 1, [OVER_TIME | {"recurrent": kind} for kind in KINDS]),
}


def make(name: str, length: int = LENGTH) -> Classifier:
    family = FAMILIES[name]
    torch.manual_seed(0)
    members = [LSTMFCN(length, 3, family.variables, **(SMALL | settings)) for settings in family.networks]
    network = members[0] if len(members) == 1 else Ensemble(members)
    for parameter in network.parameters():  # of no particular value, so that none is without influence
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.5)
    mean, std = (1e7,) * family.variables, tuple(1.0 + k for k in range(family.variables))
    for views in network.modules():
        if isinstance(views, Views):
            views.set_statistics(
                measure_statistics([torch.randn(9, family.variables, length)], family.variables, length, Group())
            )
    scaling = Scaling.model_validate({"method": family.scaling, "mean": mean, "std": std})
    return Classifier(Scaler(scaling), network, family.independent, make_kernels(family, length)).eval()


def make_kernels(family: Family, length: int) -> KernelClassifier | None:
    if not family.kernels:
        return None
    features = KernelFeatures(length, family.variables, 252)
    features.draw_biases(torch.randn(20, family.variables, length), seed=0)
    kernels = KernelClassifier(features, 3)
    torch.nn.init.normal_(kernels.linear.weight, std=0.5)
    torch.nn.init.uniform_(kernels.mean)
    return kernels


def make_rows(name: str, count: int, length: int = LENGTH) -> NDArray[np.float64]:
    """Series with an offset that float32 cannot hold, unless nothing would take it away."""
    family = FAMILIES[name]
    rows = np.random.default_rng(0).normal(size=(count, family.variables, length))
    return rows + (0.0 if family.scaling == "none" else 1e7)


@functools.cache
def exported(name: str, length: int = LENGTH) -> bytes:
    return export_graph(make(name, length), make_rows(name, 9, length))


def nodes(graph: onnx.GraphProto) -> list[str]:
    """Operators, those within loops too."""
    found = []
    for node in graph.node:
        found.append(node.op_type)
        for attribute in node.attribute:
            found += nodes(attribute.g)
    return found


@pytest.mark.parametrize("name", FAMILIES)
class TestFamily:
    @pytest.mark.parametrize("count", [1, 7])
    def test_the_graph_agrees_with_torch_for_any_batch_size(self, name: str, count: int) -> None:
        assert largest_difference(make(name), exported(name), make_rows(name, count)) < AGREEMENT

    @pytest.mark.skipif(
        "OpenVINOExecutionProvider" not in onnxruntime.get_available_providers(), reason="OpenVINO is not installed"
    )
    def test_the_graph_agrees_with_torch_in_the_engine_that_serves_it(self, name: str) -> None:
        session = open_session(exported(name), "float32")
        assert session.get_providers()[0] == "OpenVINOExecutionProvider"
        for count in (1, 7):
            rows = make_rows(name, count)
            with torch.no_grad():
                expected = make(name)(torch.from_numpy(rows))
            for found, values in zip(session.run(None, {"series": rows}), expected, strict=True):
                np.testing.assert_allclose(found, values.numpy(), atol=1e-5 * max(1.0, float(values.abs().max())))

    def test_inputs_and_outputs_are_those_that_serving_knows(self, name: str) -> None:
        family, graph = FAMILIES[name], onnx.load_from_string(exported(name)).graph
        shapes = {
            value.name: [axis.dim_value or axis.dim_param for axis in value.type.tensor_type.shape.dim]
            for value in (*graph.input, *graph.output)
        }
        expected = {"series": ["batch", family.variables, LENGTH], "probabilities": ["batch", 3]}
        if family.networks[0].get("convolutions", True) or family.kernels:
            expected["explanation"] = ["batch", LENGTH]
        assert shapes == expected

    def test_the_graph_is_valid_and_carries_nothing_of_the_machine_that_made_it(self, name: str) -> None:
        graph = exported(name)
        assert b".py" not in graph
        assert b"/training" not in graph
        model = onnx.load_from_string(graph)
        onnx.checker.check_model(model, full_check=True)
        assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 20)]


def test_a_recurrence_is_one_operator_however_long_the_series() -> None:
    short, long = (nodes(onnx.load_from_string(exported("over time", length)).graph) for length in (LENGTH, 60))
    assert sorted(short) == sorted(long)
    assert [short.count(operator) for operator in ("LSTM", "GRU", "RNN", "Scan")] == [1, 1, 1, 1]


def test_one_step_of_time_is_no_recurrence() -> None:
    assert not {"LSTM", "Scan", "Loop"} & set(nodes(onnx.load_from_string(exported("LSTM-FCN")).graph))


def test_the_same_network_gives_the_same_bytes_and_the_exporter_is_quiet(caplog: pytest.LogCaptureFixture) -> None:
    first = exported("over time")
    caplog.clear()
    caplog.set_level(logging.INFO, "lstm_fcn.training")
    assert export_graph(make("over time"), make_rows("over time", 9)) == first
    (message,) = caplog.messages
    assert message.startswith("export: largest difference to torch over 9 series: ")
    assert export_weights(make("over time")) == export_weights(make("over time"))


@pytest.mark.parametrize("difference", [2e-4, float("nan")])
def test_a_graph_that_differs_is_not_written(monkeypatch: pytest.MonkeyPatch, difference: float) -> None:
    monkeypatch.setattr(export, "to_onnx", lambda *_: b"")
    monkeypatch.setattr(export, "largest_difference", lambda *_: difference)
    with pytest.raises(AlgorithmError, match="differs from the trained network by"):
        export_graph(make("LSTM-FCN"), make_rows("LSTM-FCN", 9))


def test_the_difference_is_measured_on_the_graph() -> None:
    other = make("LSTM-FCN")
    torch.nn.init.normal_(other.members[0].linear.weight)
    assert largest_difference(other, exported("LSTM-FCN"), make_rows("LSTM-FCN", 9)) > 1e-2


@pytest.mark.parametrize("name", ["MLSTM-FCN", "ALSTM-FCN", "over time", "views and dilations"])
def test_no_weight_is_too_small_for_its_influence_to_be_seen(name: str) -> None:
    """Otherwise it would mean little that the graphs agree with torch."""
    rows = torch.from_numpy(make_rows(name, 9))
    with torch.no_grad():
        expected = make(name)(rows)[0]
        for changed, parameter in make(name).named_parameters():
            if parameter.requires_grad:
                other = make(name)
                other.get_parameter(changed).mul_(-1)
                assert (other(rows)[0] - expected).abs().max() > 10 * AGREEMENT, changed
