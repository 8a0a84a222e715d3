import json
from pathlib import Path

import pytest

from lstm_fcn.container.errors import UserError
from lstm_fcn.container.optml import OptML, Resources


def write(root: Path, name: str, text: str) -> OptML:
    (root / "input" / "config").mkdir(parents=True)
    (root / "input" / "config" / name).write_text(text)
    return OptML(root)


def test_the_root_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAGEMAKER_BASE_DIR", raising=False)
    assert OptML.from_environment().model == Path("/opt/ml/model")
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", "/somewhere")
    assert OptML.from_environment().failure == Path("/somewhere/output/failure")


def test_missing_files_are_no_settings(tmp_path: Path) -> None:
    optml = OptML(tmp_path)
    assert (optml.hyperparameters(), optml.input_data_config()) == ({}, None)
    assert optml.resources() == Resources("localhost", ("localhost",), None)
    assert optml.checkpoints() == (tmp_path / "checkpoints", False)


@pytest.mark.parametrize(
    "config",
    [
        {"current_host": "algo-1-x", "hosts": ["algo-1-x"], "network_interface_name": "ethwe"},
        {"current_host": "algo-1-x", "hosts": ["algo-1-x"], "instance_groups": [{"hosts": []}], "topology": {}},
    ],
)
def test_hosts(tmp_path: Path, config: object) -> None:
    assert write(tmp_path, "resourceconfig.json", json.dumps(config)).resources().hosts == ("algo-1-x",)


def test_of_several_hosts_this_is_one(tmp_path: Path) -> None:
    config = {"current_host": "algo-2", "hosts": ["algo-1", "algo-2"], "network_interface_name": "eth0"}
    found = write(tmp_path, "resourceconfig.json", json.dumps(config)).resources()
    assert found == Resources("algo-2", ("algo-1", "algo-2"), "eth0")


@pytest.mark.parametrize("text", ["{", "", "[1]", '"text"', "\udcff"])
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    optml = OptML(tmp_path)
    optml.config.mkdir(parents=True)
    (optml.config / "hyperparameters.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=r"hyperparameters\.json"):
        optml.hyperparameters()


@pytest.mark.parametrize(
    "config",
    [
        {"hosts": []},
        {"hosts": "algo-1", "current_host": "algo-1"},
        {"hosts": ["algo-1", "algo-2"]},
        {"hosts": ["algo-1", "algo-2"], "current_host": "algo-3"},
        {"hosts": None},
    ],
)
def test_hosts_must_be_a_list_with_this_one_in_it(tmp_path: Path, config: object) -> None:
    with pytest.raises(UserError, match="`hosts` must be a list"):
        write(tmp_path, "resourceconfig.json", json.dumps(config)).resources()


@pytest.mark.parametrize(
    ("config", "folder"), [({}, "checkpoints"), ({"S3Uri": "s3://b/p"}, "checkpoints"), ({"LocalPath": "/x"}, "/x")]
)
def test_the_job_may_name_the_folder_of_checkpoints(tmp_path: Path, config: object, folder: str) -> None:
    optml = write(tmp_path, "checkpointconfig.json", json.dumps(config))
    assert optml.checkpoints() == (tmp_path / folder, True)
