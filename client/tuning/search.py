"""What a study searches: data, objective, ranges and fixed hyperparameters, and the results of its trials."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

from lstm_fcn.container.channels import Source, data_files
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.metrics import METRICS_BY_NAME, Metric
from lstm_fcn.container.ranges import Range, check_search, default_ranges, explicit, parse_range


@dataclass(frozen=True)
class Search:
    """The problem that a study solves. Only trials of the same search can be compared.

    channels: the data files of `training` and `validation`.
    objective: the metric that decides which trial is better.
    ranges: by the name of each tuned hyperparameter.
    fixed: the other hyperparameters that were set; they are the same in all trials.
    space: the ranges as Optuna samples from them.
    """

    channels: dict[str, Source]
    objective: Metric
    ranges: dict[str, Range]
    fixed: dict[str, str]
    space: dict[str, BaseDistribution]

    @cached_property
    def identity(self) -> dict[str, object]:
        """JSON description that is stored in the study, to refuse trials of another search."""
        return {
            "objective": self.objective.name,
            "ranges": {name: str(values) for name, values in sorted(self.ranges.items())},
            "hyperparameters": dict(sorted(self.fixed.items())),
            "data": {name: _digest(source) for name, source in sorted(self.channels.items())},
        }

    @property
    def maximize(self) -> bool:
        return self.objective.objective == "Maximize"

    @property
    def combinations(self) -> int | None:
        """The number of combinations if every range is a list of values, else None."""
        if any(values.low is not None for values in self.ranges.values()):
            return None
        return math.prod(len(values.values) for values in self.ranges.values())

    def sampled(self, trial: optuna.Trial | FrozenTrial) -> dict[str, str]:
        """The tuned hyperparameters of a trial in the form that a training job reads.

        Floats are rounded to four significant digits, which is precise enough and readable.
        """
        return {n: f"{v:.4g}" if isinstance(v, float) else str(v) for n, v in trial.params.items()}


@dataclass(frozen=True)
class TrialResult:
    """The outcome of one trial.

    state: `complete`; `pruned`; `failed` because of its hyperparameters; `interrupted` and replaced by another trial;
        or `running`.
    value: the objective, measured with the best weights; for a pruned trial, that of its best epoch.
    hyperparameters: the tuned ones.
    epochs: trained epochs, over all rounds.
    metrics: measured with the best weights.
    error: why the trial failed.
    """

    number: int
    state: str
    value: float | None
    hyperparameters: dict[str, str]
    epochs: int = 0
    seconds: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True)
class TuningResult:
    """The outcome of a search.

    trials: in the order of their numbers, including those of other machines that share the study.
    importances: contribution of each tuned hyperparameter to being among the better half of the trials (PED-ANOVA,
        Watanabe et al. 2023); they add up to 1. Empty if there are too few trials.
    stopped: Ctrl-C ended the search.
    """

    search: Search
    trials: list[TrialResult]
    importances: dict[str, float]
    stopped: bool = False

    @property
    def ranking(self) -> list[TrialResult]:
        """The complete trials, best first; among equal objectives, the lowest loss first."""
        sign = -1 if self.search.maximize else 1

        def rank(trial: TrialResult) -> tuple[float, float, int]:
            loss = trial.metrics.get("valid_loss", trial.metrics.get("train_loss", 0.0))
            return sign * (trial.value or 0.0), loss, trial.number

        return sorted((trial for trial in self.trials if trial.state == "complete"), key=rank)

    @property
    def hyperparameters(self) -> dict[str, str]:
        """The best hyperparameters, for `lstm-fcn train`: the fixed ones and the tuned ones of the best trial."""
        return self.search.fixed | self.ranking[0].hyperparameters


def make_search(
    training: Path | Sequence[Path],
    validation: Path | Sequence[Path],
    objective: str,
    ranges: Mapping[str, str] | None,
    hyperparameters: Mapping[str, str],
) -> Search:
    """Build a search from the arguments of `tune`.

    Raises:
        UserError: an argument is wrong, arguments contradict each other, or a file does not exist.
    """
    fixed = explicit(hyperparameters)
    if ranges is None:
        parsed = {values.name: values for values in default_ranges(excluded=fixed)}
    else:
        parsed = {name: parse_range(name, text) for name, text in ranges.items()}
    channels = {"training": _find_files("training", training)}
    if validation:
        channels["validation"] = _find_files("validation", validation)
    check_search(objective, parsed.values(), fixed, "validation" in channels)
    space = {name: to_distribution(values) for name, values in parsed.items()}
    return Search(channels, METRICS_BY_NAME[objective], parsed, fixed, space)


def to_distribution(values: Range) -> BaseDistribution:
    """Convert a range to Optuna's form. Raises `UserError` if the scale is one that only SageMaker has."""
    if values.low is None or values.high is None:
        return CategoricalDistribution(values.values)
    if values.scale == "reverse-log":
        raise UserError(f"{values.name}={values}: local tuning supports the scales linear and log.")
    log = values.scale == "log"
    if isinstance(values.low, int) and isinstance(values.high, int):
        return IntDistribution(values.low, values.high, log=log)
    return FloatDistribution(values.low, values.high, log=log)


def _find_files(name: str, paths: Path | Sequence[Path]) -> Source:
    files: list[Path] = []
    for path in map(Path, [paths] if isinstance(paths, Path | str) else paths):
        if not path.exists():
            raise UserError(f"The {name} file {path} does not exist.")
        files += data_files(path) if path.is_dir() else [path]
    if not files:
        raise UserError(f"There are no {name} files; the folder must contain CSV files that are not empty.")
    return Source(name, files[0].parent, tuple(files))


def _digest(source: Source) -> str:
    """Digest of the files' contents, not of their paths, which differ between machines."""
    digest = hashlib.sha256()
    for path in source.files:
        try:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    return digest.hexdigest()[:16]
