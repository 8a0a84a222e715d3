"""The `/opt/ml` tree: the input of a job and the place for its output."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lstm_fcn.container.errors import UserError

BY = "LSTM_FCN_BY"  # environment variable of a training job: train a model for each value of this column


@dataclass(frozen=True)
class Resources:
    """The machines of a job, in the order of the platform, and the name of this one (T40, T41)."""

    current_host: str
    hosts: tuple[str, ...]
    network_interface: str | None  # may not exist (T43)


@dataclass(frozen=True)
class OptML:
    """Paths below one root folder (T15)."""

    root: Path

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "OptML":
        """The tree at `SAGEMAKER_BASE_DIR`, by default `/opt/ml`."""
        return cls(Path(environment.get("SAGEMAKER_BASE_DIR") or "/opt/ml"))

    @property
    def config(self) -> Path:
        """Folder with the JSON files of the job, and possibly other files (T16)."""
        return self.root / "input" / "config"

    @property
    def data(self) -> Path:
        """Folder with one sub-folder per channel."""
        return self.root / "input" / "data"

    @property
    def model(self) -> Path:
        """Folder of the model artifact: written by training, read by serving."""
        return self.root / "model"

    @property
    def failure(self) -> Path:
        """File whose first 1024 characters the platform shows as the failure reason (T56)."""
        return self.root / "output" / "failure"

    @property
    def output_data(self) -> Path:
        """Folder for output other than the model, such as reports; the platform packs it as `output.tar.gz` (T54)."""
        return self.root / "output" / "data"

    def hyperparameters(self) -> dict[str, Any]:
        """The content of `hyperparameters.json`; empty without that file (T18)."""
        return read_json(self.config / "hyperparameters.json") or {}

    def input_data_config(self) -> dict[str, dict[str, Any]] | None:
        """The content of `inputdataconfig.json`, which declares the channels (T23); None without that file."""
        config = read_json(self.config / "inputdataconfig.json")
        if config is not None and not all(isinstance(value, dict) for value in config.values()):
            raise UserError(
                f"{self.config / 'inputdataconfig.json'} must map each channel's name to an object "
                'such as {"TrainingInputMode": "File"}.'
            )
        return config

    def resources(self) -> "Resources":
        """The machines of the job, from `resourceconfig.json` (T40); only this one without that file."""
        config = read_json(self.config / "resourceconfig.json") or {}
        hosts = config.get("hosts", ["localhost"])
        current: Any = config.get("current_host", hosts[0] if isinstance(hosts, list) and len(hosts) == 1 else None)
        if not isinstance(hosts, list) or current not in hosts:
            raise UserError(
                f"{self.config / 'resourceconfig.json'}: `hosts` must be a list of host names, with "
                "`current_host` among them."
            )
        interface = config.get("network_interface_name")
        return Resources(current, tuple(hosts), interface if isinstance(interface, str) else None)

    def checkpoints(self) -> tuple[Path, bool]:
        """Folder of the checkpoints, and whether `checkpointconfig.json` names it (T64)."""
        config = read_json(self.config / "checkpointconfig.json")
        if config is None:
            return self.root / "checkpoints", False
        path = config.get("LocalPath") or self.root / "checkpoints"
        return Path(path), True


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file of the platform; None without that file. Raises `UserError` if it is invalid."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a JSON object, not {type(content).__name__}.")
    return content
