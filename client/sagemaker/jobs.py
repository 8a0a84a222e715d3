"""Jobs and endpoints on SageMaker: create, watch, follow their logs, delete. The commands are these functions' surface.

    from lstm_fcn.client.sagemaker import jobs
    from lstm_fcn.client.sagemaker.requests import Training

    job = jobs.train(Training(image=..., role=..., training="s3://...", output="s3://..."))
    print(jobs.wait(job.name).artifact)

All of them raise `UserError` where AWS says no.
"""

import base64
import contextlib
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
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
from lstm_fcn.client.sagemaker.requests import (
    BASE_NAME,
    IMAGES,
    Batch,
    Endpoint,
    Request,
    Search,
    Training,
    docker_commands,
    endpoint,
    registry,
    repositories,
    scaling,
    training_job,
    transform_job,
    tuning_job,
    unique_name,
)
from lstm_fcn.container.errors import UserError

POLL_SECONDS = 10.0
LONGEST_TUNING_NAME = 32  # M17
LATE_SECONDS = 120  # lines of a log may come in so much later than others
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"  # the only one that SageMaker takes (T12)

STANDARD_ERROR = 2  # where docker says how it gets on: results alone go to standard output

_EPOCH = re.compile(r"^epoch: (\d+)/(\d+), ")


class NotFoundError(UserError):
    """There is no such thing in this account and region."""


class DeniedError(UserError):
    """These credentials do not allow it."""


@dataclass(frozen=True)
class Kind:
    """Something that runs, and what SageMaker calls it."""

    label: str
    noun: str
    log_group: str
    finished: tuple[str, ...]


_ENDED = ("Completed", "Failed", "Stopped")
TRAINING = Kind("training", "TrainingJob", "/aws/sagemaker/TrainingJobs", _ENDED)
TUNING = Kind("tuning", "HyperParameterTuningJob", "", _ENDED)
TRANSFORM = Kind("transform", "TransformJob", "/aws/sagemaker/TransformJobs", _ENDED)
ENDPOINT = Kind("endpoint", "Endpoint", "/aws/sagemaker/Endpoints/{name}", ("InService", "Failed", "OutOfService"))
KINDS = {kind.label: kind for kind in (TRAINING, TUNING, TRANSFORM, ENDPOINT)}


@dataclass(frozen=True)
class Created:
    """What was created: `kind` is one of `KINDS`."""

    kind: str
    name: str
    arn: str


@dataclass(frozen=True)
class State:
    """How something goes on.

    artifact: address in S3 of a training job's model, or folder of a transform job's output.
    best: the best training job of a tuning job.
    done, total: epochs of a training job, as far as its log is known, or training jobs of a tuning job.
    billable: seconds that are paid.
    """

    kind: str
    name: str
    arn: str
    status: str
    finished: bool
    detail: str = ""
    reason: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    artifact: str = ""
    best: str = ""
    hyperparameters: dict[str, str] = field(default_factory=dict)
    done: int = 0
    total: int = 0
    billable: int | None = None

    @property
    def succeeded(self) -> bool:
        """It has come to a good end, or is in service."""
        return self.status in ("Completed", "InService")


class Account:
    """An AWS account and region, as a session or the usual settings (environment, ~/.aws) open them."""

    def __init__(self, session: Any = None) -> None:
        self._session = session
        self._clients: dict[str, Any] = {}

    def call(self, request: Request) -> dict[str, Any]:
        """Send one request and return the answer.

        Raises:
            UserError: what AWS has against it, and what to do.
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
        """The answer, or None if there is no such thing."""
        try:
            return self.call(request)
        except NotFoundError:
            return None

    def identity(self) -> tuple[str, str]:
        """The account's number, and the region."""
        number: str = self.call(Request("sts", "GetCallerIdentity", {}))["Account"]
        if not self._session.region_name:
            raise explain(NoRegionError(), "ecr:DescribeRepositories")
        return number, self._session.region_name


