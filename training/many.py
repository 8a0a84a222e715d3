"""One model for each value of a column of a table, each on one core."""

import csv
import hashlib
import io
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ValidationError
from tqdm import tqdm

from lstm_fcn.container import artifact
from lstm_fcn.container.channels import Source, find_channels
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.files import check_writable, write_atomically
from lstm_fcn.container.hyperparameters import Hyperparameters, parse_hyperparameters
from lstm_fcn.container.optml import BY, OptML
from lstm_fcn.container.progress import training_log
from lstm_fcn.container.shards import Shard
from lstm_fcn.container.spread import spread
from lstm_fcn.training.partition import EVERYTHING, Part, divide, folder_names
from lstm_fcn.training.stop import StopBeforeTraining

RECORD = "group.json"  # in the folder of each model: its `Trained`
WORK = ".work"  # in the output folder: the rows of each group, and models that are not complete
SUMMARY, REPORT = RESERVED = "summary.csv", "report.html"
COLUMNS = ("group", "folder", "series", "classes", "accuracy", "estimate", "seconds", "error")  # of the summary


class Trained(BaseModel):
    """What became of a group.

    folder: name of the model's folder in the output folder; empty if there is no model.
    accuracy: see `estimate`.
    estimate: by what the accuracy is estimated: `validation`, `cross-validation` or `training`.
    fingerprint: of the rows and the hyperparameters.
    error: why there is no model.
    """

    group: str
    folder: str = ""
    series: int = 0
    classes: int = 0
    accuracy: float | None = None
    estimate: str = ""
    seconds: float = 0.0
    fingerprint: str = ""
    error: str = ""

    def __str__(self) -> str:
        if self.error:
            return f"{self.group or '(no value)'}: Error: {self.error}"
        return f"{self.group}: {self.estimate} accuracy {self.accuracy:.4f}, {self.seconds:.1f} s"


class Task(NamedTuple):
    """A group to train."""

    part: Part
    target: Path
    fingerprint: str


def train_many(
    source: Path,
    output: Path,
    by: str,
    hyperparameters: dict[str, str],
    workers: int | None = None,
    cluster: str | None = None,
    shard: Shard = EVERYTHING,
) -> list[Trained]:
    """Train a model for each value of the column `by`, each on one core.

    A model that exists is kept if it was trained with the same rows and hyperparameters. A group that cannot be trained
    has an error; the others are trained.

    Args:
        source: table with a series in each row, or prepared recordings; see `partition.divide`.
        output: folder; the machines of a cluster must share it.
        by: see above.
        hyperparameters: as text, by name.
        workers: see `spread`.
        cluster: see `spread`.
        shard: the groups of this machine, if several that do not know of each other train the rest.

    Returns:
        all groups, the worst first.

    Raises:
        UserError: the table, the column or the hyperparameters are invalid, the output folder cannot be written to, or
            as `spread` does.
    """
    settings = parse_hyperparameters(hyperparameters)
    check_writable(output, "output")
    work = output.resolve() / f"{WORK}-{shard.index}"  # machines may share the folder
    shutil.rmtree(work, ignore_errors=True)
    try:
        parts = divide(source, by, work / "rows", shard)
        found = _train_all(_plan(parts, output.resolve(), settings), settings, workers, cluster)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return sorted(found, key=lambda trained: (not trained.error, trained.accuracy or 0.0, trained.group))


def _plan(parts: Sequence[Part], output: Path, settings: Hyperparameters) -> list[Task]:
    """The groups with their folders, the largest first, so that no core is idle for long at the end."""
    names = folder_names([part.group for part in parts], RESERVED)
    described = settings.model_dump_json()
    return [
        Task(part, output / names[part.group], hashlib.sha256(f"{part.sha256} {described}".encode()).hexdigest())
        for part in sorted(parts, key=lambda part: -part.rows)
    ]


def _train_all(
    tasks: Sequence[Task], settings: Hyperparameters, workers: int | None, cluster: str | None
) -> list[Trained]:
    """Train the groups that have no model, and show the progress."""
    kept = {task: _read_record(task) for task in tasks}
    found = [trained for trained in kept.values() if trained is not None]
    waiting = [task for task, trained in kept.items() if trained is None]
    with tqdm(total=len(tasks), initial=len(found), unit="model", dynamic_ncols=True, disable=None) as bar:
        if found:
            bar.write(f"{len(found)} of {len(tasks)} models exist and are kept")
        for _, trained in spread(partial(train_group, settings=settings), waiting, workers, cluster):
            found.append(trained)
            bar.update()
            if bar.disable or trained.error:
                bar.write(f"[{len(found)}/{len(tasks)}] {trained}")
                sys.stdout.flush()
    return found


def _read_record(task: Task) -> Trained | None:
    """What was trained with the same rows and hyperparameters before; None if nothing was."""
    try:
        trained = Trained.model_validate_json((task.target / RECORD).read_bytes())
    except (OSError, ValidationError):
        return None
    return trained if trained.fingerprint == task.fingerprint else None


# In another process


