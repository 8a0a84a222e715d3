"""The artifacts of every released schema version load and give the same predictions as when they were made."""

from pathlib import Path

import numpy as np
import pytest

from lstm_fcn.container.artifact import SCHEMA_VERSION, load
from lstm_fcn.container.media_types import CSV
from lstm_fcn.serving.decode import decode
from lstm_fcn.serving.predictor import Predictor

FOLDERS = sorted(Path(__file__).parent.glob("v*"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_old_models_give_the_same_predictions(folder: Path) -> None:
    predictor = Predictor(*load(folder / "model"), threads=1)
    found = predictor.predict(decode((folder / "series.csv").read_bytes(), CSV, predictor.metadata))
    expected = np.loadtxt(folder / "probabilities.csv", delimiter=",")
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)
    expected = np.loadtxt(folder / "explanation.csv", delimiter=",")
    np.testing.assert_allclose(found.explanation, expected, atol=1e-4)


def test_version_1_has_header_preprocessing_variables_and_ensembles() -> None:
    metadata = Predictor(*load(FOLDERS[0] / "model"), threads=1).metadata
    problem = metadata.problem
    assert (metadata.schema_version, problem.task, problem.num_variables) == (1, "multiclass", 2)
    assert problem.columns.series == tuple(f"x_{variable}_{k}" for variable in ("speed", "height") for k in range(16))
    assert problem.classes == problem.columns.targets == ("y_rises", "y_falls", "y_stays")
    assert (problem.preprocessing.length_policy, problem.preprocessing.missing_values) == ("pad", "interpolate")
    assert len(problem.scaling.mean) == len(problem.scaling.std) == 2
    assert (metadata.hyperparameters["recurrent"], metadata.hyperparameters["ensemble-size"]) == ("alstm", 2)


def test_there_is_one_for_the_current_version() -> None:
    assert f"v{SCHEMA_VERSION}" in [folder.name for folder in FOLDERS]
