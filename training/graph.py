"""The classifier as an ONNX graph: one operator for each step of its forward pass.

Batch normalisation is part of the weights of its convolution. Values are named after their operators.
"""

from typing import Any, cast

import numpy as np
import onnx
import torch
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from lstm_fcn.training.network.kernels import STEPS_PER_UNIT, Bank, KernelClassifier
from lstm_fcn.training.network.model import CONSTANT, LSTMFCN, Classifier, ConvBlock, Scaler, same_padding
from lstm_fcn.training.network.recurrent import GRU, LSTM, RNN, AttentionLSTM, Dense
from lstm_fcn.training.network.views import Views

OPSET, IR_VERSION = 20, 10  # ONNX 1.15, for engines since ONNX Runtime 1.17
LAST = np.iinfo(np.int64).max


class Graph:
    """A graph that grows. Values are known by their names, which `add` and `constant` return."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._constants: dict[tuple[object, ...], onnx.TensorProto] = {}

    def add(self, operator: str, *inputs: str, outputs: list[str] | None = None, **attributes: Any) -> str:
        """Add an operator and return the name of its last output."""
        outputs = outputs or [f"{operator.lower()}_{len(self.nodes)}"]
        self.nodes.append(helper.make_node(operator, inputs, outputs, **attributes))
        return outputs[-1]

    def constant(self, values: ArrayLike | Tensor) -> str:
        """Add a constant; equal ones are kept once. Integers become int64."""
        array = values.detach().numpy() if isinstance(values, Tensor) else np.asarray(values)
        key = (array.dtype, array.shape, array.tobytes())
        if key not in self._constants:
            name = f"constant_{len(self._constants)}"
            self._constants[key] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return self._constants[key].name

    def serialize(self, shapes: dict[str, tuple[int, list[str | int]]], given: str) -> bytes:
        """The graph as bytes, the same ones for the same graph.

        Args:
            shapes: element type and shape of the inputs and outputs.
            given: the input; all others are outputs.
        """
        values = {name: helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in shapes.items()}
        inputs = [values.pop(given)]
        graph = helper.make_graph(self.nodes, "lstm-fcn", inputs, [*values.values()], [*self._constants.values()])
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="lstm-fcn")
        serialized: bytes = model.SerializeToString(deterministic=True)
        return serialized


def to_onnx(classifier: Classifier, num_variables: int, length: int) -> bytes:
    """The graph of `Classifier.forward`: `series` in, `probabilities` and, if it explains, `explanation` out."""
    graph = Graph()
    shapes: dict[str, tuple[int, list[str | int]]] = {
        "series": (TensorProto.DOUBLE, ["batch", num_variables, length]),
        "probabilities": (TensorProto.FLOAT, ["batch", classifier.members[0].linear.out_features]),
    }
    scaled = _scale(graph, classifier.scaler, "series")
    found = [_network(graph, member, scaled) for member in classifier.members]
    members, kernel_maps = [logits for logits, _ in found], ""
    if classifier.kernels is not None:
        logits, kernel_maps = _kernels(graph, classifier.kernels, scaled, length)
        members.append(logits)
    squash = "Sigmoid" if classifier.independent else "Softmax"  # over the last axis
    average = graph.add("Mean", *(graph.add(squash, logits) for logits in members))
    graph.add("Identity", average, outputs=["probabilities"])
    if classifier.explains:
        shapes["explanation"] = (TensorProto.FLOAT, ["batch", length])
        classes = graph.add("ArgMax", average, axis=1, keepdims=0)
        maps = [
            _activation_map(graph, member, features, classes)
            for member, (_, features) in zip(classifier.members, found, strict=True)
            if features
        ]
        if classifier.kernels is not None:
            maps.append(_map_of_class(graph, kernel_maps, classes, classifier.kernels.linear.out_features))
        share = graph.constant(np.float32(1 / len(members)))
        graph.add("Mul", graph.add("Sum", *maps), share, outputs=["explanation"])
    return graph.serialize(shapes, "series")


def _scale(graph: Graph, scaler: Scaler, series: str) -> str:
    """Raw series to scaled ones, `[B, M, T]`."""
    if scaler.method == "dataset":
        series = graph.add("Sub", series, graph.constant(scaler.mean))
        series = graph.add("Div", series, graph.constant(scaler.std))
    elif scaler.method == "series":
        time = graph.constant([-1])
        mean = graph.add("ReduceMean", series, time)
        series = graph.add("Sub", series, mean)
        std = graph.add("Sqrt", graph.add("ReduceMean", graph.add("Mul", series, series), time))
        smallest = graph.add("Mul", graph.add("Abs", mean), graph.constant(np.float64(CONSTANT)))
        std = graph.add("Where", graph.add("Greater", std, smallest), std, graph.constant(np.float64(1.0)))
        series = graph.add("Div", series, std)
    return graph.add("Cast", series, to=TensorProto.FLOAT)


def _network(graph: Graph, network: LSTMFCN, series: str) -> tuple[str, str]:
    """Scaled series to logits `[B, C]` and the convolutions' features `[B, F, T]` ("" without convolutions)."""
    parts, features = [], ""
    viewed = _views(graph, network.views, series)
    if len(network.recurrent):
        sequence = viewed
        if not network.dimension_shuffle:
            sequence = graph.add("Transpose", viewed, perm=[0, 2, 1])
        elif len(network.views.names) > 1:
            sequence = graph.add("Reshape", viewed, graph.constant([0, network.views.num_variables, -1]))
        for layer in network.recurrent:
            if not isinstance(layer, nn.Dropout):
                sequence = _recurrent(graph, layer, sequence)
        parts.append(sequence)
    if len(network.fcn):
        height = graph.constant([2])
        image = graph.add("Unsqueeze", viewed, height)
        for block in network.fcn:
            image = _conv_block(graph, cast(ConvBlock, block), image)
        features = graph.add("Squeeze", image, height)
        parts.append(graph.add("ReduceMean", features, graph.constant([2]), keepdims=0))
    joined = graph.add("Concat", *parts, axis=1)
    return _linear(graph, joined, network.linear.weight, network.linear.bias), features


