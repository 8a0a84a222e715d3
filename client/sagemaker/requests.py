"""What is sent to SageMaker: settings in, the exact requests out. Nothing here talks to anyone.

Hyperparameters, metrics and channels come from the tables in `container`. Marks such as M17 are the platform's rules.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from lstm_fcn.container.channels import CHANNELS
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.hyperparameters import PARAMETERS, Parameter, parse_hyperparameters
from lstm_fcn.container.media_types import CSV, JSON, JSON_LINES, NPY, REQUEST_TYPES, RESPONSE_TYPES
from lstm_fcn.container.metrics import METRICS
from lstm_fcn.serving.settings import Settings

BASE_NAME = "lstm-fcn"
VARIANT = "all"  # of an endpoint: there is one only
DAY = 24 * 60 * 60  # seconds
LONGEST_RUN = 28 * DAY  # T62
LONGEST_VALUE = 256  # characters of a hyperparameter's value
PAYLOAD, PRODUCT = 6, 100  # MB of one request of a batch job by default, and of all that are under way (M20)
LONGEST_ASYNC = 3600  # seconds that an asynchronous request may take (M21)
LARGEST_ASYNC = 1024  # MB

TUNABLE = {p.name: p.search for p in PARAMETERS.values() if p.search}
SEARCHED = tuple(p.name for p in PARAMETERS.values() if p.searched_by_default)
SCALES = {"auto": "Auto", "linear": "Linear", "log": "Logarithmic", "reverse-log": "ReverseLogarithmic"}
OBJECTIVES = {metric.name: metric.objective for metric in METRICS}

# Images and the files that they are built from.
IMAGES = {"lstm-fcn-train": "Dockerfile.train", "lstm-fcn-serve": "Dockerfile.serve"}
# Instances with disks of their own, which take no key (`VolumeKmsKeyId`).
_OWN_DISKS = re.compile(r"ml\.(g\d\w*|p3dn|p[4-9]\w*(-\w+)?|trn\d\w*|[cmr]\d\w*d)\.")


@dataclass(frozen=True)
class Request:
    """One call: `service` as boto3 names it, `operation` as the service does."""

    service: str
    operation: str
    parameters: dict[str, Any]

    @property
    def action(self) -> str:
        """Its name in policies, such as `sagemaker:CreateModel`."""
        return f"{self.service}:{self.operation}"


@dataclass(frozen=True, kw_only=True)
class Common:
    """What all that is created has in common.

    image: address of a container image in the registry.
    role: ARN of the role that SageMaker takes on.
    key: of KMS, which encrypts disks and results.
    """

    image: str
    role: str
    tags: Mapping[str, str] = field(default_factory=dict)
    subnets: Sequence[str] = ()
    security_groups: Sequence[str] = ()
    key: str = ""

    def vpc(self) -> dict[str, Any] | None:
        if bool(self.subnets) != bool(self.security_groups):
            raise UserError("Subnets and security groups go together; give at least one of each.")
        if not self.subnets:
            return None
        return {"SecurityGroupIds": list(self.security_groups), "Subnets": list(self.subnets)}

    def tag_list(self) -> list[dict[str, str]]:
        return [{"Key": key, "Value": value} for key, value in self.tags.items()]


# Training


@dataclass(frozen=True, kw_only=True)
class Training(Common):
    """A training job. Times are in seconds, the volume in GB; data, model and output are addresses in S3.

    model: artifact of an earlier job, to go on from.
    sharded: each machine gets a part of the training files.
    max_wait: longest time with waiting for a spot instance; by default twice `max_runtime`.
    keep_alive: how long the machines stay for the next job.
    """

    training: str
    output: str
    validation: str = ""
    model: str = ""
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    instance_type: str = "ml.m5.xlarge"
    instance_count: int = 1
    volume: int = 30
    max_runtime: int = DAY
    input_mode: str = "File"
    sharded: bool = False
    spot: bool = False
    max_wait: int | None = None
    keep_alive: int = 0

    @property
    def longest(self) -> int:
        """Seconds after which the platform ends the job, waiting included."""
        return (self.max_wait or 2 * self.max_runtime) if self.spot else self.max_runtime


def training_job(name: str, job: Training) -> Request:
    """`CreateTrainingJob` (M16).

    Raises:
        UserError: a hyperparameter is unknown or wrong, or settings do not go together.
    """
    parameters = {
        "TrainingJobName": name,
        **training_definition(job),
        "HyperParameters": _checked_hyperparameters(job),
        # The prefix ends with a slash: another job's name may begin like this one's.
        "CheckpointConfig": {"S3Uri": join(job.output, name, "checkpoints/")} if job.spot else None,
        "Tags": job.tag_list(),
    }
    return Request("sagemaker", "CreateTrainingJob", given(parameters))


def training_definition(job: Training) -> dict[str, Any]:
    """What a training job has in common with those of a tuning job."""
    if job.keep_alive and job.spot:
        raise UserError("Spot instances cannot be kept alive; leave out one of both settings.")
    return given(
        {
            "AlgorithmSpecification": {
                "TrainingImage": job.image,
                "TrainingInputMode": job.input_mode,
                "MetricDefinitions": metric_definitions(),
            },
            "RoleArn": job.role,
            "InputDataConfig": channels(job),
            "OutputDataConfig": given({"S3OutputPath": job.output, "KmsKeyId": job.key}),
            "ResourceConfig": given(
                {
                    "InstanceType": job.instance_type,
                    "InstanceCount": job.instance_count,
                    "VolumeSizeInGB": job.volume,
                    "VolumeKmsKeyId": _disk_key(job.key, job.instance_type),
                    "KeepAlivePeriodInSeconds": job.keep_alive or None,
                }
            ),
            "VpcConfig": job.vpc(),
            "StoppingCondition": _stopping(job),
            "EnableManagedSpotTraining": job.spot or None,
        }
    )


def _stopping(job: Training) -> dict[str, int]:
    if job.max_runtime > LONGEST_RUN:
        raise UserError(f"max-runtime={job.max_runtime} must be {LONGEST_RUN} seconds (28 days) at most.")
    if not job.spot:
        if job.max_wait is not None:
            raise UserError("max-wait is for spot instances only.")
        return {"MaxRuntimeInSeconds": job.max_runtime}
    if job.longest < job.max_runtime:
        raise UserError(f"max-wait={job.max_wait} must not be less than max-runtime={job.max_runtime}.")
    return {"MaxRuntimeInSeconds": job.max_runtime, "MaxWaitTimeInSeconds": job.longest}


def metric_definitions() -> list[dict[str, str]]:
    """The metrics and how they are read from the log (M1)."""
    return [{"Name": metric.name, "Regex": metric.regex} for metric in METRICS]


def channels(job: Training) -> list[dict[str, Any]]:
    """The job's data, channel by channel."""
    sources = {"training": job.training, "validation": job.validation, "model": job.model}
    return [
        {
            "ChannelName": channel.name,
            "ContentType": channel.content_types[0],
            "InputMode": "File" if channel.name == "model" else job.input_mode,  # T70
            "DataSource": {
                "S3DataSource": {
                    "S3DataType": "S3Prefix",
                    "S3Uri": sources[channel.name],
                    "S3DataDistributionType": "ShardedByS3Key"
                    if job.sharded and channel.name == "training"
                    else "FullyReplicated",
                }
            },
        }
        for channel in CHANNELS
        if sources[channel.name]
    ]


