"""Requests that publish the algorithm: `CreateAlgorithm` and, for the Marketplace, `CreateModelPackage` (M8 to M15).

They are generated from the tables in `container` and from botocore's lists of instance types.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lstm_fcn.client.sagemaker.batch import Batch, transform_definition
from lstm_fcn.client.sagemaker.instances import supported_types
from lstm_fcn.client.sagemaker.request import BASE_NAME, Request, create, join
from lstm_fcn.client.sagemaker.training import (
    Training,
    decimal,
    metric_definitions,
    parameter_type,
    training_definition,
)
from lstm_fcn.container.channels import CHANNELS
from lstm_fcn.container.hyperparameters import PARAMETERS, Parameter
from lstm_fcn.container.media_types import REQUEST_TYPES, RESPONSE_TYPES
from lstm_fcn.container.metrics import METRICS

DESCRIPTION = "Time series classification with LSTM-FCN. Data: CSV files with one labelled series in each row."
# SageMaker trains with these when it validates a new algorithm: the default preset, but quickly.
VALIDATION_HYPERPARAMETERS = {"epochs": "50"}
VALIDATION_RUNTIME = 60 * 60  # seconds


@dataclass(frozen=True, kw_only=True)
class Validation:
    """How SageMaker validates a new algorithm: it trains on `training` and predicts `series`.

    role: ARN of the role that SageMaker assumes.
    training, series, output: S3 folders with labelled series, with series without labels, and for the results.
    """

    role: str
    training: str
    series: str
    output: str
    training_instance_type: str = "ml.m5.xlarge"
    transform_instance_type: str = "ml.m5.large"


def algorithm(
    training_image: str, serving_image: str, validation: Validation | None = None, name: str = BASE_NAME
) -> Request:
    """`CreateAlgorithm` for both images, given by their addresses in the registry."""
    parameters = {
        "AlgorithmName": name,
        "AlgorithmDescription": DESCRIPTION,
        "TrainingSpecification": training_specification(training_image),
        "InferenceSpecification": inference_specification(serving_image),
        "ValidationSpecification": validation and _algorithm_validation(validation, training_image),
    }
    return create("Algorithm", parameters)


def model_package(
    serving_image: str, model_data: str = "", validation: Validation | None = None, name: str = BASE_NAME
) -> Request:
    """`CreateModelPackage` for the serving image with a `model.tar.gz` in S3."""
    profile = validation and {"ProfileName": name, "TransformJobDefinition": _transform(validation)}
    parameters = {
        "ModelPackageName": name,
        "ModelPackageDescription": DESCRIPTION,
        "InferenceSpecification": inference_specification(serving_image, model_data),
        "ValidationSpecification": validation and {"ValidationRole": validation.role, "ValidationProfiles": [profile]},
    }
    return create("ModelPackage", parameters)


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


def inference_specification(image: str, model_data: str = "") -> dict[str, Any]:
    """Media types and instance types of the serving image (M14)."""
    return {
        "Containers": [{"Image": image, "ModelDataUrl": model_data or None}],
        "SupportedTransformInstanceTypes": supported_types("TransformInstanceType", gpu=False),
        "SupportedRealtimeInferenceInstanceTypes": supported_types("ProductionVariantInstanceType", gpu=False),
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


def _algorithm_validation(validation: Validation, training_image: str) -> dict[str, Any]:
    job = Training(
        image=training_image,
        role=validation.role,
        training=validation.training,
        output=join(validation.output, "training"),
        instance_type=validation.training_instance_type,
        max_runtime=VALIDATION_RUNTIME,
    )
    definition = training_definition(job)
    wanted = ("InputDataConfig", "OutputDataConfig", "ResourceConfig", "StoppingCondition")
    profile = {
        "ProfileName": BASE_NAME,
        "TrainingJobDefinition": {
            "TrainingInputMode": job.input_mode,
            "HyperParameters": VALIDATION_HYPERPARAMETERS,
            **{name: definition[name] for name in wanted},
        },
        "TransformJobDefinition": _transform(validation),
    }
    return {"ValidationRole": validation.role, "ValidationProfiles": [profile]}


def _transform(validation: Validation) -> dict[str, Any]:
    return transform_definition(
        Batch(
            data=validation.series,
            output=join(validation.output, "transform"),
            instance_type=validation.transform_instance_type,
        )
    )