def _activation_map(graph: Graph, network: LSTMFCN, features: str, classes: str) -> str:
    """`LSTMFCN.activation_map` of features `[B, F, T]`: `[B, T]`."""
    filters = cast(ConvBlock, network.fcn[-1]).norm.num_features
    middle = graph.constant([1])
    weights = graph.add("Gather", graph.constant(network.linear.weight[:, -filters:]), classes)
    return graph.add("Squeeze", graph.add("MatMul", graph.add("Unsqueeze", weights, middle), features), middle)


def _conv_block(graph: Graph, block: ConvBlock, image: str) -> str:
    norm, parts, start = block.norm, [], 0
    variance, mean = (cast(Tensor, values).double() for values in (norm.running_var, norm.running_mean))
    factor = norm.weight.detach().double() / (variance + norm.eps).sqrt()
    shift = norm.bias.detach().double() - mean * factor
    for conv in block.convs:
        rows = slice(start, start + conv.out_channels)
        kernel = (conv.weight.detach().double() * factor[rows, None, None, None]).float()
        bias = (cast(Tensor, conv.bias).detach().double() * factor[rows] + shift[rows]).float()
        left, right = same_padding(conv)
        parts.append(_convolve(graph, image, kernel, bias, (left, right), conv.dilation[1]))
        start += conv.out_channels
    joined = parts[0] if len(parts) == 1 else graph.add("Concat", *parts, axis=1)
    image = graph.add("Relu", joined)
    if block.squeeze is None:
        return image
    axes = graph.constant([2, 3])
    weights = graph.add("ReduceMean", image, axes, keepdims=0)
    weights = graph.add("Relu", _linear(graph, weights, block.squeeze.down.weight))
    weights = graph.add("Sigmoid", _linear(graph, weights, block.squeeze.up.weight))
    return graph.add("Mul", image, graph.add("Unsqueeze", weights, axes))


def _convolve(
    graph: Graph, image: str, kernel: Tensor, bias: Tensor | None, padding: tuple[int, int], dilation: int
) -> str:
    """A convolution over time of `[B, C, 1, T]`."""
    biases = [] if bias is None else [graph.constant(bias)]
    pads = [0, padding[0], 0, padding[1]]
    return graph.add("Conv", image, graph.constant(kernel), *biases, pads=pads, dilations=[1, dilation])