def explain(error: BotoCoreError | ClientError, action: str) -> UserError:
    """The same for a reader, with what to do about it."""
    if isinstance(error, NoCredentialsError | PartialCredentialsError | CredentialRetrievalError | ProfileNotFound):
        return UserError(
            f"No credentials for AWS: {error}. Run `aws configure` or `aws sso login`, or set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
        )
    if isinstance(error, NoRegionError):
        return UserError("No region is set; set AWS_DEFAULT_REGION, such as eu-west-1, or run `aws configure`.")
    if not isinstance(error, ClientError):
        return UserError(f"{action} did not get through to AWS: {error}")
    code = str(error.response.get("Error", {}).get("Code", ""))
    message = str(error.response.get("Error", {}).get("Message", "")).rstrip(".") + "."
    text = f"{code}: {message}"
    for pattern, kind, reason, advice in _REASONS:
        if re.search(pattern, text, re.IGNORECASE):
            return kind(f"{reason} ({action}): {message} {advice}".rstrip())
    return UserError(f"AWS refuses {action}: {text}")


# Patterns of an error's code and message; the first that matches counts.
_REASONS: tuple[tuple[str, type[UserError], str, str], ...] = (
    (
        r"ExpiredToken|InvalidClientTokenId|UnrecognizedClient|SignatureDoesNotMatch|InvalidSignature|RequestExpired",
        UserError,
        "AWS does not accept the credentials",
        "Log in again (`aws sso login`, `aws configure`).",
    ),
    (
        r"AccessDenied|UnauthorizedOperation|not authorized|^403",
        DeniedError,
        "Access is denied",
        "Ask for a policy that allows it, and iam:PassRole for the role.",
    ),
    (
        r"ResourceLimitExceeded|LimitExceeded|service limit",
        UserError,
        "A quota is used up",
        "Take fewer or other instances, or ask for more in the Service Quotas console.",
    ),
    (r"ResourceInUse|already exist", UserError, "The name is taken", "Give another name."),
    (r"Throttl|TooManyRequests|RequestLimitExceeded", UserError, "AWS asks to slow down", "Try again in a minute."),
    (
        r"NotFound|NoSuchBucket|NoSuchKey|not found|could not find|does not exist|^404",
        NotFoundError,
        "There is no such thing in this account and region",
        "",
    ),
)


# Creating


def train(job: Training, name: str = "", account: Account | None = None) -> Created:
    """Start a training job."""
    name = name or unique_name()
    [reply] = send([training_job(name, job)], account or Account())
    return Created(TRAINING.label, name, reply["TrainingJobArn"])


def tune(job: Training, search: Search, name: str = "", account: Account | None = None) -> Created:
    """Start a tuning job of such training jobs."""
    name = name or unique_name(limit=LONGEST_TUNING_NAME)
    [reply] = send([tuning_job(name, job, search)], account or Account())
    return Created(TUNING.label, name, reply["HyperParameterTuningJobArn"])


def deploy(settings: Endpoint, name: str = "", account: Account | None = None) -> Created:
    """Create a model, an endpoint configuration and an endpoint; wait for it only if it shall scale by itself."""
    name, account = name or unique_name(), account or Account()
    then = scaling(name, settings)
    check(then)
    reply = send(endpoint(name, settings), account)[-1]
    if then:  # an endpoint can be registered for it once it is in service
        state = wait(name, ENDPOINT, account)
        if not state.succeeded:
            raise UserError(f"The endpoint {name} is {state.status}: {state.reason} It is not scaled.")
        send(then, account)
    return Created(ENDPOINT.label, name, reply["EndpointArn"])


def transform(batch: Batch, name: str = "", account: Account | None = None) -> Created:
    """Start a batch transform job, with a model of the same name if it has none yet."""
    name = name or unique_name()
    reply = send(transform_job(name, batch), account or Account())[-1]
    return Created(TRANSFORM.label, name, reply["TransformJobArn"])


def artifact_of(name: str, account: Account | None = None) -> str:
    """Address of the model of a training job that has ended.

    Raises:
        UserError: there is no such job, or it has left no model.
    """
    state = status(name, TRAINING, account or Account())
    if not state.finished or state.status == "Failed" or not state.artifact:
        raise UserError(
            f"The training job {name} is {state.status} and has no model; wait for it, or name another job."
        )
    return state.artifact


def send(requests: Sequence[Request], account: Account) -> list[dict[str, Any]]:
    """Send requests in order, after all of them have been checked; if one is refused, the earlier ones are undone.

    Raises:
        UserError: see `check`, `check_data` and `explain`.
    """
    check(requests)
    check_data(requests, account)
    replies: list[dict[str, Any]] = []
    for request in requests:
        try:
            replies.append(account.call(request))
        except UserError:
            for earlier in reversed(requests[: len(replies)]):
                if earlier.operation in ("CreateModel", "CreateEndpointConfig"):
                    noun = earlier.operation.removeprefix("Create")
                    with contextlib.suppress(UserError):
                        account.call(_about(noun, earlier.parameters[f"{noun}Name"], "Delete"))
            raise
    return replies


