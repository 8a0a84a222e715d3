"""`lstm-fcn sagemaker`: train, tune, deploy and predict on Amazon SageMaker."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
from tqdm import tqdm

from lstm_fcn.client.sagemaker import jobs, requests, specification
from lstm_fcn.client.sagemaker.checks import check
from lstm_fcn.client.sagemaker.jobs import KINDS, Account, Created, State
from lstm_fcn.client.sagemaker.requests import Batch, Endpoint, Range, Request, Search, Training
from lstm_fcn.container.channels import CHANNELS
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.media_types import CSV, REQUEST_TYPES, RESPONSE_TYPES, Precision

METRICS_SECONDS = 60.0  # between two lines of metrics where nobody watches

Command = TypeVar("Command", bound=Callable[..., object])


@click.group()
def sagemaker() -> None:
    """Train, tune, deploy and predict on Amazon SageMaker.

    Credentials and region are those of the AWS command line. With --dry-run, a command prints its requests as JSON and
    creates nothing.
    """


# Options that several commands have


def options(*decorators: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """Several options as one decorator, listed in this order by `--help`."""

    def decorate(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


def pairs(_: click.Context, __: click.Parameter, values: Iterable[str]) -> dict[str, str]:
    """`name=value`, as a dictionary."""
    found = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UserError(f"{text!r} must be NAME=VALUE.")
        found[name.strip()] = value.strip()
    return found


def ranges(_: click.Context, __: click.Parameter, values: Iterable[str]) -> list[Range]:
    return [requests.parse_range(text) for text in values]


S3 = "S3"  # what stands for an address in the help
NAMING = options(
    click.option("--name", default="", help="name [base name and time]"),
    click.option("--base-name", default=requests.BASE_NAME, show_default=True),
    click.option("--dry-run", is_flag=True, help="print the requests and create nothing"),
)
COMMON = options(
    click.option("--tag", "tags", multiple=True, metavar="KEY=VALUE", callback=pairs, help="such as project=x"),
    click.option("--subnet", "subnets", multiple=True, metavar="ID", help="of a VPC to run in"),
    click.option("--security-group", "security_groups", multiple=True, metavar="ID"),
    click.option("--encryption-key", "key", default="", metavar="KEY", help="of KMS, for disks and results"),
    NAMING,
)
TRAINING = options(
    click.option("--image", required=True, metavar="ADDRESS", help="of the training image in the registry"),
    click.option("--role", required=True, metavar="ARN", help="of the role that SageMaker takes on"),
    click.option("--training", required=True, metavar=S3, help="folder of the training data"),
    click.option("--validation", default="", metavar=S3, help="folder of the validation data"),
    click.option("--output", required=True, metavar=S3, help="folder for models"),
    click.option(
        "--set", "hyperparameters", multiple=True, metavar="NAME=VALUE", callback=pairs, help="a hyperparameter"
    ),
    click.option("--from-job", default="", metavar="NAME", help="go on from the model of this training job"),
    click.option("--instance-type", default=Training.instance_type, show_default=True),
    click.option("--instance-count", type=click.IntRange(1), default=1, show_default=True),
    click.option("--volume-size", "volume", type=click.IntRange(1), default=Training.volume, help="disk, GB [30]"),
    click.option(
        "--max-runtime", type=click.IntRange(1), default=Training.max_runtime, metavar="SECONDS", help="[a day]"
    ),
    click.option("--spot", is_flag=True, help="spare instances: cheaper, may be interrupted"),
    click.option("--max-wait", type=click.IntRange(1), metavar="SECONDS", help="with waiting for them [twice as long]"),
    click.option("--input-mode", type=click.Choice(CHANNELS[0].input_modes), default="File", show_default=True),
    click.option("--sharded", is_flag=True, help="each machine gets a part of the training files"),
)
SERVING = options(
    click.option("--image", default="", metavar="ADDRESS", help="of the serving image in the registry"),
    click.option("--role", default="", metavar="ARN", help="of the role that SageMaker takes on"),
    click.option("--from-job", default="", metavar="NAME", help="the model of this training job"),
    click.option("--model-data", default="", metavar=S3, help="or: address of a model.tar.gz"),
    click.option("--precision", type=click.Choice(get_args(Precision)), help="of predictions [float32]"),
    click.option("--outputs", default="", metavar="NAMES", help="such as predicted_label,probabilities"),
    click.option("--instance-type", default=Endpoint.instance_type, show_default=True),
    click.option("--instance-count", type=click.IntRange(1), default=1, show_default=True),
)
KIND = click.option("--kind", type=click.Choice(list(KINDS)), help="where several have this name")


# Creating


@sagemaker.command()
@TRAINING
@click.option("--keep-alive", type=click.IntRange(0), default=0, metavar="SECONDS", help="machines for the next job")
@COMMON
def train(name: str, base_name: str, dry_run: bool, from_job: str, **settings: Any) -> None:
    """Start a training job."""
    account = Account()
    job = Training(model=jobs.artifact_of(from_job, account) if from_job else "", **settings)
    name = name or requests.unique_name(base_name)
    request = requests.training_job(name, job)
    plan = [f"Training job {name}", *_training_lines(job, request)]
    run(plan, [request], dry_run, lambda: jobs.train(job, name, account))


@sagemaker.command()
@TRAINING
@click.option(
    "--strategy",
    type=click.Choice(["Bayesian", "Random", "Hyperband", "Grid"], case_sensitive=False),
    default=Search.strategy,
    show_default=True,
)
@click.option("--objective", type=click.Choice(list(requests.OBJECTIVES)), default=Search.objective, show_default=True)
@click.option(
    "--range",
    "searched",
    multiple=True,
    metavar="RANGE",
    callback=ranges,
    help=f"lr=0.0001:0.1:log, hidden-size=8,64,128, or a name alone [{', '.join(requests.SEARCHED)}]",
)
@click.option("--max-jobs", type=click.IntRange(1), default=Search.max_jobs, show_default=True)
@click.option("--parallel", type=click.IntRange(1), default=Search.parallel, show_default=True, help="jobs at a time")
@click.option("--early-stopping", is_flag=True, help="stop jobs that do not look promising")
@click.option("--warm-start", multiple=True, metavar="NAME", help="earlier tuning job to learn from")
@click.option(
    "--warm-start-type",
    type=click.Choice(["IdenticalDataAndAlgorithm", "TransferLearning"]),
    default=Search.warm_start_type,
    show_default=True,
)
@COMMON
def tune(name: str, base_name: str, dry_run: bool, from_job: str, **settings: Any) -> None:
    """Search for good hyperparameters with many training jobs."""
    account = Account()
    own = ("strategy", "objective", "max_jobs", "parallel", "early_stopping", "warm_start", "warm_start_type")
    search = Search(ranges=settings.pop("searched"), **{key: settings.pop(key) for key in own})
    job = Training(model=jobs.artifact_of(from_job, account) if from_job else "", **settings)
    name = name or requests.unique_name(base_name, jobs.LONGEST_TUNING_NAME)
    request = requests.tuning_job(name, job, search)
    number = requests.number_of_jobs(job, search)
    plan = [
        f"Tuning job {name}: {search.strategy}, {requests.OBJECTIVES[search.objective].lower()} {search.objective}",
        f"  up to {number} training jobs, {min(number, search.parallel)} at a time, each of them:",
        *(f"  {line}" for line in _training_lines(job, request)),
        *(f"  searched: {item}" for item in requests.searched_ranges(job, search)),
    ]
    run(plan, [request], dry_run, lambda: jobs.tune(job, search, name, account))


@sagemaker.command()
@SERVING
@click.option("--scale-to", type=click.IntRange(0), default=0, metavar="COUNT", help="most instances, as needed")
@click.option(
    "--scale-target", type=float, default=Endpoint.scale_target, show_default=True, help="requests/minute of each"
)
@click.option("--serverless", is_flag=True, help="no instances: costs by request")
@click.option("--memory", type=int, default=Endpoint.memory, show_default=True, help="MB, serverless")
@click.option("--concurrency", type=click.IntRange(1, 200), default=Endpoint.concurrency, show_default=True)
@click.option("--async", "async_output", default="", metavar=S3, help="asynchronous: folder for the answers")
@click.option("--async-concurrency", type=click.IntRange(1, 1000), help="requests of an instance at a time")
@click.option("--data-capture", type=(click.IntRange(1, 100), str), metavar=f"PERCENT {S3}", help="keep requests")
@COMMON
def deploy(
    name: str,
    base_name: str,
    dry_run: bool,
    precision: str | None,
    outputs: str,
    data_capture: tuple[int, str] | None,
    **settings: Any,
) -> None:
    """Create an endpoint for a model: on instances, serverless or asynchronous."""
    account = Account()
    percent, capture = data_capture or (0, "")
    settings["model_data"] = _model_data(settings, account)
    endpoint = Endpoint(
        capture_percent=percent,
        capture_output=capture,
        environment=requests.serving_environment(precision or "", outputs),
        **settings,
    )
    name = name or requests.unique_name(base_name)
    everything = [*requests.endpoint(name, endpoint), *requests.scaling(name, endpoint)]
    plan = [f"Endpoint {name}", *_endpoint_lines(name, endpoint)]
    run(plan, everything, dry_run, lambda: jobs.deploy(endpoint, name, account))


@sagemaker.command()
@SERVING
@click.option("--model", default="", metavar="NAME", help="or: a model that there is already")
@click.option("--data", required=True, metavar=S3, help="folder of the series")
@click.option("--output", required=True, metavar=S3, help="folder for the predictions")
@click.option("--content-type", default=CSV, show_default=True, help=", ".join(REQUEST_TYPES))
@click.option("--accept", default=CSV, show_default=True, help=", ".join(RESPONSE_TYPES))
@click.option("--split", type=click.Choice(["Line", "None"]), default="Line", help="None: whole files [Line]")
@click.option(
    "--batch-strategy",
    "strategy",
    type=click.Choice(["MultiRecord", "SingleRecord"]),
    default=Batch.strategy,
    show_default=True,
)
@click.option("--assemble", type=click.Choice(["Line", "None"]), default=None, help="[None; Line with --join]")
@click.option("--join", is_flag=True, help="put the predictions behind the series")
@click.option("--input-filter", default="", metavar="JSONPATH", help="$[1:] leaves out the first column")
@click.option("--output-filter", default="", metavar="JSONPATH", help="$[0,-1] keeps the first and the last column")
@click.option("--max-payload", type=click.IntRange(0, 100), help="MB of a request [as the container says]")
@click.option("--max-concurrent", type=click.IntRange(1), help="requests at a time [as the container says]")
@COMMON
def transform(
    name: str,
    base_name: str,
    dry_run: bool,
    precision: str | None,
    outputs: str,
    assemble: str | None,
    **settings: Any,
) -> None:
    """Predict whole folders of files in S3."""
    account = Account()
    settings["model_data"] = _model_data(settings, account)
    environment = requests.serving_environment(precision or "", outputs)
    batch = Batch(assemble=assemble or "", environment=environment, **settings)
    name = name or requests.unique_name(base_name)
    everything = requests.transform_job(name, batch)
    plan = [
        f"Transform job {name}: {batch.data}",
        f"  {batch.instance_count} x {batch.instance_type}, until all files are predicted",
        f"  predictions: {batch.output}",
    ]
    if not batch.model:
        plan.append(f"  the model {name} stays, at no cost, until lstm-fcn sagemaker delete {name}")
    run(plan, everything, dry_run, lambda: jobs.transform(batch, name, account))


def _model_data(settings: dict[str, Any], account: Account) -> str:
    """Address of the model that a command is given; nothing if it names one that SageMaker has already."""
    ways = {"--from-job NAME": settings.pop("from_job"), "--model-data S3": settings["model_data"]}
    if "model" in settings:
        ways["--model NAME"] = settings["model"]
    if sum(bool(way) for way in ways.values()) != 1:
        raise UserError(f"Which model? Give one of {', '.join(ways)}.")
    if settings.get("model"):
        return ""
    for option in ("image", "role"):
        if not settings[option]:
            raise UserError(f"--{option} is missing.")
    from_job = ways["--from-job NAME"]
    return jobs.artifact_of(from_job, account) if from_job else str(settings["model_data"])


def run(plan: Iterable[str], everything: Sequence[Request], dry_run: bool, create: Callable[[], Created]) -> None:
    """Say what will be done; then print the requests, or send them and print the name of what was created.

    The name or the requests go to standard output, all else does not.
    """
    check(everything)
    for line in plan:
        click.echo(line, err=True)
    if dry_run:
        listed = [{"action": item.action, "parameters": item.parameters} for item in everything]
        click.echo(json.dumps(listed, indent=2))
        return
    created = create()
    click.echo(created.arn, err=True)
    click.echo(f"To watch it: lstm-fcn sagemaker wait {created.name}", err=True)
    click.echo(created.name)


def _training_lines(job: Training, request: Request) -> list[str]:
    where = "spot instances" if job.spot else "on demand"
    limit = f"at most {_duration(job.max_runtime)}"
    if job.spot:
        limit += f" within {_duration(job.longest)}"
    lines = [f"  {job.instance_count} x {job.instance_type}, {where}, {limit}"]
    if job.spot and "CheckpointConfig" in request.parameters:
        lines.append(f"  checkpoints: {request.parameters['CheckpointConfig']['S3Uri']}")
    elif job.spot:
        lines.append("  without checkpoints: an interrupted job starts anew")
    if job.keep_alive:
        lines.append(f"  the machines stay, and cost, up to {_duration(job.keep_alive)} after the end")
    lines.append(f"  training data: {job.training}" + (", a part for each machine" if job.sharded else ""))
    lines += [f"  validation data: {job.validation}"] if job.validation else []
    lines += [f"  goes on from {job.model}"] if job.model else []
    lines.append(f"  set: {', '.join(f'{key}={value}' for key, value in job.hyperparameters.items()) or 'nothing'}")
    return [*lines, f"  models: {job.output}"]


def _endpoint_lines(name: str, endpoint: Endpoint) -> list[str]:
    removal = f"lstm-fcn sagemaker delete {name}"
    if endpoint.serverless:
        return [
            f"  serverless, {endpoint.memory} MB, up to {endpoint.concurrency} requests at a time; costs by request",
            f"  to delete it: {removal}",
        ]
    count = f"{endpoint.instance_count}" + (f" to {endpoint.scale_to}" if endpoint.scale_to else "")
    lines = [
        f"  {count} x {endpoint.instance_type}" + (", asynchronous" if endpoint.async_output else ""),
        f"  it costs, used or not, until it is deleted: {removal}",
    ]
    if endpoint.capture_percent:
        lines.append(f"  {endpoint.capture_percent} % of requests and answers are kept in {endpoint.capture_output}")
    return lines


def _duration(seconds: int) -> str:
    return str(timedelta(seconds=seconds))


# Watching


@sagemaker.command()
@click.argument("name")
@KIND
def status(name: str, kind: str | None) -> None:
    """Say how a job or endpoint goes on."""
    _show(jobs.status(name, KINDS[kind] if kind else None))


@sagemaker.command()
@click.argument("name")
@KIND
def wait(name: str, kind: str | None) -> int:
    """Wait until a job has ended or an endpoint is in service; exit code 1 if it does not end well."""
    try:
        state = show_progress(jobs.watch(name, KINDS[kind] if kind else None))
    except KeyboardInterrupt:
        click.echo(f"{name} goes on by itself.", err=True)
        return 130
    _show(state)
    return 0 if state.succeeded else 1


@sagemaker.command()
@click.argument("name")
@KIND
@click.option("--follow", is_flag=True, help="wait for more lines, until a job ends")
def logs(name: str, kind: str | None, follow: bool) -> None:
    """Print the log of a job or endpoint."""
    for line in jobs.logs(name, KINDS[kind] if kind else None, follow):
        click.echo(line)


@sagemaker.command("list")
@KIND
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True, help="of each kind")
def list_(kind: str | None, limit: int) -> None:
    """List jobs and endpoints, newest first."""
    for entry in jobs.listing([KINDS[kind]] if kind else (), limit):
        click.echo(f"{entry.created:%Y-%m-%d %H:%M}  {entry.kind:<10}{entry.status:<12}{entry.name}")


def show_progress(states: Iterable[State]) -> State:
    """Show states as they come, a bar where a person watches, else a line where something is new; returns the last."""
    watched = sys.stderr.isatty()
    shown, printed = "", 0.0
    with tqdm(bar_format="{desc} {elapsed}", disable=not watched) as bar:
        for state in states:
            text = " ".join(part for part in (state.status, state.detail) if part)
            metrics = "".join(f", {key}: {value:.6g}" for key, value in state.metrics.items())
            if watched:
                if state.total:
                    bar.bar_format, bar.total, bar.n = None, state.total, state.done
                bar.set_description_str(f"{state.name}: {text}{metrics}")
            elif text != shown or (metrics and time.monotonic() > printed + METRICS_SECONDS):
                done = f", {state.done} of {state.total}" if state.total else ""
                click.echo(f"{state.name}: {text}{done}{metrics}", err=True)
                shown, printed = text, time.monotonic()
    return state


def _show(state: State) -> None:
    """A state as lines."""
    rows = {
        state.kind: state.name,
        "status": " ".join(part for part in (state.status, state.detail) if part),
        "reason": state.reason,
        "progress": f"{state.done} of {state.total}" if state.total else "",
        "best job": state.best,
        "metrics": ", ".join(f"{key}: {value:.6g}" for key, value in state.metrics.items()),
        "hyperparameters": ", ".join(f"{key}={value}" for key, value in state.hyperparameters.items()),
        "result": state.artifact,
        "paid time": "" if state.billable is None else _duration(state.billable),
        "ARN": state.arn,
    }
    for title, text in rows.items():
        if text:
            click.echo(f"{title + ':':<17}{text}")


# Deleting, images, specification


@sagemaker.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="do not ask")
def delete(name: str, yes: bool) -> None:
    """Delete an endpoint with its configuration and models, or a model that a batch job has left."""
    account = Account()
    for request in jobs.removal(name, account):
        click.echo(f"{request.operation} {', '.join(str(value) for value in request.parameters.values())}", err=True)
    if not yes:
        click.confirm("Do this?", abort=True, err=True)
    jobs.delete(name, account)


@sagemaker.command()
@click.option("--image-tag", default="latest", show_default=True)
@click.option("--context", type=click.Path(path_type=Path), default=Path(), help="folder of the source [this one]")
@click.option("--run", "really", is_flag=True, help="do it; without, the commands are printed")
def push(image_tag: str, context: Path, really: bool) -> None:
    """Build both images and push them to the account's registry."""
    account = Account()
    if really:
        for address in jobs.push(image_tag, context, account, lambda line: click.echo(line, err=True)).values():
            click.echo(address)
        return
    jobs.check_context(context)
    number, region = account.identity()
    address = requests.registry(number, region)
    for repository in requests.repositories():
        name = repository.parameters["repositoryName"]
        click.echo(f"aws ecr create-repository --region {region} --repository-name {name}")
    click.echo(f"aws ecr get-login-password --region {region} | docker login --username AWS --password-stdin {address}")
    for command in requests.docker_commands(address, image_tag, str(context)):
        click.echo(" ".join(command))