def _views(graph: Graph, views: Views, series: str) -> str:
    """`Views.forward`: `[B, M, T]` to `[B, M * views, T]`."""
    found = []
    for name in views.names:
        if name == "values":
            found.append(series)
        elif name == "differences":
            time = graph.constant([2])
            before = graph.add("Slice", series, graph.constant([0]), graph.constant([-1]), time)
            after = graph.add("Slice", series, graph.constant([1]), graph.constant([LAST]), time)
            steps = graph.add("Pad", graph.add("Sub", after, before), graph.constant([0, 0, 1, 0, 0, 0]))
            found.append(graph.add("Div", steps, graph.constant(views.difference_std)))
        else:
            distances = graph.add("Sub", series, graph.constant(views.mean_series))
            found.append(graph.add("Div", distances, graph.constant(views.deviation_std)))
    if len(found) == 1:
        return found[0]
    if views.num_variables == 1:
        return graph.add("Concat", *found, axis=1)
    third = graph.constant([2])
    stacked = graph.add("Concat", *(graph.add("Unsqueeze", view, third) for view in found), axis=2)
    return graph.add("Reshape", stacked, graph.constant([0, views.num_variables * len(found), -1]))


STEEP = 2.0**100  # times a distance from a bias, limited to 0 and 1: whether it is greater than 0; exact


def _kernels(graph: Graph, kernels: KernelClassifier, series: str, length: int) -> tuple[str, str]:
    """Scaled series to logits `[B, C]`, and the activation map of every class `[B, C, T]`.

    The mean over time and the linear layer change places with `KernelClassifier.forward`, so that all is convolutions,
    and the map costs nothing more. Its mean, and the logits of the means of the features, are the logits.
    """
    steps = graph.add("Round", graph.add("Mul", series, graph.constant(np.float32(STEPS_PER_UNIT))))
    image = graph.add("Unsqueeze", steps, graph.constant([2]))
    limits = graph.constant(np.float32(0.0)), graph.constant(np.float32(1.0))
    usual = kernels.linear.weight.double() * kernels.mean.double()  # what the mean training series adds
    maps, start = [], 0
    for bank in kernels.features.banks:
        size, share = bank.bias.numel(), length / bank.steps(length)
        above = graph.add("Clip", _distances(graph, bank, image), *limits)
        weights = kernels.linear.weight[:, start : start + size].reshape(-1, *bank.bias.shape).movedim(0, -1)
        filled = _fill(weights).flatten(0, 1).T * share
        centre = -share * usual[:, start : start + size].sum(dim=1).float()
        part = _convolve(graph, above, filled[:, :, None, None], centre, (0, 0), 1)
        cut = (length - bank.steps(length)) // 2
        maps.append(graph.add("Pad", part, graph.constant([0, 0, 0, cut, 0, 0, 0, cut])) if cut else part)
        start += size
    joined = graph.add("Squeeze", graph.add("Sum", *maps), graph.constant([2]))
    # A product instead of ReduceMean, to which OpenVINO adds a bias along the wrong axis.
    mean = graph.add("MatMul", joined, graph.constant(np.full((length, 1), 1 / length, np.float32)))
    rest = (kernels.linear.bias + usual.sum(dim=1)).float()
    return graph.add("Add", graph.add("Squeeze", mean, graph.constant([2])), graph.constant(rest)), joined


def _distances(graph: Graph, bank: Bank, image: str) -> str:
    """`[B, M, 1, T]` to the steep distances of all responses from all biases, `[B, 48 * biases, 1, T']`."""
    weights, bias = _fill(bank.weights)[:, :, None], -STEEP * _fill(bank.bias)
    count, each = bias.shape
    padding = (bank.padding, bank.padding)
    if weights.shape[1] == 1:  # the same kernel again for each bias: more products, but in one operator
        repeated = STEEP * weights.repeat_interleave(each, dim=0)
        return _convolve(graph, image, repeated, bias.flatten(), padding, bank.dilation)
    responses = _convolve(graph, image, weights, None, padding, bank.dilation)
    slopes = graph.constant(torch.full((count * each, 1, 1, 1), STEEP))
    return graph.add("Conv", responses, slopes, graph.constant(bias.flatten()), group=count)


