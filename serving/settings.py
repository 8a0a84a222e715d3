"""Settings of the serving image, from environment variables."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from lstm_fcn.container.cores import available_cores
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.media_types import RESPONSE_TYPES, Precision, parse_outputs
from lstm_fcn.container.optml import OptML

MEBIBYTE = 1024 * 1024
STATE = "_LSTM_FCN_STATE"  # set by the master process: the folder that all workers share


@dataclass(frozen=True)
class Settings:
    """The settings of an endpoint."""

    model_folder: Path
    host: str  # address to listen on
    port: int  # S2
    workers: int  # processes, each with its own copy of the model (S12)
    timeout: int  # seconds (S39)
    max_body_mib: int  # a larger request gets 413 (S22)
    response_type: str | None  # if `Accept` allows several; None: the type of the request, else CSV
    outputs: tuple[str, ...]  # if `Accept` names none; empty: the default of the model
    precision: Precision  # of the predictions
    log_level: int  # 10 debug, 20 info, ...
    batch: bool  # requests come from a batch transform job (S29)
    local_batch: bool  # from the local mode of the Python SDK, the only one to write `True` (S28)
    page: bool = False  # serve a page for trying the model at `GET /`
    model_name: str = "model"  # of the only model, in the Open Inference Protocol
    models_folder: Path | None = None  # of many models, loaded when they are used (S34); None: there is one
    model_memory_mib: int = 0  # for many models, in all workers; 0: most of what there is
    metrics: bool = False  # serve counts at `GET /metrics`

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Read the environment variables. Raises `UserError` for an invalid one."""
        cores = available_cores()
        workers = _integer(environment, "SAGEMAKER_MODEL_SERVER_WORKERS", cores, 1, 256)
        batch_text = environment.get("SAGEMAKER_BATCH", "")
        batch = batch_text.lower() == "true"
        # 0 means no limit; ours is then the limit of asynchronous requests.
        max_body = _integer(environment, "SAGEMAKER_MAX_PAYLOAD_IN_MB", 100 if batch else 25, 0, 1024)
        opt_ml = OptML.from_environment(environment)
        return cls(
            model_folder=opt_ml.model,
            host=environment.get("LSTM_FCN_HOST", "").strip() or "0.0.0.0",  # noqa: S104 - a container's own network
            port=_integer(environment, "SAGEMAKER_BIND_TO_PORT", 8080, 1, 65535),
            workers=workers,
            timeout=_integer(environment, "SAGEMAKER_MODEL_SERVER_TIMEOUT", 60, 1, 3600),
            max_body_mib=max_body or 1024,
            response_type=_choice(environment, "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", RESPONSE_TYPES) or None,
            outputs=_outputs(environment),
            precision=cast(Precision, _choice(environment, "LSTM_FCN_PRECISION", get_args(Precision)) or "float32"),
            log_level=_integer(environment, "SAGEMAKER_CONTAINER_LOG_LEVEL", 20, 0, 50),
            batch=batch,
            local_batch=batch_text == "True",
            page=_is_true(environment, "LSTM_FCN_PAGE"),
            model_name=environment.get("LSTM_FCN_MODEL_NAME", "").strip() or "model",
            models_folder=opt_ml.root / "models" if _is_true(environment, "SAGEMAKER_MULTI_MODEL") else None,
            model_memory_mib=_integer(environment, "LSTM_FCN_MODEL_MEMORY_MIB", 0, 0, 2**24),
            metrics=_is_true(environment, "LSTM_FCN_METRICS"),
        )


def _is_true(environment: Mapping[str, str], name: str) -> bool:
    return _choice(environment, name, ("true", "false")) == "true"


def _integer(environment: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = environment.get(name, "").strip()
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
        raise UserError(f"The environment variable {name}={text} must be an integer from {low} to {high}.")
    return int(text)


def _outputs(environment: Mapping[str, str]) -> tuple[str, ...]:
    text = environment.get("SAGEMAKER_INFERENCE_OUTPUT", "").strip()
    try:
        return parse_outputs(text) if text else ()
    except ValueError as error:
        raise UserError(f"The environment variable SAGEMAKER_INFERENCE_OUTPUT={text} is invalid: {error}.") from error


def _choice(environment: Mapping[str, str], name: str, choices: Sequence[str]) -> str:
    """One of the choices; empty if the variable is not set."""
    text = environment.get(name, "").strip().lower()
    if text and text not in choices:
        raise UserError(f"The environment variable {name}={text} must be {', '.join(choices[:-1])} or {choices[-1]}.")
    return text