def _checked_hyperparameters(job: Training) -> dict[str, str]:
    hyperparameters = {name: str(value) for name, value in job.hyperparameters.items()}
    settings = parse_hyperparameters(hyperparameters)
    for name, value in hyperparameters.items():
        if len(value) > LONGEST_VALUE:
            raise UserError(f"{name} has {len(value)} characters; {LONGEST_VALUE} are the most.")
    if job.validation and settings.validation_fraction > 0:
        raise UserError("There is validation data; validation-fraction must be 0 with it.")
    return hyperparameters


# Tuning


@dataclass(frozen=True)
class Range:
    """Where a tuning job looks for a hyperparameter's value: a list, or everything between two ends."""

    name: str
    values: tuple[str, ...] = ()
    low: str = ""
    high: str = ""
    scale: str = "Auto"

    def __str__(self) -> str:
        if self.values:
            return f"{self.name} one of {', '.join(self.values)}"
        return f"{self.name} from {self.low} to {self.high} ({self.scale.lower()})"


@dataclass(frozen=True, kw_only=True)
class Search:
    """How a tuning job searches. Without ranges, `SEARCHED` is tuned, less what the training job sets.

    max_jobs: for the strategy Grid it is the number of combinations instead.
    warm_start: names of earlier tuning jobs whose results are taken into account.
    """

    strategy: str = "Bayesian"
    objective: str = "valid_accuracy"
    ranges: Sequence[Range] = ()
    max_jobs: int = 20
    parallel: int = 2
    early_stopping: bool = False
    warm_start: Sequence[str] = ()
    warm_start_type: str = "IdenticalDataAndAlgorithm"