def _about(noun: str, name: str, verb: str = "Describe") -> Request:
    """What can be done with something that has a name."""
    return Request("sagemaker", f"{verb}{noun}", {f"{noun}Name": name})


def check_data(requests: Sequence[Request], account: Account) -> None:
    """Look whether data is where requests say, and whether the buckets for results exist.

    Raises:
        UserError: names the first address where there is nothing. What may not be listed is not judged: the job's role
            may be allowed to.
    """
    addresses = [address for request in requests for address in _addresses(request.parameters, "")]
    for address, is_input in dict.fromkeys(addresses):
        bucket, _, key = address.removeprefix("s3://").partition("/")
        listing = Request("s3", "ListObjectsV2", {"Bucket": bucket, "Prefix": key if is_input else "", "MaxKeys": 1})
        try:
            reply = account.call(listing)
        except DeniedError:
            continue
        except NotFoundError as error:
            raise UserError(f"There is no bucket {bucket}, which {address} names.") from error
        if is_input and not reply.get("KeyCount"):
            raise UserError(f"There is nothing at {address}; put the data there, or name another place.")


def _addresses(value: Any, parent: str) -> Iterator[tuple[str, bool]]:
    """The addresses in S3, and whether something must be there already."""
    if isinstance(value, list):
        for item in value:
            yield from _addresses(item, parent)
    if not isinstance(value, dict):
        return
    for name, member in value.items():
        if isinstance(member, str) and member.startswith("s3://"):
            yield member, name == "ModelDataUrl" or parent == "S3DataSource"
        else:
            yield from _addresses(member, name)


# Watching


def status(name: str, kind: Kind | None = None, account: Account | None = None) -> State:
    """How a job or endpoint goes on; without a kind, the first of `KINDS` that has one of this name.

    Raises:
        NotFoundError: there is none.
    """
    account = account or Account()
    for candidate in [kind] if kind else KINDS.values():
        if candidate is TUNING and len(name) > LONGEST_TUNING_NAME:  # which is an error, not "no"
            continue
        reply = account.find(_about(candidate.noun, name))
        if reply is not None:
            return _state(candidate, reply)
    what = f"{kind.label} job" if kind and kind is not ENDPOINT else "endpoint" if kind else "job or endpoint"
    raise NotFoundError(f"There is no {what} {name} in this account and region; `list` shows what there is.")


def watch(
    name: str, kind: Kind | None = None, account: Account | None = None, pause: float | None = None
) -> Iterator[State]:
    """The state again and again, until the job has ended or the endpoint is in service.

    pause: seconds between two looks, by default `POLL_SECONDS`.
    """
    account = account or Account()
    state = status(name, kind, account)
    log = Log(state, account)
    done, total = 0, 0
    while True:
        if state.kind == TRAINING.label:
            # A log that may not be read costs the bar only.
            with contextlib.suppress(UserError):
                for line in log.read():
                    if found := _EPOCH.match(line):
                        done, total = int(found[1]), int(found[2])
            state = replace(state, done=done, total=total)
        yield state
        if state.finished:
            return
        time.sleep(POLL_SECONDS if pause is None else pause)
        state = status(name, KINDS[state.kind], account)


def wait(name: str, kind: Kind | None = None, account: Account | None = None, pause: float | None = None) -> State:
    """The state in the end."""
    *_, last = watch(name, kind, account, pause)
    return last


class Log:
    """The log of a job or endpoint; every reading goes on where the last one ended."""

    def __init__(self, state: State, account: Account) -> None:
        kind = KINDS[state.kind]
        self._account = account
        self._group = kind.log_group.format(name=state.name)
        self._prefix = "" if kind is ENDPOINT else f"{state.name}/"
        self._seen: set[str] = set()
        self._start = 0  # milliseconds

    def read(self) -> list[str]:
        """The lines that are new; of several machines, all but the first one's start with the machine's name."""
        parameters: dict[str, Any] = {"logGroupName": self._group, "startTime": self._start}
        if self._prefix:
            parameters["logStreamNamePrefix"] = self._prefix
        lines: list[str] = []
        latest = self._start
        while True:
            reply = self._account.find(Request("logs", "FilterLogEvents", parameters))
            if reply is None:  # nothing has been written yet
                return lines
            for event in reply["events"]:
                if event["eventId"] not in self._seen:
                    self._seen.add(event["eventId"])
                    lines.append(self._line(event))
                    latest = max(latest, event["timestamp"])
            if not reply.get("nextToken"):
                break
            parameters["nextToken"] = reply["nextToken"]
        self._start = max(self._start, latest - LATE_SECONDS * 1000)
        return lines

    def _line(self, event: dict[str, Any]) -> str:
        host = event["logStreamName"].removeprefix(self._prefix).rpartition("-")[0]
        message: str = event["message"].rstrip("\n")
        return message if not self._prefix or host in ("", "algo-1") else f"{host}: {message}"


