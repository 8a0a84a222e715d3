"""What `GET /metrics` counts."""

from pathlib import Path

import pytest
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from lstm_fcn import __version__
from lstm_fcn.container import artifact
from lstm_fcn.serving import metrics
from lstm_fcn.serving.app import create_app
from lstm_fcn.serving.models import OneModel
from lstm_fcn.serving.predictor import Predictor
from lstm_fcn.serving.settings import Settings
from tests.models import CLASSES, GOLDEN, ROWS, save_plain_model

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
    samples = [each for family in text_string_to_metric_families(response.text) for each in family.samples]
    return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}


def find(counts: Counts, name: str, **labels: str) -> float:
    return counts.get((f"lstm_fcn_{name}", frozenset(labels.items())), 0)


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
    counted = metrics.Metrics()
    for name in ("a", "b", "c", "d", "a"):
        counted.add_request(name, 200, {})
    text = counted.text().decode()
    assert 'requests_total{model="a",status="200"} 2.0' in text
    assert 'requests_total{model="(others)",status="200"} 2.0' in text
    assert 'model="c"' not in text


def test_without_being_asked_for_it_is_not_there(tmp_path: Path) -> None:
    one = OneModel(Predictor(*artifact.load(save_plain_model(tmp_path / "model")), threads=1))
    assert create_app(one, Settings.from_environment({})).test_client().get("/metrics").status_code == 404