def _fill(rows: Tensor) -> Tensor:
    """Rows of the kernels `[42, ...]`, and zeros up to 48: engines have faster operators for multiples of 16."""
    return torch.cat([rows.float(), rows.new_zeros(-len(rows) % 16, *rows.shape[1:])])


def _map_of_class(graph: Graph, maps: str, classes: str, num_classes: int) -> str:
    """Of the maps of all classes `[B, C, T]` that of one class for each series, `[B, T]`."""
    middle = graph.constant([1])
    chosen = graph.add("OneHot", classes, graph.constant([num_classes]), graph.constant(np.array([0, 1], np.float32)))
    return graph.add("Squeeze", graph.add("MatMul", graph.add("Unsqueeze", chosen, middle), maps), middle)


def _recurrent(graph: Graph, layer: nn.Module, sequence: str) -> str:
    """A sequence `[B, S, F]` to the outputs of the layer `[B, S, H]`, or to the last one `[B, H]`."""
    if isinstance(layer, Dense):
        return graph.add("Sigmoid", _linear(graph, graph.add("Flatten", sequence), layer.weight, layer.bias))
    layer = cast(LSTM | GRU | RNN | AttentionLSTM, layer)
    if layer.steps == 1:
        output = _one_step(graph, layer, graph.add("Squeeze", sequence, graph.constant([1])))
        return output if layer.last else graph.add("Unsqueeze", output, graph.constant([1]))
    if isinstance(layer, AttentionLSTM):
        return _attention(graph, layer, sequence)
    operator, gates, attributes = OPERATORS[type(layer)]
    weights = [layer.weight_ih_l0, layer.weight_hh_l0]
    biases = np.concatenate([_order(layer.bias_ih_l0, gates), _order(layer.bias_hh_l0, gates)], axis=1)
    constants = [*(graph.constant(_order(weight, gates)) for weight in weights), graph.constant(biases)]
    steps_first = graph.add("Transpose", sequence, perm=[1, 0, 2])
    name = f"{operator.lower()}_{len(graph.nodes)}"
    outputs = [name, f"{name}_last"]  # [S, 1, B, H] and [1, B, H]
    graph.add(operator, steps_first, *constants, outputs=outputs, hidden_size=layer.hidden_size, **attributes)
    if layer.last:
        return graph.add("Squeeze", outputs[1], graph.constant([0]))
    return graph.add("Squeeze", graph.add("Transpose", outputs[0], perm=[2, 0, 1, 3]), graph.constant([2]))


# The operators of ONNX, torch's gates in their order, and their attributes.
OPERATORS: dict[type, tuple[str, tuple[int, ...], dict[str, int]]] = {
    LSTM: ("LSTM", (0, 3, 1, 2), {}),
    GRU: ("GRU", (1, 0, 2), {"linear_before_reset": 1}),
    RNN: ("RNN", (0,), {}),
}


def _order(weights: Tensor, gates: tuple[int, ...]) -> NDArray[np.float32]:
    """Weights of the gates in this order, `[1, gates * H, ...]`."""
    parts = np.split(weights.detach().numpy(), len(gates))
    return np.concatenate([parts[gate] for gate in gates])[None]


def _one_step(graph: Graph, layer: LSTM | GRU | RNN | AttentionLSTM, features: str) -> str:
    """Features `[B, F]` to the output after one step from a zero state, `[B, H]`. The forget gate has no influence."""
    weight: Tensor
    bias: Tensor
    if isinstance(layer, AttentionLSTM):  # the context vector is the input itself
        weight, bias = layer.weight_ih + layer.weight_context, layer.bias
    else:
        weight, bias = layer.weight_ih_l0, layer.bias_ih_l0 + layer.bias_hh_l0

    def gate(number: int, squash: str) -> str:
        size = layer.hidden_size
        rows = slice(number * size, (number + 1) * size)
        return graph.add(squash, _linear(graph, features, weight[rows], bias[rows]))

    if isinstance(layer, RNN):
        return gate(0, "Tanh")
    if isinstance(layer, GRU):
        kept = graph.add("Sub", graph.constant(np.float32(1.0)), gate(1, "Sigmoid"))
        return graph.add("Mul", kept, gate(2, "Tanh"))
    cell = graph.add("Mul", gate(0, "Sigmoid"), gate(2, "Tanh"))
    return graph.add("Mul", gate(3, "Sigmoid"), graph.add("Tanh", cell))


