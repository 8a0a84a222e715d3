"""Jobs and endpoints on SageMaker: create, watch, read logs, delete. `lstm-fcn sagemaker` calls these functions.

    from lstm_fcn.client.sagemaker import jobs
    from lstm_fcn.client.sagemaker.training import Training

    job = jobs.train(Training(image=..., role=..., training="s3://...", output="s3://..."))
    print(jobs.wait(job.name).artifact)

Each function raises `UserError` if AWS refuses a request, and uses the default account without `account`.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from lstm_fcn.client.sagemaker.account import Account, DeniedError, NotFoundError, about, send
from lstm_fcn.client.sagemaker.batch import Batch, transform_job
from lstm_fcn.client.sagemaker.checks import check
from lstm_fcn.client.sagemaker.endpoint import Endpoint, endpoint
from lstm_fcn.client.sagemaker.request import MAX_TUNING_NAME, Request, unique_name
from lstm_fcn.client.sagemaker.training import Search, Training, training_job, tuning_job
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.hyperparameters import parse_hyperparameters
from lstm_fcn.container.metrics import EpochLine

POLL_SECONDS = 10.0
LATE_SECONDS = 120  # log lines may arrive this much later than younger ones


@dataclass(frozen=True)
class Kind:
    """A kind of job, or endpoints; `noun` is SageMaker's word for it."""

    label: str
    noun: str
    log_group: str
    finished: tuple[str, ...] = ("Completed", "Failed", "Stopped")


TRAINING = Kind("training", "TrainingJob", "/aws/sagemaker/TrainingJobs")
TUNING = Kind("tuning", "HyperParameterTuningJob", "")
TRANSFORM = Kind("transform", "TransformJob", "/aws/sagemaker/TransformJobs")
ENDPOINT = Kind("endpoint", "Endpoint", "/aws/sagemaker/Endpoints/{name}", ("InService", "Failed", "OutOfService"))
KINDS = {kind.label: kind for kind in (TRAINING, TUNING, TRANSFORM, ENDPOINT)}


@dataclass(frozen=True)
class Created:
    """A job or endpoint that was created: `kind` is a key of `KINDS`."""

    kind: str
    name: str
    arn: str


