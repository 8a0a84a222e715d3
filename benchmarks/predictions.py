"""Predictions on problems of the UCR archive: bfloat16 against float32, and pictures of explanations.

The archive is in the folder `ucr` of the folder that the environment variable TIME_SERIES_DATA names. Each problem is
trained once, with the default settings. The pictures show the class activation map of the predicted class for one test
series of each class.
"""

import os
import statistics
import tempfile
import time
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from lstm_fcn.benchmarks.formats import parse
from lstm_fcn.benchmarks.programs import train
from lstm_fcn.container import artifact
from lstm_fcn.container.cores import available_cores
from lstm_fcn.serving.predictor import Predictions, Predictor
from lstm_fcn.training.output.explanations import Example, class_activation_maps
from lstm_fcn.training.output.style import save

PROBLEMS = (
    *("GunPoint", "Coffee", "CBF", "Trace", "ItalyPowerDemand", "SyntheticControl", "ECG200"),
    *("DiatomSizeReduction", "ECGFiveDays", "SonyAIBORobotSurface1"),
)
PICTURED = ("GunPoint", "CBF", "Trace")
MIN_SERIES, ROUNDS = 2000, 5  # of a measurement of the speed
Series = NDArray[np.float64]


def rate(predictor: Predictor, series: Series) -> float:
    """Series per second."""
    started = time.perf_counter()
    predictor.predict(series)
    return len(series) / (time.perf_counter() - started)


def compare(problem: str, model: Path, labels: list[str], series: Series) -> Predictions:
    """Print a row of the table; return the predictions in float32."""
    both = [Predictor(*artifact.load(model), available_cores(), precision) for precision in ("float32", "bfloat16")]
    many = np.tile(series, (-(-MIN_SERIES // len(series)), 1, 1))
    for predictor in both:
        predictor.predict(many)
    rates = [[rate(predictor, many) for predictor in both] for _ in range(ROUNDS)]
    full_rate, half_rate = map(statistics.median, zip(*rates, strict=True))
    full, half = (predictor.predict(series) for predictor in both)
    truth = np.array([both[0].metadata.problem.classes.index(label) for label in labels])
    right = [float((found.most_probable == truth).mean()) for found in (full, half)]
    agree = float((full.most_probable == half.most_probable).mean())
    apart = float(np.abs(full.probabilities - half.probabilities).max())
    print(
        f"| {problem} | {len(series)} | {series.shape[-1]} | {right[0]:.4f} | {right[1]:.4f} | {agree:.4f} "
        f"| {apart:.3f} | {half_rate / full_rate:.2f} |",
        flush=True,
    )
    return full


def first_of_each_class(model: Path, labels: list[str], series: Series, found: Predictions) -> list[Example]:
    """The first correctly predicted series of each class, with its class activation map."""
    classes = artifact.load(model)[0].problem.classes
    predicted = [classes[k] for k in found.most_probable.tolist()]
    examples = []
    for name in classes:
        k = next(k for k, both in enumerate(zip(labels, predicted, strict=True)) if both == (name, name))
        probability = float(found.probabilities[k].max())
        examples.append(Example(series[k], name, probability, name, found.explanation[k], row=k + 1))
    return examples


@click.command(help=__doc__)
@click.option("--pictures", type=click.Path(file_okay=False, path_type=Path), help="folder for pictures")
def main(pictures: Path | None) -> None:
    data = Path(os.environ.get("TIME_SERIES_DATA") or "/none")
    if not (data / "ucr").is_dir():
        raise SystemExit("Set TIME_SERIES_DATA to a folder with the problems of the UCR archive in ucr/.")
    print(
        "| problem | series | length | accuracy, float32 | bfloat16 | labels that agree | largest difference | speed |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for problem in PROBLEMS:
        with tempfile.TemporaryDirectory() as folder:
            source = str(data / "ucr" / problem / problem)
            model = train(Path(folder), Path(f"{source}_TRAIN.tsv").read_text().replace("\t", ","), {})
            test = parse(Path(f"{source}_TEST.tsv").read_bytes(), "tsv", problem)
            labels, series = test.labels, test.series
            found = compare(problem, model, labels, series)
            if pictures and problem in PICTURED:
                figure = class_activation_maps(first_of_each_class(model, labels, series, found), problem)
                save(figure, pictures, f"explanation-{problem}")


if __name__ == "__main__":
    main()
