"""Series to class probabilities and explanations, by ONNX Runtime."""

import json
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from lstm_fcn.container import artifact
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.media_types import Precision

logger = logging.getLogger(__name__)

ENGINES = {"CUDAExecutionProvider": "CUDA", "OpenVINOExecutionProvider": "OpenVINO", "CPUExecutionProvider": "CPU"}
# Series given to the engine at once. On a CPU what a block needs stays in the cache and more is no faster, and
# other requests wait for no more than a block; a GPU wants to be filled.
BLOCK, GPU_BLOCK = 16, 512
ERRORS = 3  # severity of ONNX Runtime's log; its warnings say which operators run where


class TooLargeError(UserError):
    """A series has values so large that the network cannot compute with them."""

    def __init__(self, index: int) -> None:
        super().__init__(f"Series {index + 1} of the request has values too large for the model.")
        self.index = index


class Predictions(NamedTuple):
    """What a model says of some series.

    probabilities: float32 `[N, classes]`.
    explanation: float32 `[N, length]`, the class activation map of the most probable class: what each time step
        adds to its logit, the mean of which is the convolutions' part. `[N, 0]` from models that have none.
    """

    probabilities: NDArray[np.float32]
    explanation: NDArray[np.float32]

    @property
    def most_probable(self) -> NDArray[np.int64]:
        """The most probable class of each series, int64 `[N]`."""
        found: NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return found


class Predictor:
    """A loaded model. Safe to call from several threads, which share its cores block by block."""

    def __init__(self, folder: Path, threads: int, precision: Precision = "float32") -> None:
        """Load the model in `folder`, to be run on `threads` cores, each of which has a lane of its own.

        Raises:
            UserError: there is no usable model (see `container.artifact.load`), or the engine that is installed
                knows no bfloat16.
        """
        self.metadata, graph = artifact.load(folder)
        sessions = [open_session(graph, precision)]
        self.engine = ENGINES[sessions[0].get_providers()[0]]  # what runs the graph: CUDA, OpenVINO or CPU
        if self.engine == "OpenVINO":  # it has crashed, rarely, where two threads met at a session's first blocks
            sessions += [open_session(graph, precision) for _ in range(threads - 1)]
        self._outputs = [output.name for output in sessions[0].get_outputs()]
        nothing = np.zeros((1, self.metadata.problem.num_variables, self.metadata.problem.length))
        for session in sessions:  # each prepares itself at its first series
            session.run(self._outputs, {"series": nothing})
        self._idle = sessions * (threads // len(sessions))
        self._block = GPU_BLOCK if self.engine == "CUDA" else BLOCK
        self._turns = threading.Semaphore(threads)
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="predict")

    def predict(self, series: NDArray[np.float64]) -> Predictions:
        """Predictions of complete series, float64 `[N, M, length]`, as they are before scaling.

        Raises:
            TooLargeError: names the first such series.
        """
        width = self.metadata.problem.length if self.metadata.explains else 0
        found = Predictions(
            np.empty((len(series), len(self.metadata.problem.classes)), dtype=np.float32),
            np.empty((len(series), width), dtype=np.float32),
        )
        step = max(1, min(self._block, -(-len(series) // self._threads)))
        blocks = iter([slice(start, start + step) for start in range(0, len(series), step)])
        others = min(self._threads, -(-len(series) // step)) - 1
        assistants = [self._pool.submit(self._run, series, found, blocks) for _ in range(others)]
        self._run(series, found, blocks)
        for assistant in assistants:
            if not assistant.cancel():  # one that has not begun is not needed any more
                assistant.result()
        for values in found:
            bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
            if bad.size:
                raise TooLargeError(int(bad[0]))
        return found

    def _run(self, series: NDArray[np.float64], found: Predictions, blocks: Iterator[slice]) -> None:
        """Predict blocks until none is left; several threads may share them."""
        for block in blocks:
            with self._turns:
                session = self._idle.pop()
                try:
                    outputs = session.run(self._outputs, {"series": series[block]})
                finally:
                    self._idle.append(session)
            for values, output in zip(found, outputs, strict=False):
                values[block] = output


def open_session(graph: bytes, precision: Precision) -> onnxruntime.InferenceSession:
    """A session of one thread, on the best engine: blocks side by side beat threads that meet in each block.

    Raises:
        UserError: that engine knows no bfloat16.
    """
    available = onnxruntime.get_available_providers()
    engine = next(name for name in ENGINES if name in available)
    if precision != "float32" and engine != "OpenVINOExecutionProvider":
        raise UserError(f"LSTM_FCN_PRECISION={precision} needs OpenVINO, which is not installed; leave it at float32.")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    settings: dict[str, str] = {}
    if engine == "OpenVINOExecutionProvider":
        # Pinned threads put the workers of one machine on the same core.
        hints = {"ENABLE_CPU_PINNING": False, "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32"}
        one = {"NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": 1}
        settings = {"device_type": "CPU", "load_config": json.dumps({"CPU": hints | one})}
    providers = list(dict.fromkeys([engine, "CPUExecutionProvider"]))
    session = onnxruntime.InferenceSession(graph, options, providers, [settings] + [{}] * (len(providers) - 1))
    if session.get_providers()[0] != engine:
        logger.warning("WARNING: %s cannot be used here; predictions run on the CPU, more slowly", ENGINES[engine])
    return session
