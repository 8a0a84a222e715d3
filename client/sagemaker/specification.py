"""The algorithm as SageMaker and its Marketplace take it: `CreateAlgorithm` and `CreateModelPackage` (M8 to M15).

Everything comes from the tables in `container` and `serving`, and from botocore's lists of instance types.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lstm_fcn.client.sagemaker.checks import values_of
from lstm_fcn.client.sagemaker.requests import (
    BASE_NAME,
    Batch,
    Request,
    Training,
    decimal,
    given,
    join,
    metric_definitions,
    parameter_type,
    training_definition,
    transform_definition,
)
from lstm_fcn.container.channels import CHANNELS
from lstm_fcn.container.hyperparameters import PARAMETERS, Parameter, parse_hyperparameters
from lstm_fcn.container.media_types import REQUEST_TYPES, RESPONSE_TYPES
from lstm_fcn.container.metrics import METRICS

DESCRIPTION = "Time series classification with LSTM-FCN: labelled series in CSV files, one a row."
# The images are for x86-64 (so no Graviton, no Grace), torch for CUDA (so neither Trainium nor Gaudi) from the Turing
# generation on (so neither p2 nor p3). The serving image computes on CPUs.
_CPU = re.compile(r"ml\.[cmrt]\d([a-fh-z][a-z]*)?(-flex)?\.")
_GPU = re.compile(r"ml\.(g4dn|g5|g6|g6e|g7|g7e|p4d|p4de|p5|p5e|p5en|p6-b\d+)\.")
# A quick job for the check that SageMaker makes of a new algorithm.
VALIDATION_HYPERPARAMETERS = {"epochs": "50", "lr": "0.005", "lr-schedule": "one-cycle"}
VALIDATION_RUNTIME = 60 * 60  # seconds


@dataclass(frozen=True, kw_only=True)
class Validation:
    """The check that SageMaker makes of a new algorithm: it trains on `training` and predicts `series`.

    role: ARN of the role that does it.
    training, series: folders in S3 with labelled series and with series without labels; `output`: for what comes out.
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
    """`CreateAlgorithm`, for both images by their addresses in the registry."""
    parameters = {
        "AlgorithmName": name,
        "AlgorithmDescription": DESCRIPTION,
        "TrainingSpecification": training_specification(training_image),
        "InferenceSpecification": inference_specification(serving_image),
        "ValidationSpecification": validation and _algorithm_validation(validation, training_image),
    }
    return Request("sagemaker", "CreateAlgorithm", given(parameters))


def model_package(
    serving_image: str, model_data: str = "", validation: Validation | None = None, name: str = BASE_NAME
) -> Request:
    """`CreateModelPackage`, for the serving image with a model's archive in S3."""
    profile = validation and {"ProfileName": name, "TransformJobDefinition": _transform(validation)}
    parameters = {
        "ModelPackageName": name,
        "ModelPackageDescription": DESCRIPTION,
        "InferenceSpecification": inference_specification(serving_image, model_data),
        "ValidationSpecification": validation and {"ValidationRole": validation.role, "ValidationProfiles": [profile]},
    }
    return Request("sagemaker", "CreateModelPackage", given(parameters))


def training_specification(image: str) -> dict[str, Any]:
    """What can be trained, on what, and how it is measured (M8, M12, M13)."""
    return {
        "TrainingImage": image,
        "SupportedHyperParameters": [_hyperparameter(parameter) for parameter in PARAMETERS.values()],
        "SupportedTrainingInstanceTypes": instance_types("TrainingInstanceType", gpu=True),
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
    """What the serving image takes and gives, and where it runs (M14)."""
    return {
        "Containers": [given({"Image": image, "ModelDataUrl": model_data})],
        "SupportedTransformInstanceTypes": instance_types("TransformInstanceType", gpu=False),
        "SupportedRealtimeInferenceInstanceTypes": instance_types("ProductionVariantInstanceType", gpu=False),
        "SupportedContentTypes": list(REQUEST_TYPES),
        "SupportedResponseMIMETypes": list(RESPONSE_TYPES),
    }


def instance_types(shape: str, *, gpu: bool) -> list[str]:
    """The instance types of one of SageMaker's lists on which the images run."""
    return [name for name in values_of(shape) if _CPU.match(name) or (gpu and _GPU.match(name))]


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
    parse_hyperparameters(VALIDATION_HYPERPARAMETERS)
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
