"""`lstm-fcn sagemaker`: train, tune, deploy and predict on Amazon SageMaker."""

import json
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import click
from tqdm import tqdm

from lstm_fcn.client.sagemaker import images, jobs, packages
from lstm_fcn.client.sagemaker.account import Account, send
from lstm_fcn.client.sagemaker.batch import Batch, transform_job
from lstm_fcn.client.sagemaker.checks import check
from lstm_fcn.client.sagemaker.endpoint import Endpoint, endpoint
from lstm_fcn.client.sagemaker.jobs import Kind, State
from lstm_fcn.client.sagemaker.options import CAPTURE, DRY_RUN, FROM_JOB, KIND, NAMING, RANGE, settings_options
from lstm_fcn.client.sagemaker.packages import Registration
from lstm_fcn.client.sagemaker.request import MAX_NAME, MAX_TUNING_NAME, Request, unique_name
from lstm_fcn.client.sagemaker.specification import Specification, publication
from lstm_fcn.client.sagemaker.training import Search, Training, searched_ranges, training_job, tuning_job
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.metrics import METRICS_BY_NAME

Settings = TypeVar("Settings")
METRICS_SECONDS = 60.0  # between two lines of metrics if standard error is not a terminal


@click.group()
def sagemaker() -> None:
    """Train, tune, deploy and predict on Amazon SageMaker.

    Credentials and region are read as by the AWS command line. With --dry-run, a command prints its requests as JSON
    and creates nothing.
    """


# Create and register


@sagemaker.command()
@settings_options(Training, "model")
@FROM_JOB
@NAMING
def train(from_job: str, **given: Any) -> None:
    """Start a training job. --from-job continues training from the model of an earlier job."""
    name = _name(given)
    given["model"] = from_job and jobs.artifact_of(from_job)
    job = _settings(Training, given)
    request = training_job(name, job)
    plan = [f"Training job {name}", *_training_plan(job, request)]
    _run(jobs.TRAINING, name, plan, [request], given["dry_run"])


@sagemaker.command()
@settings_options(Training, "model", "keep_alive")
@FROM_JOB
@settings_options(Search, "ranges")
@RANGE
@NAMING
def tune(from_job: str, **given: Any) -> None:
    """Search for good hyperparameters with many training jobs."""
    name = _name(given, MAX_TUNING_NAME)
    given["model"] = from_job and jobs.artifact_of(from_job)
    job, search = _settings(Training, given), _settings(Search, given)
    request = tuning_job(name, job, search)
    number = request.parameters["HyperParameterTuningJobConfig"]["ResourceLimits"]["MaxNumberOfTrainingJobs"]
    plan = [
        f"Tuning job {name}: {search.strategy}, {METRICS_BY_NAME[search.objective].objective.lower()} "
        f"{search.objective}",
        f"  up to {number} training jobs, {min(number, search.parallel)} at a time, each of them:",
        *(f"  {line}" for line in _training_plan(job, request)),
        *(f"  tuned: {item.name}={item}" for item in searched_ranges(job, search)),
    ]
    _run(jobs.TUNING, name, plan, [request], given["dry_run"])


@sagemaker.command()
@settings_options(Endpoint, "environment", "capture_percent", "capture_output")
@FROM_JOB
@CAPTURE
@NAMING
def deploy(data_capture: tuple[int, str] | None, **given: Any) -> None:
    """Create an endpoint for a model or a model package: on instances, serverless or asynchronous."""
    name = _name(given)
    _select_model(given)
    given["capture_percent"], given["capture_output"] = data_capture or (0, "")
    settings = _settings(Endpoint, given)
    origin = [f"  model package: {settings.package}"] if settings.package else []
    plan = [f"Endpoint {name}", *origin, *_endpoint_plan(name, settings)]
    _run(jobs.ENDPOINT, name, plan, endpoint(name, settings), given["dry_run"])


@sagemaker.command()
@settings_options(Batch, "environment")
@FROM_JOB
@NAMING
def transform(**given: Any) -> None:
    """Predict whole folders of files in S3."""
    name = _name(given)
    _select_model(given)
    batch = _settings(Batch, given)
    plan = [
        f"Transform job {name}: {batch.data}",
        f"  {batch.instance_count} x {batch.instance_type}, until all files are predicted",
        f"  predictions: {batch.output}",
    ]
    if not batch.model:
        plan.append(f"  the model {name} is kept, at no cost; to delete it: lstm-fcn sagemaker delete {name}")
    _run(jobs.TRANSFORM, name, plan, transform_job(name, batch), given["dry_run"])


