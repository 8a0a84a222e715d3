"""Requests to AWS, and what all of them share: image, role, tags, network, encryption, names.

The modules `training`, `endpoint`, `batch` and `specification` turn settings into requests without talking to AWS.
Numbers such as M17 refer to the platform's rules.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, get_args

from lstm_fcn.container.errors import UserError
from lstm_fcn.container.media_types import Precision, parse_outputs

BASE_NAME = "lstm-fcn"
S3 = "S3"  # placeholder for an S3 address in help texts
MAX_NAME = 63  # characters
MAX_TUNING_NAME = 32  # M17


@dataclass(frozen=True)
class Request:
    """One API call: `service` as boto3 names it, `operation` as the service does."""

    service: str
    operation: str
    parameters: dict[str, Any]

    @property
    def action(self) -> str:
        """The action's name in IAM policies, such as `sagemaker:CreateModel`."""
        return f"{self.service}:{self.operation}"


def setting(text: str, metavar: str | None = None, name: str = "", choices: Sequence[str] = (), **default: Any) -> Any:
    """A dataclass field with its help text and the name and placeholder of its option in `lstm-fcn sagemaker`."""
    details = {"help": text, "metavar": metavar, "name": name, "choices": choices}
    return field(metadata=details, **default)


@dataclass(frozen=True, kw_only=True)
class Common:
    """Settings shared by jobs and endpoints."""

    image: str = setting("address of the image in the registry", "ADDRESS")
    role: str = setting("role that SageMaker assumes", "ARN")
    tags: Mapping[str, str] = setting("tag; repeatable", "KEY=VALUE", "tag", default_factory=dict)
    subnets: Sequence[str] = setting("subnet of the VPC to run in", "ID", "subnet", default=())
    security_groups: Sequence[str] = setting("security group in the VPC", "ID", "security-group", default=())
    key: str = setting("KMS key for disks and results", "KEY", "encryption-key", default="")

    def vpc(self) -> dict[str, Any] | None:
        if bool(self.subnets) != bool(self.security_groups):
            raise UserError("A VPC needs both subnets and security groups; give at least one of each.")
        return {"SecurityGroupIds": self.security_groups, "Subnets": self.subnets} if self.subnets else None

    def tag_list(self) -> list[dict[str, str]]:
        return [{"Key": key, "Value": value} for key, value in self.tags.items()]


@dataclass(frozen=True, kw_only=True)
class Serving(Common):
    """Settings shared by endpoints and batch jobs.

    package: ARN of a model package, instead of `image` and `model_data`; `packages.approved` finds it.
    environment: environment variables of the container, besides those that other settings imply.
    """

    image: str = setting("address of the serving image in the registry", "ADDRESS", default="")
    role: str = setting("role that SageMaker assumes", "ARN", default="")
    model_data: str = setting("model.tar.gz", S3, default="")
    package: str = setting(
        "approved model package: ARN, GROUP/VERSION, or GROUP for its latest", "PACKAGE", "from-package", default=""
    )
    precision: str = setting("precision of predictions [float32]", choices=get_args(Precision), default="")
    outputs: str = setting("such as predicted_label,probabilities", "NAMES", default="")
    instance_type: str = "ml.m5.large"
    instance_count: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)

    def full_environment(self) -> dict[str, str]:
        """Environment variables of the container.

        Raises:
            UserError: the precision or an output is not supported.
        """
        if self.precision and self.precision not in get_args(Precision):
            raise UserError(f"precision={self.precision} is not supported; use {' or '.join(get_args(Precision))}.")
        try:
            parse_outputs(self.outputs or "probabilities")
        except ValueError as error:
            raise UserError(f"outputs={self.outputs}: {error}.") from error
        implied = {"LSTM_FCN_PRECISION": self.precision, "SAGEMAKER_INFERENCE_OUTPUT": self.outputs}
        return {name: value for name, value in implied.items() if value} | dict(self.environment)


def create(noun: str, parameters: Mapping[str, Any]) -> Request:
    """The request that creates a `TrainingJob`, a `Model`, ...; parameters that are not set are left out."""
    return Request("sagemaker", f"Create{noun}", prune(parameters))


def create_model(name: str, serving: Serving, environment: Mapping[str, str]) -> Request:
    """`CreateModel`: the serving image with an artifact, or a model package.

    Raises:
        UserError: a setting is missing, or the model package has it already.
    """
    if serving.package and (serving.image or serving.model_data):
        raise UserError("A model package includes image and model; leave out --image and --model-data.")
    if serving.package and not serving.role:
        raise UserError("role is missing; a model from a model package needs a role.")
    for option, value in (("image", serving.image), ("role", serving.role), ("model-data", serving.model_data)):
        if not value and not serving.package:
            raise UserError(f"{option} is missing; a new model needs image, role and model-data.")
    container = {
        "Image": serving.image or None,
        "ModelDataUrl": serving.model_data or None,
        "ModelPackageName": serving.package or None,
        "Environment": environment,
    }
    parameters = {
        "ModelName": name,
        "PrimaryContainer": container,
        "ExecutionRoleArn": serving.role,
        "VpcConfig": serving.vpc(),
        "Tags": serving.tag_list(),
    }
    return create("Model", parameters)


def prune(value: Any) -> Any:
    """Copy `value` without None and empty dictionaries and lists, at every level."""
    if isinstance(value, Mapping):
        pruned = {name: prune(member) for name, member in value.items()}
        return {name: member for name, member in pruned.items() if member not in (None, [], {})}
    if isinstance(value, list | tuple):
        return [prune(member) for member in value]
    return value


def unique_name(base: str = BASE_NAME, limit: int = MAX_NAME) -> str:
    """The base name, cut to fit, and the time (UTC): at most `limit` characters."""
    stamp = f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}"[:-3]  # milliseconds
    return f"{base[: limit - len(stamp) - 1].rstrip('-')}-{stamp}"


def join(folder: str, *names: str) -> str:
    """An address in S3 below a folder."""
    return "/".join([folder.rstrip("/"), *names])
