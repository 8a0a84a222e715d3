import json
from pathlib import Path

import pytest

from container.channels import find_channels
from container.errors import UserError
from container.optml import OptML


@pytest.fixture
def optml(tmp_path: Path) -> OptML:
    add(tmp_path, "training/a.csv")
    return OptML(tmp_path)


def add(root: Path, name: str, content: str = "x,1\n") -> Path:
    path = root / "input" / "data" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def configure(root: Path, config: object) -> None:
    (root / "input" / "config").mkdir(parents=True, exist_ok=True)
    (root / "input" / "config" / "inputdataconfig.json").write_text(json.dumps(config))


def test_without_configuration_the_folders_tell(optml: OptML) -> None:
    assert list(find_channels(optml)) == ["training"]
    add(optml.root, "validation/b.csv")
    add(optml.root, "something/b.csv")
    assert list(find_channels(optml)) == ["training", "validation"]


def test_train_is_another_name_of_training(tmp_path: Path) -> None:
    path = add(tmp_path, "train/a.csv")
    configure(tmp_path, {"train": {"TrainingInputMode": "File"}})
    assert find_channels(OptML(tmp_path)) == {"training": [path]}


def test_channels_are_those_of_the_configuration(optml: OptML) -> None:
    add(optml.root, "training-manifest")
    add(optml.root, "validation/b.csv")
    configure(optml.root, {"training": {"TrainingInputMode": "FastFile"}})
    assert list(find_channels(optml)) == ["training"]


@pytest.mark.parametrize(
    "content_type", [None, "", "csv", "text/csv", "text/csv; label_size=1", "TEXT/CSV;charset=utf-8"]
)
def test_content_types(optml: OptML, content_type: str | None) -> None:
    configure(optml.root, {"training": {"TrainingInputMode": "File", "ContentType": content_type}})
    assert find_channels(optml)


def test_sub_folders_are_read_and_markers_skipped(optml: OptML) -> None:
    wanted = [optml.data / "training" / "a.csv", add(optml.root, "training/2/b"), add(optml.root, "training/10/c.csv")]
    add(optml.root, "training/_SUCCESS")
    add(optml.root, "training/.hidden/d.csv")
    add(optml.root, "training/empty.csv", "")
    assert find_channels(optml)["training"] == sorted(wanted)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, r"Channel training \(or train\) is missing; channels found: none"),
        ({"validation": {}}, "channels found: validation"),
        ({"training": {}, "validaton": {}}, "Channel validaton is unknown; a job can have the channels training"),
        ({"training": {}, "model": {}}, "Channel model is unknown"),
        ({"training": {}, "train": {}}, "Channels training and train are the same channel"),
        ({"training": {"TrainingInputMode": "Pipe"}}, "Channel training: input mode Pipe is not supported; use File"),
        ({"training": {"ContentType": "application/json"}}, "application/json is not supported; use text/csv or csv"),
        ({"training": {}, "validation": {}}, "Channel validation has no data: .*validation holds no file"),
        ({"training": "File"}, "must map each channel's name to an object"),
        ([], "must hold a JSON object, not list"),
    ],
)
def test_what_is_refused(optml: OptML, config: object, message: str) -> None:
    configure(optml.root, config)
    with pytest.raises(UserError, match=message):
        find_channels(optml)


def test_nothing_is_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Channel training \(or train\) is missing"):
        find_channels(OptML(tmp_path))
