"""Training, predicting, measuring and serving on this machine: friendly names for what the other rooms do."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np
from tqdm import tqdm

from lstm_fcn.client.options import given_hyperparameters, hyperparameter_options
from lstm_fcn.container import artifact
from lstm_fcn.container.channels import data_files
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.files import check_writable
from lstm_fcn.container.hyperparameters import parse_hyperparameters
from lstm_fcn.container.media_types import Precision
from lstm_fcn.container.optml import OptML

EXISTING = click.Path(exists=True, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
JOB = ".job"  # in the output folder: the job while it runs, and after an interruption its checkpoints
SCORES = ("precision", "recall", "f1", "rows")
REPORT = ("report.html", "metrics.json", "curves.csv")

# Training


@click.command()
@click.option("--training", type=EXISTING, required=True, multiple=True, help="CSV file, or folder of them")
@click.option("--validation", type=EXISTING, multiple=True, help="likewise; its best epoch is kept")
@click.option("--model", type=EXISTING, help="earlier model to go on from: its folder or model.tar.gz")
@click.option("--output", type=FOLDER, required=True, help="folder for the model and its report")
@hyperparameter_options
def train(
    training: Sequence[Path], validation: Sequence[Path], model: Path | None, output: Path, **options: Any
) -> int:
    """Train a classifier on CSV files: a series a row, its label first.

    Interrupted, the same command goes on from where it was.
    """
    channels = {"training": training, "validation": validation, "model": [model] if model else []}
    return train_model(channels, output, given_hyperparameters(options))


def train_model(channels: dict[str, Sequence[Path]], output: Path, hyperparameters: dict[str, str]) -> int:
    """Run a training job on these files; its model and report come into the folder `output`.

    Returns:
        the job's exit code (see `training.__main__`).

    Raises:
        UserError: a hyperparameter is wrong, or the folder cannot be written to.
    """
    parse_hyperparameters(hyperparameters)
    check_writable(output, "output")
    optml = OptML(output / JOB)
    links = _fill(optml, channels, hyperparameters)
    # In what the job says, the places as the user knows them.
    names = {str(link): str(path) for link, path in links.items()}
    names |= {str(optml.output_data): str(output), str(optml.model): str(output)}
    code = _watch(["lstm_fcn.training"], {"SAGEMAKER_BASE_DIR": str(optml.root)}, names)
    if code == 0:
        results = [optml.model / name for name in (artifact.GRAPH, artifact.WEIGHTS, artifact.METADATA)]
        for path in (*results, *(optml.output_data / name for name in REPORT)):
            if path.exists():
                path.replace(output / path.name)
    folder, _ = optml.checkpoints()
    if code == 0 or not (folder.is_dir() and any(folder.iterdir())):  # else the same command goes on from there
        shutil.rmtree(optml.root)
    return code


def _fill(optml: OptML, channels: dict[str, Sequence[Path]], hyperparameters: dict[str, str]) -> dict[Path, Path]:
    """Lay out the job as the platform does; the files stay where they are. Returns which link is whose."""
    links: dict[Path, Path] = {}
    shutil.rmtree(optml.root / "input", ignore_errors=True)
    for name, paths in channels.items():
        for number, path in enumerate(paths):
            place = optml.data / name / f"{number}-{path.name}"
            files = data_files(path) if path.is_dir() else [path]
            links |= {place / file.relative_to(path) if path.is_dir() else place: file for file in files}
    for link, file in links.items():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file.resolve())
    optml.config.mkdir(parents=True, exist_ok=True)
    (optml.config / "hyperparameters.json").write_text(json.dumps(hyperparameters))
    return links


def _watch(module: list[str], environment: dict[str, str], names: dict[str, str]) -> int:
    """Run `python -m module`; a bar follows its epochs where a person watches, else its lines come as they are.

    In them, `names` are replaced.
    """

    def rename(text: str) -> str:
        for name, better in names.items():
            text = text.replace(name, better)
        return text

    command = [sys.executable, "-m", *module]
    everything = {**os.environ, **environment, "PYTHONUNBUFFERED": "1"}
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, env=everything, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
        _hand_on(process),
    ):
        bar = tqdm(unit="epoch", dynamic_ncols=True, disable=not sys.stderr.isatty())
        for line in process.stdout or ():
            epoch = None if bar.disable else _epoch(line)
            if epoch is None:
                bar.write(rename(line.rstrip("\n")))
                sys.stdout.flush()
                continue
            done, bar.total, text = epoch
            bar.set_postfix_str(text, refresh=False)
            bar.update(done - bar.n)
        bar.close()
        code = process.wait()
        errors.seek(0)
        sys.stderr.write(rename(errors.read()))
        return code


@contextmanager
def _hand_on(process: "subprocess.Popen[str]") -> Iterator[None]:
    """Signals to stop go to the process, which saves what there is."""

    def hand_on(number: int, _: object) -> None:
        process.send_signal(number)

    # A terminal sends Ctrl-C to both by itself.
    earlier = {signal.SIGTERM: signal.signal(signal.SIGTERM, hand_on)}
    earlier[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN if sys.stdin.isatty() else hand_on)
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _epoch(line: str) -> tuple[int, int, str] | None:
    """Number, total and metrics of an epoch's line."""
    if not line.startswith("epoch: ") or "train_loss: " not in line:
        return None
    place, _, rest = line.removeprefix("epoch: ").partition(", ")
    done, _, total = place.partition("/")
    wanted = ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy")
    metrics = [part for part in rest.strip().split(", ") if part.split(":")[0] in wanted]
    return int(done), int(total), " ".join(part.replace(": ", "=") for part in metrics)