def parse_range(text: str) -> Range:
    """`lr=0.0001:0.1:log`, `hidden-size=8,64,128`, or a name alone for the range in `TUNABLE`.

    Raises:
        UserError: the hyperparameter is not to be tuned, or the text is no range.
    """
    name, equals, rest = text.partition("=")
    if name not in TUNABLE:
        if name not in PARAMETERS:
            parse_hyperparameters({name: "0"})  # which says so, and what may have been meant
        raise UserError(f"{name} is not tuned but set: --set {name}=VALUE. Tuned can be: {', '.join(TUNABLE)}.")
    values = rest if equals else TUNABLE[name]
    if ":" not in values:
        return Range(name, tuple(part.strip() for part in values.split(",")))
    low, high, *scale = values.split(":")
    if len(scale) > 1 or not set(scale) <= set(SCALES):
        raise UserError(f"The range {text} must be LOW:HIGH or LOW:HIGH:SCALE; scales are {', '.join(SCALES)}.")
    return Range(name, (), low.strip(), high.strip(), SCALES[scale[0]] if scale else "Auto")


def parameter_type(parameter: Parameter) -> str:
    """A hyperparameter's type as SageMaker calls it: Integer, Continuous or Categorical."""
    return {"choice": "Categorical", "integer": "Integer", "number": "Continuous"}[parameter.kind]


def decimal(value: object) -> str:
    """A number without exponent: SDKs read `10`, not `1e1`, as an integer (M9)."""
    return format(Decimal(str(value)).normalize(), "f")


def tuning_job(name: str, job: Training, search: Search) -> Request:
    """`CreateHyperParameterTuningJob` (M17).

    Raises:
        UserError: as for a training job; the objective cannot be measured; strategy and ranges do not go together.
    """
    hyperparameters = _checked_hyperparameters(job)
    ranges = searched_ranges(job, search)
    for item in ranges:
        try:
            _check_range(item, hyperparameters)
        except UserError as error:
            raise UserError(f"The range of {item.name} is wrong: {error}") from error
    _check_objective(job, search)
    if search.strategy == "Hyperband":  # which counts epochs by this hyperparameter (M11)
        hyperparameters.setdefault("epochs", str(parse_hyperparameters(hyperparameters).epochs))
    parameters = {
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": given(
            {
                "Strategy": search.strategy,
                "StrategyConfig": _strategy(hyperparameters, search),
                "HyperParameterTuningJobObjective": {
                    "Type": OBJECTIVES[search.objective],
                    "MetricName": search.objective,
                },
                "ResourceLimits": {
                    "MaxNumberOfTrainingJobs": number_of_jobs(job, search),
                    "MaxParallelTrainingJobs": search.parallel,
                },
                "ParameterRanges": _parameter_ranges(ranges),
                "TrainingJobEarlyStoppingType": "Auto" if search.early_stopping else "Off",
            }
        ),
        # Without checkpoints: jobs with other hyperparameters must not find each other's.
        "TrainingJobDefinition": given({"StaticHyperParameters": hyperparameters, **training_definition(job)}),
        "WarmStartConfig": {
            "ParentHyperParameterTuningJobs": [{"HyperParameterTuningJobName": parent} for parent in search.warm_start],
            "WarmStartType": search.warm_start_type,
        }
        if search.warm_start
        else None,
        "Tags": job.tag_list(),
    }
    return Request("sagemaker", "CreateHyperParameterTuningJob", given(parameters))


