"""Models in MLflow: a real tracking server with an SQLite store, and MLflow's own server of models.

The whole of MLflow needs an older gunicorn than this package, so that its programs run in an environment of their own.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from numpy.typing import NDArray

import lstm_fcn.mlflow
from lstm_fcn import LSTMFCNClassifier
from tests.pinned import PROJECT, pinned_python
from tests.programs import endpoint, free_port, kill_tree, request, wait_until_healthy

# MLflow warns of the type hints of its own classes when it is imported.
pytestmark = [pytest.mark.mlflow, pytest.mark.filterwarnings("ignore:.*Any type hint:UserWarning")]

LENGTH, EPOCHS = 24, 7
NAME = "series"  # of the registered model


def make_series(count: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    """Rising and falling series of different length, some values missing: `[N, LENGTH]` with NaN."""
    random, labels = np.random.default_rng(seed), np.arange(count) % 2
    series = (2 * labels - 1)[:, None] * np.linspace(-1, 1, LENGTH) + random.normal(scale=0.8, size=(count, LENGTH))
    series[random.random(series.shape) < 0.1] = np.nan
    series[:, 0] = 0.5  # a series has at least one value
    for row, length in zip(series, random.integers(LENGTH // 2, LENGTH, count, endpoint=True), strict=True):
        row[length:] = np.nan
    return series, np.array(["falls", "rises"])[labels]


@contextmanager
def mlflow_program(folder: Path, *arguments: str, path: str) -> Iterator[str]:
    """Run a program of MLflow in `folder` until the end of the block; the address that it serves."""
    port = str(free_port())
    python = pinned_python("mlflow", "mlflow.server")
    settings = os.environ | {"PYTHONPATH": str(PROJECT), "MLFLOW_DISABLE_TELEMETRY": "true"}
    settings["PATH"] = f"{python.parent}:{os.environ['PATH']}"
    command = [str(python), "-m", "mlflow", *arguments, "--port", port]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command, cwd=folder, env=settings, stdout=log, stderr=log, text=True)
        try:
            wait_until_healthy(f"http://127.0.0.1:{port}", process, path)
            yield f"http://127.0.0.1:{port}"
        except AssertionError as error:
            error.add_note((folder / "log").read_text()[-5000:])
            raise
        finally:
            kill_tree(process)


@pytest.fixture(scope="module")
def model() -> LSTMFCNClassifier:
    small = LSTMFCNClassifier(
        filters_1=4,
        filters_2=4,
        filters_3=4,
        kernel_features=84,
        epochs=EPOCHS,
        missing_values="interpolate",
        length_policy="pad",
    )
    return small.fit(*make_series(60, seed=0), eval_set=make_series(20, seed=1))


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A tracking server, which this process and those that it starts use."""
    folder = tmp_path_factory.mktemp("mlflow")
    places = ("--backend-store-uri", "sqlite:///store.db", "--artifacts-destination", str(folder / "artifacts"))
    server = mlflow_program(folder, "server", *places, "--workers", "1", path="/health")
    with server as address, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", address)
        mlflow.set_tracking_uri(address)
        yield address
        mlflow.set_tracking_uri("")  # the default


@pytest.fixture(scope="module")
def run_id(model: LSTMFCNClassifier, tracking: str) -> str:  # noqa: ARG001 - the server runs
    """A run with the model, which is registered, too."""
    with mlflow.start_run() as run:
        lstm_fcn.mlflow.log_model(model, registered_model_name=NAME, input_example=make_series(2, seed=2)[0])
    found: str = run.info.run_id
    return found


def test_hyperparameters_metrics_and_curves_are_logged(model: LSTMFCNClassifier, run_id: str) -> None:
    client = MlflowClient()
    logged = client.get_run(run_id).data
    assert logged.params["epochs"] == str(EPOCHS)
    assert logged.params["missing-values"] == "interpolate"
    assert {name: logged.metrics[name] for name in model.metadata_.metrics} == pytest.approx(model.metadata_.metrics)
    history = client.get_metric_history(run_id, "curves/valid_loss")
    assert [point.step for point in history] == list(range(1, EPOCHS + 1))
    assert [point.value for point in history] == [entry["valid_loss"] for entry in model.metadata_.curves]


def test_a_logged_model_is_loaded_again(model: LSTMFCNClassifier, run_id: str, tmp_path: Path) -> None:
    series = make_series(30, seed=3)[0]
    for address in (f"runs:/{run_id}/model", f"models:/{NAME}/1"):
        loaded = lstm_fcn.mlflow.load_model(address, str(tmp_path / address[:4]))
        np.testing.assert_array_equal(loaded.predict_proba(series), model.predict_proba(series))


def test_mlflow_serves_what_the_endpoint_serves(
    model: LSTMFCNClassifier,
    run_id: str,  # noqa: ARG001 - the model is registered
    tmp_path: Path,
) -> None:
    series = make_series(1000, seed=4)[0]
    model.save(tmp_path / "model")
    rows = "".join(",".join("" if np.isnan(value) else repr(value) for value in row.tolist()) + "\n" for row in series)
    with endpoint(tmp_path) as ours:
        reply = ours.invoke(rows, Accept='text/csv; output="predicted_label,probabilities"')
    assert reply.status == 200, reply.text
    expected = [line.split(",") for line in reply.text.splitlines()]
    options = ("--model-uri", f"models:/{NAME}/1", "--env-manager", "local", "--workers", "1")
    with mlflow_program(tmp_path, "models", "serve", *options, path="/ping") as address:
        body = json.dumps({"inputs": series.tolist()})
        theirs = request(f"{address}/invocations", body, {"Content-Type": "application/json"})
    assert theirs.status == 200, theirs.text
    found = json.loads(theirs.body)["predictions"]
    assert [row["predicted_label"] for row in found] == [label for label, *_ in expected]
    np.testing.assert_allclose(
        [[row["probability_falls"], row["probability_rises"]] for row in found],
        [list(map(float, probabilities)) for _, *probabilities in expected],
        atol=1e-5,
    )
    assert len({label for label, *_ in expected}) == 2
