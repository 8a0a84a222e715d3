import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lstm_fcn.container import artifact
from lstm_fcn.container.artifact import Metadata
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.preprocess import Preprocessing
from lstm_fcn.container.problem import Scaling

METADATA = Metadata(
    classes=["1.0", "ja, ja"],
    length=20,
    scaling=Scaling(method="dataset", mean=(0.1,), std=(2.0,)),
    hyperparameters={"epochs": 3},
    metrics={"train_loss": 0.5},
    versions={"torch": "2"},
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    artifact.save(tmp_path, METADATA, b"graph", b"weights")
    return tmp_path


def test_what_is_saved_is_loaded(folder: Path) -> None:
    metadata, graph = artifact.load(folder)
    assert graph == b"graph"
    assert metadata.model_copy(update={"sha256": {}}) == METADATA
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.onnx", "weights.safetensors"]


def test_strangers_in_the_folder_do_not_matter(folder: Path) -> None:
    (folder / "model.tar.gz").write_bytes(b"x")
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "code").mkdir()
    assert artifact.load(folder)[1] == b"graph"


def test_saving_again_replaces_the_model(folder: Path) -> None:
    artifact.save(folder, METADATA, b"new graph", b"new weights")
    assert artifact.load(folder)[1] == b"new graph"


def test_a_mixture_of_two_models_is_noticed(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"graph of a later, interrupted save")
    with pytest.raises(UserError, match=r"model\.onnx is damaged or of another model"):
        artifact.load(folder)


VERSION_1 = {
    "schema_version": 1,
    "task": "multiclass",
    "classes": ["a", "b"],
    "num_variables": 1,
    "length": 20,
    "scaling": {"method": "dataset", "mean": 0.5, "std": 2},
    "hyperparameters": {"epochs": 3},
    "metrics": {"train_loss": 0.5},
    "versions": {"torch": "2"},
    "sha256": {"model.onnx": "0"},
}
VERSION_2 = VERSION_1 | {
    "schema_version": 2,
    "task": "multilabel",
    "columns": ["x1", "x2"],
    "preprocessing": {"missing_values": "interpolate", "length_policy": "error"},
}


def test_metadata_of_version_1_still_parses(tmp_path: Path) -> None:
    metadata = artifact.parse_metadata(json.dumps(VERSION_1).encode(), tmp_path)
    assert (metadata.problem.columns, metadata.problem.preprocessing, metadata.problem.independent) == (
        None,
        Preprocessing(),
        False,
    )
    assert metadata.problem.scaling == Scaling(method="dataset", mean=(0.5,), std=(2.0,))
    assert (metadata.problem.num_variables, metadata.explains) == (1, False)


def test_metadata_of_version_2_still_parses(tmp_path: Path) -> None:
    metadata = artifact.parse_metadata(json.dumps(VERSION_2).encode(), tmp_path)
    assert (metadata.problem.columns, metadata.problem.independent) == (["x1", "x2"], True)
    assert metadata.problem.scaling == Scaling(method="dataset", mean=(0.5,), std=(2.0,))
    assert (metadata.problem.num_variables, metadata.explains) == (1, True)


def test_several_variables_are_kept(tmp_path: Path) -> None:
    scaling = Scaling(method="dataset", mean=(0.1, -1e7), std=(2.0, 1e-3))
    saved = METADATA.model_copy(update={"num_variables": 2, "scaling": scaling})
    artifact.save(tmp_path, saved, b"graph", b"weights")
    loaded = artifact.load(tmp_path)[0]
    assert (loaded.num_variables, loaded.scaling) == (2, scaling)
    assert json.loads((tmp_path / "model.json").read_text())["scaling"]["mean"] == [0.1, -1e7]


def test_learning_curves_are_kept(tmp_path: Path) -> None:
    curves = [{"epoch": 1.0, "train_loss": 0.5}, {"epoch": 2.0, "train_loss": 0.25}]
    saved = METADATA.model_copy(update={"kept": (2, 0), "curves": curves})
    artifact.save(tmp_path, saved, b"graph", b"weights")
    loaded = artifact.load(tmp_path)[0]
    assert (loaded.kept, loaded.curves) == ((2, 0), curves)


@pytest.mark.parametrize("explains", [True, False])
def test_a_model_says_whether_it_explains(tmp_path: Path, explains: bool) -> None:
    artifact.save(tmp_path, METADATA.model_copy(update={"explains": explains}), b"graph", b"weights")
    assert artifact.load(tmp_path)[0].has_explanation is explains


def test_header_and_preprocessing_are_kept(tmp_path: Path) -> None:
    rules = Preprocessing(missing_values="interpolate", length_policy="pad")
    saved = METADATA.model_copy(update={"task": "multilabel", "columns": ["x1", "x2"], "preprocessing": rules})
    artifact.save(tmp_path, saved, b"graph", b"weights")
    assert artifact.load(tmp_path)[0].model_copy(update={"sha256": {}}) == saved


@pytest.mark.parametrize(
    ("task", "classes", "independent"),
    [
        ("binary", ["a", "b"], False),
        ("binary", ["y"], True),
        ("multiclass", ["a", "b", "c"], False),
        ("multilabel", ["y1", "y2"], True),
        ("multilabel", ["y1"], True),
    ],
)
def test_classes_are_independent_where_each_has_a_probability_of_its_own(
    task: str, classes: list[str], independent: bool
) -> None:
    assert METADATA.model_copy(update={"task": task, "classes": classes}).independent is independent


@pytest.mark.parametrize("name", ["model.json", "model.onnx"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"holds no model: {name} is missing"):
        artifact.load(folder)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.json is missing \(found: no such folder\)"):
        artifact.load(tmp_path / "model")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 4}, "schema version 4 is not known; this program reads versions 1 to 3"),
        ({"classes": None}, "is damaged: classes: "),
        ({"length": "long"}, "is damaged: length: "),
        ({"task": "regression"}, "is damaged: task: "),
        ({"num_variables": "two"}, "is damaged: num_variables: "),
        ({"scaling": {"method": "dataset", "mean": "0"}}, r"is damaged: scaling\.mean: "),
        ({"preprocessing": {"length_policy": "cut"}}, r"is damaged: preprocessing\.length_policy: "),
    ],
)
def test_metadata_that_cannot_be_used(folder: Path, change: dict[str, object], message: str) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message):
        artifact.load(folder)


def test_truncated_metadata(folder: Path) -> None:
    path = folder / "model.json"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"model\.json is damaged: the file: Invalid JSON"):
        artifact.load(folder)


def test_an_unusable_folder_is_found_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"The model folder .*file cannot be written to: "):
        artifact.check_writable(tmp_path / "file")


def test_several_try_one_folder_at_a_time(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: artifact.check_writable(tmp_path), range(500)))
    assert not list(tmp_path.iterdir())


def test_a_failed_save_leaves_the_old_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(path: Path, content: bytes) -> None:
        path.write_bytes(content[:2])
        if path.name.startswith(".weights"):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(artifact, "write_synced", full_disk)
    with pytest.raises(UserError, match="No space left on device"):
        artifact.save(folder, METADATA, b"new graph", b"new weights")
    assert artifact.load(folder)[1] == b"graph"
    assert not list(folder.glob(".*"))