@sagemaker.command()
@settings_options(Registration)
@FROM_JOB
@DRY_RUN
def register(dry_run: bool, **given: Any) -> None:
    """Register a model in the Model Registry: a new version in a model package group."""
    _select_model(given)
    settings = _settings(Registration, given)
    account = Account()
    requests = packages.registration(settings, account)
    parameters = requests[-1].parameters
    new = any(request.operation == "CreateModelPackageGroup" for request in requests)
    plan = [
        f"Model package in the {'new ' if new else ''}group {settings.group}",
        f"  model: {settings.model_data}",
        f"  metrics: {parameters['ModelMetrics']['ModelQuality']['Statistics']['S3Uri']}",
        f"  status: {parameters['ModelApprovalStatus']}",
    ]
    _announce(plan, requests, dry_run)
    if not dry_run:
        arn = send(requests, account)[-1]["ModelPackageArn"]
        step = "deploy --from-package" if settings.approved else "approve"
        click.echo(f"Next: lstm-fcn sagemaker {step} {packages.short_name(arn)}", err=True)
        click.echo(arn)


@sagemaker.command()
@click.argument("package")
@click.option("--reject", is_flag=True, help="reject it instead")
@click.option("--note", default="", metavar="TEXT", help="reason, kept with the model package")
@DRY_RUN
def approve(package: str, reject: bool, note: str, dry_run: bool) -> None:
    """Approve or reject a model package: its ARN, GROUP/VERSION, or GROUP for the latest version."""
    account = Account()
    request = packages.decision(package, reject=reject, note=note, account=account)
    arn = request.parameters["ModelPackageArn"]
    plan = [f"Model package {packages.short_name(arn)}: {request.parameters['ModelApprovalStatus']}"]
    _announce(plan, [request], dry_run)
    if not dry_run:
        send([request], account)
        click.echo(arn)


def _name(given: dict[str, Any], limit: int = MAX_NAME) -> str:
    return given["name"] or unique_name(given["base_name"], limit)


def _settings(settings: type[Settings], given: dict[str, Any]) -> Settings:
    """The dataclass of settings with the options that are its fields and were not left out."""
    names = [item.name for item in fields(settings)]  # type: ignore[arg-type]
    return settings(**{name: given[name] for name in names if given.get(name) is not None})


def _select_model(given: dict[str, Any]) -> None:
    """Replace a training job among a command's options by the address of its model, and a model package by its ARN."""
    options = {"from_job": "--from-job NAME", "model_data": "--model-data S3"}
    options |= {"package": "--from-package PACKAGE", "model": "--model NAME"}
    ways = {option: given[name] for name, option in options.items() if name in given}
    if sum(bool(way) for way in ways.values()) != 1:
        raise UserError(f"Select the model with one of {', '.join(ways)}.")
    if given["from_job"]:
        given["model_data"] = jobs.artifact_of(given["from_job"])
    if given.get("package"):
        given["package"] = packages.approved(given["package"])


def _run(kind: Kind, name: str, plan: Iterable[str], requests: Sequence[Request], dry_run: bool) -> None:
    """Announce what will be created, then create it and print its name, or print the requests for --dry-run.

    Only the name or the requests go to standard output.
    """
    _announce(plan, requests, dry_run)
    if not dry_run:
        click.echo(jobs.create(kind, name, requests).arn, err=True)
        click.echo(f"To wait for it: lstm-fcn sagemaker wait {name}", err=True)
        click.echo(name)


def _announce(plan: Iterable[str], requests: Sequence[Request], dry_run: bool) -> None:
    if dry_run:
        check(requests)
    for line in plan:
        click.echo(line, err=True)
    if dry_run:
        listed = [{"action": item.action, "parameters": item.parameters} for item in requests]
        click.echo(json.dumps(listed, indent=2))


def _training_plan(job: Training, request: Request) -> list[str]:
    where = "spot instances" if job.spot else "on-demand instances"
    limit = f"at most {_duration(job.max_runtime)}" + (f" within {_duration(job.time_limit)}" if job.spot else "")
    checkpoints = request.parameters.get("CheckpointConfig", {}).get("S3Uri")
    lines = {
        f"{job.instance_count} x {job.instance_type}, {where}, {limit}": True,
        f"checkpoints: {checkpoints}": checkpoints,
        "no checkpoints: an interrupted job starts over": job.spot and not checkpoints,
        f"the machines are kept, and billed, for up to {_duration(job.keep_alive)} after the job": job.keep_alive,
        f"training data: {job.training}" + (", a part for each machine" if job.sharded else ""): True,
        f"validation data: {job.validation}": job.validation,
        f"continues training from {job.model}": job.model,
        f"set: {', '.join(f'{key}={value}' for key, value in job.hyperparameters.items()) or 'nothing'}": True,
        f"models: {job.output}": True,
    }
    return [f"  {line}" for line, applies in lines.items() if applies]


def _endpoint_plan(name: str, settings: Endpoint) -> list[str]:
    delete_command = f"lstm-fcn sagemaker delete {name}"
    if settings.serverless:
        return [
            f"  serverless: {settings.memory} MB, {settings.concurrency} simultaneous requests; billed by request",
            f"  to delete it: {delete_command}",
        ]
    count = f"{settings.instance_count}" + (f" to {settings.scale_to}" if settings.scale_to else "")
    lines = [
        f"  {count} x {settings.instance_type}" + (", asynchronous" if settings.async_output else ""),
        f"  billed, used or not, until it is deleted: {delete_command}",
    ]
    if settings.capture_percent:
        lines.append(f"  keeps {settings.capture_percent} % of requests and responses in {settings.capture_output}")
    return lines


