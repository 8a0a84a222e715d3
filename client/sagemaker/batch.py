"""Batch transform jobs: from settings to requests."""

from dataclasses import dataclass
from typing import Any

from lstm_fcn.client.sagemaker.instances import disk_key
from lstm_fcn.client.sagemaker.request import S3, Request, Serving, create, create_model, setting
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.media_types import CSV, JSON, JSON_LINES, NPY, REQUEST_TYPES, RESPONSE_TYPES

DEFAULT_PAYLOAD_MB, MAX_LOAD_MB = 6, 100  # one request by default; all simultaneous requests together (M20)


@dataclass(frozen=True, kw_only=True)
class Batch(Serving):
    """Settings of a batch transform job, for a new model from `model_data` or for the existing model `model`."""

    data: str = setting("folder of the series", S3)
    output: str = setting("folder for the predictions", S3)
    model: str = setting("existing model", "NAME", default="")
    content_type: str = setting(", ".join(REQUEST_TYPES), default=CSV)
    accept: str = setting(", ".join(RESPONSE_TYPES), default=CSV)
    split: str = setting("None: send whole files", choices=("Line", "None"), default="Line")
    strategy: str = setting("", name="batch-strategy", choices=("MultiRecord", "SingleRecord"), default="MultiRecord")
    assemble: str = setting("[None; Line with --join]", choices=("Line", "None"), default="")
    join: bool = setting("append the predictions to the series", default=False)
    input_filter: str = setting("$[1:] omits the first column", "JSONPATH", default="")
    output_filter: str = setting("$[0,-1] keeps the first and last column", "JSONPATH", default="")
    max_payload: int | None = setting("MB of one request [set by the container]", default=None)
    max_concurrent: int | None = setting("simultaneous requests [set by the container]", default=None)


def transform_job(name: str, batch: Batch) -> list[Request]:
    """`CreateTransformJob` (M20), preceded by `CreateModel` for a new model.

    Raises:
        UserError: settings are missing or contradict each other.
    """
    parameters = {
        "TransformJobName": name,
        "ModelName": batch.model or name,
        **transform_definition(batch),
        "DataProcessing": {
            "InputFilter": batch.input_filter or None,
            "OutputFilter": batch.output_filter or None,
            "JoinSource": "Input" if batch.join else None,
        },
        "Tags": batch.tag_list(),
    }
    job = create("TransformJob", parameters)
    return [job] if batch.model else [create_model(name, batch, {}), job]


def transform_definition(batch: Batch) -> dict[str, Any]:
    """The members that `CreateTransformJob` shares with the validation profile of an algorithm."""
    _check(batch)
    return {
        "MaxConcurrentTransforms": batch.max_concurrent,
        "MaxPayloadInMB": batch.max_payload,
        "BatchStrategy": batch.strategy if batch.split != "None" else None,
        "Environment": batch.full_environment(),
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": batch.data}},
            "ContentType": batch.content_type,
            "SplitType": batch.split,
        },
        "TransformOutput": {
            "S3OutputPath": batch.output,
            "Accept": batch.accept,
            "AssembleWith": batch.assemble or (batch.split if batch.join else "None"),
            "KmsKeyId": batch.key or None,
        },
        "TransformResources": {
            "InstanceType": batch.instance_type,
            "InstanceCount": batch.instance_count,
            "VolumeKmsKeyId": disk_key(batch.key, batch.instance_type),
        },
    }


def _check(batch: Batch) -> None:
    content, accept = (text.partition(";")[0].strip().lower() for text in (batch.content_type, batch.accept))
    if content not in REQUEST_TYPES:
        raise UserError(f"content-type={batch.content_type} is not supported; use {', '.join(REQUEST_TYPES)}.")
    if accept not in RESPONSE_TYPES:
        raise UserError(f"accept={batch.accept} is not supported; use {', '.join(RESPONSE_TYPES)}.")
    if batch.split != "None" and content == NPY:
        raise UserError(f"{NPY} cannot be split; add --split None.")
    if batch.split != "None" and content == JSON and batch.strategy == "MultiRecord":
        raise UserError(f"Lines of {JSON} cannot be sent together; add --split None, or use {JSON_LINES}.")
    if batch.join and (content != accept or batch.split != "Line" or batch.assemble not in ("", batch.split)):
        raise UserError(  # S31
            "Predictions can only be joined with their input if content-type and accept are the same, and split and "
            "assemble are Line."
        )
    check_load(batch.max_payload, batch.max_concurrent)


def check_load(max_payload: int | None, max_concurrent: int | None) -> None:
    """Refuse requests of a batch job that are too large, alone or together (M20)."""
    if max_payload is not None and max_payload > MAX_LOAD_MB:
        raise UserError(f"max-payload={max_payload} must be at most {MAX_LOAD_MB} MB.")
    if max_payload is not None and max_concurrent is None:
        raise UserError(f"max-payload needs max-concurrent too; their product must be at most {MAX_LOAD_MB} MB.")
    if (DEFAULT_PAYLOAD_MB if max_payload is None else max_payload) * (max_concurrent or 0) > MAX_LOAD_MB:
        raise UserError(
            f"max-concurrent={max_concurrent} times {max_payload or DEFAULT_PAYLOAD_MB} MB for each request must be at "
            f"most {MAX_LOAD_MB} MB."
        )
