import json
from pathlib import Path
from typing import Any

import pytest

from lstm_fcn.container import artifact
from lstm_fcn.container.artifact import Metadata
from lstm_fcn.container.csv_header import HEADERLESS, Columns
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.preprocess import Preprocessing
from lstm_fcn.container.problem import Problem, Scaling

PROBLEM = Problem(
    task="binary",
    classes=("1.0", "ja, ja"),
    class_counts=(3, 4),
    series_count=7,
    length=20,
    scaling=Scaling(method="dataset", mean=(0.1,), std=(2.0,)),
)
METADATA = Metadata(
    problem=PROBLEM, hyperparameters={"epochs": 3}, metrics={"train_loss": 0.5}, versions={"torch": "2"}
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    artifact.save(tmp_path, METADATA, b"graph", b"weights")
    return tmp_path


def test_what_is_saved_is_loaded(folder: Path) -> None:
    metadata, graph = artifact.load(folder)
    assert graph == b"graph"
    assert metadata.model_copy(update={"sha256": {}}) == METADATA
    assert metadata.problem.columns == HEADERLESS
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "model.json",
        "model.onnx",
        "weights.safetensors",
    ]


def test_everything_that_a_model_knows_is_kept(tmp_path: Path) -> None:
    problem = Problem(
        task="multilabel",
        classes=("y1", "y2"),
        class_counts=(5, 6),
        series_count=9,
        columns=Columns(("y1", "y2"), ("x_a_1", "x_b_1"), 2),
        preprocessing=Preprocessing(missing_values="interpolate", length_policy="pad"),
        num_variables=2,
        length=1,
        scaling=Scaling(method="dataset", mean=(0.1, -1e7), std=(2.0, 1e-3)),
    )
    curves = [{"epoch": 1.0, "train_loss": 0.5}, {"epoch": 2.0, "train_loss": 0.25}]
    saved = METADATA.model_copy(update={"problem": problem, "explains": False, "best_epoch": (2, 1), "curves": curves})
    artifact.save(tmp_path, saved, b"graph", b"weights")
    assert artifact.load(tmp_path)[0].model_copy(update={"sha256": {}}) == saved


def test_other_files_in_the_folder_are_ignored(folder: Path) -> None:
    (folder / "model.tar.gz").write_bytes(b"x")
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "code").mkdir()
    assert artifact.load(folder)[1] == b"graph"


def test_saving_again_replaces_the_model(folder: Path) -> None:
    artifact.save(folder, METADATA, b"new graph", b"new weights")
    assert artifact.load(folder)[1] == b"new graph"


def test_a_mixture_of_two_models_is_refused(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"graph of a later, interrupted save")
    with pytest.raises(UserError, match=r"model\.onnx is damaged or belongs to another model: its checksum differs"):
        artifact.load(folder)


@pytest.mark.parametrize("name", ["model.json", "model.onnx"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"holds no model: {name} is missing"):
        artifact.load(folder)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.json is missing \(found: no such folder\)"):
        artifact.load(tmp_path / "model")


def test_a_file_that_cannot_be_read(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").mkdir()
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        artifact.load(folder)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("schema_version",), 4, "schema version 4 is not supported; this release reads version 1"),
        (("problem", "classes"), None, r"is damaged: problem\.classes: "),
        (("problem", "length"), "long", r"is damaged: problem\.length: "),
        (("problem", "task"), "regression", r"is damaged: problem\.task: "),
        (("problem", "num_variables"), "two", r"is damaged: problem\.num_variables: "),
        (("problem", "scaling"), {"method": "dataset", "mean": "0"}, r"is damaged: problem\.scaling\.mean: "),
        (("problem", "preprocessing"), {"length_policy": "cut"}, r"problem\.preprocessing\.length_policy: "),
        (("versions",), None, "is damaged: versions: "),
    ],
)
def test_invalid_metadata_is_refused(folder: Path, place: tuple[str, ...], value: Any, message: str) -> None:
    path = folder / "model.json"
    document = json.loads(path.read_text())
    inner = document
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    path.write_text(json.dumps(document))
    with pytest.raises(UserError, match=message):
        artifact.load(folder)


def test_truncated_metadata(folder: Path) -> None:
    path = folder / "model.json"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"model\.json is damaged: the file: Invalid JSON"):
        artifact.load(folder)
