"""Check requests against the service's own model before anything is sent.

botocore checks types, required members and lower limits. The other limits, patterns and enumerations are checked here.
"""

import difflib
import logging
import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import botocore.session
from botocore.model import ListShape, MapShape, ServiceModel, Shape, StringShape, StructureShape
from botocore.validate import ParamValidator

from lstm_fcn.client.sagemaker.request import Request
from lstm_fcn.container.errors import UserError

logger = logging.getLogger(__name__)

# Examples of valid values, by the shape's name; for other shapes the message shows the pattern.
EXAMPLES = {
    "RoleArn": "arn:aws:iam::123456789012:role/NAME",
    "S3Uri": "s3://BUCKET/FOLDER",
    "Url": "s3://BUCKET/FOLDER/model.tar.gz",
    "DestinationS3Uri": "s3://BUCKET/FOLDER",
    "KmsKeyId": "1234abcd-12ab-34cd-56ef-1234567890ab or arn:aws:kms:REGION:123456789012:key/ID",
    "ApprovalDescription": "a single line",
}
_NAMES = ("TrainingJob", "HyperParameterTuningJob", "TransformJob", "Model", "Endpoint", "EndpointConfig", "Entity")
EXAMPLES |= {f"{noun}Name": "letters, digits and single hyphens between them" for noun in _NAMES}
# Python's `re` has no Unicode categories: letters, digits and separators are approximated.
_CATEGORIES = {r"\p{L}": r"\w", r"\p{N}": r"\w", r"\p{Z}": r"\s", r"\p{Alnum}": "0-9A-Za-z"}


def check(requests: Sequence[Request]) -> None:
    """Find what the service would refuse. Log a warning for instance types that the installed botocore does not know.

    Raises:
        UserError: names every member that is missing, unknown, or whose value has a wrong type, form or size or is not
            among the allowed values.
    """
    for request in requests:
        shape = service_model(request.service).operation_model(request.operation).input_shape
        report = ParamValidator().validate(request.parameters, shape)
        problems = [f"{line}." for line in report.generate_report().splitlines()]
        problems += _problems(request.parameters, shape, "")
        if problems:
            raise UserError(f"{request.operation}: " + " ".join(problems))


@cache
def service_model(service: str) -> ServiceModel:
    """botocore's model of a service, such as `sagemaker`."""
    return botocore.session.get_session().get_service_model(service)


def values_of(shape: str) -> list[str]:
    """The values of one of SageMaker's enumerations, such as `TrainingInstanceType`."""
    return list(service_model("sagemaker").shape_for(shape).enum)


def fits(value: str, shape: str) -> bool:
    """Whether the form and size of a value are those of one of SageMaker's types, such as `CustomerMetadataValue`."""
    return not any(_text(value, service_model("sagemaker").shape_for(shape), ""))


def _problems(value: Any, shape: Shape, path: str) -> Iterator[str]:
    """What botocore's validator does not check. Values of a wrong type are ignored because it reports them."""
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        for name, member in value.items():
            if name in shape.members:
                yield from _problems(member, shape.members[name], f"{path}.{name}" if path else name)
    elif isinstance(shape, ListShape) and isinstance(value, list | tuple):
        yield from _size(len(value), shape, path, "entries")
        for number, member in enumerate(value):
            yield from _problems(member, shape.member, f"{path}[{number}]")
    elif isinstance(shape, MapShape) and isinstance(value, dict):
        yield from _size(len(value), shape, path, "entries")
        for key, member in value.items():
            yield from _problems(key, shape.key, f"{path} (name)")
            yield from _problems(member, shape.value, f"{path}.{key}")
    elif isinstance(shape, StringShape) and isinstance(value, str):
        yield from _text(value, shape, path)
    elif isinstance(value, int | float) and value > shape.metadata.get("max", float("inf")):
        yield f"{path} is {value}; the maximum is {shape.metadata['max']}."


def _text(value: str, shape: StringShape, path: str) -> Iterator[str]:
    if shape.name.endswith("InstanceType"):
        yield from _instance_type(value, shape, path)
    elif shape.enum:
        # The installed botocore may be older than the AMI version that `instances` chooses.
        if value not in shape.enum and not shape.name.endswith("AmiVersion"):
            yield f"{path} is {value!r}; it must be one of {', '.join(shape.enum)}."
    else:
        yield from _size(len(value), shape, path, "characters")
        pattern = _translate(shape.metadata.get("pattern", ""))
        if pattern and not re.fullmatch(pattern, value):
            yield f"{path} is {value!r}; its form must be {EXAMPLES.get(shape.name, pattern)}."


def _instance_type(value: str, shape: StringShape, path: str) -> Iterator[str]:
    """Accept every type of the right form, because SageMaker has new ones before botocore knows them."""
    if not re.fullmatch(r"ml\.[a-z0-9-]+\.[a-z0-9-]+", value):
        yield f"{path} is {value!r}; its form must be ml.FAMILY.SIZE, such as ml.m5.xlarge."
    elif value not in shape.enum:
        close = difflib.get_close_matches(value, shape.enum, n=5, cutoff=0.7)
        logger.warning(
            "%s is %s, which the installed botocore does not know%s; SageMaker decides whether it exists.",
            *(path, value, f" (similar: {', '.join(close)})" if close else ""),
        )


def _size(size: int, shape: Shape, path: str, unit: str) -> Iterator[str]:
    if size > shape.metadata.get("max", float("inf")):
        yield f"{path} has {size} {unit}; the maximum is {shape.metadata['max']}."


@cache
def _translate(pattern: str) -> str:
    """The service's pattern in Python's notation; empty if Python has none for it."""
    for category, characters in _CATEGORIES.items():
        pattern = pattern.replace(category, characters)
    pattern = pattern.replace("*)${", "){")  # the patterns of CustomerMetadataProperties count the wrong thing
    return "" if r"\p" in pattern or r"\uD8" in pattern else pattern
