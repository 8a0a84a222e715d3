"""Test accuracies over an archive of problems: `lstm-fcn benchmark run`.

A run trains one method on one problem with one seed and tests it. Each core works on one run at a time, the largest
problems first; if there is a GPU, all runs share it. A run becomes a row of the results as soon as it finishes. If the
command is interrupted, run it again: it skips the runs that have a row.

The test set is read after training and never used for a choice: every requested number of cells is reported, and the
weights are those of the lowest training loss.
"""

import io
import math
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, cast

import click
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from lstm_fcn.benchmarks.cores import one_process_per_core
from lstm_fcn.benchmarks.problems import TEST, TRAIN, Description, load_description
from lstm_fcn.benchmarks.results import Row, append_result, read_results, write_results
from lstm_fcn.container.channels import Source
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.files import write_atomically
from lstm_fcn.container.hyperparameters import PARAMETERS, Hyperparameters, parse_hyperparameters
from lstm_fcn.training.data.loading import load, load_validation
from lstm_fcn.training.devices import choose_placement
from lstm_fcn.training.distributed import Group
from lstm_fcn.training.explain import predict
from lstm_fcn.training.fit import fit
from lstm_fcn.training.job import versions
from lstm_fcn.training.network.model import Classifier, Network
from lstm_fcn.training.scores import measure_scores
from lstm_fcn.training.stop import prepare_worker

METHODS: dict[str, dict[str, str]] = {
    "LSTM-FCN": {"recurrent": "lstm"},
    "ALSTM-FCN": {"recurrent": "alstm"},
    "GRU-FCN": {"recurrent": "gru"},
    "RNN-FCN": {"recurrent": "rnn"},
    "Dense-FCN": {"recurrent": "dense"},
    "FCN": {"recurrent": "none"},
    "LSTM": {"recurrent": "lstm", "convolutions": "false"},
    "LSTM-FCN without shuffle": {"recurrent": "lstm", "dimension-shuffle": "false"},
    "MLSTM-FCN": {"recurrent": "lstm", "squeeze-excite": "true"},
    "MALSTM-FCN": {"recurrent": "alstm", "squeeze-excite": "true"},
}


# Rows beside that of a classifier with kernel features: what its networks, and what its kernel features reach alone.
ALONE = (", networks alone", ", kernel features alone")


@dataclass(frozen=True)
class Run:
    """One training: a problem, a method, and the hyperparameters in which runs differ."""

    dataset: str
    method: str
    cells: int
    seed: int
    preset: str
    ensemble: int = 0  # networks; 0: as many as the preset has

    @property
    def identity(self) -> tuple[str, str, int, int, str]:
        """Key of the run's row in the results."""
        method = self.method if not self.ensemble else f"{self.method}, ensemble of {self.ensemble}"
        return self.dataset, method, self.cells, self.seed, self.preset

    def probabilities(self, folder: Path) -> Path:
        """The file with the probabilities that the run predicted."""
        text = f"{self.dataset}-{self.method}-{self.cells}-{self.seed}-{self.preset}-{self.ensemble}"
        return folder / "".join(c if c.isalnum() or c in "-." else "_" for c in f"{text}.npz")

    def settings(self, problem: Description) -> Hyperparameters:
        """The hyperparameters for a problem."""
        values = METHODS[self.method] | {"preset": self.preset, "hidden-size": str(self.cells)}
        values["seed"] = str(self.seed)
        if self.ensemble:
            values["ensemble-size"] = str(self.ensemble)
        if problem.num_variables > 1:
            values["num-variables"] = str(problem.num_variables)
        if problem.missing:
            values["missing-values"] = "interpolate"
        if problem.shortest != problem.length:
            values["length-policy"] = "resample"
        return parse_hyperparameters(values)


