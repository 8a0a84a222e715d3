"""Model packages in the SageMaker Model Registry: register models, approve them, find approved ones.

A model package is a version in a model package group. Each function uses the default account without `account`.
"""

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError

from lstm_fcn.client.sagemaker.account import Account, NotFoundError, about, explain, send
from lstm_fcn.client.sagemaker.checks import check, fits
from lstm_fcn.client.sagemaker.request import BASE_NAME, S3, Request, create, prune, setting
from lstm_fcn.client.sagemaker.specification import DESCRIPTION, inference_specification
from lstm_fcn.container.artifact import Metadata, load_all
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.hyperparameters import changed
from lstm_fcn.container.media_types import JSON

_ADDRESS = re.compile(r"s3://([^/]+)/(.+)")
_ARN = re.compile(r"arn:aws[a-z-]*:sagemaker:[a-z0-9-]+:\d{12}:model-package/[^/]+/\d+")
_NAME = re.compile(r"([a-zA-Z0-9](?:-*[a-zA-Z0-9]){0,62})(?:/([1-9]\d{0,8}))?")


@dataclass(frozen=True, kw_only=True)
class Registration:
    """Settings of a new model package."""

    image: str = setting("address of the serving image in the registry", "ADDRESS")
    model_data: str = setting("model.tar.gz", S3, default="")
    group: str = setting("model package group; created if it does not exist", "NAME", default=BASE_NAME)
    gpu: bool = setting("the image is built for CUDA: list GPU instances, too", default=False)
    approved: bool = setting("approve the model package at once", default=False)


# Register


def register(settings: Registration, account: Account | None = None) -> str:
    """Create a model package, and its group if it does not exist; returns the ARN of the model package.

    Raises:
        UserError: as `registration`, or AWS refuses a request.
    """
    account = account or Account()
    arn: str = send(registration(settings, account), account)[-1]["ModelPackageArn"]
    return arn


def registration(settings: Registration, account: Account) -> list[Request]:
    """`PutObject` for the metrics, `CreateModelPackageGroup` if the group does not exist, and `CreateModelPackage`.

    Raises:
        UserError: there is no model at `model_data`, or it is damaged.
    """
    description = {"ModelPackageGroupDescription": DESCRIPTION}
    group = create("ModelPackageGroup", {"ModelPackageGroupName": settings.group, **description})
    check([group])
    metadata = read_metadata(settings.model_data, account)
    # Beside the model, under a name that does not start with the model's: channels take all files with a prefix.
    address = settings.model_data.removesuffix(".tar.gz") + "-statistics.json"
    package = {
        "ModelPackageGroupName": settings.group,
        "ModelPackageDescription": DESCRIPTION,
        "InferenceSpecification": inference_specification(settings.image, settings.model_data, gpu=settings.gpu),
        "ModelApprovalStatus": "Approved" if settings.approved else "PendingManualApproval",
        "ModelMetrics": {"ModelQuality": {"Statistics": {"ContentType": JSON, "S3Uri": address}}},
        "CustomerMetadataProperties": properties(metadata),
    }
    exists = account.find(about("ModelPackageGroup", settings.group)) is not None
    return [_put(address, statistics(metadata)), *([] if exists else [group]), create("ModelPackage", package)]


def read_metadata(address: str, account: Account) -> Metadata:
    """The metadata of the `model.tar.gz` at an S3 address, whose other files are checked, too.

    Raises:
        UserError: there is no model, or it is damaged.
    """
    place = _ADDRESS.fullmatch(address)
    if not place:
        raise UserError(f"model-data={address} must be the address of a model: s3://BUCKET/FOLDER/model.tar.gz.")
    request = Request("s3", "GetObject", {"Bucket": place[1], "Key": place[2]})
    try:
        body = account.call(request)["Body"]
    except NotFoundError as error:
        raise UserError(f"There is no model at {address}; correct the address.") from error
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tar.gz"
        try:
            with path.open("wb") as file:
                shutil.copyfileobj(body, file)
        except BotoCoreError as error:
            raise explain(error, request.action) from error
        try:
            return load_all(path)[0]
        except UserError as error:
            raise UserError(str(error).replace(str(path), address)) from error


def statistics(metadata: Metadata) -> dict[str, Any]:
    """The metrics in the form of SageMaker's model quality statistics.

    Held-out metrics get SageMaker's names, such as accuracy. Its f1 is the F1 score of one class; ours is the mean.
    """
    kind = "binary" if metadata.problem.task == "binary" else "multiclass"
    metrics = {
        "macro_f1" if name == "valid_f1" else name.removeprefix("valid_"): {"value": value, "standard_deviation": "NaN"}
        for name, value in metadata.metrics.items()
    }
    return {f"{kind}_classification_metrics": metrics}


