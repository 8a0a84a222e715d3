"""Artifacts of every schema version stay loadable, and give the predictions that they gave when they were made."""

from pathlib import Path

import numpy as np
import pytest

from lstm_fcn.container.artifact import SCHEMA_VERSION
from lstm_fcn.serving.decode import decode
from lstm_fcn.serving.negotiation import CSV
from lstm_fcn.serving.predictor import Predictor

FOLDERS = sorted(Path(__file__).parent.glob("v*"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_old_models_give_the_same_predictions(folder: Path) -> None:
    predictor = Predictor(folder / "model", threads=1)
    found = predictor.predict(decode((folder / "series.csv").read_bytes(), CSV, predictor.metadata))
    expected = np.loadtxt(folder / "probabilities.csv", delimiter=",")
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)
    assert predictor.metadata.has_explanation == (folder / "explanation.csv").exists()
    if predictor.metadata.has_explanation:
        expected = np.loadtxt(folder / "explanation.csv", delimiter=",")
        np.testing.assert_allclose(found.explanation, expected, atol=1e-4)


def test_version_1_is_without_header_and_one_class_a_row() -> None:
    predictor = Predictor(FOLDERS[0] / "model", threads=1)
    assert (predictor.metadata.schema_version, predictor.metadata.columns) == (1, None)
    assert not predictor.metadata.independent


def test_version_2_knows_header_preprocessing_and_several_classes_a_row() -> None:
    metadata = Predictor(FOLDERS[1] / "model", threads=1).metadata
    assert (metadata.schema_version, metadata.task) == (2, "multilabel")
    assert metadata.classes == ["y_rises", "y_falls", "y_high"]
    assert metadata.columns == [f"x{k}" for k in range(16)]
    assert metadata.preprocessing.missing_values == "interpolate"


def test_version_3_knows_several_variables_and_ensembles() -> None:
    metadata = Predictor(FOLDERS[2] / "model", threads=1).metadata
    assert (metadata.schema_version, metadata.task, metadata.num_variables) == (3, "multiclass", 2)
    assert metadata.columns == [f"x_{variable}_{k}" for variable in ("speed", "height") for k in range(16)]
    assert metadata.preprocessing.length_policy == "pad"
    assert len(metadata.scaling.mean) == len(metadata.scaling.std) == 2
    assert (metadata.hyperparameters["recurrent"], metadata.hyperparameters["ensemble-size"]) == ("alstm", 2)


def test_there_is_one_for_the_current_version() -> None:
    assert f"v{SCHEMA_VERSION}" in [folder.name for folder in FOLDERS]
