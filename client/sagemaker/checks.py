"""Requests are checked against the service's own model before anything is sent.

botocore checks types, required members and lower limits; enumerations, patterns and upper limits are left to the
service. Here they are checked, too.
"""

import difflib
import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import botocore.session
from botocore.model import ListShape, MapShape, ServiceModel, Shape, StringShape, StructureShape
from botocore.validate import ParamValidator

from lstm_fcn.client.sagemaker.requests import Request
from lstm_fcn.container.errors import UserError

# What a value of the right form looks like, by the shape's name; for others the pattern has to do.
EXAMPLES = {
    "RoleArn": "arn:aws:iam::123456789012:role/NAME",
    "S3Uri": "s3://BUCKET/FOLDER",
    "Url": "s3://BUCKET/FOLDER/model.tar.gz",
    "DestinationS3Uri": "s3://BUCKET/FOLDER",
    "KmsKeyId": "1234abcd-12ab-34cd-56ef-1234567890ab or arn:aws:kms:REGION:123456789012:key/ID",
}
_NAMES = ("TrainingJob", "HyperParameterTuningJob", "TransformJob", "Model", "Endpoint", "EndpointConfig", "Entity")
EXAMPLES |= {f"{noun}Name": "letters, digits and single hyphens between them" for noun in _NAMES}
# What Python's patterns spell otherwise than the services'; beyond ASCII, marks, symbols and punctuation are let pass.
_CHARACTERS = {
    r"\uD800\uDC00-\uDBFF\uDFFF": "\U00010000-\U0010ffff",
    r"\p{L}": r"\w",
    r"\p{N}": r"\w",
    r"\p{Z}": " \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000",
    r"\p{M}": "\u0300-\U0010ffff",
    r"\p{S}": "$+<=>^`|~\u00a2-\U0010ffff",
    r"\p{P}": r"!-#%-*,\-./:;?@\[-\]_{}" + "\u00a1-\U0010ffff",
    r"\p{Alnum}": "0-9A-Za-z",
    r"\p{Print}": "[ -~]",
}


def check(requests: Sequence[Request]) -> None:
    """Find what the service would refuse.

    Raises:
        UserError: names every member that is missing, unknown, of a wrong type, form or size, or not among the values
            that there are.
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
    """What botocore knows of a service, such as `sagemaker`."""
    return botocore.session.get_session().get_service_model(service)


def values_of(shape: str) -> list[str]:
    """The values of an enumeration of SageMaker's, such as `TrainingInstanceType`."""
    return list(service_model("sagemaker").shape_for(shape).enum)


def _problems(value: Any, shape: Shape, path: str) -> Iterator[str]:
    """What botocore's validator lets pass. Values of a wrong type are its business."""
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
        yield f"{path} is {value}; it can be {shape.metadata['max']} at most."


def _text(value: str, shape: StringShape, path: str) -> Iterator[str]:
    if shape.enum:
        if value not in shape.enum:
            yield f"{path} is {value!r}; it must be {_choices(value, shape.enum)}."
        return
    yield from _size(len(value), shape, path, "characters")
    pattern = shape.metadata.get("pattern")
    if pattern and not re.fullmatch(_translate(pattern), value):
        yield f"{path} is {value!r}; its form must be {EXAMPLES.get(shape.name, pattern)}."


def _size(size: int, shape: Shape, path: str, unit: str) -> Iterator[str]:
    if size > shape.metadata.get("max", float("inf")):
        yield f"{path} has {size} {unit}; it can have {shape.metadata['max']} at most."


def _choices(value: str, known: Sequence[str]) -> str:
    if len(known) <= 12:
        return "one of " + ", ".join(known)
    close = difflib.get_close_matches(value, known, n=5, cutoff=0.7)
    return f"one of {len(known)} known ones" + (f", such as {', '.join(close)}" if close else "")


@cache
def _translate(pattern: str) -> str:
    """The service's pattern in Python's notation."""
    for name, characters in _CHARACTERS.items():
        pattern = pattern.replace(name, characters)
    return pattern
