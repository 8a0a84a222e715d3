"""The lowest versions that `pyproject.toml` declares, but for torch: its lowest release is built for CUDA only."""

import re
from pathlib import Path

import pytest

from tests.packaging.environments import PYPROJECT, Environment
from tests.packaging.test_wheel import DATA, RECORDINGS, SETTINGS, write_recordings

pytestmark = [pytest.mark.packaging, pytest.mark.xdist_group("packaging")]

BOUND = re.compile(r"([a-z0-9-]+)>=([0-9.]+)")


def declared() -> list[str]:
    """The requirements of the package and of its extras, without torch and without the package itself."""
    extras: dict[str, list[str]] = PYPROJECT["project"]["optional-dependencies"]
    users = [text for extra, texts in extras.items() if extra != "development" for text in texts]
    texts = [*PYPROJECT["project"]["dependencies"], *users]
    return sorted({text for text in texts if not text.startswith(("lstm-fcn", "torch"))})


def test_every_requirement_has_a_lower_bound() -> None:
    assert [text for text in declared() if not BOUND.fullmatch(text)] == []


def test_training_serving_and_tuning_with_the_lowest_versions(wheel: Path, folder: Path, tmp_path: Path) -> None:
    requirements = [f"lstm-fcn[benchmark,mlflow,sagemaker,serve,tables,train,tune] @ {wheel.as_uri()}", *declared()]
    environment = Environment(tmp_path / "environment", requirements, "--resolution", "lowest-direct", torch=True)
    for text in declared():
        [(name, lowest)] = BOUND.findall(text)
        command = f"from importlib.metadata import version; print(version({name!r}))"
        installed = environment.run(folder, "python", "-c", command).strip()
        assert (installed + ".0.0").startswith(lowest), f"{text}: {installed}"
    data = ("--training", DATA / "train.csv", "--validation", DATA / "valid.csv")
    environment.run(folder, "lstm-fcn", "train", *data, "--output", "model", *SETTINGS)
    environment.run(folder, "lstm-fcn", "evaluate", "model", DATA / "valid.csv")
    environment.run(folder, "lstm-fcn", "visualize", "model", DATA / "valid.csv", "pictures")
    write_recordings(folder / "rows.csv")
    environment.run(folder, "lstm-fcn", "prepare", "rows.csv", "prepared", *RECORDINGS)
    environment.run(folder, "lstm-fcn", "train", "--training", "prepared/training", "--output", "second", *SETTINGS)
    environment.run(folder, "lstm-fcn", "predict", "second", "rows.csv", "--output", "windows.parquet")
    many = ("prepared/training", "many", "--by", "recording")
    environment.run(folder, "lstm-fcn", "train-many", *many, *SETTINGS)
    environment.run(folder, "lstm-fcn", "predict-dataset", "model", DATA.parent / "inference" / "input", "predicted")
    settings = ("--trials", "1", "--workers", "1", "--range", "lr=0.001:0.01:log")
    environment.run(folder, "lstm-fcn", "tune", *data, "--output", "search", *settings, *SETTINGS)
    environment.run(folder, "lstm-fcn", "sagemaker", "--help")
