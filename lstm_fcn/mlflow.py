"""Models in MLflow: logged with their training, loaded again, and served by MLflow as `pyfunc` models.

An MLflow model holds the folder that `LSTMFCNClassifier.save` writes; nothing is pickled. Predictions need no torch.
"""

import json
import sys
from importlib.metadata import distribution, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

try:
    import mlflow
except ModuleNotFoundError as error:
    message = f"lstm_fcn.mlflow needs the package {error.name}: pip install 'lstm-fcn[mlflow]'."
    raise ModuleNotFoundError(message, name=error.name) from error
import numpy as np
import onnxruntime
import pandas as pd
from mlflow import MlflowClient, pyfunc
from mlflow.entities import Metric
from mlflow.models import Model, ModelSignature
from mlflow.models.model import ModelInfo
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from numpy.typing import NDArray

from lstm_fcn import LSTMFCNClassifier, __version__

FLAVOR = "lstm_fcn"
DATA = "model"  # name of the folder within the MLflow model
BATCH = 1000  # the most metrics that a tracking server takes at once


def save_model(
    model: LSTMFCNClassifier, path: str | Path, *, mlflow_model: Model | None = None, **options: Any
) -> None:
    """Write a fitted model as an MLflow model.

    Args:
        model: fitted or loaded.
        path: a folder that does not exist yet.
        mlflow_model: the MLflow model to add this one to; None: a new one.
        options: as `mlflow.pyfunc.save_model` takes them: `signature` (default: `make_signature`), `input_example`,
            `pip_requirements` (default: `get_default_pip_requirements`), `metadata`, ...
    """
    mlflow_model = mlflow_model or Model()
    options.setdefault("signature", make_signature(model))
    if not options.keys() & {"conda_env", "pip_requirements"}:
        options["pip_requirements"] = get_default_pip_requirements()
    mlflow_model.add_flavor(FLAVOR, lstm_fcn_version=__version__, data=f"data/{DATA}")
    with TemporaryDirectory() as folder:
        data = model.save(Path(folder) / DATA)
        pyfunc.save_model(path, loader_module=__name__, data_path=str(data), mlflow_model=mlflow_model, **options)


def log_model(
    model: LSTMFCNClassifier, name: str = "model", *, registered_model_name: str | None = None, **options: Any
) -> ModelInfo:
    """Log a fitted model. If a run is active, log its hyperparameters, metrics and learning curves, too.

    Args:
        model: fitted or loaded.
        name: of the model in the run.
        registered_model_name: also register it as a new version of this model.
        options: see `save_model`.
    """
    if run := mlflow.active_run():
        log_training(model, run.info.run_id)
    info: ModelInfo = Model.log(
        artifact_path=None,
        name=name,
        flavor=sys.modules[__name__],
        registered_model_name=registered_model_name,
        model=model,
        **options,
    )
    return info


def log_training(model: LSTMFCNClassifier, run_id: str) -> None:
    """Log the training of a model to a run.

    The metrics are those of the model; below `curves/` are those of each epoch, for models with more than 200 epochs of
    200 of them.
    """
    metadata, client = model.metadata_, MlflowClient()
    mlflow.log_params(metadata.hyperparameters, run_id=run_id)
    mlflow.log_metrics(metadata.metrics, run_id=run_id)
    time = client.get_run(run_id).info.start_time
    points = []
    for entry in metadata.curves:
        step = int(entry["round"] * metadata.hyperparameters["epochs"] + entry["epoch"])
        names = entry.keys() - {"round", "epoch"}
        points += [Metric(f"curves/{name}", entry[name], time + step, step) for name in sorted(names)]
    for start in range(0, len(points), BATCH):
        client.log_batch(run_id, metrics=points[start : start + BATCH])


def load_model(model_uri: str, dst_path: str | None = None) -> LSTMFCNClassifier:
    """Read a model that `save_model` or `log_model` has written, from any address that MLflow knows.

    Args:
        model_uri: such as `runs:/.../model` or `models:/name/1`.
        dst_path: folder to download to; None: a temporary one.
    """
    folder = mlflow.artifacts.download_artifacts(model_uri, dst_path=dst_path)
    return LSTMFCNClassifier.load(Path(folder) / "data" / DATA)


def make_signature(model: LSTMFCNClassifier) -> ModelSignature:
    """Series, float64 `[-1, T]` or `[-1, M, T]` with T of -1 if the length may differ, to labels and probabilities."""
    problem = model.metadata_.problem
    length = -1 if problem.preprocessing.any_length else problem.length
    shape = (-1, length) if problem.num_variables == 1 else (-1, problem.num_variables, length)
    columns: list[ColSpec | TensorSpec] = [ColSpec(DataType.float, name) for name in _probability_names(model)]
    if not problem.independent:
        kind = DataType.long if model.classes_.dtype.kind == "i" else DataType.string
        columns = [ColSpec(kind, "predicted_label"), *columns]
    return ModelSignature(Schema([TensorSpec(np.dtype(np.float64), shape)]), Schema(columns))


def get_default_pip_requirements() -> list[str]:
    """What a model needs for predictions: this package from where it was installed, and the engine."""
    installed = f"lstm-fcn=={__version__}"
    origin = json.loads(distribution("lstm-fcn").read_text("direct_url.json") or "{}")
    if "vcs_info" in origin:
        installed = f"lstm-fcn @ {origin['vcs_info']['vcs']}+{origin['url']}@{origin['vcs_info']['commit_id']}"
    elif "archive_info" in origin:
        installed = f"lstm-fcn @ {origin['url']}"
    packages = [f"{name}=={version(name)}" for name in ("numpy", "scikit-learn")]
    return [installed, *packages, f"onnxruntime=={onnxruntime.__version__}"]


class PyFuncModel:
    """The `pyfunc` flavour: predictions as a frame with the columns of the signature, a row for each series."""

    def __init__(self, model: LSTMFCNClassifier) -> None:
        self.model = model

    def predict(self, model_input: "pd.DataFrame | NDArray[np.float64]", params: Any = None) -> pd.DataFrame:  # noqa: ARG002 - MLflow passes it
        """Predict series `[N, T]` or `[N, M, T]`, with NaN for missing values and beyond the end of a series."""
        series = model_input.to_numpy(np.float64) if isinstance(model_input, pd.DataFrame) else model_input
        probabilities = self.model.predict_proba(series)
        found = pd.DataFrame(probabilities, columns=_probability_names(self.model))
        if not self.model.metadata_.problem.independent:
            found.insert(0, "predicted_label", self.model.classes_[probabilities.argmax(axis=1)])
        return found


def _load_pyfunc(path: str) -> PyFuncModel:
    return PyFuncModel(LSTMFCNClassifier.load(path))


def _probability_names(model: LSTMFCNClassifier) -> list[str]:
    return [f"probability_{label}" for label in model.classes_]
