"""Endpoints: from settings to requests."""

from dataclasses import dataclass
from typing import Any

from lstm_fcn.client.sagemaker.instances import machine_image
from lstm_fcn.client.sagemaker.request import S3, Request, Serving, create, create_model, setting
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.media_types import CSV, JSON, JSON_LINES

VARIANT = "all"  # the endpoint's only production variant
MAX_ASYNC_SECONDS = 3600  # for one asynchronous request (M21)
MAX_ASYNC_MB = 1024  # of one asynchronous request


@dataclass(frozen=True, kw_only=True)
class Endpoint(Serving):
    """Settings of an endpoint: on instances, serverless, or asynchronous.

    capture_percent, capture_output: share of requests and responses to keep, and the S3 folder for them.
    """

    scale_to: int = setting("scale up to this many instances", "COUNT", default=0)
    scale_target: float = setting(
        "target for each instance: requests a minute; with --async: waiting requests", default=1000
    )
    serverless: bool = setting("no instances; billed by request", default=False)
    memory: int = setting("MB, of a serverless endpoint", default=2048)
    concurrency: int = setting("simultaneous requests, of a serverless endpoint", default=5)
    async_output: str = setting("asynchronous endpoint: folder for responses", S3, "async", default="")
    async_concurrency: int | None = setting("simultaneous requests of each instance, with --async", default=None)
    capture_percent: int = 0
    capture_output: str = ""


def endpoint(name: str, settings: Endpoint) -> list[Request]:
    """`CreateModel`, `CreateEndpointConfig` and `CreateEndpoint` (M18, M19), all with the same name.

    With `scale_to`, also the requests that set up automatic scaling, which need the endpoint to be in service.

    Raises:
        UserError: settings contradict each other.
    """
    _check(settings)
    environment = settings.full_environment()
    if settings.serverless:
        environment.setdefault("SAGEMAKER_MODEL_SERVER_WORKERS", "1")  # S12
    if settings.async_output:
        environment.setdefault("SAGEMAKER_MODEL_SERVER_TIMEOUT", str(MAX_ASYNC_SECONDS))
        environment.setdefault("SAGEMAKER_MAX_PAYLOAD_IN_MB", str(MAX_ASYNC_MB))
    config = {
        "EndpointConfigName": name,
        "ProductionVariants": [{"VariantName": VARIANT, "ModelName": name, **_capacity(settings)}],
        "DataCaptureConfig": _data_capture(settings) if settings.capture_percent else None,
        "AsyncInferenceConfig": {
            "ClientConfig": {"MaxConcurrentInvocationsPerInstance": settings.async_concurrency},
            "OutputConfig": {"S3OutputPath": settings.async_output, "KmsKeyId": settings.key or None},
        }
        if settings.async_output
        else None,
        "KmsKeyId": settings.key or None,
        "Tags": settings.tag_list(),
    }
    return [
        create_model(name, settings, environment),
        create("EndpointConfig", config),
        create("Endpoint", {"EndpointName": name, "EndpointConfigName": name, "Tags": settings.tag_list()}),
        *_scaling(name, settings),
    ]


def _check(settings: Endpoint) -> None:
    exclusive = {
        "be asynchronous": settings.async_output,
        "capture data": settings.capture_percent,
        "be scaled": settings.scale_to,
        "run in a VPC": settings.subnets,
    }
    if settings.serverless:
        for what, wanted in exclusive.items():
            if wanted:
                raise UserError(f"A serverless endpoint cannot {what}; leave out one of the two.")
        if settings.memory % 1024 or not 1024 <= settings.memory <= 6144:  # M19
            raise UserError(f"memory={settings.memory} must be 1024, 2048, 3072, 4096, 5120 or 6144 MB.")
    if settings.async_output and settings.capture_percent:
        raise UserError("An asynchronous endpoint cannot capture data; leave out one of the two.")
    if settings.async_concurrency and not settings.async_output:
        raise UserError("async-concurrency applies to asynchronous endpoints only; add --async S3.")
    if settings.scale_to and settings.scale_to < settings.instance_count:
        raise UserError(f"scale-to={settings.scale_to} must be at least instance-count={settings.instance_count}.")


def _capacity(settings: Endpoint) -> dict[str, Any]:
    if settings.serverless:
        return {"ServerlessConfig": {"MemorySizeInMB": settings.memory, "MaxConcurrency": settings.concurrency}}
    return {
        "InstanceType": settings.instance_type,
        "InitialInstanceCount": settings.instance_count,
        "InitialVariantWeight": 1.0,
        "InferenceAmiVersion": machine_image(settings.instance_type),
    }


def _data_capture(settings: Endpoint) -> dict[str, Any]:
    return {
        "EnableCapture": True,
        "InitialSamplingPercentage": settings.capture_percent,
        "DestinationS3Uri": settings.capture_output,
        "KmsKeyId": settings.key or None,
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        # These are kept as text, all others in base64.
        "CaptureContentTypeHeader": {"CsvContentTypes": [CSV], "JsonContentTypes": [JSON, JSON_LINES]},
    }


def _scaling(name: str, settings: Endpoint) -> list[Request]:
    if not settings.scale_to:
        return []
    target = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{name}/variant/{VARIANT}",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }
    metric: dict[str, Any] = {
        "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
    }
    if settings.async_output:
        metric = {
            "CustomizedMetricSpecification": {
                "MetricName": "ApproximateBacklogSizePerInstance",
                "Namespace": "AWS/SageMaker",
                "Dimensions": [{"Name": "EndpointName", "Value": name}],
                "Statistic": "Average",
            }
        }
    limits = {"MinCapacity": settings.instance_count, "MaxCapacity": settings.scale_to}
    policy = {
        "PolicyName": name,
        "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": {"TargetValue": settings.scale_target, **metric},
    }
    return [
        Request("application-autoscaling", "RegisterScalableTarget", target | limits),
        Request("application-autoscaling", "PutScalingPolicy", target | policy),
    ]