# An attention LSTM as a loop over its steps, as in `AttentionLSTM._run`. The weights come from outside the loop;
# everything that depends on the series is passed from step to step, as OpenVINO requires.
ATTENTION_LOOP = """
attention (float[B, H] hidden, float[B, H] cell, float[B, S, F] sequence, float[B, S, H] keys, float[B, G] read)
    => (float[B, H] next_hidden, float[B, H] next_cell, float[B, S, F] same_sequence, float[B, S, H] same_keys,
        float[B, H] output)
<int64[1] middle = {1}>
{
    query = MatMul (hidden, attention_hidden)
    queries = Unsqueeze (query, middle)
    matched = Add (keys, queries)
    squashed = Tanh (matched)
    score = MatMul (squashed, attention_score)
    weight = Softmax <axis = 1> (score)
    weighted = Mul (sequence, weight)
    context = ReduceSum <keepdims = 0> (weighted, middle)
    of_hidden = MatMul (hidden, weight_hh)
    of_context = MatMul (context, weight_context)
    of_both = Add (of_hidden, of_context)
    gates = Add (read, of_both)
    to_input, to_forget, to_new, to_output = Split <axis = 1, num_outputs = 4> (gates)
    input_gate = Sigmoid (to_input)
    forget_gate = Sigmoid (to_forget)
    new = Tanh (to_new)
    output_gate = Sigmoid (to_output)
    added = Mul (input_gate, new)
    kept = Mul (forget_gate, cell)
    next_cell = Add (kept, added)
    shown = Tanh (next_cell)
    next_hidden = Mul (output_gate, shown)
    output = Identity (next_hidden)
    same_sequence = Identity (sequence)
    same_keys = Identity (keys)
}
"""


def _attention(graph: Graph, layer: AttentionLSTM, sequence: str) -> str:
    weights = {
        "weight_hh": layer.weight_hh.t(),
        "weight_context": layer.weight_context.t(),
        "attention_hidden": layer.attention_hidden.t(),
        "attention_score": layer.attention_score[:, None],
    }
    names = {name: graph.constant(weight) for name, weight in weights.items()}
    body = onnx.parser.parse_graph(ATTENTION_LOOP)
    for node in body.node:
        node.input[:] = [names.get(name, name) for name in node.input]

    def multiply(weight: Tensor, bias: Tensor) -> str:
        return graph.add("Add", graph.add("MatMul", sequence, graph.constant(weight.t())), graph.constant(bias))

    read = graph.add("Transpose", multiply(layer.weight_ih, layer.bias), perm=[1, 0, 2])
    keys = multiply(layer.attention_input, layer.attention_bias)
    batch = graph.add("Shape", sequence, start=0, end=1)
    shape = graph.add("Concat", batch, graph.constant([layer.hidden_size]), axis=0)
    start = graph.add("ConstantOfShape", shape)
    name = f"scan_{len(graph.nodes)}"
    ends = [f"{name}_end_{k}" for k in range(4)]
    # The states after the last step, which start with the hidden state; and its outputs, [S, B, H].
    outputs = [*ends, f"{name}_outputs"]
    states = [start, start, sequence, keys]
    last = graph.add("Scan", *states, read, outputs=outputs, body=body, num_scan_inputs=1)
    return ends[0] if layer.last else graph.add("Transpose", last, perm=[1, 0, 2])


def _linear(graph: Graph, values: str, weight: Tensor, bias: Tensor | None = None) -> str:
    """`torch.nn.functional.linear` of `[B, F]`."""
    biases = [] if bias is None else [graph.constant(bias)]
    return graph.add("Gemm", values, graph.constant(weight), *biases, transB=1)