# Using a model


@click.command()
@click.argument("model", type=FOLDER)
@click.argument("data", type=click.Path(allow_dash=True, path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), default=Path("-"), help="file to write [standard output]")
@click.option("--outputs", default="", help="such as predicted_label,probability,probabilities,explanation")
@click.option("--header", is_flag=True, help="start with a line of names")
@click.option("--join", is_flag=True, help="put the predictions behind the cells of their row")
@click.option("--precision", type=click.Choice(get_args(Precision)), default="float32", show_default=True)
def predict(model: Path, data: Path, output: Path, outputs: str, header: bool, join: bool, precision: str) -> int:
    """Predict the series of the CSV file DATA (- for standard input), one prediction a row.

    Series have no label; where the training data had a header, so must they.
    """
    _check_model(model)
    flags = [name for name, given in (("--header", header), ("--join", join), ("--overwrite", True)) if given]
    arguments = ["--model", str(model), "--outputs", outputs, "--precision", precision, *flags]
    return _call("lstm_fcn.serving.transform", [*arguments, str(data), str(output)])


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def transform(arguments: Sequence[str]) -> int:
    """Predict whole folders of files of any size: lstm-fcn transform INPUT OUTPUT --model MODEL."""
    return _call("lstm_fcn.serving.transform", arguments)


@click.command()
@click.argument("model", type=FOLDER)
@click.argument("data", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="for programs")
def evaluate(model: Path, data: Path, as_json: bool) -> None:
    """Measure the model in the folder MODEL on the labelled series of the CSV file DATA."""
    from lstm_fcn.training.output.visualize import read_subject

    evaluation = read_subject(model, data).evaluation
    right = evaluation.predictions == evaluation.truth
    accuracy = float((right.all(axis=1) if evaluation.independent else right).mean())
    scores = evaluation.scores()
    found = scores[scores[:, 3] > 0]
    metrics = {
        "rows": len(evaluation.truth),
        "accuracy": accuracy,
        "balanced_accuracy": float(np.nanmean(found[:, 1])),
        "f1": float(np.nanmean(found[:, 2])),
    }
    classes = [
        {"class": name, **dict(zip(SCORES, values, strict=True))}
        for name, values in zip(evaluation.classes, scores.tolist(), strict=True)
    ]
    if as_json:
        click.echo(json.dumps({**metrics, "classes": classes}, indent=2))
        return
    for name, value in metrics.items():
        click.echo(f"{name:<20} {value:.4f}" if isinstance(value, float) else f"{name:<20} {value}")
    width = max(map(len, ("class", *evaluation.classes)))
    click.echo(f"\n{'class':<{width}}  " + "  ".join(f"{name:>9}" for name in SCORES))
    for name, (*values, rows) in zip(evaluation.classes, scores.tolist(), strict=True):
        click.echo(f"{name:<{width}}  " + "  ".join(f"{value:>9.4f}" for value in values) + f"  {rows:>9.0f}")


@click.command()
@click.argument("model", type=FOLDER)
@click.argument("data", type=FILE)
@click.argument("pictures", type=FOLDER)
@click.option("--row", "rows", type=click.IntRange(1), multiple=True, help="class activation map of this row of DATA")
@click.option("--class", "class_name", metavar="LABEL", help="what speaks for this class, not for the predicted one")
@click.option("--one-per-class", is_flag=True, help="attention: the first series of each class only")
def visualize(
    model: Path, data: Path, pictures: Path, rows: tuple[int, ...], class_name: str, one_per_class: bool
) -> None:
    """Draw what the model in the folder MODEL makes of the labelled series of the CSV file DATA, into PICTURES."""
    from lstm_fcn.training.output.visualize import draw_model

    for name in draw_model(model, data, pictures, rows, class_name, one_per_class):
        click.echo(pictures / f"{name}.png")


@click.command()
@click.argument("model", type=FOLDER)
@click.option("--port", type=click.IntRange(1, 65535), default=8080, show_default=True)
@click.option("--workers", type=click.IntRange(1, 256), help="processes [one for each core]")
@click.option("--precision", type=click.Choice(get_args(Precision)), default="float32", show_default=True)
def serve(model: Path, port: int, workers: int | None, precision: str) -> int:
    """Serve the model in the folder MODEL over HTTP, with a page to try it at the address that is printed."""
    _check_model(model)
    settings = {"SAGEMAKER_BIND_TO_PORT": str(port), "LSTM_FCN_PRECISION": precision, "LSTM_FCN_PAGE": "true"}
    if workers:
        settings["SAGEMAKER_MODEL_SERVER_WORKERS"] = str(workers)
    click.echo(f"http://localhost:{port}/")
    with tempfile.TemporaryDirectory() as root:
        (Path(root) / "model").symlink_to(model.resolve())
        return _call("lstm_fcn.serving", (), {**settings, "SAGEMAKER_BASE_DIR": root})


def _check_model(folder: Path) -> None:
    """Say at once, and in the words of this command, that there is no model."""
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}; it should be the --output of lstm-fcn train.")
    artifact.load(folder)


def _call(module: str, arguments: Sequence[str], environment: dict[str, str] | None = None) -> int:
    """Run `python -m module` with these arguments, as if it had been called; returns its exit code."""
    command = [sys.executable, "-m", module, *arguments]
    name = {"_LSTM_FCN_COMMAND": click.get_current_context().command_path}  # what its --help calls it
    with (
        subprocess.Popen(command, env={**os.environ, **name, **(environment or {})}, text=True) as process,
        _hand_on(process),
    ):
        return process.wait()