@sagemaker.command("specification")
@click.option("--training-image", required=True, metavar="ADDRESS")
@click.option("--serving-image", required=True, metavar="ADDRESS")
@click.option("--model-data", default="", metavar=S3, help="model.tar.gz of the model package")
@click.option("--name", default=requests.BASE_NAME, show_default=True)
@click.option("--role", default="", metavar="ARN", help="for SageMaker's own check, with the next three")
@click.option("--training", default="", metavar=S3, help="a little training data")
@click.option("--series", default="", metavar=S3, help="series without labels")
@click.option("--output", default="", metavar=S3, help="folder for what comes out")
@click.option("--write", type=click.Path(dir_okay=False, path_type=Path), help="file [standard output]")
def specification_command(
    training_image: str, serving_image: str, model_data: str, name: str, write: Path | None, **validation: str
) -> None:
    """Print the requests CreateAlgorithm and CreateModelPackage as JSON."""
    if any(validation.values()) and not all(validation.values()):
        raise UserError("--role, --training, --series and --output go together; give all of them or none.")
    wanted = specification.Validation(**validation) if any(validation.values()) else None
    everything = [
        specification.algorithm(training_image, serving_image, wanted, name),
        specification.model_package(serving_image, model_data, wanted, name),
    ]
    check(everything)
    text = json.dumps({item.operation: item.parameters for item in everything}, indent=2)
    if write:
        write.write_text(text + "\n")
    else:
        click.echo(text)