def properties(metadata: Metadata) -> dict[str, str]:
    """Version of lstm-fcn and hyperparameters that differ from the defaults, as far as the service accepts them."""
    found = {"lstm-fcn": metadata.versions.get("lstm-fcn", ""), **changed(metadata.hyperparameters)}
    return {
        name: str(value)
        for name, value in found.items()
        if fits(name, "CustomerMetadataKey") and fits(str(value), "CustomerMetadataValue")
    }


def _put(address: str, content: dict[str, Any]) -> Request:
    bucket, _, key = address.removeprefix("s3://").partition("/")
    body = json.dumps(content, indent=2)
    return Request("s3", "PutObject", {"Bucket": bucket, "Key": key, "Body": body, "ContentType": JSON})


# Approve and find


def approve(package: str, *, reject: bool = False, note: str = "", account: Account | None = None) -> str:
    """Approve or reject a model package, named as `find` takes it; returns its ARN."""
    account = account or Account()
    request = decision(package, reject=reject, note=note, account=account)
    send([request], account)
    arn: str = request.parameters["ModelPackageArn"]
    return arn


def decision(package: str, *, reject: bool, note: str, account: Account) -> Request:
    """`UpdateModelPackage` that approves or rejects a model package, named as `find` takes it."""
    parameters = {
        "ModelPackageArn": find(package, account)["ModelPackageArn"],
        "ModelApprovalStatus": "Rejected" if reject else "Approved",
        "ApprovalDescription": note or None,
    }
    return Request("sagemaker", "UpdateModelPackage", prune(parameters))


def approved(package: str, account: Account | None = None) -> str:
    """ARN of an approved model package: of the one with this ARN or GROUP/VERSION, or of the latest in a GROUP.

    Raises:
        UserError: it does not exist, is not approved, or is not complete.
    """
    found = find(package, account or Account(), only_approved=True)
    arn: str = found["ModelPackageArn"]
    status = found.get("ModelApprovalStatus", "without a status")
    if status != "Approved":
        raise UserError(
            f"The model package {package} is not approved (it is {status}); approve it with "
            f"`lstm-fcn sagemaker approve {package}`, or use another version."
        )
    if found["ModelPackageStatus"] != "Completed":
        raise UserError(
            f"The model package {package} is {found['ModelPackageStatus']}; wait until it is Completed, or use another "
            "version."
        )
    return arn


def find(package: str, account: Account, *, only_approved: bool = False) -> dict[str, Any]:
    """SageMaker's description of a model package.

    Args:
        package: its ARN, GROUP/VERSION, or GROUP for the latest version.
        account: to look in.
        only_approved: of a GROUP, the latest version that is approved.

    Raises:
        UserError: the name has a wrong form, or nothing has this name.
    """
    name = _NAME.fullmatch(package)
    if name:
        return _find_in_group(name[1], int(name[2] or 0), account, only_approved)
    if not _ARN.fullmatch(package):
        raise UserError(
            f"{package!r} is not a model package; write GROUP, GROUP/VERSION, or an ARN such as "
            "arn:aws:sagemaker:REGION:123456789012:model-package/GROUP/VERSION."
        )
    found = account.find(about("ModelPackage", package))
    if found is None:
        raise NotFoundError(f"There is no model package {package} in this account and region; correct the ARN.")
    return found


def _find_in_group(group: str, version: int, account: Account, only_approved: bool) -> dict[str, Any]:
    """A version of a group; 0: the latest."""
    if account.find(about("ModelPackageGroup", group)) is None:
        raise NotFoundError(
            f"There is no model package group {group} in this account and region; `lstm-fcn sagemaker register --group "
            f"{group}` creates it."
        )
    latest = 0
    for item in _versions(group, account):
        latest = latest or item["ModelPackageVersion"]
        if version == item["ModelPackageVersion"]:
            return item
        if not version and (item.get("ModelApprovalStatus") == "Approved" or not only_approved):
            return item
    if not latest:
        raise NotFoundError(
            f"The model package group {group} has no versions; register one with `lstm-fcn sagemaker register --group "
            f"{group}`."
        )
    if version:
        raise NotFoundError(f"The model package group {group} has no version {version}; the latest is {latest}.")
    raise UserError(
        f"The model package group {group} has no approved version; approve the latest with `lstm-fcn sagemaker approve "
        f"{group}`."
    )


def _versions(group: str, account: Account) -> Iterator[dict[str, Any]]:
    """The versions of a group, newest first."""
    parameters = {"ModelPackageGroupName": group, "SortBy": "CreationTime", "SortOrder": "Descending"}
    while True:
        reply = account.call(Request("sagemaker", "ListModelPackages", parameters))
        yield from reply["ModelPackageSummaryList"]
        if not reply.get("NextToken"):
            return
        parameters["NextToken"] = reply["NextToken"]


def short_name(arn: str) -> str:
    """GROUP/VERSION of the model package with this ARN."""
    return arn.partition(":model-package/")[2]
