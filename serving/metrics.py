"""Counts and durations of all workers, for `GET /metrics` in the text format of Prometheus."""

import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import accumulate
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from lstm_fcn import __version__
from lstm_fcn.container.problem import Problem
from lstm_fcn.serving.counts import Counts
from lstm_fcn.serving.predictor import Predictions

CONTENT_TYPE = CONTENT_TYPE_LATEST
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BUCKETS = (*map(str, SECONDS), "+Inf")
STEPS = ("wait", "parse", "predict", "encode")
MOST_MODELS, MOST_CLASSES = 1000, 100  # that are counted by name in a worker
OTHERS = "(others)"

REQUESTS, SERIES, PREDICTIONS = "lstm_fcn_requests", "lstm_fcn_series", "lstm_fcn_predictions"
STEP, LOAD = "lstm_fcn_step_seconds", "lstm_fcn_model_load_seconds"
IN_PROGRESS = "lstm_fcn_requests_in_progress"
EVICTIONS, FAILURES = "lstm_fcn_model_evictions", "lstm_fcn_model_failures"
BUILD, MODEL = "lstm_fcn_build_info", "lstm_fcn_model_info"

FAMILIES = (
    (CounterMetricFamily, REQUESTS, "Requests for predictions", ("model", "status")),
    (CounterMetricFamily, SERIES, "Series that were predicted", ("model",)),
    (CounterMetricFamily, PREDICTIONS, "Series by predicted class", ("model", "class")),
    (HistogramMetricFamily, STEP, "Duration of a step", ("step",)),
    (GaugeMetricFamily, IN_PROGRESS, "Admitted, waiting or worked on", ()),
    (HistogramMetricFamily, LOAD, "Models that were read into memory", ()),
    (CounterMetricFamily, EVICTIONS, "Models that made room for others", ()),
    (CounterMetricFamily, FAILURES, "Models that could not be read", ()),
    (GaugeMetricFamily, BUILD, "Release", ("version",)),
    (GaugeMetricFamily, MODEL, "A model", ("model", "engine", "classes", "length")),
)


class Steps:
    """What is logged and counted of a request: its model, its series and the duration of each step."""

    def __init__(self) -> None:
        self.model = ""
        self.rows = 0
        self.predicted: tuple[Problem, Predictions] | None = None
        self.milliseconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def end(self, step: str) -> None:
        """End a step; the next one starts now."""
        now = time.perf_counter()
        self.milliseconds[step] = 1000 * (now - self._last)
        self._last = now


class Metrics:
    """What a worker counts. A name in `Counts` is a metric and its labels; a histogram has one for each bucket."""

    def __init__(self, folder: Path | None = None) -> None:
        """Share the counts with other workers in `folder`; without one, `text` has the counts of this worker only."""
        self._counts = counts = Counts(folder)
        with counts.lock:
            # The ended worker whose counts are continued had these models.
            self._models = {name[1] for name in counts if name and name[0] in (REQUESTS, MODEL)}
            self._steps = [(step, *self._histogram(STEP, step)) for step in STEPS]
            self._loads = self._histogram(LOAD)
            in_progress = counts[IN_PROGRESS,]
            for event in (EVICTIONS, FAILURES):
                counts[event,]
            counts.numbers[counts[BUILD, __version__]] = 1
        self.in_progress = counts.numbers[in_progress : in_progress + 1]  # to be set by `Admission`
        self.in_progress[0] = 0

    def _histogram(self, *name: str) -> tuple[int, list[int]]:
        """The slots of a sum and its buckets."""
        return self._counts[*name, "sum"], [self._counts[*name, bucket] for bucket in BUCKETS]

    def add(self, event: str) -> None:
        """Count an event: `EVICTIONS`, a model made room for others, or `FAILURES`, it could not be read."""
        with self._counts.lock:
            self._counts.numbers[self._counts[event,]] += 1

    def add_model(self, model: str, engine: str, problem: Problem, seconds: float) -> None:
        """Count a model that was read into memory in `seconds`."""
        with self._counts.lock:
            self._observe(*self._loads, seconds)
            name = MODEL, self._known(model), engine, len(problem.classes), problem.length
            self._counts.numbers[self._counts[name]] = 1

    def add_request(self, steps: Steps, status: int) -> None:
        """Count a request for predictions, the duration of its steps, and what was predicted.

        Few functions are called here: in a busy server each takes microseconds, because caches have forgotten it.
        """
        counts, numbers, milliseconds = self._counts, self._counts.numbers, steps.milliseconds
        classes = _predicted_classes(*steps.predicted) if steps.predicted else ()
        with counts.lock:
            model = self._known(steps.model)
            numbers[counts[REQUESTS, model, status]] += 1
            for step, total, buckets in self._steps:
                if step in milliseconds:
                    seconds = milliseconds[step] / 1000
                    numbers[total] += seconds
                    numbers[buckets[bisect_left(SECONDS, seconds)]] += 1
            if steps.predicted:
                numbers[counts[SERIES, model]] += steps.rows
                names = steps.predicted[0].classes
                for number, count in classes:
                    name = names[number] if number < MOST_CLASSES else OTHERS
                    numbers[counts[PREDICTIONS, model, name]] += count

    def _observe(self, total: int, buckets: list[int], seconds: float) -> None:
        self._counts.numbers[total] += seconds
        self._counts.numbers[buckets[bisect_left(SECONDS, seconds)]] += 1

    def _known(self, model: str) -> str:
        """The name of a model, unless there are too many to count each."""
        if model not in self._models:
            if len(self._models) >= MOST_MODELS:
                return OTHERS
            self._models.add(model)
        return model

    def text(self) -> bytes:
        """All counts, in the text format."""
        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        """The metrics with their samples, as prometheus_client asks for them."""
        totals: dict[str, dict[tuple[str, ...], float]] = defaultdict(lambda: defaultdict(float))
        for name, value, is_running in self._counts.read():
            metric, *key = map(str, name)
            if is_running or metric != IN_PROGRESS:
                totals[metric][tuple(key)] += value
        for kind, metric, description, labels in FAMILIES:
            family = kind(metric, description, labels=labels)
            found = totals[metric]
            if isinstance(family, HistogramMetricFamily):
                for values in dict.fromkeys(key[:-1] for key in found):
                    counts = accumulate(found[*values, bucket] for bucket in BUCKETS)
                    family.add_metric(values, list(zip(BUCKETS, counts, strict=True)), found[*values, "sum"])
            else:
                for values, value in found.items():
                    # Information is the same in all workers, so it is not summed.
                    family.add_metric(values, min(value, 1) if metric in (BUILD, MODEL) else value)
            yield family


def _predicted_classes(problem: Problem, predictions: Predictions) -> Iterable[tuple[int, int]]:
    """How many series are of each predicted class; with several targets, of each that is more likely than not."""
    if problem.independent:
        return Counter((predictions.probabilities > 0.5).nonzero()[1].tolist()).items()
    found = predictions.most_probable.tolist()
    return ((found[0], 1),) if len(found) == 1 else Counter(found).items()
