"""Commands of `lstm-fcn` that work on this machine: train, predict, evaluate, visualize and serve.

Libraries that take long to import are imported in the commands that need them, so that a mistake is reported at once.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import click

from lstm_fcn.client.options import given_hyperparameters, hyperparameter_options
from lstm_fcn.container.channels import data_files
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.files import check_writable
from lstm_fcn.container.hyperparameters import parse_hyperparameters
from lstm_fcn.container.media_types import OUTPUTS, Precision
from lstm_fcn.container.optml import BY, OptML
from lstm_fcn.container.progress import EpochBar

if TYPE_CHECKING:
    from lstm_fcn.client.recordings import Each
    from lstm_fcn.container.artifact import Metadata

EXISTING = click.Path(exists=True, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
JOB = ".job"  # in the output folder: the running job; after an interruption, its checkpoints
FILE_TO_WRITE = click.Path(dir_okay=False, path_type=Path)
SCORES = ("precision", "recall", "f1", "rows")
REPORT = ("report.html", "metrics.json", "curves.csv")

precision_option = click.option(
    "--precision", type=click.Choice(get_args(Precision)), default="float32", show_default=True
)

# Training


@click.command()
@click.option("--training", type=EXISTING, required=True, multiple=True, help="CSV file or folder of CSV files")
@click.option("--validation", type=EXISTING, multiple=True, help="CSV file or folder; selects the best epoch")
@click.option("--model", type=EXISTING, help="earlier model to continue training from: its folder or model.tar.gz")
@click.option("--output", type=FOLDER, required=True, help="folder for the model and its report")
@hyperparameter_options
def train(
    training: Sequence[Path], validation: Sequence[Path], model: Path | None, output: Path, **options: Any
) -> int:
    """Train a classifier on CSV files with one series per row, its label first.

    If training is interrupted (Ctrl-C), run the same command again to resume it.
    """
    channels = {"training": training, "validation": validation, "model": [model] if model else []}
    return train_model(channels, output, given_hyperparameters(options))


def train_model(channels: Mapping[str, Sequence[Path]], output: Path, hyperparameters: dict[str, str]) -> int:
    """Run a training job in a separate process and move its model and report to the folder `output`.

    Args:
        channels: files and folders of each channel; see `container.channels`.
        output: keeps its earlier model and report until the new ones are complete.
        hyperparameters: as text, by name.

    Returns:
        the exit code of the job (see `training.__main__`); 130 if it was interrupted and can be resumed.

    Raises:
        UserError: a hyperparameter or an input is invalid, or the output folder cannot be written to.
    """
    settings = parse_hyperparameters(hyperparameters)
    check_writable(output, "output")
    optml = OptML(output / JOB)
    names = _prepare(optml, channels, hyperparameters)
    # The job's messages name its own folders; the user knows them by other names.
    names |= {str(optml.output_data): str(output), str(optml.model): str(output), "UserError: ": "Error: "}
    code = _run_job(optml.root, names, settings.fine_tune_rounds + 1)
    if code == 0:
        _replace_results(optml, output)
    folder, _ = optml.checkpoints()
    if code == 0 or not (folder.is_dir() and any(folder.iterdir())):
        shutil.rmtree(optml.root)
    return code


def _prepare(optml: OptML, channels: Mapping[str, Sequence[Path]], hyperparameters: dict[str, str]) -> dict[str, str]:
    """Lay out the job as the platform does, with links to the files; returns the user's name for each path in it."""
    names: dict[str, str] = {}
    shutil.rmtree(optml.root / "input", ignore_errors=True)
    for channel, paths in channels.items():
        for number, path in enumerate(paths):
            place = optml.data / channel / f"{number}-{path.name}"
            files = data_files(path) if path.is_dir() else [path]
            if not files:
                raise UserError(f"The folder {path} contains no data files.")
            for file in files:
                link = place / file.relative_to(path) if path.is_dir() else place
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(file.resolve())
                names[str(link)] = str(file)
        names[str(optml.data / channel)] = ", ".join(map(str, paths))
    optml.config.mkdir(parents=True, exist_ok=True)
    (optml.config / "hyperparameters.json").write_text(json.dumps(hyperparameters))
    return names