def searched_ranges(job: Training, search: Search) -> list[Range]:
    """The ranges of a tuning job."""
    names = [item.name for item in search.ranges]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{name} has two ranges; give one.")
        if name in job.hyperparameters:
            raise UserError(f"{name} is both set and tuned; leave out one of both.")
    ranges = list(search.ranges) or [parse_range(name) for name in SEARCHED if name not in job.hyperparameters]
    if search.strategy == "Grid":
        if not search.ranges:
            ranges = [item for item in ranges if item.values]
        for item in ranges:
            if not item.values:
                raise UserError(f"The strategy Grid tries lists of values; give {item.name} as a list, with commas.")
    if not ranges:
        raise UserError("Nothing is left to tune; give a range.")
    return ranges


def _check_range(found: Range, hyperparameters: Mapping[str, str]) -> None:
    for value in found.values or (found.low, found.high):
        if not value:
            raise UserError("a value is missing.")
        parse_hyperparameters({**hyperparameters, found.name: value})
    if found.values:
        return
    if parameter_type(PARAMETERS[found.name]) == "Categorical":
        raise UserError("its values are given as a list, with commas.")
    low, high = float(found.low), float(found.high)
    if low >= high:
        raise UserError(f"{found.low} must be less than {found.high}.")
    if found.scale == "Logarithmic" and low <= 0:
        raise UserError("a logarithmic range starts above 0.")
    if found.scale == "ReverseLogarithmic" and not 0 <= low < high < 1:
        raise UserError("a reverse logarithmic range lies from 0 to below 1.")


def number_of_jobs(job: Training, search: Search) -> int:
    """How many training jobs a tuning job starts at most."""
    if search.strategy == "Grid":
        return math.prod(len(item.values) for item in searched_ranges(job, search))
    return search.max_jobs


def _check_objective(job: Training, search: Search) -> None:
    if search.objective not in OBJECTIVES:
        raise UserError(f"There is no metric {search.objective}; there are {', '.join(OBJECTIVES)}.")
    fraction = parse_hyperparameters(job.hyperparameters).validation_fraction
    if search.objective.startswith("valid_") and not job.validation and fraction == 0:
        raise UserError(
            f"{search.objective} is measured on validation data; give --validation S3, or hold out a part of the "
            "training data: --set validation-fraction=0.2."
        )


def _strategy(hyperparameters: Mapping[str, str], search: Search) -> dict[str, Any] | None:
    if search.strategy != "Hyperband":
        return None
    if search.early_stopping:
        raise UserError("Hyperband stops jobs by itself; leave out --early-stopping.")
    settings = parse_hyperparameters(hyperparameters)
    most = settings.epochs * (1 + settings.fine_tune_rounds)
    if most > 20000:  # M11
        raise UserError(f"Hyperband allows for 20000 epochs, not {most} with all fine-tuning rounds.")
    return {"HyperbandStrategyConfig": {"MaxResource": most}}


