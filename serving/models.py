"""The models of an endpoint: one that is loaded at the start, or many that are loaded when they are used."""

import ctypes
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

from werkzeug.exceptions import HTTPException, NotFound

from lstm_fcn.container import artifact
from lstm_fcn.container.errors import UserError, shorten
from lstm_fcn.container.media_types import Precision
from lstm_fcn.container.memory import resident_memory
from lstm_fcn.serving.encode import Encoder
from lstm_fcn.serving.metrics import EVICTIONS, FAILURES, Metrics
from lstm_fcn.serving.predictor import Predictor
from lstm_fcn.serving.registry import Place, Registry

logger = logging.getLogger(__name__)

GROWTH = 4  # bytes of memory that a model takes, in bytes of its graph


class InsufficientStorage(HTTPException):
    """A model does not fit into memory (S34)."""

    code = 507


class LoadedModel(NamedTuple):
    """A model in memory."""

    name: str
    predictor: Predictor
    encoder: Encoder


class Models(Protocol):
    """Where requests find their model."""

    def get(self, name: str) -> LoadedModel:
        """The model of this name. Raises `NotFound`, and others as `ManyModels.get` does."""


class OneModel:
    """An endpoint's only model."""

    def __init__(self, predictor: Predictor, name: str = "model") -> None:
        self.model = LoadedModel(name, predictor, Encoder(predictor.metadata))

    def get(self, name: str) -> LoadedModel:
        if name != self.model.name:
            raise NotFound(f"There is no model {shorten(name)}; the model is {self.model.name!r}.")
        return self.model


class ManyModels:
    """Models that are read into memory when they are used; the least recently used ones make room for others."""

    def __init__(self, registry: Registry, bound: int, threads: int, precision: Precision, metrics: Metrics) -> None:
        """Serve the models of `registry`.

        Args:
            registry: shared by all workers.
            bound: bytes of memory of this worker.
            threads: on which a model predicts.
            precision: of the predictions.
            metrics: count what is read and evicted.
        """
        self.registry = registry
        self._bound, self._threads, self._precision, self._metrics = bound, threads, precision, metrics
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="predict")
        self._loaded: OrderedDict[str, tuple[str, LoadedModel]] = OrderedDict()  # with the token of each
        self._lock = threading.Lock()
        self._reading = threading.Lock()  # one model at a time: the memory is known between two of them only

    def get(self, name: str) -> LoadedModel:
        """The model of this name, read into memory if it is not there.

        Raises:
            NotFound: there is none, or its folder has been removed.
            UserError: it is damaged.
            InsufficientStorage: it does not fit into memory, even alone.
        """
        place = self.registry.find(name)
        model = self._find(name, place)
        if model is None:
            with self._reading:
                model = self._find(name, place) or self._read(name, place)
        return model

    def forget(self, name: str) -> None:
        """Free the memory of a model in this worker; other workers do it when they need the memory."""
        with self._lock:
            self._loaded.pop(name, None)

    def _find(self, name: str, place: Place) -> LoadedModel | None:
        with self._lock:
            token, model = self._loaded.get(name, ("", None))
            if token != place.token:
                return None
            self._loaded.move_to_end(name)
            return model

    def _read(self, name: str, place: Place) -> LoadedModel:
        started = time.perf_counter()
        try:
            size = (place.folder / artifact.GRAPH).stat().st_size
            self._make_room(GROWTH * size)
            metadata, graph = artifact.load(place.folder)
        except FileNotFoundError:
            self._metrics.add(FAILURES)
            raise NotFound(f"The files of the model {name} have been removed from {place.folder}.") from None
        except UserError:
            self._metrics.add(FAILURES)
            raise
        predictor = Predictor(metadata, graph, self._threads, self._precision, self._pool)
        model = LoadedModel(name, predictor, Encoder(metadata))
        with self._lock:
            self._loaded[name] = place.token, model
        try:
            self._make_room(0, keep=name)
        except InsufficientStorage:
            self.forget(name)
            raise
        seconds = time.perf_counter() - started
        self._metrics.add_model(name, predictor.engine, metadata.problem, seconds)
        logger.info("model %s loaded in %.0f ms", name, 1000 * seconds)
        return model

    def _make_room(self, size: int, keep: str = "") -> None:
        """Evict models until `size` more bytes are within the bound."""
        while (taken := resident_memory()) + size > self._bound:
            with self._lock:
                # Without the lock of `registry`: a model that is deleted now is evicted a little later.
                oldest = next((name for name in self._loaded if name != keep), None)
                if oldest is None:
                    raise InsufficientStorage(
                        f"The model needs about {size or taken:,} bytes; the memory of this worker is bounded to "
                        f"{self._bound:,} bytes, of which {taken:,} are taken. Raise LSTM_FCN_MODEL_MEMORY_MIB, or use "
                        "fewer workers."
                    )
                self._loaded.pop(oldest)
            self._metrics.add(EVICTIONS)
            _return_memory()


def _return_memory() -> None:
    """Give freed memory back to the system."""
    trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # glibc
        trim(0)