def run_all(problems: Path, results: Path, runs: Iterable[Run], average: int = 0) -> int:
    """Train and test what has no row in `results` yet; return the number of failed runs.

    Args:
        problems: folder of imported problems.
        results: the table. A folder of the same name, without `.csv`, receives the probabilities.
        runs: the runs to have in the table.
        average: add a row for the averaged probabilities of this many seeds; 0: none.

    Raises:
        UserError: the table cannot be read or written.
    """
    rows = [row for row in read_results(results) if ", average of " not in row.method]
    done, folder, failed = {row.identity for row in rows}, results.with_suffix("") / "probabilities", 0
    waiting = [run for run in runs if run.identity not in done]
    found = {run.dataset: load_description(problems / run.dataset) for run in waiting}
    # One seed after the other; the largest problems first, so that no core is idle for long at the end.
    waiting.sort(key=lambda run: (run.seed, -found[run.dataset].train * found[run.dataset].length))
    write_results(results, rows)
    with one_process_per_core(_prepare) as pool:
        futures = {pool.submit(train_and_test, run, problems / run.dataset, folder): run for run in waiting}
        bar = tqdm(as_completed(futures), total=len(futures), unit="run", disable=not sys.stderr.isatty())
        for number, future in enumerate(bar, 1):
            run = futures[future]
            name = f"{run.dataset}, {run.method}, {run.cells} cells, seed {run.seed}"
            try:
                found_rows = future.result()
            except UserError as error:
                failed += 1
                bar.write(f"{name}: {error}", file=sys.stderr)
                continue
            for row in found_rows:
                append_result(results, row)
            rows += found_rows
            row = found_rows[-1]
            bar.write(f"[{number}/{len(futures)}] {name}: accuracy {row.accuracy:.4f}, {row.seconds:.0f} s")
            sys.stdout.flush()
    if average:
        rows += average_runs(rows, average, folder)
    rows.sort(key=lambda row: (row.preset, row.method, row.cells, row.dataset, row.seed))
    write_results(results, rows)
    click.echo(f"{results}: {len(rows)} rows" + (f"; {failed} of {len(waiting)} runs failed" if failed else ""))
    return failed


def _prepare() -> None:
    prepare_worker()
    torch.set_num_threads(1)


def train_and_test(run: Run, folder: Path, probabilities: Path) -> list[Row]:
    """Train on the problem in `folder`, test, and write the probabilities of the test series to `probabilities`.

    Returns:
        The row of the run, and before it, if it has kernel features, those of its networks and of its kernel features
        alone.

    Raises:
        UserError: the problem cannot be learned or tested.
    """
    problem = load_description(folder)
    settings = run.settings(problem)
    changed = settings.model_dump(by_alias=True, exclude_defaults=True)
    group = Group()
    placement = choose_placement(settings.precision, group, settings.device)
    # On a core of its own; CPU time does not depend on what else the machine does.
    clock = time.process_time if placement.device.type == "cpu" else time.perf_counter
    started = clock()
    data = load({"training": _source("training", folder / TRAIN)}, settings, group)
    found = fit(data, settings, placement)
    test, _ = load_validation(_source("validation", folder / TEST), data.problem, group)
    series, labels = test.batch(torch.arange(len(test)))
    classifier, truth = found.classifier, labels.numpy()
    predicted = {"": predict(classifier, series.to(placement.device))}
    seconds = round(clock() - started, 1)  # before its parts are predicted alone, too
    if classifier.kernels is not None:
        for name, part in zip(ALONE, (classifier.network, classifier.kernels), strict=True):
            alone = Classifier(classifier.scaler, cast(Network, part)).eval()
            predicted[name] = predict(alone, series.to(placement.device))
    write_atomically((run.probabilities(probabilities), pack(predicted[""], truth)))
    row = Row(
        *run.identity,
        **_scores(predicted[""], truth),
        train_loss=round(found.best.metrics["train_loss"], 6),
        epoch=found.best.epoch,
        classes=len(data.problem.classes),
        train=len(data.training),
        test=len(test),
        length=data.problem.length,
        variables=data.problem.num_variables,
        parameters=sum(p.numel() for name, p in classifier.named_parameters() if "bias_hh" not in name),
        seconds=seconds,
        device=f"{placement.device.type}, {'bfloat16' if placement.bfloat16 else 'float32'}",
        versions=" ".join(f"{name} {number}" for name, number in versions().items()),
        configuration=" ".join(f"{name}={value}" for name, value in changed.items()),
    )
    others = [
        replace(row, method=row.method + name, seconds=math.nan, **_scores(predicted[name], truth))
        for name in ALONE
        if name in predicted
    ]
    return [*others, row]


def _source(name: str, path: Path) -> Source:
    return Source(name, path.parent, (path,))


def _scores(probabilities: NDArray[np.float32], truth: NDArray[np.int64]) -> dict[str, Any]:
    scores = measure_scores(probabilities, truth)
    return {name: round(scores[name], 6) for name in ("accuracy", "balanced_accuracy", "f1")}


