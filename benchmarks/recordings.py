"""Recordings: what leaks between overlapping windows, and how well intervals are found: `make bench-recordings`.

1. Leakage. Machines of `data.make_machines`, in windows that overlap: the accuracy that a validation set promises if
   its windows are drawn at random, and if whole machines are held out; and the accuracy on machines never seen.
2. Intervals. Series of problems of the UCR archive, glued together in random order: the share of time steps whose
   class is predicted correctly, in recordings made of the test series. The archive is in the folder `ucr` of the
   folder that the environment variable TIME_SERIES_DATA names.
"""

import os
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

import click
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold, KFold, cross_val_score

from lstm_fcn import LSTMFCNClassifier
from lstm_fcn.benchmarks.formats import parse
from lstm_fcn.container import artifact
from lstm_fcn.container.artifact import Metadata
from lstm_fcn.container.recording import SECOND
from lstm_fcn.container.steps import read_preparation
from lstm_fcn.data import FILE, prepare
from lstm_fcn.training.output.recordings import Drawn, draw_recordings
from lstm_fcn.training.output.style import BLUE, DARK, VERMILION, house_style, save

MACHINES, FOLDS, EPOCHS = 8, 4, 5  # of the first measurement; a few epochs, because it trains nine models
PROBLEMS = ("GunPoint", "Trace", "ArrowHead")
RECORDINGS = 4  # that the series of a set are glued to
SHOWN = 12  # series of a recording that are drawn


# Leakage


def prepare_machines(folder: Path, name: str, faults: str) -> tuple[NDArray[np.float64], NDArray[np.str_], list[str]]:
    """Windows `[N, M, T]` of the machines in a file, their labels, and the machine of each."""
    prepare(
        folder / f"{name}.csv",
        folder / name,
        id="machine",
        time="time",
        intervals=folder / f"{faults}.csv",
        unlabelled="normal",
        every="100ms",
        max_gap="5s",
        window="10s",
        stride="2s",
    )
    path = folder / name / "training" / FILE
    series, labels, machines = [], [], []
    preparation = read_preparation(path)
    assert preparation is not None  # noqa: S101 - it was written above
    for (machine, _), piece in pd.read_parquet(path).groupby(["recording", "piece"], observed=True):
        values, states = piece[list(preparation.values)].to_numpy(), piece["label"].to_numpy()
        for start in range(0, len(piece) - preparation.window + 1, preparation.stride):
            here = slice(start, start + preparation.window)
            names, counts = np.unique(states[here].astype(np.str_), return_counts=True)
            if counts.max() >= preparation.minimum_share * preparation.window:
                series.append(values[here].T)
                labels.append(str(names[counts.argmax()]))
                machines.append(str(machine))
    return np.stack(series), np.array(labels), machines


def measure_leakage(folder: Path) -> dict[str, float]:
    """The mean accuracy over the folds of each way to hold windows out, and the accuracy on new machines."""
    import_module("data.make_machines").main(folder, known=MACHINES, new=MACHINES)
    series, labels, machines = prepare_machines(folder, "machines", "faults")
    new_series, new_labels, _ = prepare_machines(folder, "new", "new_faults")
    model = LSTMFCNClassifier(epochs=EPOCHS)
    splitters = {
        "windows drawn at random": KFold(FOLDS, shuffle=True, random_state=0).split(series),
        "whole machines held out": GroupKFold(FOLDS).split(series, labels, machines),
    }
    found = {
        name: float(np.mean(cross_val_score(model, series, labels, cv=list(folds))))
        for name, folds in splitters.items()
    }
    found["machines never seen"] = float(model.fit(series, labels).score(new_series, new_labels))
    return found


@house_style()
def draw_leakage(found: dict[str, float]) -> Figure:
    """A bar for each way to measure."""
    figure = Figure(figsize=(5.6, 1.7), layout="constrained")
    axes = figure.subplots()
    for place, (accuracy, colour) in enumerate(zip(found.values(), (VERMILION, BLUE, DARK), strict=True)):
        axes.barh(place, accuracy, color=colour, alpha=0.75, height=0.6)
        axes.text(0.02, place, f"{accuracy:.3f}", va="center", color="white")
    axes.set_yticks(range(len(found)), list(found))
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set(xlim=(0, 1), xlabel="accuracy")
    return figure


# Intervals