def logs(name: str, kind: Kind | None = None, follow: bool = False, account: Account | None = None) -> Iterator[str]:
    """The lines of a job's or endpoint's log; `follow`: also those to come, until a job ends.

    Raises:
        UserError: a tuning job has no log of its own.
    """
    account = account or Account()
    state = status(name, kind, account)
    if state.kind == TUNING.label:
        raise UserError(
            f"A tuning job has no log of its own; its training jobs have, such as {state.best or 'the best'}."
        )
    log = Log(state, account)
    yield from log.read()
    while follow and (state.kind == ENDPOINT.label or not state.finished):
        time.sleep(POLL_SECONDS)
        state = status(name, KINDS[state.kind], account)
        yield from log.read()


def _state(kind: Kind, reply: dict[str, Any]) -> State:
    word = reply[f"{kind.noun}Status"]
    state = State(
        kind.label,
        reply[f"{kind.noun}Name"],
        reply[f"{kind.noun}Arn"],
        word,
        word in kind.finished,
        reason=reply.get("FailureReason", ""),
    )
    if kind is TRAINING:
        steps = reply.get("SecondaryStatusTransitions") or [{}]
        return replace(
            state,
            detail=f"{reply.get('SecondaryStatus', '')}: {steps[-1].get('StatusMessage', '')}".strip(": "),
            metrics={item["MetricName"]: item["Value"] for item in reply.get("FinalMetricDataList", [])},
            artifact=reply.get("ModelArtifacts", {}).get("S3ModelArtifacts", ""),
            hyperparameters=reply.get("HyperParameters", {}),
            billable=reply.get("BillableTimeInSeconds"),
        )
    if kind is TUNING:
        return _tuning_state(state, reply)
    if kind is TRANSFORM:
        return replace(state, artifact=reply.get("TransformOutput", {}).get("S3OutputPath", ""))
    return state


def _tuning_state(state: State, reply: dict[str, Any]) -> State:
    counters = reply.get("TrainingJobStatusCounters", {})
    best = reply.get("BestTrainingJob", {})
    metric = best.get("FinalHyperParameterTuningJobObjectiveMetric")
    limits = reply.get("HyperParameterTuningJobConfig", {}).get("ResourceLimits", {})
    return replace(
        state,
        detail=", ".join(f"{number} {name}" for name, number in counters.items() if number),
        best=best.get("TrainingJobName", ""),
        metrics={metric["MetricName"]: metric["Value"]} if metric else {},
        hyperparameters=best.get("TunedHyperParameters", {}),
        done=sum(counters.get(name, 0) for name in ("Completed", "NonRetryableError", "Stopped")),
        total=limits.get("MaxNumberOfTrainingJobs", 0),
    )


@dataclass(frozen=True)
class Entry:
    """A line of `listing`."""

    kind: str
    name: str
    status: str
    created: datetime


def listing(kinds: Sequence[Kind] = (), limit: int = 20, account: Account | None = None) -> list[Entry]:
    """The newest jobs and endpoints, newest first: at most `limit` of each kind."""
    account = account or Account()
    entries = []
    for kind in kinds or KINDS.values():
        parameters = {"SortBy": "CreationTime", "SortOrder": "Descending", "MaxResults": limit}
        reply = account.call(Request("sagemaker", f"List{kind.noun}s", parameters))
        for item in reply["Endpoints" if kind is ENDPOINT else f"{kind.noun}Summaries"]:
            name, word = item[f"{kind.noun}Name"], item[f"{kind.noun}Status"]
            entries.append(Entry(kind.label, name, word, item["CreationTime"]))
    return sorted(entries, key=lambda entry: entry.created, reverse=True)


# Deleting


def delete(name: str, account: Account | None = None) -> list[Request]:
    """Delete an endpoint, its configuration and its models; returns what was done."""
    account = account or Account()
    requests = removal(name, account)
    for request in requests:
        account.call(request)
    return requests


