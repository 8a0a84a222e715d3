"""Series to class probabilities, by ONNX Runtime."""

import threading
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from container import artifact
from container.codec import HEADERLESS, Columns
from container.errors import UserError

BLOCK = 32  # series given to the runtime at once: what a block needs stays in the cache, more is no faster


class Predictor:
    """A loaded model. Safe to call from several threads, which take turns block by block."""

    def __init__(self, folder: Path, threads: int) -> None:
        """Load the model in `folder`, to be run on `threads` threads.

        Raises:
            UserError: there is no usable model (see `container.artifact.load`).
        """
        self.metadata, graph = artifact.load(folder)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # A waiting thread that spins takes the core from the other workers.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._turn = threading.Lock()

    def predict(self, series: NDArray[np.float64]) -> NDArray[np.float32]:
        """Probabilities, float32 `[N, classes]`, of raw series, float64 `[N, 1, length]`.

        Raises:
            UserError: a series has values so large that the network cannot compute with them.
        """
        result = np.empty((len(series), len(self.metadata.classes)), dtype=np.float32)
        for start in range(0, len(series), BLOCK):
            with self._turn:
                (block,) = self._session.run(["probabilities"], {"series": series[start : start + BLOCK]})
            result[start : start + BLOCK] = block
        bad = np.flatnonzero(~np.isfinite(result).all(axis=1))
        if bad.size:
            raise UserError(f"Series {bad[0] + 1} of the request has values too large for the model.")
        return result

    @property
    def columns(self) -> Columns:
        """The columns of a request's header; empty if the model's data had none."""
        return HEADERLESS if self.metadata.columns is None else Columns(series=tuple(self.metadata.columns))

    def targets(self, probabilities: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which target columns are 1, bool `[N, classes]`: the most probable, or each that is more likely than not."""
        if self.metadata.independent:
            return probabilities > 0.5
        most: NDArray[np.bool_] = np.arange(probabilities.shape[1]) == probabilities.argmax(axis=1)[:, np.newaxis]
        return most

    def labels(self, probabilities: NDArray[np.float32]) -> list[str]:
        """The label of the most probable class of each row, as it stood in the training data."""
        return [self.metadata.classes[k] for k in probabilities.argmax(axis=1)]
