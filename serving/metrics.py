"""Counts and durations of all workers, for `GET /metrics` in the text format of Prometheus."""

import collections
import os
from functools import lru_cache

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from lstm_fcn import __version__
from lstm_fcn.container.problem import Problem
from lstm_fcn.serving.predictor import Predictions
from lstm_fcn.serving.settings import SHARED

CONTENT_TYPE = CONTENT_TYPE_LATEST
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
STEPS = ("wait", "parse", "predict", "encode")
MOST_MODELS, MOST_CLASSES = 1000, 100  # that are counted by name in a worker
OTHERS = "(others)"


class Metrics:
    """What a worker counts. Without the folder `SHARED`, `text` has the counts of this worker only."""

    def __init__(self) -> None:
        self._registry = to = CollectorRegistry()
        self._names: set[str] = set()
        self._requests = Counter("lstm_fcn_requests", "Requests for predictions", ["model", "status"], registry=to)
        self._series = Counter("lstm_fcn_series", "Series that were predicted", ["model"], registry=to)
        self._classes = Counter("lstm_fcn_predictions", "Series by predicted class", ["model", "class"], registry=to)
        steps = Histogram("lstm_fcn_step_seconds", "Duration of a step", ["step"], buckets=SECONDS, registry=to)
        self._steps = {name: steps.labels(name) for name in STEPS}
        self.in_progress = Gauge(
            "lstm_fcn_requests_in_progress",
            "Admitted, waiting or worked on",
            multiprocess_mode="livesum",
            registry=to,
        )
        self._loads = Histogram(
            "lstm_fcn_model_load_seconds", "Models that were read into memory", buckets=SECONDS, registry=to
        )
        self.evictions = Counter("lstm_fcn_model_evictions", "Models that made room for others", registry=to)
        self.failures = Counter("lstm_fcn_model_failures", "Models that could not be read", registry=to)
        build = Gauge("lstm_fcn_build_info", "Release", ["version"], multiprocess_mode="max", registry=to)
        build.labels(__version__).set(1)
        self._model = Gauge(
            "lstm_fcn_model_info",
            "A model",
            ["model", "engine", "classes", "length"],
            multiprocess_mode="max",
            registry=to,
        )
        # A child is found in a microsecond instead of ten.
        self._requests_with = lru_cache(maxsize=None)(self._requests.labels)
        self._series_of = lru_cache(maxsize=None)(self._series.labels)
        self._class_of = lru_cache(maxsize=None)(self._classes.labels)

    def add_request(self, model: str, status: int, milliseconds: dict[str, float]) -> None:
        """Count a request for predictions, and the duration of its steps."""
        self._requests_with(self._known(model), status).inc()
        for step, histogram in self._steps.items():
            if step in milliseconds:
                histogram.observe(milliseconds[step] / 1000)

    def add_predictions(self, model: str, problem: Problem, predictions: Predictions) -> None:
        """Count series by predicted class; with several targets, by each that is more likely than not."""
        name = self._known(model)
        self._series_of(name).inc(len(predictions.probabilities))
        if problem.independent:
            found = (predictions.probabilities > 0.5).nonzero()[1].tolist()
        else:
            found = predictions.most_probable.tolist()
        for number, count in collections.Counter(found).items() if len(found) > 1 else [(k, 1) for k in found]:
            label = problem.classes[number] if number < MOST_CLASSES else OTHERS
            self._class_of(name, label).inc(count)

    def add_model(self, model: str, engine: str, problem: Problem, seconds: float) -> None:
        """Count a model that was read into memory in `seconds`."""
        self._loads.observe(seconds)
        self._model.labels(self._known(model), engine, len(problem.classes), problem.length).set(1)

    def text(self) -> bytes:
        """All counts, in the text format."""
        registry = self._registry
        if SHARED in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)

    def _known(self, model: str) -> str:
        """The name of a model, unless there are too many to count each."""
        if model not in self._names:
            if len(self._names) >= MOST_MODELS:
                return OTHERS
            self._names.add(model)
        return model