def _parameter_ranges(ranges: Iterable[Range]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for item in ranges:
        if item.values:
            kind, content = "Categorical", {"Name": item.name, "Values": list(item.values)}
        else:
            kind = parameter_type(PARAMETERS[item.name])
            ends = {"MinValue": decimal(item.low), "MaxValue": decimal(item.high)}
            content = {"Name": item.name, **ends, "ScalingType": item.scale}
        found.setdefault(f"{kind}ParameterRanges", []).append(content)
    return found


# Endpoints


@dataclass(frozen=True, kw_only=True)
class Endpoint(Common):
    """An endpoint for a trained model: on instances, serverless, or asynchronous.

    model_data: address of `model.tar.gz` in S3.
    scale_to: most instances of automatic scaling; 0: none. `scale_target` is what one instance shall have to do:
        requests a minute, or requests that wait at an asynchronous endpoint.
    memory: MB of a serverless endpoint; `concurrency`: requests that it answers at a time.
    async_output: folder in S3 for the answers of an asynchronous endpoint; `async_concurrency`: requests of one
        instance at a time.
    capture_percent, capture_output: share of requests and answers that are kept, and where in S3.
    environment: of the container (see `serving_environment`).
    """

    model_data: str
    instance_type: str = "ml.m5.large"
    instance_count: int = 1
    scale_to: int = 0
    scale_target: float = 1000
    serverless: bool = False
    memory: int = 2048
    concurrency: int = 5
    async_output: str = ""
    async_concurrency: int | None = None
    capture_percent: int = 0
    capture_output: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


def serving_environment(precision: str = "", outputs: str = "") -> dict[str, str]:
    """Environment variables of the serving container: `bfloat16`, and what is said of a series.

    Raises:
        UserError: one of them is none that there is.
    """
    environment = given({"LSTM_FCN_PRECISION": precision, "SAGEMAKER_INFERENCE_OUTPUT": outputs})
    Settings.from_environment(environment)
    return environment


def endpoint(name: str, settings: Endpoint) -> list[Request]:
    """`CreateModel`, `CreateEndpointConfig` and `CreateEndpoint` (M18, M19), all three of the same name.

    Raises:
        UserError: settings do not go together.
    """
    _check_endpoint(settings)
    environment = dict(settings.environment)
    if settings.serverless:
        environment.setdefault("SAGEMAKER_MODEL_SERVER_WORKERS", "1")  # S12
    if settings.async_output:
        environment.setdefault("SAGEMAKER_MODEL_SERVER_TIMEOUT", str(LONGEST_ASYNC))
        environment.setdefault("SAGEMAKER_MAX_PAYLOAD_IN_MB", str(LARGEST_ASYNC))
    config = {
        "EndpointConfigName": name,
        "ProductionVariants": [{"VariantName": VARIANT, "ModelName": name, **_capacity(settings)}],
        "DataCaptureConfig": _capture(settings),
        "AsyncInferenceConfig": _asynchronous(settings),
        "KmsKeyId": settings.key,
        "Tags": settings.tag_list(),
    }
    create = {"EndpointName": name, "EndpointConfigName": name, "Tags": settings.tag_list()}
    return [
        model(name, settings, settings.model_data, environment),
        Request("sagemaker", "CreateEndpointConfig", given(config)),
        Request("sagemaker", "CreateEndpoint", given(create)),
    ]


def model(name: str, common: Common, model_data: str, environment: Mapping[str, str]) -> Request:
    """`CreateModel`."""
    container = {"Image": common.image, "ModelDataUrl": model_data, "Environment": dict(environment)}
    parameters = {
        "ModelName": name,
        "PrimaryContainer": given(container),
        "ExecutionRoleArn": common.role,
        "VpcConfig": common.vpc(),
        "Tags": common.tag_list(),
    }
    return Request("sagemaker", "CreateModel", given(parameters))


def scaling(name: str, settings: Endpoint) -> list[Request]:
    """What makes an endpoint scale by itself, once it is in service; nothing if it shall not."""
    if not settings.scale_to:
        return []
    target = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": resource(name),
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }
    metric: dict[str, Any] = {
        "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
    }
    if settings.async_output:
        metric = {
            "CustomizedMetricSpecification": {
                "MetricName": "ApproximateBacklogSizePerInstance",
                "Namespace": "AWS/SageMaker",
                "Dimensions": [{"Name": "EndpointName", "Value": name}],
                "Statistic": "Average",
            }
        }
    limits = {"MinCapacity": settings.instance_count, "MaxCapacity": settings.scale_to}
    policy = {
        "PolicyName": name,
        "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": {"TargetValue": settings.scale_target, **metric},
    }
    return [
        Request("application-autoscaling", "RegisterScalableTarget", target | limits),
        Request("application-autoscaling", "PutScalingPolicy", policy | target),
    ]


def resource(name: str) -> str:
    """What automatic scaling calls an endpoint of ours."""
    return f"endpoint/{name}/variant/{VARIANT}"


