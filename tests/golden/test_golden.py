"""Artifacts of every schema version stay loadable, and give the predictions that they gave when they were made."""

from pathlib import Path

import numpy as np
import pytest

from container.artifact import SCHEMA_VERSION
from container.codec import read_series
from serving.predictor import Predictor

FOLDERS = sorted(Path(__file__).parent.glob("v*"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_old_models_give_the_same_predictions(folder: Path) -> None:
    predictor = Predictor(folder / "model", threads=1)
    series = read_series((folder / "series.csv").read_bytes(), "series.csv", predictor.metadata.length)
    expected = np.loadtxt(folder / "probabilities.csv", delimiter=",")
    np.testing.assert_allclose(predictor.predict(series), expected, atol=1e-5)


def test_there_is_one_for_the_current_version() -> None:
    assert f"v{SCHEMA_VERSION}" in [folder.name for folder in FOLDERS]
