"""The trained network as an ONNX graph, checked against torch before anyone writes it."""

import logging
import warnings

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from safetensors.torch import save

from container.errors import AlgorithmError
from training.model import Classifier

logger = logging.getLogger(__name__)

OUTPUTS = ["probabilities", "explanation"]
TOLERANCE = 1e-4  # largest difference of an output between torch and the exported graph


def export_graph(classifier: Classifier, rows: NDArray[np.float64]) -> bytes:
    """The classifier as an ONNX graph: `series` float64 in, `probabilities` and `explanation` float32 out.

    Their shapes are those of `Classifier.forward`; the batch size is free.

    Args:
        classifier: in evaluation mode, on the CPU.
        rows: real series, float64 `[K, 1, T]`, on which the graph must agree with torch.

    Raises:
        AlgorithmError: an output differs by more than `TOLERANCE`.
    """
    graph = _to_onnx(classifier, rows.shape[-1])
    difference = largest_difference(classifier, graph, rows)
    if not difference <= TOLERANCE:
        raise AlgorithmError(
            f"The exported graph differs from the trained network by {difference:.1e} in an output "
            f"(at most {TOLERANCE:.0e} is allowed); no model was written."
        )
    logger.info("export: largest difference to torch over %d series: %.1e", len(rows), difference)
    return graph


def export_weights(classifier: Classifier) -> bytes:
    """Every parameter and buffer, by name, as safetensors: what a later job needs to continue."""
    return save({name: tensor.contiguous() for name, tensor in classifier.state_dict().items()})


def largest_difference(classifier: Classifier, graph: bytes, rows: NDArray[np.float64]) -> float:
    """The largest difference of any output between torch and the graph; an explanation's, which has no bounds,
    as a share of its largest value.
    """
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    exported = session.run(OUTPUTS, {"series": rows})
    with torch.no_grad():
        expected = [output.numpy() for output in classifier(torch.from_numpy(rows))]
    scales = (1.0, max(1.0, float(np.abs(expected[1]).max())))
    differences = [np.abs(a - b).max() / scale for a, b, scale in zip(expected, exported, scales, strict=True)]
    return float(np.max(differences))


def _to_onnx(classifier: Classifier, length: int) -> bytes:
    example = torch.zeros(2, 1, length, dtype=torch.float64)
    exporter_log = logging.getLogger("torch.onnx")
    level = exporter_log.level
    exporter_log.setLevel(logging.ERROR)  # it reports on operators that are not used here
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                classifier,
                (example,),
                dynamo=True,
                verbose=False,
                input_names=["series"],
                output_names=OUTPUTS,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )
    finally:
        exporter_log.setLevel(level)
    if program is None:
        raise AlgorithmError("The exporter returned no graph.")
    model = program.model_proto
    # Stack traces of this machine: large, and none of a reader's business (T75).
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    graph: bytes = model.SerializeToString(deterministic=True)
    return graph