def glue(labels: list[str], series: NDArray[np.float64], name: str, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Series `[N, T]` in random order as recordings, a row for each step, and the intervals of their classes."""
    order = np.random.default_rng(seed).permutation(len(labels))
    length = series.shape[1]
    rows, intervals = [], []
    for number, part in enumerate(np.array_split(order, RECORDINGS)):
        recording = f"{name} {number + 1}"
        values = series[part].reshape(-1)
        rows.append(pd.DataFrame({"recording": recording, "second": np.arange(len(values)), "value": values}))
        starts = length * np.arange(len(part))
        classes = [labels[k] for k in part]
        intervals.append(
            pd.DataFrame({"recording": recording, "start": starts, "end": starts + length, "label": classes})
        )
    return pd.concat(rows), pd.concat(intervals)


def find_intervals(problem: str, archive: Path, folder: Path) -> tuple[float, Drawn, Metadata]:
    """The share of time steps that are right; the first test recording; and the model."""
    parts = {}
    for name in ("TRAIN", "TEST"):
        found = parse((archive / problem / f"{problem}_{name}.tsv").read_bytes(), "tsv", problem)
        parts[name] = glue(found.labels, found.series[:, 0], name.lower(), seed=0)
        length = found.series.shape[2]
    rows, intervals = parts["TRAIN"]
    stride = max(1, length // 8)
    prepare(rows, folder, id="recording", time="second", intervals=intervals, window=length, stride=stride)
    run("lstm_fcn.client", "train", "--training", folder / "training", "--output", folder / "model")
    metadata = artifact.load(folder / "model")[0]
    rows, intervals = parts["TEST"]
    rows.to_csv(folder / "test.csv", index=False)
    predicted = folder / "steps.csv"
    run("lstm_fcn.client", "predict", folder / "model", folder / "test.csv", "--each", "step", "--output", predicted)
    steps = pd.read_csv(predicted, dtype={"predicted_label": str})
    merged = steps.assign(number=steps["time"] // length).merge(
        intervals.assign(number=intervals["start"] // length), on=["recording", "number"]
    )
    share = float((merged["predicted_label"] == merged["label"]).sum() / len(rows))
    return share, first_recording(problem, rows, intervals, steps, metadata, SHOWN * length), metadata


def first_recording(
    title: str, rows: pd.DataFrame, intervals: pd.DataFrame, steps: pd.DataFrame, metadata: Metadata, end: int
) -> Drawn:
    """The first `end` steps of the first recording, with predicted and true intervals."""
    name = rows["recording"].iloc[0]
    rows, intervals, steps = (
        table[(table["recording"] == name) & (table[column] < end)]
        for table, column in ((rows, "second"), (intervals, "start"), (steps, "time"))
    )
    codes = {label: code for code, label in enumerate(metadata.problem.classes)}
    classes, times = steps["predicted_label"].map(codes).to_numpy(np.int64), steps["time"].to_numpy(np.int64)
    ends = np.flatnonzero(np.diff(classes, append=-1))
    starts = np.concatenate([[0], ends[:-1] + 1])
    true = [SECOND * intervals[column].to_numpy().astype(np.int64) for column in ("start", "end")]
    return Drawn(
        title,
        rows["second"].to_numpy() * SECOND,
        rows[["value"]].to_numpy(),
        times[starts] * SECOND,
        times[ends] * SECOND,
        classes[starts],
        (true[0], true[1], intervals["label"].map(codes).to_numpy().astype(np.int64)),
    )


def run(module: str, *arguments: str | Path) -> None:
    """Run a program of this project in a process."""
    subprocess.run([sys.executable, "-m", module, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


@click.command(help=__doc__)
@click.option("--pictures", type=click.Path(file_okay=False, path_type=Path), help="folder to draw pictures to")
def main(pictures: Path | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = measure_leakage(Path(folder))
    print("| held out | accuracy |\n|---|---|")
    for name, accuracy in found.items():
        print(f"| {name} | {accuracy:.3f} |", flush=True)
    if pictures:
        save(draw_leakage(found), pictures, "leakage")
    archive = Path(os.environ.get("TIME_SERIES_DATA", "")) / "ucr"
    if not archive.is_dir():
        print("TIME_SERIES_DATA names no folder with the archive; intervals are skipped")
        return
    print("\n| problem | length of a series | steps with the right class |\n|---|---|---|")
    for problem in PROBLEMS:
        with tempfile.TemporaryDirectory() as folder:
            share, drawn, metadata = find_intervals(problem, archive, Path(folder))
        preparation = metadata.problem.preparation
        assert preparation is not None  # noqa: S101 - see `find_intervals`
        print(f"| {problem} | {preparation.window} | {share:.3f} |", flush=True)
        if pictures and problem == PROBLEMS[0]:
            figure = draw_recordings([drawn], preparation, metadata.problem.classes)
            save(figure, pictures, f"recording-{problem}")


if __name__ == "__main__":
    main()