# Averages of several seeds


def average_runs(rows: list[Row], count: int, probabilities: Path) -> list[Row]:
    """Average the probabilities of the first `count` seeds of each problem, method, number of cells and preset.

    Returns:
        A row for each average. Combinations with fewer runs, or without files of probabilities, are skipped.
    """
    groups: dict[tuple[str, str, int, str], list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.seed):
        if row.method in METHODS:
            groups.setdefault((row.dataset, row.method, row.cells, row.preset), []).append(row)
    averages = []
    for (dataset, method, cells, preset), group in groups.items():
        chosen = group[:count]
        paths = [Run(dataset, method, cells, row.seed, preset).probabilities(probabilities) for row in chosen]
        if len(chosen) < count or not all(path.exists() for path in paths):
            continue
        predicted, truth = zip(*map(_unpack, paths), strict=True)
        average = replace(
            chosen[0],
            method=f"{method}, average of {count}",
            parameters=sum(row.parameters for row in chosen),
            seconds=round(sum(row.seconds for row in chosen), 1),
            **_scores(np.mean(predicted, axis=0), truth[0]),
        )
        averages.append(average)
    return averages


def pack(predicted: NDArray[np.float32], truth: NDArray[np.int64]) -> bytes:
    """The content of a file of probabilities."""
    buffer = io.BytesIO()
    np.savez(buffer, predicted=predicted, truth=truth)
    return buffer.getvalue()


def _unpack(path: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    with np.load(path, allow_pickle=False) as file:
        return file["predicted"], file["truth"]


# The command


@click.command("run", context_settings={"show_default": True})
@click.argument("problems", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("results", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--method",
    "methods",
    type=click.Choice(list(METHODS)),
    multiple=True,
    default=["LSTM-FCN"],
    metavar="NAME",
    help=", ".join(METHODS),
)
@click.option("--cells", type=click.IntRange(1), multiple=True, default=[8], help="8, 64 and 128 in the papers")
@click.option("--seed", "seeds", type=click.IntRange(0), multiple=True, default=[0])
@click.option(
    "--preset", type=click.Choice(PARAMETERS["preset"].choices), default="default", help="of the hyperparameters"
)
@click.option("--ensemble-size", type=click.IntRange(0), default=0, help="networks in an ensemble; 0: of the preset")
@click.option(
    "--average", type=click.IntRange(0), default=0, metavar="K", help="add the averages of the predictions of K seeds"
)
@click.option("--problem", "names", multiple=True, help="only this problem")
@click.option("--skip-irregular", is_flag=True, help="skip problems with missing values or series of different length")
def run_command(
    problems: Path,
    results: Path,
    methods: Sequence[str],
    cells: Sequence[int],
    seeds: Sequence[int],
    preset: str,
    ensemble_size: int,
    average: int,
    names: Sequence[str],
    skip_irregular: bool,
) -> int:
    """Train and test on imported problems.

    PROBLEMS is the folder that `lstm-fcn benchmark import` has written. Every combination of problem, method, cells and
    seed is one run and becomes a row of the CSV file RESULTS. To give several values, repeat an option: --seed 0
    --seed 1. If the command is interrupted, run it again to continue.
    """
    chosen = select_problems(problems, names, skip_irregular)
    runs = [
        Run(name, method, size, seed, preset, ensemble_size)
        for seed, method, size, name in product(seeds, methods, cells, chosen)
    ]
    return UserError.exit_code if run_all(problems, results, runs, average) else 0


def select_problems(folder: Path, names: Sequence[str] = (), skip_irregular: bool = False) -> dict[str, Description]:
    """The problems in a folder, or only those in `names`.

    Raises:
        UserError: the folder has no problems, or none of a given name.
    """
    found = sorted(path.parent.name for path in folder.glob("*/problem.json"))
    if not found:
        raise UserError(f"{folder} holds no problems; write some there with lstm-fcn benchmark import.")
    for name in names:
        if name not in found:
            raise UserError(f"{folder} has no problem {name!r}; it has {', '.join(found)}.")
    problems = {name: load_description(folder / name) for name in names or found}
    return {n: p for n, p in problems.items() if not skip_irregular or (p.shortest == p.length and not p.missing)}
