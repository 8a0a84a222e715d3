"""Training jobs and tuning jobs: from settings to requests.

Hyperparameters, metrics and channels come from the tables in `container`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from lstm_fcn.client.sagemaker.instances import disk_key
from lstm_fcn.client.sagemaker.request import S3, Common, Request, create, join, setting
from lstm_fcn.container.channels import CHANNELS
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.hyperparameters import MOST_EPOCHS, PARAMETERS, Parameter, parse_hyperparameters
from lstm_fcn.container.metrics import METRICS, METRICS_BY_NAME
from lstm_fcn.container.optml import BY
from lstm_fcn.container.ranges import Range, check_search, default_ranges

DAY = 24 * 60 * 60  # seconds
MAX_RUNTIME = 28 * DAY  # T62
MAX_VALUE = 256  # characters of a hyperparameter's value
MAX_HYPERBAND_EPOCHS = 20000  # M11

_SCALES = {"auto": "Auto", "linear": "Linear", "log": "Logarithmic", "reverse-log": "ReverseLogarithmic"}
_TYPES = {"choice": "Categorical", "integer": "Integer", "number": "Continuous"}


@dataclass(frozen=True, kw_only=True)
class Training(Common):
    """Settings of a training job. `model` is the S3 address of an earlier job's artifact to continue training from."""

    training: str = setting("folder of the training data", S3)
    output: str = setting("folder for models", S3)
    validation: str = setting("folder of the validation data", S3, default="")
    model: str = ""
    hyperparameters: Mapping[str, Any] = setting(
        "hyperparameter; repeatable", "NAME=VALUE", "set", default_factory=dict
    )
    instance_type: str = "ml.m5.xlarge"
    instance_count: int = 1
    volume: int = setting("disk of each machine, in GB", name="volume-size", default=30)
    max_runtime: int = setting("time limit", "SECONDS", default=DAY)
    spot: bool = setting("use spot instances: cheaper, but may be interrupted", default=False)
    max_wait: int | None = setting(
        "time limit including the wait for spot instances [2 x --max-runtime]", "SECONDS", default=None
    )
    input_mode: str = setting("", choices=CHANNELS[0].input_modes, default="File")
    sharded: bool = setting("give each machine a part of the training files", default=False)
    by: str = setting("train a model for each value of this column", "COLUMN", default="")
    keep_alive: int = setting("keep the machines for the next job", "SECONDS", default=0)

    @property
    def time_limit(self) -> int:
        """Seconds after which SageMaker stops the job, including the wait for spot instances."""
        return (self.max_wait or 2 * self.max_runtime) if self.spot else self.max_runtime


def training_job(name: str, job: Training) -> Request:
    """`CreateTrainingJob` (M16).

    Raises:
        UserError: a hyperparameter is unknown or wrong, or settings contradict each other.
    """
    if job.by and (job.validation or job.model or job.sharded):
        raise UserError("A job with --by takes --training alone, and all of it on each machine.")
    parameters = {
        "TrainingJobName": name,
        **training_definition(job),
        "HyperParameters": _checked_hyperparameters(job),
        "Environment": {BY: job.by} if job.by else None,
        # The prefix ends with a slash because the name of another job may start with this name.
        "CheckpointConfig": {"S3Uri": join(job.output, name, "checkpoints/")} if job.spot else None,
        "Tags": job.tag_list(),
    }
    return create("TrainingJob", parameters)


def training_definition(job: Training) -> dict[str, Any]:
    """The members that `CreateTrainingJob` shares with tuning jobs."""
    if job.keep_alive and job.spot:
        raise UserError("Spot instances cannot be kept alive; leave out --spot or --keep-alive.")
    return {
        "AlgorithmSpecification": {
            "TrainingImage": job.image,
            "TrainingInputMode": job.input_mode,
            "MetricDefinitions": metric_definitions(),
        },
        "RoleArn": job.role,
        "InputDataConfig": channels(job),
        "OutputDataConfig": {"S3OutputPath": job.output, "KmsKeyId": job.key or None},
        "ResourceConfig": {
            "InstanceType": job.instance_type,
            "InstanceCount": job.instance_count,
            "VolumeSizeInGB": job.volume,
            "VolumeKmsKeyId": disk_key(job.key, job.instance_type),
            "KeepAlivePeriodInSeconds": job.keep_alive or None,
        },
        "VpcConfig": job.vpc(),
        "StoppingCondition": _stopping_condition(job),
        "EnableManagedSpotTraining": job.spot or None,
    }


def _stopping_condition(job: Training) -> dict[str, int | None]:
    if job.max_runtime > MAX_RUNTIME:
        raise UserError(f"max-runtime={job.max_runtime} must be at most {MAX_RUNTIME} seconds (28 days).")
    if job.max_wait is not None and not job.spot:
        raise UserError("max-wait applies to spot instances only; add --spot.")
    if job.time_limit < job.max_runtime:
        raise UserError(f"max-wait={job.max_wait} must be at least max-runtime={job.max_runtime}.")
    return {"MaxRuntimeInSeconds": job.max_runtime, "MaxWaitTimeInSeconds": job.time_limit if job.spot else None}


def metric_definitions() -> list[dict[str, str]]:
    """Metrics with the regular expressions that find them in the log (M1)."""
    return [{"Name": metric.name, "Regex": metric.regex} for metric in METRICS]


