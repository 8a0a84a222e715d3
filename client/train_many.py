"""The command `train-many`: one model for each value of a column of a table."""

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
from typing import Any, NamedTuple

import click
from pydantic import BaseModel, ValidationError
from tqdm import tqdm

from lstm_fcn.client.options import given_hyperparameters, hyperparameter_options
from lstm_fcn.client.partition import Part, divide, folder_names
from lstm_fcn.client.spread import spread, spread_options
from lstm_fcn.container import artifact
from lstm_fcn.container.channels import Source
from lstm_fcn.container.errors import UserError, plural
from lstm_fcn.container.files import check_writable, write_atomically
from lstm_fcn.container.hyperparameters import Hyperparameters, parse_hyperparameters
from lstm_fcn.container.progress import training_log

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
) -> list[Trained]:
    """Train a model for each value of the column `by`, each on one core, and write a summary and a report of them.

    A model that exists is kept if it was trained with the same rows and hyperparameters. A group that cannot be trained
    has an error; the others are trained.

    Args:
        source: table with a series in each row, or prepared recordings; see `partition.divide`.
        output: folder; the machines of a cluster must share it.
        by: see above.
        hyperparameters: as text, by name.
        workers: see `spread`.
        cluster: see `spread`.

    Returns:
        all groups, the worst first.

    Raises:
        UserError: the table, the column or the hyperparameters are invalid, the output folder cannot be written to, or
            as `spread` does.
    """
    settings = parse_hyperparameters(hyperparameters)
    check_writable(output, "output")
    work = output.resolve() / WORK
    shutil.rmtree(work, ignore_errors=True)
    try:
        parts = divide(source, by, work / "rows")
        found = _train_all(_plan(parts, output.resolve(), settings), settings, workers, cluster)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    found.sort(key=lambda trained: (not trained.error, trained.accuracy or 0.0, trained.group))
    write_atomically((output / SUMMARY, summary_csv(found).encode()), (output / REPORT, _report(found, by).encode()))
    return found


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
    _save(target, job.make_artifact(data, trained), found)
    return found


def _save(target: Path, model: tuple[artifact.Metadata, bytes, bytes], found: Trained) -> None:
    """Write the model's folder beside its place, then move it there; an earlier model is removed.

    Raises:
        UserError: the folder cannot be written to.
    """
    try:
        scratch = Path(tempfile.mkdtemp(dir=target.parent / WORK))
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


def _report(found: Sequence[Trained], by: str) -> str:
    from lstm_fcn.training.output.many import page  # imports matplotlib

    rows = [{**trained.model_dump(include=set(COLUMNS))} for trained in found]
    return page(by, rows)


@click.command("train-many")
@click.argument("source", metavar="INPUT", type=click.Path(exists=True, path_type=Path))
@click.argument("output", metavar="OUTPUT", type=click.Path(file_okay=False, path_type=Path))
@click.option("--by", required=True, metavar="COLUMN", help="column; each of its values gets a model")
@spread_options
@hyperparameter_options
def train_many_command(
    source: Path, output: Path, by: str, workers: int | None, cluster: str | None, **options: Any
) -> int:
    """Train a classifier for each value of a column of the table INPUT, each on one core.

    INPUT is a file or a folder of files: CSV with a header, Parquet or Arrow with a series in each row, or recordings
    that lstm-fcn prepare has written. OUTPUT gets a folder for each model, summary.csv and report.html, the worst model
    first. If training is interrupted (Ctrl-C), run the same command again to resume it: models that are complete are
    kept.
    """
    found = train_many(source, output, by, given_hyperparameters(options), workers, cluster)
    failed = sum(bool(trained.error) for trained in found)
    click.echo(f"{output / SUMMARY}: {plural(len(found) - failed, 'model')}" + f"; {failed} failed" * bool(failed))
    return UserError.exit_code if failed else 0