def _duration(seconds: int) -> str:
    return str(timedelta(seconds=seconds))


# Watch


@sagemaker.command()
@click.argument("name")
@KIND
def status(name: str, kind: Kind | None) -> None:
    """Show the status of a job or endpoint."""
    _show(jobs.status(name, kind))


@sagemaker.command()
@click.argument("name")
@KIND
def wait(name: str, kind: Kind | None) -> int:
    """Wait until a job has ended or an endpoint is in service; exit code 1 if it failed or was stopped."""
    try:
        state = show_progress(jobs.watch(name, kind))
    except KeyboardInterrupt:
        click.echo(f"No longer waiting; {name} keeps running.", err=True)
        return 130
    _show(state)
    return 0 if state.succeeded else 1


@sagemaker.command()
@click.argument("name")
@KIND
@click.option("--follow", is_flag=True, help="print new lines until the job ends")
def logs(name: str, kind: Kind | None, follow: bool) -> None:
    """Print the log of a job or endpoint."""
    for line in jobs.logs(name, kind, follow):
        click.echo(line)


@sagemaker.command("list")
@KIND
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True, help="of each kind")
def list_(kind: Kind | None, limit: int) -> None:
    """List jobs and endpoints, newest first."""
    for state in jobs.listing([kind] if kind else (), limit):
        click.echo(f"{state.created:%Y-%m-%d %H:%M}  {state.kind:<10}{state.status:<12}{state.name}")


def show_progress(states: Iterable[State]) -> State:
    """Show states as they come and return the last: as a bar on a terminal, else a line whenever one changes."""
    terminal = sys.stderr.isatty()
    shown, printed = "", 0.0
    with tqdm(bar_format="{desc} {elapsed}", disable=not terminal) as bar:
        for state in states:
            text = f"{state.status} {state.detail}".strip()
            if terminal:
                if state.total:
                    bar.bar_format, bar.total, bar.n = None, state.total, state.done
                bar.set_description_str(f"{state.name}: {text}{_metrics(state)}")
            elif text != shown or (state.metrics and time.monotonic() > printed + METRICS_SECONDS):
                done = f", {state.done} of {state.total}" if state.total else ""
                click.echo(f"{state.name}: {text}{done}{_metrics(state)}", err=True)
                shown, printed = text, time.monotonic()
    return state


def _metrics(state: State) -> str:
    return "".join(f", {name}: {value:.6g}" for name, value in state.metrics.items())


def _show(state: State) -> None:
    rows = {
        state.kind: state.name,
        "status": f"{state.status} {state.detail}".strip(),
        "reason": state.reason,
        "progress": f"{state.done} of {state.total}" if state.total else "",
        "best job": state.best,
        "metrics": _metrics(state).removeprefix(", "),
        "hyperparameters": ", ".join(f"{key}={value}" for key, value in state.hyperparameters.items()),
        "result": state.artifact,
        "billed time": "" if state.billable is None else _duration(state.billable),
        "ARN": state.arn,
    }
    for title, text in rows.items():
        if text:
            click.echo(f"{title + ':':<17}{text}")


# Delete, images, specification


@sagemaker.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="do not ask for confirmation")
def delete(name: str, yes: bool) -> None:
    """Delete an endpoint with its configuration and models, or the model of a batch job."""
    for request in jobs.removal(name):
        click.echo(f"{request.operation} {', '.join(str(value) for value in request.parameters.values())}", err=True)
    if not yes:
        click.confirm("Delete?", abort=True, err=True)
    jobs.delete(name)


@sagemaker.command()
@click.option("--image-tag", default="latest", show_default=True)
@click.option("--context", type=click.Path(path_type=Path), default=Path(), help="source folder [current folder]")
@click.option("--run", "execute", is_flag=True, help="run the commands instead of printing them")
def push(image_tag: str, context: Path, execute: bool) -> None:
    """Build both images and push them to the account's registry."""
    account = Account()
    if execute:
        for address in images.push(image_tag, context, account, lambda line: click.echo(line, err=True)).values():
            click.echo(address)
        return
    images.check_context(context)
    number, region = account.identity()
    address = images.registry(number, region)
    for name in images.IMAGES:
        click.echo(f"aws ecr create-repository --region {region} --repository-name {name}")
    click.echo(f"aws ecr get-login-password --region {region} | docker login --username AWS --password-stdin {address}")
    for command in images.docker_commands(address, image_tag, str(context)):
        click.echo(" ".join(command))


@sagemaker.command("specification")
@settings_options(Specification)
@click.option("--write", type=click.Path(dir_okay=False, path_type=Path), help="file [standard output]")
def specification_command(write: Path | None, **given: Any) -> None:
    """Print the requests CreateAlgorithm and CreateModelPackage as JSON."""
    requests = publication(_settings(Specification, given))
    check(requests)
    text = json.dumps({item.operation: item.parameters for item in requests}, indent=2)
    if write:
        write.write_text(text + "\n")
    else:
        click.echo(text)
