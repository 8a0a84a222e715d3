import json
from pathlib import Path

import pytest

from container.errors import UserError
from container.optml import OptML


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
    assert (optml.hyperparameters(), optml.input_data_config(), optml.hosts()) == ({}, None, ["localhost"])


@pytest.mark.parametrize(
    "config",
    [
        {"current_host": "algo-1-x", "hosts": ["algo-1-x"], "network_interface_name": "ethwe"},
        {"current_host": "algo-1-x", "hosts": ["algo-1-x"], "instance_groups": [{"hosts": []}], "topology": {}},
    ],
)
def test_hosts(tmp_path: Path, config: object) -> None:
    assert write(tmp_path, "resourceconfig.json", json.dumps(config)).hosts() == ["algo-1-x"]


@pytest.mark.parametrize("text", ["{", "", "[1]", '"text"', "\udcff"])
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    optml = OptML(tmp_path)
    optml.config.mkdir(parents=True)
    (optml.config / "hyperparameters.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=r"hyperparameters\.json"):
        optml.hyperparameters()


def test_hosts_must_be_a_list(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="`hosts` must be a list"):
        write(tmp_path, "resourceconfig.json", '{"hosts": []}').hosts()
