"""The Optuna study in its database: opening it, choosing a sampler, and reading results."""

import json
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import optuna
import sqlalchemy
from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.samplers import BaseSampler, GridSampler, TPESampler
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from lstm_fcn.client.tuning.search import Search, TrialResult, TuningResult
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.files import check_writable

HEARTBEAT_SECONDS = 10
GRACE_SECONDS = 60  # without a heartbeat, after which a trial is interrupted and replaced
PRUNING_STARTUP_TRIALS = 5  # complete trials before any trial is pruned
PRUNING_FIRST_STEP = 4  # in tenths of the epochs; earlier, the one-cycle learning rate is still before its peak
MIN_TRIALS_FOR_IMPORTANCES = 10  # the better half must have at least five trials, as Optuna advises
OUTCOME = "outcome"  # user attribute of a finished trial: the fields of `TrialResult` that Optuna does not store
DATABASE_ERRORS = (SQLAlchemyError, StorageInternalError)


def open_study(
    search: Search, storage: Path | str, name: str, trials: int, pruning: bool, seed: int | None
) -> tuple[optuna.Study, RDBStorage]:
    """Open the study of that name, or create it, and its database.

    Raises:
        UserError: the storage cannot be reached or used, or the study belongs to another search.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    url = _storage_url(storage)
    shown = url.render_as_string(hide_password=True)
    # Median pruning: successive halving would need more than a few dozen trials, and the number of epochs after which
    # a trial shows how good it is.
    pruner = (
        optuna.pruners.MedianPruner(PRUNING_STARTUP_TRIALS, PRUNING_FIRST_STEP)
        if pruning
        else optuna.pruners.NopPruner()
    )
    try:
        database = _connect(url)
        study = optuna.create_study(
            storage=database,
            study_name=name,
            direction="maximize" if search.maximize else "minimize",
            load_if_exists=True,
            pruner=pruner,
        )
        count = len(study.get_trials(deepcopy=False))
        known = study.user_attrs.get("search")
        if known is None and not count:
            study.set_user_attr("search", search.identity)
    except ImportError as error:
        raise UserError(f"The storage {shown} needs a database driver: {error.__cause__ or error}.") from error
    except (*DATABASE_ERRORS, RuntimeError) as error:
        raise UserError(f"The storage {shown} cannot be used: {describe_database_error(error)}.") from error
    if known is None and count:
        raise UserError(f"The study {name} in {shown} was created by another program; choose another study name.")
    for key, value in search.identity.items():
        if known is not None and known.get(key) != value:
            raise UserError(
                f"The study {name} in {shown} was created with different {key}: {json.dumps(known.get(key))} instead "
                f"of {json.dumps(value)}. Use the same {key} to resume it, or choose another storage or study name."
            )
    study.sampler = make_sampler(search, trials, None if seed is None else seed + count)
    return study, database


def _connect(url: sqlalchemy.URL, attempts: int = 4) -> RDBStorage:
    """Open a database. If several machines create its tables at the same time, all but one fail and retry."""
    arguments = {"sqlite": {"timeout": 60}, "postgresql": {"connect_timeout": 10}}
    try:
        with quiet():
            # A database rather than Optuna's journal file: it survives a process that is killed while it writes, leaves
            # no lock behind, and stores no pickled objects.
            return RDBStorage(
                url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}"),
                engine_kwargs={"connect_args": arguments.get(url.get_backend_name(), {}), "pool_pre_ping": True},
                heartbeat_interval=HEARTBEAT_SECONDS,
                grace_period=GRACE_SECONDS,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
            )
    except DATABASE_ERRORS:
        if attempts == 1:
            raise
        time.sleep(0.5)
        return _connect(url, attempts - 1)


def _storage_url(storage: Path | str) -> sqlalchemy.URL:
    if "://" in str(storage):
        try:
            return sqlalchemy.make_url(str(storage))
        except (SQLAlchemyError, ValueError) as error:
            raise UserError(
                "The storage is not a database URL; the form is postgresql://USER:PASSWORD@HOST/DATABASE."
            ) from error
    path = Path(storage).resolve()
    check_writable(path.parent, "study's")
    return sqlalchemy.URL.create("sqlite", database=str(path))


def describe_database_error(error: BaseException) -> str:
    """The database's own message, without the SQL statement."""
    origin = getattr(error, "orig", None) or getattr(error.__cause__, "orig", None) or error
    return " ".join(str(origin).split())


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress Optuna's warnings that heartbeats are experimental and meant for `Study.optimize`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.filterwarnings("ignore", "Heartbeat of storage is supposed to be used with")
        yield


def make_sampler(search: Search, trials: int, seed: int | None) -> BaseSampler:
    """A grid if the wanted trials are enough for every combination, else Optuna's TPE."""
    if search.combinations is None or search.combinations > trials:
        return TPESampler(seed=seed)
    return _Grid({name: values.values for name, values in search.ranges.items()}, seed=0)  # same order everywhere


class _Grid(GridSampler):
    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Do nothing. Optuna's own method stops `Study.optimize`, and raises an error if that is not running."""


def is_finished(trial: FrozenTrial) -> bool:
    """Whether a trial is complete, pruned, or failed because of its hyperparameters.

    An interrupted trial is not finished: it also has Optuna's state `FAIL`, but no error in its outcome.
    """
    if trial.state == TrialState.FAIL:
        return bool(trial.user_attrs.get(OUTCOME, {}).get("error"))
    return trial.state.is_finished()


def requeue(study: optuna.Study, number: int) -> None:
    """Mark a running trial as interrupted and queue its hyperparameters for the next free worker."""
    try:
        trial = study.tell(number, state=TrialState.FAIL)
    except (ValueError, UpdateFinishedTrialError):  # another machine was faster
        return
    with quiet():
        RetryHeartbeatStaleTrialCallback()(study, trial)


def read_result(study: optuna.Study, search: Search, stopped: bool = False) -> TuningResult:
    """Read all trials of the study except those that wait to be repeated."""
    trials = [
        TrialResult(
            number=trial.number,
            state=_describe_state(trial),
            value=trial.value,
            hyperparameters=search.sampled(trial),
            **trial.user_attrs.get(OUTCOME, {}),
        )
        for trial in study.get_trials(deepcopy=False)
        if trial.state != TrialState.WAITING
    ]
    return TuningResult(search, trials, _importances(study), stopped)


def _describe_state(trial: FrozenTrial) -> str:
    if trial.state == TrialState.FAIL:
        return "failed" if is_finished(trial) else "interrupted"
    return trial.state.name.lower()


def _importances(study: optuna.Study) -> dict[str, float]:
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < MIN_TRIALS_FOR_IMPORTANCES:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns if all trials are equally good
        return optuna.importance.get_param_importances(study, evaluator=evaluator)
