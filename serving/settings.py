"""The environment of a serving container, read once into one frozen object."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from container.cores import available_cores
from container.errors import UserError
from container.optml import OptML

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True)
class Settings:
    """What the platform or the user has set, with defaults for the rest."""

    model_folder: Path
    port: int  # S2
    workers: int  # processes, each with its own copy of the model (S12)
    inference_threads: int  # of each worker
    timeout: int  # seconds (S39)
    max_body_mib: int  # a larger request gets 413 (S22)
    batch: bool  # a batch transform job sends the requests (S29)
    local_batch: bool  # it is one of the Python SDK's local mode, which alone writes `True` (S28)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Settings from environment variables. Raises `UserError` for one that is not a number in its range."""
        cores = available_cores()
        workers = _integer(environment, "SAGEMAKER_MODEL_SERVER_WORKERS", cores, 1, 256)
        batch_text = environment.get("SAGEMAKER_BATCH", "")
        batch = batch_text.lower() == "true"
        # 0 stands for a stream without a limit; ours is then that of an asynchronous request.
        max_body = _integer(environment, "SAGEMAKER_MAX_PAYLOAD_IN_MB", 100 if batch else 25, 0, 1024)
        return cls(
            model_folder=OptML.from_environment(environment).model,
            port=_integer(environment, "SAGEMAKER_BIND_TO_PORT", 8080, 1, 65535),
            workers=workers,
            inference_threads=max(1, cores // workers),
            timeout=_integer(environment, "SAGEMAKER_MODEL_SERVER_TIMEOUT", 60, 1, 3600),
            max_body_mib=max_body or 1024,
            batch=batch,
            local_batch=batch_text == "True",
        )


def _integer(environment: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = environment.get(name, "").strip()
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
        raise UserError(f"The environment variable {name}={text} must be an integer from {low} to {high}.")
    return int(text)