def removal(name: str, account: Account | None = None) -> list[Request]:
    """What `delete` does. What is left of an endpoint, or a batch job's model, is found by its name.

    Raises:
        UserError: there is nothing of this name.
    """
    account = account or Account()
    requests: list[Request] = []
    found = account.find(_about("Endpoint", name))
    config_name = found["EndpointConfigName"] if found else name
    config = account.find(_about("EndpointConfig", config_name))
    variants = config["ProductionVariants"] if config else [{"ModelName": name}]
    if found:
        requests += _scaled(name, [variant["VariantName"] for variant in variants if "VariantName" in variant], account)
        requests.append(_about("Endpoint", name, "Delete"))
    if config:
        requests.append(_about("EndpointConfig", config_name, "Delete"))
    names = dict.fromkeys(variant["ModelName"] for variant in variants if "ModelName" in variant)
    there = [model for model in names if account.find(_about("Model", model)) is not None]
    requests += [_about("Model", model, "Delete") for model in there]
    if not requests:
        raise NotFoundError(f"There is no endpoint, endpoint configuration or model {name} in this account and region.")
    return requests


def _scaled(name: str, variants: Sequence[str], account: Account) -> list[Request]:
    """What ends the automatic scaling of an endpoint."""
    resources = [f"endpoint/{name}/variant/{variant}" for variant in variants]
    if not resources:
        return []
    wanted = {"ServiceNamespace": "sagemaker", "ResourceIds": resources}
    try:
        reply = account.call(Request("application-autoscaling", "DescribeScalableTargets", wanted))
    except DeniedError:  # who may not see it has not set it up
        return []
    keys = ("ServiceNamespace", "ResourceId", "ScalableDimension")
    return [
        Request("application-autoscaling", "DeregisterScalableTarget", {key: target[key] for key in keys})
        for target in reply["ScalableTargets"]
    ]


# Images


def push(tag: str, context: Path, account: Account | None = None, say: Callable[[str], None] = print) -> dict[str, str]:
    """Build both images from the folder `context` and push them; repositories are created where there are none.

    Returns:
        the images' addresses, by name.

    Raises:
        UserError: docker is missing or fails, or has written manifests that SageMaker refuses.
    """
    account = account or Account()
    check_context(context)
    number, region = account.identity()
    address = registry(number, region)
    for request in repositories():
        name = request.parameters["repositoryName"]
        if account.find(Request("ecr", "DescribeRepositories", {"repositoryNames": [name]})) is None:
            say(f"creating the repository {name}")
            send([request], account)
    _log_in(address, account)
    for command in docker_commands(address, tag, str(context)):
        say(" ".join(command))
        _docker(command)
    for name in IMAGES:
        _check_manifest(name, tag, account)
    return {name: f"{address}/{name}:{tag}" for name in IMAGES}


def check_context(context: Path) -> None:
    """Refuse a folder without the images' files."""
    for file in IMAGES.values():
        if not (context / file).is_file():
            raise UserError(f"There is no {context / file}; --context must name the folder of {BASE_NAME}'s source.")


def _log_in(address: str, account: Account) -> None:
    data = account.call(Request("ecr", "GetAuthorizationToken", {}))["authorizationData"][0]
    user, _, password = base64.b64decode(data["authorizationToken"]).decode().partition(":")
    _docker(["docker", "login", "--username", user, "--password-stdin", address], password)


def _docker(command: Sequence[str], text: str | None = None) -> None:
    try:
        subprocess.run(command, input=text, text=True, check=True, stdout=STANDARD_ERROR)
    except FileNotFoundError as error:
        raise UserError("docker is not installed; install it, or build the images where it is.") from error
    except subprocess.CalledProcessError as error:
        raise UserError(f"`{' '.join(command)}` ended with exit code {error.returncode}.") from error


def _check_manifest(name: str, tag: str, account: Account) -> None:
    request = Request("ecr", "DescribeImages", {"repositoryName": name, "imageIds": [{"imageTag": tag}]})
    found = account.call(request)["imageDetails"][0].get("imageManifestMediaType", DOCKER_MANIFEST)
    if found != DOCKER_MANIFEST:
        raise UserError(
            f"{name}:{tag} was pushed as {found}, which SageMaker refuses. Turn off docker's containerd image store, "
            "or push by `docker buildx build --output type=image,push=true,oci-mediatypes=false`."
        )