def train_group(task: Task, settings: Hyperparameters) -> Trained:
    """Train the model of a group; whatever is wrong with it becomes the error of the group."""
    part = task.part
    with training_log(logging.NullHandler()):
        try:
            if part.error:
                raise UserError(part.error)
            return _train(task, settings)
        except UserError as error:
            problem = str(error).replace(str(part.path), "its rows")
        except Exception as error:  # noqa: BLE001 - such as lack of memory: a group that fails does not end the others
            problem = f"internal error: {type(error).__name__}: {error}"
    return Trained(group=part.group, series=part.rows, error=problem)


def _train(task: Task, settings: Hyperparameters) -> Trained:
    from lstm_fcn.training import job
    from lstm_fcn.training.data.loading import load
    from lstm_fcn.training.devices import choose_placement
    from lstm_fcn.training.distributed import Group
    from lstm_fcn.training.stop import StopSignal

    started, (part, target, fingerprint) = time.monotonic(), task
    if not part.path.exists():
        raise UserError(f"This machine does not see {part.path}; all machines of the cluster must share OUTPUT.")
    if target.exists() and not (target / RECORD).exists():
        raise UserError(f"{target} exists, but train-many has not written it; choose another OUTPUT.")
    group = Group()
    placement = choose_placement(settings.precision, group, settings.device)
    data = load({"training": Source("training", part.path.parent, (part.path,))}, settings, group)
    trained, _ = job.train(data, settings, placement, group, StopSignal())
    metrics = trained.best.metrics
    held_out = "cross-validation" if settings.cross_validation_folds else "validation"
    found = Trained(
        group=part.group,
        folder=target.name,
        series=data.problem.series_count,
        classes=len(data.problem.classes),
        accuracy=metrics.get("valid_accuracy", metrics["train_accuracy"]),
        estimate=held_out if "valid_accuracy" in metrics else "training",
        seconds=round(time.monotonic() - started, 2),
        fingerprint=fingerprint,
    )
    _save(target, part.path.parent, job.make_artifact(data, trained), found)
    return found


def _save(target: Path, scratch: Path, model: tuple[artifact.Metadata, bytes, bytes], found: Trained) -> None:
    """Write the model's folder below `scratch`, then move it to its place; an earlier model is removed.

    Raises:
        UserError: the folder cannot be written to.
    """
    try:
        scratch = Path(tempfile.mkdtemp(dir=scratch))
        artifact.save(scratch / "new", *model)
        write_atomically((scratch / "new" / RECORD, found.model_dump_json(indent=2).encode()))
        if target.exists():
            target.rename(scratch / "old")
        (scratch / "new").rename(target)
        shutil.rmtree(scratch)
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror}.") from error


# Results


def summary_csv(found: Sequence[Trained]) -> str:
    """A row for each group, as CSV with a header."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for trained in found:
        values = trained.model_dump(include=set(COLUMNS))
        accuracy = "" if trained.accuracy is None else f"{trained.accuracy:.6g}"
        writer.writerow([accuracy if name == "accuracy" else values[name] for name in COLUMNS])
    return buffer.getvalue()


def write_summary(folder: Path, found: Sequence[Trained], by: str, suffix: str = "") -> None:
    """Write `SUMMARY` and `REPORT`, with `suffix` before the last dot. Raises `UserError` as `write_atomically`."""
    from lstm_fcn.training.output.many import page  # imports matplotlib

    report = page(by, [trained.model_dump(include=set(COLUMNS)) for trained in found])
    names = [name.replace(".", f"{suffix}.") for name in (SUMMARY, REPORT)]
    write_atomically((folder / names[0], summary_csv(found).encode()), (folder / names[1], report.encode()))


# As a job of the platform


def run_many(optml: OptML, by: str) -> None:
    """Run a training job that trains a model for each value of the column `by`.

    Several machines divide the values; the platform joins their model folders (T53). Models of groups that fail are
    missing. A restarted job keeps the models that are in the folder of the checkpoints, if it has one (T64). A job that
    is stopped keeps those that are complete (T61).

    Raises:
        UserError: as `train_many`; or a channel is not what such a job takes, or no group could be trained.
    """
    resources = optml.resources()
    shard = Shard(resources.hosts.index(resources.current_host), len(resources.hosts))
    channels = find_channels(optml)
    source = channels["training"]
    if len(channels) > 1 or source.pipe or (source.sharded and shard.count > 1):
        raise UserError(f"A job with {BY} has one channel, training, in File mode and the same on all machines.")
    check_writable(optml.model, "model")
    checkpoints, has_checkpoints = optml.checkpoints()
    output = checkpoints / "models" if has_checkpoints else optml.model
    settings = {name: str(value) for name, value in optml.hyperparameters().items()}
    try:
        found = train_many(source.folder, output, by, settings, shard=shard)
    except StopBeforeTraining:  # the models that are complete stay
        found = [Trained.model_validate_json(path.read_bytes()) for path in sorted(output.glob(f"*/{RECORD}"))]
        if not found:
            raise
    trained = [each for each in found if not each.error]
    if found and not trained:
        raise UserError(f"None of {len(found)} groups could be trained. {found[0]}")
    if has_checkpoints:
        for each in trained:
            shutil.copytree(output / each.folder, optml.model / each.folder, dirs_exist_ok=True)
    write_summary(optml.output_data, found, by, f"-{resources.current_host}" if shard.count > 1 else "")
    print(f"models: {len(trained)} of {len(found)} groups in {optml.model}", flush=True)
