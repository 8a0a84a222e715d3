"""What `GET /metrics` counts."""

import sys
import threading
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from lstm_fcn import __version__
from lstm_fcn.container import artifact
from lstm_fcn.serving import metrics
from lstm_fcn.serving.app import create_app
from lstm_fcn.serving.metrics import Metrics, Steps
from lstm_fcn.serving.models import OneModel
from lstm_fcn.serving.predictor import Predictor
from lstm_fcn.serving.settings import Settings
from tests.models import CLASSES, GOLDEN, ROWS, save_plain_model
from tests.unit.test_counts import count_and_be_killed

Counts = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def client(tmp_path: Path) -> FlaskClient:
    return make_client(save_plain_model(tmp_path / "model"))


def make_client(folder: Path) -> FlaskClient:
    one = OneModel(Predictor(*artifact.load(folder), threads=1))
    return create_app(one, Settings.from_environment({"LSTM_FCN_METRICS": "true"})).test_client()


def read(client: FlaskClient) -> Counts:
    response = client.get("/metrics")
    assert response.content_type.startswith("text/plain; version=")
    return parse(response.text)


def parse(text: str) -> Counts:
    samples = [each for family in text_string_to_metric_families(text) for each in family.samples]
    return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}


def find(counts: Counts, name: str, **labels: str) -> float:
    return counts.get((f"lstm_fcn_{name}", frozenset(labels.items())), 0)


def make_steps(model: str, **milliseconds: float) -> Steps:
    steps = Steps()
    steps.model, steps.milliseconds = model, milliseconds
    return steps


def test_requests_series_and_classes(client: FlaskClient) -> None:
    for body in (ROWS, ROWS, "1,2\n", ""):
        client.post("/invocations", data=body)
    client.get("/ping")
    client.post("/v2/models/other/infer", json={})
    counts = read(client)
    assert find(counts, "requests_total", model="model", status="200") == 2
    assert find(counts, "requests_total", model="model", status="204") == 1
    assert find(counts, "requests_total", model="model", status="400") == 1
    assert find(counts, "requests_total", model="", status="404") == 1
    assert find(counts, "series_total", model="model") == 16
    assert {name: find(counts, "predictions_total", model="model", **{"class": name}) for name in CLASSES} == {
        CLASSES[0]: 8,
        CLASSES[1]: 8,
    }


def test_durations_of_steps(client: FlaskClient) -> None:
    client.post("/invocations", data=ROWS)
    counts = read(client)
    for step in metrics.STEPS:
        assert find(counts, "step_seconds_count", step=step) == 1
        assert 0 < find(counts, "step_seconds_sum", step=step) < 10
    assert find(counts, "requests_in_progress") == 0
    assert find(counts, "build_info", version=__version__) == 1


def test_targets_are_counted_one_by_one() -> None:
    client = make_client(GOLDEN / "model")
    body = (GOLDEN / "series.csv").read_text()
    response = client.post("/invocations", data=body, headers={"Accept": "text/csv; output=predicted_label"})
    header, *rows = response.text.splitlines()
    counts = read(client)
    for number, name in enumerate(header.split(",")):
        expected = sum(int(row.split(",")[number]) for row in rows)
        assert find(counts, "predictions_total", model="model", **{"class": name}) == expected


def test_names_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MOST_MODELS", 2)
    counted = Metrics()
    for name in ("a", "b", "c", "d", "a"):
        counted.add_request(make_steps(name), 200)
    text = counted.text().decode()
    assert 'requests_total{model="a",status="200"} 2.0' in text
    assert 'requests_total{model="(others)",status="200"} 2.0' in text
    assert 'model="c"' not in text


def test_names_of_a_killed_worker_are_among_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MOST_MODELS", 2)
    count_and_be_killed(tmp_path, (metrics.REQUESTS, "a", 200), (metrics.MODEL, "b", "CPU", 2, 16))
    heir = Metrics(tmp_path)
    for name in "abc":
        heir.add_request(make_steps(name), 200)
    counts = parse(heir.text().decode())
    expected = {"a": 2, "b": 1, metrics.OTHERS: 1}
    assert {name: find(counts, "requests_total", model=name, status="200") for name in expected} == expected


