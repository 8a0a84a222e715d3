"""Requests that publish the algorithm: `CreateAlgorithm` and, for the Marketplace, `CreateModelPackage` (M8 to M15).

They are generated from the tables in `container` and from botocore's lists of instance types.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lstm_fcn.client.sagemaker.batch import Batch, transform_definition
from lstm_fcn.client.sagemaker.instances import supported_types
from lstm_fcn.client.sagemaker.request import BASE_NAME, S3, Request, create, join, setting
from lstm_fcn.client.sagemaker.training import (
    Training,
    decimal,
    metric_definitions,
    parameter_type,
    training_definition,
)
from lstm_fcn.container.channels import CHANNELS
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.hyperparameters import PARAMETERS, Parameter
from lstm_fcn.container.media_types import REQUEST_TYPES, RESPONSE_TYPES
from lstm_fcn.container.metrics import METRICS

DESCRIPTION = "Time series classification with LSTM-FCN. Data: CSV files with one labelled series in each row."
# SageMaker trains with these when it validates a new algorithm: the default preset, but quickly.
VALIDATION_HYPERPARAMETERS = {"epochs": "50"}
VALIDATION_RUNTIME = 60 * 60  # seconds


@dataclass(frozen=True, kw_only=True)
class Specification:
    """Settings of the algorithm and the model package. SageMaker validates both if `role` and what follows are set."""

    training_image: str = setting("address of the training image in the registry", "ADDRESS")
    serving_image: str = setting("address of the serving image in the registry", "ADDRESS")
    model_data: str = setting("model.tar.gz of the model package", S3, default="")
    name: str = setting("", default=BASE_NAME)
    role: str = setting("let SageMaker validate the algorithm; needs the next three", "ARN", default="")
    training: str = setting("a small set of training data", S3, default="")
    series: str = setting("series without labels", S3, default="")
    output: str = setting("folder for results", S3, default="")


def publication(settings: Specification) -> list[Request]:
    """`CreateAlgorithm` for both images, and `CreateModelPackage` for the serving image with `model_data`.

    Raises:
        UserError: only a part of what validation needs is set.
    """
    needed = (settings.role, settings.training, settings.series, settings.output)
    if any(needed) and not all(needed):
        raise UserError("--role, --training, --series and --output go together; give all of them or none.")
    algorithm = {
        "AlgorithmName": settings.name,
        "AlgorithmDescription": DESCRIPTION,
        "TrainingSpecification": training_specification(settings.training_image),
        "InferenceSpecification": inference_specification(settings.serving_image),
        "ValidationSpecification": _validation(settings, trains=True),
    }
    package = {
        "ModelPackageName": settings.name,
        "ModelPackageDescription": DESCRIPTION,
        "InferenceSpecification": inference_specification(settings.serving_image, settings.model_data),
        "ValidationSpecification": _validation(settings, trains=False),
    }
    return [create("Algorithm", algorithm), create("ModelPackage", package)]


def training_specification(image: str) -> dict[str, Any]:
    """Hyperparameters, instance types, metrics and channels of the training image (M8, M12, M13)."""
    return {
        "TrainingImage": image,
        "SupportedHyperParameters": [_hyperparameter(parameter) for parameter in PARAMETERS.values()],
        "SupportedTrainingInstanceTypes": supported_types("TrainingInstanceType", gpu=True),
        "SupportsDistributedTraining": True,
        "MetricDefinitions": metric_definitions(),
        "SupportedTuningJobObjectiveMetrics": [
            {"Type": metric.objective, "MetricName": metric.name} for metric in METRICS
        ],
        "TrainingChannels": [
            {
                "Name": channel.name,
                "IsRequired": channel.required,
                "SupportedContentTypes": list(channel.content_types),
                "SupportedCompressionTypes": ["None"] if channel.name == "model" else ["None", "Gzip"],
                "SupportedInputModes": list(channel.input_modes),
            }
            for channel in CHANNELS
        ],
    }


def inference_specification(image: str, model_data: str = "", *, gpu: bool = False) -> dict[str, Any]:
    """Media types and instance types of the serving image (M14), with GPUs if it is built for them."""
    return {
        "Containers": [{"Image": image, "ModelDataUrl": model_data or None}],
        "SupportedTransformInstanceTypes": supported_types("TransformInstanceType", gpu=gpu),
        "SupportedRealtimeInferenceInstanceTypes": supported_types("ProductionVariantInstanceType", gpu=gpu),
        "SupportedContentTypes": list(REQUEST_TYPES),
        "SupportedResponseMIMETypes": list(RESPONSE_TYPES),
    }


def _hyperparameter(parameter: Parameter) -> dict[str, Any]:
    kind = parameter_type(parameter)
    if kind == "Categorical":
        limits: Mapping[str, Any] = {"Values": list(parameter.choices)}
    else:
        limits = {"MinValue": decimal(parameter.low), "MaxValue": decimal(parameter.high)}
    return {
        "Name": parameter.name,
        "Description": parameter.help,
        "Type": kind,
        "Range": {f"{kind}ParameterRangeSpecification": limits},
        "IsTunable": bool(parameter.search),
        "IsRequired": False,
        "DefaultValue": parameter.default if kind == "Categorical" else decimal(parameter.default),
    }


def _validation(settings: Specification, trains: bool) -> dict[str, Any] | None:
    """`ValidationSpecification`: SageMaker predicts `series`, after training on `training` if the product `trains`."""
    if not settings.role:
        return None
    batch = Batch(data=settings.series, output=join(settings.output, "transform"))
    profile = {"ProfileName": settings.name, "TransformJobDefinition": transform_definition(batch)}
    if trains:
        job = Training(
            image=settings.training_image,
            role=settings.role,
            training=settings.training,
            output=join(settings.output, "training"),
            max_runtime=VALIDATION_RUNTIME,
        )
        definition = training_definition(job)
        wanted = ("InputDataConfig", "OutputDataConfig", "ResourceConfig", "StoppingCondition")
        profile["TrainingJobDefinition"] = {
            "TrainingInputMode": job.input_mode,
            "HyperParameters": VALIDATION_HYPERPARAMETERS,
            **{name: definition[name] for name in wanted},
        }
    return {"ValidationRole": settings.role, "ValidationProfiles": [profile]}
