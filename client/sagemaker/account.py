"""An AWS account: send requests after checking them, and explain what AWS refuses."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import boto3
from botocore import xform_name
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
)

from lstm_fcn.client.sagemaker.checks import check
from lstm_fcn.client.sagemaker.request import Request
from lstm_fcn.container.errors import UserError


class NotFoundError(UserError):
    """The job, endpoint, bucket, ... does not exist in this account and region."""


class DeniedError(UserError):
    """The credentials do not allow the request."""


class Account:
    """An AWS account and region, opened by a boto3 session or from the usual settings (environment, ~/.aws)."""

    def __init__(self, session: Any = None) -> None:
        self._session = session
        self._clients: dict[str, Any] = {}

    def call(self, request: Request) -> dict[str, Any]:
        """Send one request and return the response.

        Raises:
            UserError: why AWS refuses it, and what to do.
        """
        try:
            if request.service not in self._clients:
                self._session = self._session or boto3.Session()
                self._clients[request.service] = self._session.client(request.service)
            method = getattr(self._clients[request.service], xform_name(request.operation))
            reply: dict[str, Any] = method(**request.parameters)
        except (BotoCoreError, ClientError) as error:
            raise explain(error, request.action) from error
        return reply

    def find(self, request: Request) -> dict[str, Any] | None:
        """The response, or None if the resource does not exist."""
        try:
            return self.call(request)
        except NotFoundError:
            return None

    def identity(self) -> tuple[str, str]:
        """Account number and region."""
        number: str = self.call(Request("sts", "GetCallerIdentity", {}))["Account"]
        if not self._session.region_name:
            raise explain(NoRegionError(), "sts:GetCallerIdentity")
        return number, self._session.region_name


# Pattern of an error's code and message, type, text; the first match counts.
_REASONS: tuple[tuple[str, type[UserError], str], ...] = (
    (
        r"ExpiredToken|InvalidClientTokenId|UnrecognizedClient|SignatureDoesNotMatch|InvalidSignature|RequestExpired",
        UserError,
        "AWS does not accept the credentials ({}): {} Log in again (`aws sso login`, `aws configure`).",
    ),
    (
        r"AccessDenied|UnauthorizedOperation|not authorized|^403",
        DeniedError,
        "Access is denied ({}): {} Ask for a policy that allows it, and iam:PassRole for the role.",
    ),
    (
        r"ResourceLimitExceeded|LimitExceeded|service limit",
        UserError,
        "A quota is exhausted ({}): {} Use fewer or other instances, or request more in the Service Quotas console.",
    ),
    (r"ResourceInUse|already exist", UserError, "The name is already in use ({}): {} Choose another name."),
    (r"Throttl|TooManyRequests|RequestLimitExceeded", UserError, "Too many requests ({}): {} Try again in a minute."),
    (
        r"NotFound|NoSuchBucket|NoSuchKey|not found|could not find|does not exist|^404",
        NotFoundError,
        "Not found in this account and region ({}): {}",
    ),
)


def explain(error: BotoCoreError | ClientError, action: str) -> UserError:
    """Convert a botocore error into a `UserError` with advice."""
    if isinstance(error, NoCredentialsError | PartialCredentialsError | CredentialRetrievalError | ProfileNotFound):
        return UserError(
            f"No AWS credentials: {error}. Run `aws configure` or `aws sso login`, or set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
        )
    if isinstance(error, NoRegionError):
        return UserError("No region is set; set AWS_DEFAULT_REGION, for example eu-west-1, or run `aws configure`.")
    if not isinstance(error, ClientError):
        return UserError(f"{action} did not reach AWS: {error}")
    details = error.response.get("Error", {})
    message = str(details.get("Message", "")).rstrip(".") + "."
    text = f"{details.get('Code', '')}: {message}"
    for pattern, kind, reason in _REASONS:
        if re.search(pattern, text, re.IGNORECASE):
            return kind(reason.format(action, message))
    return UserError(f"AWS refuses {action}: {text}")


def send(requests: Sequence[Request], account: Account) -> list[dict[str, Any]]:
    """Check all requests, then send them in order; if one is refused, delete what the earlier ones created.

    Raises:
        UserError: see `check`, `check_data` and `explain`; names what was created and could not be deleted.
    """
    check(requests)
    check_data(requests, account)
    replies: list[dict[str, Any]] = []
    for request in requests:
        try:
            replies.append(account.call(request))
        except UserError as error:
            left = [name for earlier in reversed(requests[: len(replies)]) if (name := _undo(earlier, account))]
            if left:
                raise type(error)(f"{error} Created before that, and not deleted: {', '.join(left)}.") from error
            raise
    return replies


def _undo(request: Request, account: Account) -> str:
    """Delete what a request created; returns the name of what remains."""
    if request.operation == "PutObject":  # which may have replaced a file that is still needed
        return "s3://{Bucket}/{Key}".format(**request.parameters)
    noun = request.operation.removeprefix("Create")
    if noun in ("Model", "EndpointConfig", "ModelPackageGroup"):
        name = request.parameters[f"{noun}Name"]
        try:
            account.call(about(noun, name, "Delete"))
        except UserError:
            return f"{noun} {name}"
    return ""


def about(noun: str, name: str, verb: str = "Describe") -> Request:
    """The request that describes or deletes the `TrainingJob`, `Model`, ... of this name."""
    return Request("sagemaker", f"{verb}{noun}", {f"{noun}Name": name})


def check_data(requests: Sequence[Request], account: Account) -> None:
    """Check that input data, and the buckets for results, exist.

    Addresses that these credentials may not list are skipped, because the job's role may be allowed to read them.

    Raises:
        UserError: names the first address without data.
    """
    addresses = [address for request in requests for address in _addresses(request.parameters)]
    for address, is_input in dict.fromkeys(addresses):
        bucket, _, key = address.removeprefix("s3://").partition("/")
        listing = Request("s3", "ListObjectsV2", {"Bucket": bucket, "Prefix": key if is_input else "", "MaxKeys": 1})
        try:
            reply = account.call(listing)
        except DeniedError:
            continue
        except NotFoundError as error:
            raise UserError(f"The bucket {bucket} of {address} does not exist.") from error
        if is_input and not reply.get("KeyCount"):
            raise UserError(f"There is no data at {address}; upload it, or correct the address.")


def _addresses(value: Any, parent: str = "") -> Iterator[tuple[str, bool]]:
    """Each S3 address in a request's parameters, and whether data must exist there."""
    members = value.items() if isinstance(value, dict) else ((parent, item) for item in value)
    for name, member in members:
        if isinstance(member, dict | list):
            yield from _addresses(member, name)
        elif isinstance(member, str) and member.startswith("s3://"):
            yield member, name == "ModelDataUrl" or parent == "S3DataSource"
