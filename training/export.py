"""Export of the trained network as an ONNX graph, checked against torch before it is written."""

import logging

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from safetensors.torch import save

from lstm_fcn.container.errors import AlgorithmError
from lstm_fcn.training.graph import to_onnx
from lstm_fcn.training.network.model import Classifier

logger = logging.getLogger(__name__)

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
    graph = to_onnx(classifier, *rows.shape[1:])
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
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    exported = session.run(None, {"series": rows})
    with torch.no_grad():
        expected = [output.numpy() for output in classifier(torch.from_numpy(rows))]
    scales = [1.0, *(max(1.0, float(np.abs(output).max())) for output in expected[1:])]
    differences = [np.abs(a - b).max() / scale for a, b, scale in zip(expected, exported, scales, strict=True)]
    return float(np.max(differences))
