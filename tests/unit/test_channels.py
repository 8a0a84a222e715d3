import json
from pathlib import Path

import pytest

from lstm_fcn.container.channels import Source, find_channels
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.optml import OptML


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
    assert find_channels(OptML(tmp_path)) == {"training": Source("train", path.parent, (path,))}


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
    assert find_channels(optml)["training"].files == tuple(sorted(wanted))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, r"Channel training \(or train\) is missing; channels found: none"),
        ({"validation": {}}, "channels found: validation"),
        ({"training": {}, "validaton": {}}, "Channel validaton is unknown; a job can have the channels training"),
        ({"training": {}, "models": {}}, "Channel models is unknown"),
        ({"training": {}, "model": {}}, "Channel model has no data: .*model contains no files with content"),
        ({"training": {}, "model": {"TrainingInputMode": "Pipe"}}, "Channel model: input mode Pipe is not supported"),
        ({"training": {}, "model": {"ContentType": "text/csv"}}, "text/csv is not supported; use application/x-sage"),
        (
            {"training": {}, "model": {"S3DistributionType": "ShardedByS3Key"}},
            "Channel model cannot be ShardedByS3Key: every machine needs the whole model",
        ),
        ({"training": {"RecordWrapperType": "RecordIO"}}, "records wrapped as RecordIO are not supported"),
        ({"training": {}, "train": {}}, "Channels training and train are the same channel"),
        ({"training": {"TrainingInputMode": "Tube"}}, "Channel training: input mode Tube is not supported; use File"),
        ({"training": {"ContentType": "application/json"}}, "application/json is not supported; use text/csv or csv"),
        ({"training": {}, "validation": {}}, "Channel validation has no data: .*validation contains no files"),
        ({"training": "File"}, "must map each channel's name to an object"),
        ([], "must hold a JSON object, not list"),
    ],
)
def test_what_is_refused(optml: OptML, config: object, message: str) -> None:
    configure(optml.root, config)
    with pytest.raises(UserError, match=message):
        find_channels(optml)


def test_a_pipe_need_not_be_there_yet(optml: OptML) -> None:
    configure(optml.root, {"train": {"TrainingInputMode": "Pipe", "RecordWrapperType": "None"}})
    found = find_channels(optml)["training"]
    assert found == Source("train", optml.data / "train", pipe=optml.data / "train_0")


def test_a_machine_may_get_nothing_of_a_sharded_channel(tmp_path: Path) -> None:
    configure(tmp_path, {"training": {"S3DistributionType": "ShardedByS3Key"}})
    found = find_channels(OptML(tmp_path))["training"]
    assert (found.files, found.sharded) == ((), True)


def test_the_channel_of_an_earlier_model(optml: OptML) -> None:
    path = add(optml.root, "model/model.tar.gz")
    configure(optml.root, {"training": {}, "model": {"ContentType": "application/x-sagemaker-model"}})
    assert find_channels(optml)["model"].files == (path,)


def test_nothing_is_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Channel training \(or train\) is missing"):
        find_channels(OptML(tmp_path))
