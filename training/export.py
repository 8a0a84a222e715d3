"""Export of the trained network as an ONNX graph, checked against torch before it is written."""

import contextlib
import logging
import warnings
from collections.abc import Iterator

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from safetensors.torch import save

from lstm_fcn.container.errors import AlgorithmError
from lstm_fcn.training.network.model import Classifier
from lstm_fcn.training.network.recurrent import ATTENTION_OPERATOR

logger = logging.getLogger(__name__)

OUTPUTS = ["probabilities", "explanation"]
TOLERANCE = 1e-4  # largest difference of an output between torch and the exported graph


def export_graph(classifier: Classifier, rows: NDArray[np.float64]) -> bytes:
    """Export the classifier as an ONNX graph: `series` float64 in, `probabilities` and `explanation` float32 out.

    For the shapes, see `Classifier.forward`; the batch size is free. A network without convolutions has no explanation.

    Args:
        classifier: in evaluation mode, on the CPU.
        rows: real series, float64 `[K, M, T]`, on which the graph must agree with torch.

    Raises:
        AlgorithmError: an output differs by more than `TOLERANCE`.
    """
    graph = _to_onnx(classifier, rows.shape[1:])
    difference = largest_difference(classifier, graph, rows)
    if not difference <= TOLERANCE:
        raise AlgorithmError(
            f"The exported graph differs from the trained network by {difference:.1e} in an output "
            f"(at most {TOLERANCE:.0e} is allowed); no model was written."
        )
    logger.info("export: largest difference to torch over %d series: %.1e", len(rows), difference)
    return graph


def export_weights(classifier: Classifier) -> bytes:
    """All parameters and buffers by name, as safetensors, for jobs that continue training from the model."""
    return save({name: tensor.contiguous() for name, tensor in classifier.state_dict().items()})


def largest_difference(classifier: Classifier, graph: bytes, rows: NDArray[np.float64]) -> float:
    """The largest difference between the outputs of torch and of the graph.

    The explanation has no bounds, so its difference is relative to its largest value.
    """
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    exported = session.run(None, {"series": rows})
    with torch.no_grad():
        expected = [output.numpy() for output in classifier(torch.from_numpy(rows))]
    scales = [1.0, *(max(1.0, float(np.abs(output).max())) for output in expected[1:])]
    differences = [np.abs(a - b).max() / scale for a, b, scale in zip(expected, exported, scales, strict=True)]
    return float(np.max(differences))


def _to_onnx(classifier: Classifier, shape: tuple[int, ...]) -> bytes:
    example = torch.zeros(2, *shape, dtype=torch.float64)
    with _quiet_exporter():
        program = torch.onnx.export(
            classifier,
            (example,),
            dynamo=True,
            verbose=False,
            input_names=["series"],
            output_names=OUTPUTS[: 1 + classifier.explains],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
    if program is None:
        raise AlgorithmError("The exporter returned no graph.")
    model = program.model_proto
    _expand_attention(model)
    # Stack traces are large and contain paths of this machine, which must not be published (T75).
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    graph: bytes = model.SerializeToString(deterministic=True)
    return graph


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence the exporter, which reports on operators that are not used here and on optimisations it does not make."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [chatty.level for chatty in loggers]
    for chatty in loggers:
        chatty.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for chatty, level in zip(loggers, levels, strict=True):
            chatty.setLevel(level)


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
ATTENTION_WEIGHTS = ("weight_hh", "weight_context", "attention_hidden", "attention_score")


def _expand_attention(model: onnx.ModelProto) -> None:
    """Replace attention LSTMs, for which ONNX has no operator, by loops."""
    domain, operator = ATTENTION_OPERATOR.split("::")
    for node in model.graph.node:
        if (node.domain, node.op_type) != (domain, operator):
            continue
        start, read, sequence, keys, *weights = node.input
        names = dict(zip(ATTENTION_WEIGHTS, weights, strict=True))
        body = onnx.parser.parse_graph(ATTENTION_LOOP)
        for inner in body.node:
            inner.input[:] = [names.get(name, name) for name in inner.input]
        inputs, output = [start, start, sequence, keys, read], node.output[0]
        ends = [f"{output}_end_{k}" for k in range(4)]  # the last states are not used
        scan = onnx.helper.make_node("Scan", inputs, [*ends, output], name=node.name, body=body, num_scan_inputs=1)
        node.CopyFrom(scan)
    for k in reversed(range(len(model.opset_import))):
        if model.opset_import[k].domain == domain:
            del model.opset_import[k]