def _check_endpoint(settings: Endpoint) -> None:
    unsuited = {
        "asynchronous": settings.async_output,
        "with data capture": settings.capture_percent,
        "scaled": settings.scale_to,
        "in a VPC": settings.subnets,
    }
    if settings.serverless:
        for what, wanted in unsuited.items():
            if wanted:
                raise UserError(f"A serverless endpoint cannot be {what}; leave out one of both.")
        if settings.memory % 1024 or not 1024 <= settings.memory <= 6144:  # M19
            raise UserError(f"memory={settings.memory} must be 1024, 2048, 3072, 4096, 5120 or 6144 MB.")
    if settings.async_output and settings.capture_percent:
        raise UserError("An asynchronous endpoint cannot be with data capture; leave out one of both.")
    if settings.async_concurrency and not settings.async_output:
        raise UserError("async-concurrency is for asynchronous endpoints: give --async S3.")
    if settings.scale_to and settings.scale_to < settings.instance_count:
        raise UserError(f"scale-to={settings.scale_to} must not be less than instance-count={settings.instance_count}.")


def _capacity(settings: Endpoint) -> dict[str, Any]:
    if settings.serverless:
        serverless = {"MemorySizeInMB": settings.memory, "MaxConcurrency": settings.concurrency}
        return {"ServerlessConfig": serverless}
    return {
        "InstanceType": settings.instance_type,
        "InitialInstanceCount": settings.instance_count,
        "InitialVariantWeight": 1.0,
    }


def _capture(settings: Endpoint) -> dict[str, Any] | None:
    if not settings.capture_percent:
        return None
    return given(
        {
            "EnableCapture": True,
            "InitialSamplingPercentage": settings.capture_percent,
            "DestinationS3Uri": settings.capture_output,
            "KmsKeyId": settings.key,
            "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
            # Kept as text; everything else is kept in base64.
            "CaptureContentTypeHeader": {"CsvContentTypes": [CSV], "JsonContentTypes": [JSON, JSON_LINES]},
        }
    )


def _asynchronous(settings: Endpoint) -> dict[str, Any] | None:
    if not settings.async_output:
        return None
    client = given({"MaxConcurrentInvocationsPerInstance": settings.async_concurrency})
    output = given({"S3OutputPath": settings.async_output, "KmsKeyId": settings.key})
    return given({"ClientConfig": client, "OutputConfig": output})


# Batch transform


@dataclass(frozen=True, kw_only=True)
class Batch(Common):
    """A batch transform job, of a new model from `model_data`, or of `model`, which there is already.

    data, output: folders in S3.
    assemble: how the answers of a file are put together; by default None, or as `split` where they are joined.
    max_payload (MB), max_concurrent: by default what the container's `/execution-parameters` says.
    """

    data: str
    output: str
    image: str = ""
    role: str = ""
    model: str = ""
    model_data: str = ""
    instance_type: str = "ml.m5.large"
    instance_count: int = 1
    content_type: str = CSV
    accept: str = CSV
    split: str = "Line"
    strategy: str = "MultiRecord"
    assemble: str = ""
    join: bool = False
    input_filter: str = ""
    output_filter: str = ""
    max_payload: int | None = None
    max_concurrent: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


def transform_job(name: str, batch: Batch) -> list[Request]:
    """`CreateTransformJob` (M20), and `CreateModel` before it if there is none yet.

    Raises:
        UserError: settings do not go together.
    """
    if not batch.model and not (batch.image and batch.role and batch.model_data):
        raise UserError("A batch job needs a model that there is, or image, role and artifact of a new one.")
    parameters = {
        "TransformJobName": name,
        "ModelName": batch.model or name,
        **transform_definition(batch),
        "DataProcessing": given(
            {
                "InputFilter": batch.input_filter,
                "OutputFilter": batch.output_filter,
                "JoinSource": "Input" if batch.join else None,
            }
        ),
        "Tags": batch.tag_list(),
    }
    job = Request("sagemaker", "CreateTransformJob", given(parameters))
    return [job] if batch.model else [model(name, batch, batch.model_data, {}), job]


def transform_definition(batch: Batch) -> dict[str, Any]:
    """What a transform job has in common with that of an algorithm's validation."""
    _check_batch(batch)
    return given(
        {
            "MaxConcurrentTransforms": batch.max_concurrent,
            "MaxPayloadInMB": batch.max_payload,
            "BatchStrategy": batch.strategy if batch.split != "None" else None,
            "Environment": dict(batch.environment),
            "TransformInput": {
                "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": batch.data}},
                "ContentType": batch.content_type,
                "SplitType": batch.split,
            },
            "TransformOutput": given(
                {
                    "S3OutputPath": batch.output,
                    "Accept": batch.accept,
                    "AssembleWith": batch.assemble or (batch.split if batch.join else "None"),
                    "KmsKeyId": batch.key,
                }
            ),
            "TransformResources": given(
                {
                    "InstanceType": batch.instance_type,
                    "InstanceCount": batch.instance_count,
                    "VolumeKmsKeyId": _disk_key(batch.key, batch.instance_type),
                }
            ),
        }
    )


