"""Predict class probabilities and explanations with ONNX Runtime."""

import json
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from lstm_fcn.container import artifact
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.media_types import Precision

logger = logging.getLogger(__name__)

ENGINES = {"CUDAExecutionProvider": "CUDA", "OpenVINOExecutionProvider": "OpenVINO", "CPUExecutionProvider": "CPU"}
# Series given to the engine at once. On a CPU, a small block stays in the cache, and other requests wait for one block
# only; a GPU needs large blocks.
BLOCK, GPU_BLOCK = 16, 512
ERRORS = 3  # log severity of ONNX Runtime; its warnings tell which operators run where


class TooLargeError(UserError):
    """A series has values so large that the network overflows."""

    def __init__(self, index: int) -> None:
        super().__init__(f"Series {index + 1} of the request has values too large for the model.")
        self.index = index


class Predictions(NamedTuple):
    """The output of a model for N series.

    probabilities: float32 `[N, classes]`.
    explanation: float32 `[N, length]`, the class activation map of the most probable class: the contribution
        of each time step to its logit (see docs/network.md). `[N, 0]` if the model has none.
    """

    probabilities: NDArray[np.float32]
    explanation: NDArray[np.float32]

    @property
    def most_probable(self) -> NDArray[np.int64]:
        """The most probable class of each series, int64 `[N]`."""
        if len(self.probabilities) == 1:  # argmax would let another thread run, and wait for its turn afterwards
            values = self.probabilities[0].tolist()
            return np.array([values.index(max(values))])
        found: NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return found


class Predictor:
    """A loaded model. Several threads can predict at a time; they share the cores block by block."""

    def __init__(
        self,
        metadata: artifact.Metadata,
        graph: bytes,
        threads: int,
        precision: Precision = "float32",
        pool: ThreadPoolExecutor | None = None,
    ) -> None:
        """Prepare a model, as `artifact.load` returns it, to run on `threads` threads, which several may share.

        Raises:
            UserError: the installed engine does not support bfloat16.
        """
        self.metadata = metadata
        has_kernels = self.metadata.hyperparameters.get("kernel-features", 0) != 0
        sessions = [open_session(graph, precision, has_kernels)]
        self.engine = ENGINES[sessions[0].get_providers()[0]]  # CUDA, OpenVINO or CPU
        if self.engine == "OpenVINO":  # it crashed, rarely, when two threads ran the first blocks of one session
            sessions += [open_session(graph, precision, has_kernels) for _ in range(threads - 1)]
        self._outputs = [output.name for output in sessions[0].get_outputs()]
        zeros = np.zeros((1, self.metadata.problem.num_variables, self.metadata.problem.length))
        for session in sessions:  # the first series is slow
            session.run(self._outputs, {"series": zeros})
        self._idle = sessions * (threads // len(sessions))
        self._block = GPU_BLOCK if self.engine == "CUDA" else BLOCK
        self._turns = threading.Semaphore(threads)
        self.threads = threads
        self._pool = pool or ThreadPoolExecutor(threads, thread_name_prefix="predict")

    def predict(self, series: NDArray[np.float64]) -> Predictions:
        """Predict complete series, float64 `[N, M, length]`, not scaled.

        Raises:
            TooLargeError: names the first series whose values are too large.
        """
        width = self.metadata.problem.length if self.metadata.explains else 0
        result = Predictions(
            np.empty((len(series), len(self.metadata.problem.classes)), dtype=np.float32),
            np.empty((len(series), width), dtype=np.float32),
        )
        step = max(1, min(self._block, -(-len(series) // self.threads)))
        blocks = iter([slice(start, start + step) for start in range(0, len(series), step)])
        others = min(self.threads, -(-len(series) // step)) - 1
        helpers = [self._pool.submit(self._run, series, result, blocks) for _ in range(others)]
        self._run(series, result, blocks)
        for helper in helpers:
            if not helper.cancel():  # a helper that has not started is no longer needed
                helper.result()
        for values in result:
            bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
            if bad.size:
                raise TooLargeError(int(bad[0]))
        return result

    def _run(self, series: NDArray[np.float64], result: Predictions, blocks: Iterator[slice]) -> None:
        """Predict blocks until none is left; several threads share the iterator."""
        for block in blocks:
            with self._turns:
                session = self._idle.pop()
                try:
                    outputs = session.run(self._outputs, {"series": series[block]})
                finally:
                    self._idle.append(session)
            for values, output in zip(result, outputs, strict=False):
                values[block] = output


def open_session(graph: bytes, precision: Precision, has_kernels: bool = False) -> onnxruntime.InferenceSession:
    """A single-threaded session on the best engine; running blocks in parallel is faster than threads within a block.

    Args:
        graph: the content of `model.onnx`.
        precision: of the predictions.
        has_kernels: the graph has kernel features, for which ONNX Runtime's own operators are faster than OpenVINO's.

    Raises:
        UserError: the engine does not support bfloat16.
    """
    available = onnxruntime.get_available_providers()
    engine = next(name for name in ENGINES if name in available)
    if engine == "OpenVINOExecutionProvider" and has_kernels and precision == "float32":
        engine = "CPUExecutionProvider"
    if precision != "float32" and engine != "OpenVINOExecutionProvider":
        raise UserError(f"LSTM_FCN_PRECISION={precision} needs OpenVINO, which is not installed; use float32.")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    settings: dict[str, str] = {}
    if engine == "OpenVINOExecutionProvider":
        # With pinning, the workers of a machine would share one core.
        hints = {"ENABLE_CPU_PINNING": False, "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32"}
        one = {"NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": 1}
        settings = {"device_type": "CPU", "load_config": json.dumps({"CPU": hints | one})}
    providers = list(dict.fromkeys([engine, "CPUExecutionProvider"]))
    session = onnxruntime.InferenceSession(graph, options, providers, [settings] + [{}] * (len(providers) - 1))
    if session.get_providers()[0] != engine:
        logger.warning(
            "WARNING: %s is not usable on this machine; predictions run more slowly, on the CPU", ENGINES[engine]
        )
    return session