def test_all_metrics_are_there_from_the_start() -> None:
    families = {family.name: family for family in text_string_to_metric_families(Metrics().text().decode())}
    assert list(families) == [metric for _, metric, _, _ in metrics.FAMILIES]
    for kind, metric, description, labels in metrics.FAMILIES:
        family = families[metric]
        assert f"{family.type.title()}MetricFamily" == kind.__name__
        assert family.documentation == description
        if not labels:
            assert {sample.value for sample in family.samples} == {0}


def test_workers_in_one_folder_are_summed(tmp_path: Path) -> None:
    problem = artifact.load(GOLDEN / "model")[0].problem
    workers = [Metrics(tmp_path) for _ in range(2)]
    for number, worker in enumerate(workers):
        worker.add_model("model", "CPU", problem, 0.2)
        worker.add_request(make_steps("model", parse=1), 200)
        worker.add_request(make_steps(f"only {number}", parse=1), 404)
        worker.add(metrics.FAILURES)
        worker.in_progress[0] = 3
    assert len({worker.text() for worker in workers}) == 1
    counts = parse(workers[0].text().decode())
    assert find(counts, "requests_total", model="model", status="200") == 2
    assert find(counts, "requests_total", model="only 1", status="404") == 1
    assert find(counts, "step_seconds_bucket", step="parse", le="0.001") == 4
    assert find(counts, "step_seconds_sum", step="parse") == pytest.approx(0.004)
    assert find(counts, "model_load_seconds_count") == find(counts, "model_failures_total") == 2
    assert find(counts, "requests_in_progress") == 6
    assert find(counts, "build_info", version=__version__) == 1
    shape = {"classes": str(len(problem.classes)), "length": str(problem.length)}
    assert find(counts, "model_info", model="model", engine="CPU", **shape) == 1


def test_requests_in_progress_end_with_their_worker(tmp_path: Path) -> None:
    running = Metrics(tmp_path)
    running.in_progress[0] = 1
    killed = (metrics.REQUESTS, "model", 200)
    count_and_be_killed(tmp_path, killed, (metrics.IN_PROGRESS,))
    for _ in range(2):
        counts = parse(running.text().decode())
        assert find(counts, "requests_total", model="model", status="200") == 1
        assert find(counts, "requests_in_progress") == 1
        heir = Metrics(tmp_path)
    assert heir.in_progress[0] == 0


def test_histograms_are_those_of_prometheus_client() -> None:
    registry = CollectorRegistry()
    reference = Histogram(metrics.STEP, "Duration of a step", ["step"], buckets=metrics.SECONDS, registry=registry)
    ours = Metrics()
    for step in metrics.STEPS:
        reference.labels(step)
    seconds = [0, *metrics.SECONDS, *(1.1 * bound for bound in metrics.SECONDS), 1e-9, 123.4]
    for number, value in enumerate(seconds):
        step = metrics.STEPS[number % 3]  # the last one is never observed
        ours.add_request(make_steps("model", **{step: 1000 * value}), 200)
        reference.labels(step).observe(1000 * value / 1000)
    expected, found = (
        [line for line in text.decode().splitlines() if "_step_seconds" in line and "_created" not in line]
        for text in (generate_latest(registry), ours.text())
    )
    assert len(found) == 2 + len(metrics.STEPS) * (len(metrics.SECONDS) + 3)
    assert found == expected


def test_threads_lose_no_count(tmp_path: Path) -> None:
    counted = Metrics(tmp_path)

    def count() -> None:
        for number in range(500):
            counted.add_request(make_steps(f"model {number % 50}", parse=1), 200)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=count) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    counts = parse(counted.text().decode())
    assert {find(counts, "requests_total", model=f"model {k}", status="200") for k in range(50)} == {80}
    assert find(counts, "step_seconds_count", step="parse") == 4000


def test_without_being_asked_for_it_is_not_there(tmp_path: Path) -> None:
    one, counts = OneModel(Predictor(*artifact.load(save_plain_model(tmp_path / "model")), threads=1)), Metrics()
    client = create_app(one, Settings.from_environment({}), counts).test_client()
    assert client.get("/metrics").status_code == 404
    before = counts.text()
    assert client.post("/invocations", data=ROWS).status_code == 200
    assert counts.text() == before
