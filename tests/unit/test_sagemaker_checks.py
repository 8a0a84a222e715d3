"""Checks of requests against botocore's model of the services, mainly those that botocore does not make."""

import re
from typing import Any

import pytest
from botocore.model import ListShape, MapShape, Shape, StructureShape

from lstm_fcn.client.sagemaker.checks import _translate, check, service_model
from lstm_fcn.client.sagemaker.request import Request
from lstm_fcn.container.errors import UserError

ROLE = "arn:aws:iam::123456789012:role/service-role/lstm-fcn"
TRAINING: dict[str, Any] = {
    "TrainingJobName": "job-1",
    "AlgorithmSpecification": {"TrainingImage": "image:1", "TrainingInputMode": "File"},
    "RoleArn": ROLE,
    "OutputDataConfig": {"S3OutputPath": "s3://bucket/out"},
    "ResourceConfig": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 30},
    "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    "Tags": [{"Key": "für wen", "Value": "Jörg + Söhne"}],
}


def refused(parameters: dict[str, Any], operation: str = "CreateTrainingJob", service: str = "sagemaker") -> str:
    with pytest.raises(UserError) as error:
        check([Request(service, operation, parameters)])
    assert str(error.value).startswith(f"{operation}: ")
    return str(error.value)


def test_a_good_request_passes() -> None:
    check([Request("sagemaker", "CreateTrainingJob", TRAINING)])


@pytest.mark.parametrize(
    ("member", "value", "message"),
    [
        ("TrainingJobName", "a_b", "TrainingJobName is 'a_b'; its form must be letters, digits and single hyphens"),
        ("TrainingJobName", "a" * 64, "TrainingJobName has 64 characters; the maximum is 63."),
        ("TrainingJobName", "job\n", "its form must be"),
        ("TrainingJobName", 3, "Invalid type for parameter TrainingJobName"),
        ("RoleArn", "role/lstm-fcn-of-some-length", "its form must be arn:aws:iam::123456789012:role/NAME."),
        ("AlgorithmSpecification", {"TrainingInputMode": "file"}, "it must be one of Pipe, File, FastFile."),
        ("AlgorithmSpecification", {}, 'Missing required parameter in AlgorithmSpecification: "TrainingInputMode".'),
        (
            "OutputDataConfig",
            {"S3OutputPath": "/data"},
            "OutputDataConfig.S3OutputPath is '/data'; its form must be s3",
        ),
        (
            "ResourceConfig",
            {"InstanceType": "m5.xlarge"},
            "'m5.xlarge'; its form must be ml.FAMILY.SIZE, such as ml.m5.xlarge",
        ),
        ("ResourceConfig", {"KeepAlivePeriodInSeconds": 21601}, "is 21601; the maximum is 21600."),
        ("HyperParameters", {"lr": "1" * 2501}, "HyperParameters.lr has 2501 characters"),
        ("HyperParameters", {"x" * 257: "1"}, "HyperParameters (name) has 257 characters"),
        ("HyperParameters", {f"n{k}": "1" for k in range(101)}, "HyperParameters has 101 entries"),
        ("Tags", [{"Key": "a;b", "Value": ""}], "Tags[0].Key is 'a;b'"),
        ("Color", "red", 'Unknown parameter in input: "Color"'),
    ],
)
def test_problems_are_named(member: str, value: object, message: str) -> None:
    assert message in refused({**TRAINING, member: value})


def test_new_instance_types_are_accepted_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """SageMaker has new types before the installed botocore lists them."""
    new = {**TRAINING["ResourceConfig"], "InstanceType": "ml.m99i-flex.2xlarge"}
    check([Request("sagemaker", "CreateTrainingJob", {**TRAINING, "ResourceConfig": new})])
    [message] = caplog.messages
    assert message.startswith("ResourceConfig.InstanceType is ml.m99i-flex.2xlarge, which the installed botocore does")
    assert message.endswith("; SageMaker decides whether it exists.")
    caplog.clear()
    check([Request("sagemaker", "CreateTrainingJob", TRAINING)])
    assert caplog.messages == []


def test_a_mistyped_instance_type_gets_suggestions(caplog: pytest.LogCaptureFixture) -> None:
    typo = {**TRAINING["ResourceConfig"], "InstanceType": "ml.m5.xlarg"}
    check([Request("sagemaker", "CreateTrainingJob", {**TRAINING, "ResourceConfig": typo})])
    assert "(similar: ml.m5.xlarge" in caplog.text


def test_all_problems_are_named_at_once() -> None:
    text = refused({**TRAINING, "RoleArn": "x" * 30, "OutputDataConfig": {"S3OutputPath": "x"}})
    assert "RoleArn" in text
    assert "S3OutputPath" in text


def test_other_services() -> None:
    target = {"ServiceNamespace": "sagemaker", "ResourceId": "endpoint/e/variant/all", "ScalableDimension": "x"}
    assert "ScalableDimension is 'x'" in refused(target, "RegisterScalableTarget", "application-autoscaling")
    assert "repositoryName is 'Upper'" in refused({"repositoryName": "Upper"}, "CreateRepository", "ecr")


@pytest.mark.parametrize(
    ("service", "operations"),
    [
        (
            "sagemaker",
            "CreateTrainingJob CreateHyperParameterTuningJob CreateModel CreateEndpointConfig CreateEndpoint "
            "CreateTransformJob CreateAlgorithm CreateModelPackage CreateModelPackageGroup UpdateModelPackage",
        ),
        ("application-autoscaling", "RegisterScalableTarget PutScalingPolicy"),
        ("ecr", "CreateRepository"),
    ],
)
def test_patterns_of_all_requests_compile(service: str, operations: str) -> None:
    patterns: set[str] = set()
    for operation in operations.split():
        collect(service_model(service).operation_model(operation).input_shape, patterns, set())
    assert patterns
    for pattern in patterns:
        assert r"\p" not in _translate(pattern)
        re.compile(_translate(pattern))


def collect(shape: Shape, patterns: set[str], seen: set[str]) -> None:
    if shape.name in seen:
        return
    seen.add(shape.name)
    if "pattern" in shape.metadata:
        patterns.add(shape.metadata["pattern"])
    inner: list[Shape] = []
    if isinstance(shape, StructureShape):
        inner = list(shape.members.values())
    elif isinstance(shape, ListShape):
        inner = [shape.member]
    elif isinstance(shape, MapShape):
        inner = [shape.key, shape.value]
    for member in inner:
        collect(member, patterns, seen)