@dataclass(frozen=True)
class State:
    """Status of a job or an endpoint.

    artifact: S3 address of a training job's model, or folder of a transform job's output.
    best: best training job of a tuning job.
    done, total: epochs of a training job, as far as its log has been read, or training jobs of a tuning job.
    billable: billed seconds.
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
    created: datetime | None = None

    @property
    def succeeded(self) -> bool:
        """The job is complete, or the endpoint in service."""
        return self.status in ("Completed", "InService")


# Create


def train(job: Training, name: str = "", account: Account | None = None) -> Created:
    """Start a training job."""
    name = name or unique_name()
    return create(TRAINING, name, [training_job(name, job)], account)


def tune(job: Training, search: Search, name: str = "", account: Account | None = None) -> Created:
    """Start a tuning job; `job` describes its training jobs."""
    name = name or unique_name(limit=MAX_TUNING_NAME)
    return create(TUNING, name, [tuning_job(name, job, search)], account)


def transform(batch: Batch, name: str = "", account: Account | None = None) -> Created:
    """Start a batch transform job; a new model gets the name of the job."""
    name = name or unique_name()
    return create(TRANSFORM, name, transform_job(name, batch), account)


def deploy(settings: Endpoint, name: str = "", account: Account | None = None) -> Created:
    """Create a model, an endpoint configuration and an endpoint; with scaling, wait until it is in service."""
    name = name or unique_name()
    return create(ENDPOINT, name, endpoint(name, settings), account)


def create(kind: Kind, name: str, requests: Sequence[Request], account: Account | None = None) -> Created:
    """Send the requests for a new job or endpoint; those for scaling follow once the endpoint is in service."""
    account = account or Account()
    scaling = [request for request in requests if request.service == "application-autoscaling"]
    check(scaling)
    reply = send(requests[: len(requests) - len(scaling)], account)[-1]
    if scaling:
        state = wait(name, kind, account)
        if not state.succeeded:
            raise UserError(f"The endpoint {name} is {state.status} and not scaled: {state.reason}")
        send(scaling, account)
    return Created(kind.label, name, reply[f"{kind.noun}Arn"])


def artifact_of(name: str, account: Account | None = None) -> str:
    """S3 address of the model of a finished training job.

    Raises:
        UserError: the job does not exist or has no model.
    """
    state = status(name, TRAINING, account)
    if not state.finished or state.status == "Failed" or not state.artifact:
        raise UserError(f"The training job {name} is {state.status} and has no model; wait for it, or use another job.")
    return state.artifact


# Watch


def status(name: str, kind: Kind | None = None, account: Account | None = None) -> State:
    """Status of a job or endpoint; without a kind, the first of `KINDS` with this name.

    Raises:
        NotFoundError: it does not exist.
    """
    account = account or Account()
    for candidate in [kind] if kind else KINDS.values():
        if candidate is TUNING and len(name) > MAX_TUNING_NAME:  # SageMaker would refuse to look for it
            continue
        reply = account.find(about(candidate.noun, name))
        if reply is not None:
            return _state(candidate, reply)
    what = f"{kind.label} job" if kind and kind is not ENDPOINT else "endpoint" if kind else "job or endpoint"
    raise NotFoundError(f"There is no {what} {name} in this account and region; see `lstm-fcn sagemaker list`.")


def _state(kind: Kind, reply: dict[str, Any]) -> State:
    """The state from the response to Describe, or from an entry of the response to List."""
    word = reply[f"{kind.noun}Status"]
    steps = reply.get("SecondaryStatusTransitions") or [{}]
    limits = reply.get("HyperParameterTuningJobConfig", {}).get("ResourceLimits", {})
    counters = reply.get("TrainingJobStatusCounters", {})
    counts = ", ".join(f"{number} {name}" for name, number in counters.items() if number)
    best = reply.get("BestTrainingJob", {})
    measured = [best.get("FinalHyperParameterTuningJobObjectiveMetric"), *reply.get("FinalMetricDataList", [])]
    return State(
        kind=kind.label,
        name=reply[f"{kind.noun}Name"],
        arn=reply[f"{kind.noun}Arn"],
        status=word,
        finished=word in kind.finished,
        detail=counts or f"{reply.get('SecondaryStatus', '')}: {steps[-1].get('StatusMessage', '')}".strip(": "),
        reason=reply.get("FailureReason", ""),
        metrics={item["MetricName"]: item["Value"] for item in measured if item},
        artifact=reply.get("ModelArtifacts", {}).get("S3ModelArtifacts", "")
        or reply.get("TransformOutput", {}).get("S3OutputPath", ""),
        best=best.get("TrainingJobName", ""),
        hyperparameters=reply.get("HyperParameters") or best.get("TunedHyperParameters", {}),
        done=sum(counters.get(name, 0) for name in ("Completed", "NonRetryableError", "Stopped")),
        total=limits.get("MaxNumberOfTrainingJobs", 0),
        billable=reply.get("BillableTimeInSeconds"),
        created=reply.get("CreationTime"),
    )


def watch(
    name: str, kind: Kind | None = None, account: Account | None = None, pause: float | None = None
) -> Iterator[State]:
    """Yield the state again and again until the job has ended or the endpoint is in service.

    pause: seconds between two requests; default: `POLL_SECONDS`.
    """
    account = account or Account()
    state = status(name, kind, account)
    log = Log(state, account)
    done, total = 0, 0
    while True:
        if state.kind == TRAINING.label:
            with contextlib.suppress(UserError):  # without access to the log, only the number of epochs is missing
                done, total = _epochs(log.read(), state) or (done, total)
            state = replace(state, done=done, total=total)
        yield state
        if state.finished:
            return
        time.sleep(POLL_SECONDS if pause is None else pause)
        state = status(name, KINDS[state.kind], account)


def _epochs(lines: Sequence[str], state: State) -> tuple[int, int] | None:
    """Completed epochs and all epochs, over all rounds; None if no line reports an epoch."""
    for line in reversed(lines):
        if found := EpochLine.parse(line):
            rounds = 1 + parse_hyperparameters(state.hyperparameters).fine_tune_rounds
            return found.round * found.epochs + found.epoch, max(rounds, found.round + 1) * found.epochs
    return None


def wait(name: str, kind: Kind | None = None, account: Account | None = None, pause: float | None = None) -> State:
    """Wait as `watch` does, and return the last state."""
    *_, last = watch(name, kind, account, pause)
    return last


def listing(kinds: Sequence[Kind] = (), limit: int = 20, account: Account | None = None) -> list[State]:
    """The newest jobs and endpoints, newest first: at most `limit` of each kind."""
    account = account or Account()
    found = []
    for kind in kinds or KINDS.values():
        parameters = {"SortBy": "CreationTime", "SortOrder": "Descending", "MaxResults": limit}
        reply = account.call(Request("sagemaker", f"List{kind.noun}s", parameters))
        found += [_state(kind, item) for item in reply["Endpoints" if kind is ENDPOINT else f"{kind.noun}Summaries"]]
    return sorted(found, key=lambda state: state.created.timestamp() if state.created else 0.0, reverse=True)


# Logs


class Log:
    """The log of a job or endpoint; each `read` returns the lines since the previous one."""

    def __init__(self, state: State, account: Account) -> None:
        kind = KINDS[state.kind]
        self._account = account
        self._group = kind.log_group.format(name=state.name)
        self._prefix = "" if kind is ENDPOINT else f"{state.name}/"
        self._seen: set[str] = set()
        self._start = 0  # milliseconds

    def read(self) -> list[str]:
        """The new lines. Lines of all machines but the first start with the name of the machine."""
        parameters: dict[str, Any] = {"logGroupName": self._group, "startTime": self._start}
        if self._prefix:
            parameters["logStreamNamePrefix"] = self._prefix
        lines: list[str] = []
        latest = self._start
        while True:
            reply = self._account.find(Request("logs", "FilterLogEvents", parameters))
            if reply is None:  # the log does not exist yet
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
    """Yield the lines of a job's or endpoint's log; with `follow`, also new lines until the job ends.

    Raises:
        UserError: tuning jobs have no log.
    """
    account = account or Account()
    state = status(name, kind, account)
    if state.kind == TUNING.label:
        raise UserError(f"Tuning jobs have no log; read the log of a training job, such as {state.best or 'the best'}.")
    log = Log(state, account)
    yield from log.read()
    while follow and (state.kind == ENDPOINT.label or not state.finished):
        time.sleep(POLL_SECONDS)
        state = status(name, KINDS[state.kind], account)
        yield from log.read()


# Delete


def delete(name: str, account: Account | None = None) -> list[Request]:
    """Delete an endpoint, its configuration and its models; returns the requests sent."""
    account = account or Account()
    requests = removal(name, account)
    for request in requests:
        account.call(request)
    return requests


def removal(name: str, account: Account | None = None) -> list[Request]:
    """The requests that `delete` sends. Remains of an endpoint, and a batch job's model, are found by name.

    Raises:
        NotFoundError: nothing has this name.
    """
    account = account or Account()
    requests: list[Request] = []
    found = account.find(about("Endpoint", name))
    config_name = found["EndpointConfigName"] if found else name
    config = account.find(about("EndpointConfig", config_name))
    variants = config["ProductionVariants"] if config else [{"ModelName": name}]
    if found and config:
        requests += _end_scaling([f"endpoint/{name}/variant/{item['VariantName']}" for item in variants], account)
    if found:
        requests.append(about("Endpoint", name, "Delete"))
    if config:
        requests.append(about("EndpointConfig", config_name, "Delete"))
    models = dict.fromkeys(item["ModelName"] for item in variants if "ModelName" in item)
    requests += [about("Model", model, "Delete") for model in models if account.find(about("Model", model)) is not None]
    if not requests:
        raise NotFoundError(f"There is no endpoint, endpoint configuration or model {name} in this account and region.")
    return requests


def _end_scaling(resources: Sequence[str], account: Account) -> list[Request]:
    """The requests that end automatic scaling."""
    wanted = {"ServiceNamespace": "sagemaker", "ResourceIds": resources}
    try:
        reply = account.call(Request("application-autoscaling", "DescribeScalableTargets", wanted))
    except DeniedError:  # who may not read it has not set it up
        return []
    keys = ("ServiceNamespace", "ResourceId", "ScalableDimension")
    return [
        Request("application-autoscaling", "DeregisterScalableTarget", {key: target[key] for key in keys})
        for target in reply["ScalableTargets"]
    ]