def _check_batch(batch: Batch) -> None:
    content, accept = (text.partition(";")[0].strip().lower() for text in (batch.content_type, batch.accept))
    if content not in REQUEST_TYPES:
        raise UserError(f"content-type={batch.content_type} is not supported; use {', '.join(REQUEST_TYPES)}.")
    if accept not in RESPONSE_TYPES:
        raise UserError(f"accept={batch.accept} is not supported; use {', '.join(RESPONSE_TYPES)}.")
    if batch.split != "None" and content == NPY:
        raise UserError(f"{NPY} cannot be split; give --split None.")
    if batch.split != "None" and content == JSON and batch.strategy == "MultiRecord":
        raise UserError(f"{JSON} cannot be sent several lines at a time; give --split None, or send {JSON_LINES}.")
    if batch.join and (content != accept or batch.split != "Line" or batch.assemble not in ("", batch.split)):
        raise UserError(  # S31
            "Predictions can be joined with their input if content-type and accept are the same, and split and "
            "assemble are Line."
        )
    check_load(batch.max_payload, batch.max_concurrent)


def check_load(max_payload: int | None, max_concurrent: int | None) -> None:
    """Refuse requests of a batch job that are too large, or too large together (M20)."""
    if max_payload is not None and max_payload > PRODUCT:
        raise UserError(f"max-payload={max_payload} must be {PRODUCT} MB at most.")
    if max_payload is not None and max_concurrent is None:
        raise UserError(f"max-payload needs max-concurrent, too; both multiplied must be {PRODUCT} MB at most.")
    if (PAYLOAD if max_payload is None else max_payload) * (max_concurrent or 0) > PRODUCT:
        raise UserError(
            f"max-concurrent={max_concurrent} times {max_payload or PAYLOAD} MB a request must be {PRODUCT} MB at most."
        )


# Images


def registry(account: str, region: str) -> str:
    """Address of an account's image registry."""
    return f"{account}.dkr.ecr.{region}.amazonaws.com" + (".cn" if region.startswith("cn-") else "")


def repositories() -> list[Request]:
    """`CreateRepository` for both images."""
    scan = {"imageScanningConfiguration": {"scanOnPush": True}}
    return [Request("ecr", "CreateRepository", {"repositoryName": name, **scan}) for name in IMAGES]


def docker_commands(address: str, tag: str, context: str) -> list[list[str]]:
    """Build, tag and push both images from the folder `context`: for one platform, without attestations (T11, T12)."""
    commands = []
    flags = ["--platform", "linux/amd64", "--provenance=false", "--sbom=false"]
    for name, file in IMAGES.items():
        commands += [
            ["docker", "build", *flags, "-f", join(context, file), "-t", f"{name}:{tag}", context],
            ["docker", "tag", f"{name}:{tag}", f"{address}/{name}:{tag}"],
            ["docker", "push", f"{address}/{name}:{tag}"],
        ]
    return commands


# Details


def unique_name(base: str = BASE_NAME, limit: int = 63) -> str:
    """The base name and the time, UTC, at most `limit` characters."""
    now = datetime.now(UTC)
    stamp = f"{now:%Y%m%d-%H%M%S}-{now.microsecond // 1000:03}"
    return f"{base[: limit - len(stamp) - 1].rstrip('-')}-{stamp}"


def join(folder: str, *names: str) -> str:
    """An address in S3 below a folder."""
    return "/".join([folder.rstrip("/"), *names])


def given(parameters: dict[str, Any]) -> dict[str, Any]:
    """Without what is not set."""
    return {name: value for name, value in parameters.items() if value not in (None, "", [], {})}


def _disk_key(key: str, instance_type: str) -> str:
    return "" if _OWN_DISKS.match(instance_type) else key