def _run_job(root: Path, names: Mapping[str, str], rounds: int) -> int:
    """Run the job and show its progress: a bar on a terminal, otherwise the lines of its log.

    Args:
        root: of the job's folders.
        names: replacements in what the job prints.
        rounds: of training, with the fine-tuning rounds.
    """

    def rename(text: str) -> str:
        for name, better in names.items():
            text = text.replace(name, better)
        return text

    settings = {"SAGEMAKER_BASE_DIR": str(root), "LSTM_FCN_RESUMABLE": "true", BY: "", "PYTHONUNBUFFERED": "1"}
    with (
        tempfile.TemporaryFile("w+") as errors,
        _run_module("lstm_fcn.training", settings, stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        with EpochBar(rounds) as bar:
            for line in process.stdout or ():
                bar.show(rename(line.rstrip("\n")))
        code = process.wait()
        errors.seek(0)
        sys.stderr.write(rename(errors.read()))
        return code if code >= 0 else 128 - code


def _replace_results(optml: OptML, output: Path) -> None:
    """Move model and report to `output`. An old report never stands beside a new model."""
    from lstm_fcn.container import artifact

    for name in REPORT:
        (output / name).unlink(missing_ok=True)
    model = [optml.model / name for name in artifact.files_to_write(output)]
    for path in (*model, *(optml.output_data / name for name in REPORT)):
        if path.exists():  # a report that could not be written is missing
            path.replace(output / path.name)


@contextmanager
def _run_module(module: str, settings: Mapping[str, str], **streams: Any) -> "Iterator[subprocess.Popen[str]]":
    """Start `python -m module` with these environment variables; SIGINT and SIGTERM stop it, and not this process.

    In a terminal, Ctrl-C reaches both processes. It is still passed on as SIGTERM, because it may have been sent
    to this process alone, and a second SIGINT would end a training job without a checkpoint.
    """
    command = [sys.executable, "-m", module]
    with subprocess.Popen(command, env={**os.environ, **settings}, text=True, **streams) as process:
        numbers = (signal.SIGINT, signal.SIGTERM)
        previous = {number: signal.signal(number, lambda *_: process.terminate()) for number in numbers}
        try:
            yield process
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


# Using a model


@click.command()
@click.argument("model", type=FOLDER)
@click.argument("data", type=click.Path(allow_dash=True, path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), default=Path("-"), help="file to write [standard output]")
@click.option("--outputs", default="", help="outputs, separated by commas: " + ", ".join(OUTPUTS))
@click.option("--header", is_flag=True, help="write a header line")
@click.option("--join", is_flag=True, help="write each prediction after the cells of its row")
@click.option("--each", type=click.Choice(["window", "step", "event"]), help="of recordings: a row for each [window]")
@click.option("--picture", type=FILE_TO_WRITE, help="of recordings: PNG with what was predicted when")
@precision_option
def predict(model: Path, data: Path, output: Path, each: str | None, picture: Path | None, **options: Any) -> int:
    """Predict the series of the file DATA (- for standard input) with the model in the folder MODEL.

    DATA is CSV, Parquet or Arrow. The series have no label; CSV needs a header if the training data had one.
    Predictions of Parquet and Arrow are written as Parquet, unless they go to standard output. An existing output file
    is replaced.
    """
    if _check_model(model).problem.preparation is not None:
        from lstm_fcn.client.recordings import predict_recordings

        if options["header"] or options["join"]:
            raise UserError("--header and --join are for series in rows; predictions of recordings have a header.")
        outputs, precision = options["outputs"], options["precision"]
        predict_recordings(model, data, output, outputs, cast("Each", each or "window"), picture, precision)
        return 0
    if each or picture:
        raise UserError("--each and --picture are for models of recordings (lstm-fcn prepare).")
    from lstm_fcn.serving.transform import transform_files

    return transform_files(model, data, output, overwrite=True, **options)


@click.command()
@click.argument("model", type=FOLDER)
@click.argument("data", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="print JSON")
def evaluate(model: Path, data: Path, as_json: bool) -> None:
    """Measure the model in the folder MODEL on the labelled series of the CSV file DATA."""
    _check_model(model)
    from lstm_fcn.training.output.visualize import read_subject

    subject = read_subject(model, data)
    evaluation, scores = subject.evaluation, subject.evaluation.scores().tolist()
    metrics = {"rows": len(evaluation.truth), **subject.metrics()}
    if as_json:
        classes = [
            {"class": name, **dict(zip(SCORES, values, strict=True))}
            for name, values in zip(evaluation.classes, scores, strict=True)
        ]
        click.echo(json.dumps({**metrics, "classes": classes}, indent=2))
        return
    for name, value in metrics.items():
        click.echo(f"{name:<20} {value:.4f}" if isinstance(value, float) else f"{name:<20} {value}")
    width = max(map(len, ("class", *evaluation.classes)))
    click.echo(f"\n{'class':<{width}}  " + "  ".join(f"{name:>9}" for name in SCORES))
    for name, (*values, rows) in zip(evaluation.classes, scores, strict=True):
        click.echo(f"{name:<{width}}  " + "  ".join(f"{value:>9.4f}" for value in values) + f"  {rows:>9.0f}")


@click.command()
@click.argument("model", type=FOLDER)
@click.argument("data", type=FILE)
@click.argument("pictures", type=FOLDER)
@click.option("--row", "rows", type=click.IntRange(1), multiple=True, help="class activation map of this row of DATA")
@click.option("--class", "class_name", metavar="LABEL", help="class to explain [the predicted one]")
@click.option("--one-per-class", is_flag=True, help="draw attention for the first series of each class only")
def visualize(
    model: Path, data: Path, pictures: Path, rows: tuple[int, ...], class_name: str | None, one_per_class: bool
) -> None:
    """Draw pictures of the model in the folder MODEL.

    DATA is a CSV file of labelled series to show the model with, such as the validation data. PICTURES is the folder to
    write to.
    """
    _check_model(model)
    from lstm_fcn.training.output.visualize import draw_model

    for name in draw_model(model, data, pictures, rows, class_name, one_per_class):
        click.echo(pictures / f"{name}.png")


@click.command()
@click.argument("model", metavar="FOLDER", type=FOLDER)
@click.option("--host", default="127.0.0.1", show_default=True, help="address to listen on; 0.0.0.0: all interfaces")
@click.option("--port", type=click.IntRange(1, 65535), default=8080, show_default=True)
@click.option("--workers", type=click.IntRange(1, 256), help="worker processes [one per core]")
@precision_option
def serve(model: Path, host: str, port: int, workers: int | None, precision: str) -> int:
    """Serve the model in FOLDER over HTTP, with a page to try it at the address that is printed.

    If FOLDER holds folders of models instead, serve all of them: POST /models/NAME/invoke predicts with one.
    """
    from lstm_fcn.container.artifact import METADATA

    has_models = not (model / METADATA).exists() and any(model.glob(f"*/{METADATA}"))
    if not has_models:
        _check_model(model)
    settings = {
        "LSTM_FCN_HOST": host,
        "SAGEMAKER_BIND_TO_PORT": str(port),
        "LSTM_FCN_PRECISION": precision,
        "LSTM_FCN_PAGE": "true",
        "SAGEMAKER_MULTI_MODEL": str(has_models).lower(),
    }
    if workers:
        settings["SAGEMAKER_MODEL_SERVER_WORKERS"] = str(workers)
    path = "models" if has_models else ""
    click.echo(f"http://{'localhost' if host == '0.0.0.0' else host}:{port}/{path}")  # noqa: S104 - compared, not bound
    with tempfile.TemporaryDirectory() as root:
        (Path(root) / ("models" if has_models else "model")).symlink_to(model.resolve())
        with _run_module("lstm_fcn.serving", {**settings, "SAGEMAKER_BASE_DIR": root}) as process:
            return process.wait()


def _check_model(folder: Path) -> "Metadata":
    """What `model.json` holds. Raises `UserError` if there is no usable model, before anything slow is imported."""
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}; give the --output folder of lstm-fcn train.")
    from lstm_fcn.container import artifact

    return artifact.load(folder)[0]