def channels(job: Training) -> list[dict[str, Any]]:
    """`InputDataConfig`: the channels for which the job has data."""
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
        if len(value) > MAX_VALUE:
            raise UserError(f"The value of {name} has {len(value)} characters; the limit is {MAX_VALUE}.")
    if job.validation and settings.validation_fraction > 0:
        raise UserError("validation-fraction must be 0 if the job has validation data; leave out one of the two.")
    return hyperparameters


@dataclass(frozen=True, kw_only=True)
class Search:
    """How a tuning job searches.

    ranges: default: those of `default_ranges`, without the hyperparameters that the training job sets.
    max_jobs: number of training jobs; the strategy Grid tries every combination instead.
    """

    strategy: str = setting("", choices=("Bayesian", "Random", "Hyperband", "Grid"), default="Bayesian")
    objective: str = setting("", choices=tuple(METRICS_BY_NAME), default="valid_accuracy")
    ranges: Sequence[Range] = ()
    max_jobs: int = setting("number of training jobs", default=20)
    parallel: int = setting("training jobs at a time", default=2)
    early_stopping: bool = setting("stop unpromising jobs early", default=False)
    warm_start: Sequence[str] = setting("earlier tuning job to learn from", "NAME", default=())
    warm_start_type: str = setting(
        "", choices=("IdenticalDataAndAlgorithm", "TransferLearning"), default="IdenticalDataAndAlgorithm"
    )


def tuning_job(name: str, job: Training, search: Search) -> Request:
    """`CreateHyperParameterTuningJob` (M17).

    Raises:
        UserError: as `training_job`; the objective cannot be measured; strategy and ranges contradict each other.
    """
    if job.by:
        raise UserError("A tuning job trains one model; leave out --by.")
    hyperparameters = _checked_hyperparameters(job)
    ranges = searched_ranges(job, search)
    check_search(search.objective, ranges, hyperparameters, bool(job.validation))
    if search.strategy == "Hyperband":  # which reads the number of epochs from this hyperparameter (M11)
        hyperparameters.setdefault("epochs", str(parse_hyperparameters(hyperparameters).epochs or MOST_EPOCHS))
    parents = [{"HyperParameterTuningJobName": parent} for parent in search.warm_start]
    parameters = {
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": {
            "Strategy": search.strategy,
            "StrategyConfig": _hyperband(hyperparameters, search) if search.strategy == "Hyperband" else None,
            "HyperParameterTuningJobObjective": {
                "Type": METRICS_BY_NAME[search.objective].objective,
                "MetricName": search.objective,
            },
            "ResourceLimits": {
                "MaxNumberOfTrainingJobs": math.prod(len(item.values) for item in ranges)
                if search.strategy == "Grid"
                else search.max_jobs,
                "MaxParallelTrainingJobs": search.parallel,
            },
            "ParameterRanges": _parameter_ranges(ranges),
            "TrainingJobEarlyStoppingType": "Auto" if search.early_stopping else "Off",
        },
        # Without checkpoints, because jobs with other hyperparameters must not find each other's.
        "TrainingJobDefinition": {"StaticHyperParameters": hyperparameters, **training_definition(job)},
        "WarmStartConfig": {"ParentHyperParameterTuningJobs": parents, "WarmStartType": search.warm_start_type}
        if parents
        else None,
        "Tags": job.tag_list(),
    }
    return create("HyperParameterTuningJob", parameters)


def searched_ranges(job: Training, search: Search) -> list[Range]:
    """The ranges of a tuning job."""
    grid = search.strategy == "Grid"
    for number, item in enumerate(search.ranges):
        if item.name in [other.name for other in search.ranges[:number]]:
            raise UserError(f"{item.name} has two ranges; give one.")
        if grid and not item.values:
            raise UserError(f"The strategy Grid tries lists of values; write {item.name}=VALUE,VALUE,VALUE.")
    return list(search.ranges) or [item for item in default_ranges(job.hyperparameters) if item.values or not grid]


def _hyperband(hyperparameters: Mapping[str, str], search: Search) -> dict[str, Any]:
    if search.early_stopping:
        raise UserError("The strategy Hyperband always stops bad jobs early; leave out --early-stopping.")
    settings = parse_hyperparameters(hyperparameters)
    epochs = settings.epochs * (1 + settings.fine_tune_rounds)
    if epochs > MAX_HYPERBAND_EPOCHS:
        raise UserError(
            f"The strategy Hyperband supports {MAX_HYPERBAND_EPOCHS} epochs in all rounds; this job has {epochs}."
        )
    return {"HyperbandStrategyConfig": {"MaxResource": epochs}}


def _parameter_ranges(ranges: Sequence[Range]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for item in ranges:
        if item.values:
            kind, content = "Categorical", {"Name": item.name, "Values": item.values}
        else:
            kind = parameter_type(PARAMETERS[item.name])
            bounds = {"MinValue": decimal(item.low), "MaxValue": decimal(item.high)}
            content = {"Name": item.name, **bounds, "ScalingType": _SCALES[item.scale]}
        found.setdefault(f"{kind}ParameterRanges", []).append(content)
    return found


def parameter_type(parameter: Parameter) -> str:
    """A hyperparameter's type in SageMaker's words: Integer, Continuous or Categorical."""
    return _TYPES[parameter.kind]


def decimal(value: object) -> str:
    """A number without exponent: SDKs read `10`, but not `1e1`, as an integer (M9)."""
    return format(Decimal(str(value)).normalize(), "f")
