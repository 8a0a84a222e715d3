"""Test accuracies over an archive of problems, as the papers report them.

    python -m lstm_fcn.benchmarks.accuracy PROBLEMS RESULTS.csv --methods LSTM-FCN ALSTM-FCN --cells 8 --seeds 0 1 2

PROBLEMS is a folder that `benchmarks.archive` has written. Every combination of problem, method, number of cells and
seed is one run, with the settings of a protocol; what remains to be done is worked on by as many processes as there are
cores, the largest problems first, all on one GPU where there is one. A run becomes a row of RESULTS.csv as it finishes;
started again, the command goes on with the runs that have no row yet.

The test set is read when a run's training has ended, and decides over nothing: all cells that were asked for are
reported, and the weights that are kept are those of the lowest training loss.

Several runs that differ in their seed can be averaged: `--average 5` adds a row for each set of five single runs, of
which each test series' probabilities are averaged.
"""

import argparse
import contextlib
import csv
import io
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score
from tqdm import tqdm

from lstm_fcn.benchmarks.archive import TEST, TRAIN, Description, load_description
from lstm_fcn.container.channels import Source
from lstm_fcn.container.cores import available_cores
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.hyperparameters import Hyperparameters, parse_hyperparameters
from lstm_fcn.training.data.datasets import Dataset
from lstm_fcn.training.data.loading import load, load_validation
from lstm_fcn.training.data.reading import prepare_worker
from lstm_fcn.training.devices import Placement, choose_placement
from lstm_fcn.training.distributed import Group
from lstm_fcn.training.evaluate import EVALUATION_BATCH
from lstm_fcn.training.fit import class_weights
from lstm_fcn.training.job import versions
from lstm_fcn.training.loop import Loop
from lstm_fcn.training.network.model import join_logits, make_network
from lstm_fcn.training.stop import StopSignal

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
PROTOCOLS: dict[str, dict[str, str]] = {
    # Karim et al. 2017; the learning rate falls when the training loss stands still.
    "paper": {"epochs": "2000", "lr": "0.001", "lr-schedule": "plateau", "batch-size": "128"},
    # Accuracy counts every series alike, and so does the loss, as in the published figures of other networks.
    "fast": {"epochs": "200", "lr": "0.005", "lr-schedule": "one-cycle", "class-weight": "none"},
}
SMALLEST_BATCH, LARGEST_BATCH, STEPS = 16, 64, 8  # of `fast`: so many steps in an epoch, within these batch sizes
PROBABILITIES = "probabilities"  # the folder beside the results


@dataclass(frozen=True)
class Run:
    """One training: what is to be trained on what."""

    dataset: str
    method: str
    cells: int
    seed: int
    protocol: str
    ensemble: int

    @property
    def key(self) -> str:
        """A name for files, the same for the same run."""
        text = f"{self.dataset}-{self.method}-{self.cells}-{self.seed}-{self.protocol}-{self.ensemble}"
        return "".join(c if c.isalnum() or c in "-." else "_" for c in text)

    def settings(self, problem: Description) -> Hyperparameters:
        """The hyperparameters of the run."""
        values = {"hidden-size": str(self.cells), "seed": str(self.seed), "ensemble-size": str(self.ensemble)}
        values |= METHODS[self.method] | PROTOCOLS[self.protocol]
        if self.protocol == "fast":
            batch_size = min(max(problem.train // STEPS, SMALLEST_BATCH), LARGEST_BATCH)
            values["batch-size"] = str(batch_size)
        if problem.num_variables > 1:
            values["num-variables"] = str(problem.num_variables)
        if problem.missing:
            values["missing-values"] = "interpolate"
        if problem.shortest != problem.length:
            values["length-policy"] = "resample"
        return parse_hyperparameters(values)


@dataclass(frozen=True)
class Row:
    """What is written of a run; `method` says of an average or an ensemble of how many networks it is."""

    dataset: str
    method: str
    cells: int
    seed: int
    protocol: str
    accuracy: float
    balanced_accuracy: float
    f1: float
    train_loss: float
    epoch: int
    classes: int
    train: int
    test: int
    length: int
    variables: int
    parameters: int
    seconds: float
    device: str
    versions: str
    configuration: str

    @property
    def identity(self) -> tuple[str, str, int, int, str]:
        """What no two rows have in common."""
        return self.dataset, self.method, self.cells, self.seed, self.protocol


COLUMNS = [field.name for field in fields(Row)]


def train_and_test(run: Run, folder: Path, probabilities: Path) -> Row:
    """Train on the problem in `folder`, test, and keep the test series' probabilities in the folder `probabilities`.

    Raises:
        UserError: the problem cannot be learned or tested as it is.
    """
    problem = load_description(folder)
    settings = run.settings(problem)
    group, started = Group(), time.perf_counter()
    placement = choose_placement(settings.precision, group, settings.device)
    data = load({"training": _source("training", folder / TRAIN)}, settings, group)
    sizes = (data.problem.num_variables, data.problem.length, len(data.problem.classes))
    network = make_network(settings, *sizes).to(placement.device)
    weights = class_weights(settings, data.problem).to(placement.device)
    training = data.training.to(placement.device)
    fitted = Loop(network, training, None, weights, settings, placement, StopSignal(), group).fit()
    test, _ = load_validation(_source("validation", folder / TEST), data.problem, group)
    predicted, truth = _predict(network, test, placement), test.labels.numpy()
    _write_whole(probabilities / f"{run.key}.npz", _pack(predicted, truth))
    return Row(
        dataset=run.dataset,
        method=run.method if run.ensemble == 1 else f"{run.method}, ensemble of {run.ensemble}",
        cells=run.cells,
        seed=run.seed,
        protocol=run.protocol,
        **_scores(predicted, truth),
        train_loss=round(fitted.metrics["train_loss"], 6),
        epoch=fitted.epoch,
        classes=len(data.problem.classes),
        train=len(training),
        test=len(test),
        length=data.problem.length,
        variables=data.problem.num_variables,
        parameters=sum(p.numel() for name, p in network.named_parameters() if "bias_hh" not in name),
        seconds=round(time.perf_counter() - started, 1),
        device=f"{placement.device.type}, {'bfloat16' if placement.bfloat16 else 'float32'}",
        versions=" ".join(f"{name} {number}" for name, number in versions().items()),
        configuration=_configuration(settings),
    )


def _source(name: str, path: Path) -> Source:
    return Source(name, path.parent, (path,))


@torch.no_grad()
def _predict(network: torch.nn.Module, test: Dataset, placement: Placement) -> NDArray[np.float32]:
    """Probabilities, float32 `[N, C]`."""
    parts = []
    for picked in torch.arange(len(test)).split(EVALUATION_BATCH):  # type: ignore[no-untyped-call]
        logits = join_logits(network(test.batch(picked)[0].to(placement.device)), independent=False)
        parts.append(logits.softmax(dim=1).cpu())
    found: NDArray[np.float32] = torch.cat(parts).numpy()
    return found


def _scores(probabilities: NDArray[np.float32], truth: NDArray[np.int64]) -> dict[str, float]:
    predicted = probabilities.argmax(axis=1)
    return {
        "accuracy": round(float(accuracy_score(truth, predicted)), 6),
        "balanced_accuracy": round(float(balanced_accuracy_score(truth, predicted)), 6),
        "f1": round(float(f1_score(truth, predicted, average="macro")), 6),
    }


def _configuration(settings: Hyperparameters) -> str:
    """The hyperparameters that are not at their defaults."""
    return " ".join(
        f"{name}={value}" for name, value in settings.model_dump(by_alias=True, exclude_defaults=True).items()
    )


def average_runs(rows: list[Row], count: int, probabilities: Path) -> list[Row]:
    """A row for the average of the first `count` seeds of each problem, method, cells and protocol.

    Combinations that have fewer runs, or whose probabilities are not there, have none.
    """
    groups: dict[tuple[str, str, int, str], list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.seed):
        if row.method in METHODS:
            groups.setdefault((row.dataset, row.method, row.cells, row.protocol), []).append(row)
    averages = []
    for (dataset, method, cells, protocol), singles in groups.items():
        runs = [Run(dataset, method, cells, row.seed, protocol, 1) for row in singles[:count]]
        paths = [probabilities / f"{run.key}.npz" for run in runs]
        if len(runs) < count or not all(path.exists() for path in paths):
            continue
        predicted, truth = zip(*map(_unpack, paths), strict=True)
        scores = _scores(np.mean(predicted, axis=0), truth[0])
        total = {"seconds": round(sum(row.seconds for row in singles[:count]), 1)}
        total["parameters"] = sum(row.parameters for row in singles[:count])
        averages.append(Row(**{**asdict(singles[0]), "method": f"{method}, average of {count}", **scores, **total}))
    return averages


def _pack(predicted: NDArray[np.float32], truth: NDArray[np.int64]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, predicted=predicted, truth=truth)
    return buffer.getvalue()


def _unpack(path: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    with np.load(path, allow_pickle=False) as file:
        return file["predicted"], file["truth"]


def _write_whole(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)


# The table of results


def read_results(path: Path) -> list[Row]:
    """The rows of a results file; none if there is no such file. A last line that was not finished is not counted.

    Raises:
        UserError: the file is no such table.
    """
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    lines = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1])))
    if lines and lines[0] != COLUMNS:
        raise UserError(f"{path}, row 1: the columns are not those of this program ({', '.join(COLUMNS)}).")
    rows = []
    for number, cells in enumerate(lines[1:], 2):
        try:
            values = [field.type(cell) for field, cell in zip(fields(Row), cells, strict=True)]  # type: ignore[operator]
        except ValueError as error:
            raise UserError(f"{path}, row {number}: {error}.") from error
        rows.append(Row(*values))
    return rows


@contextlib.contextmanager
def _open_results(path: Path, rows: list[Row]) -> Iterator["csv.DictWriter[str]"]:
    """A table that holds `rows`, to append to; each row is on the disk once it was written."""

    class Synced(io.TextIOBase):
        def write(self, text: str) -> int:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            return len(text)

    _write_whole(path, _table(rows).encode())
    with path.open("a", encoding="utf-8", newline="") as file:
        yield csv.DictWriter(Synced(), COLUMNS, lineterminator="\n")


def _table(rows: list[Row]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(asdict, rows))
    return buffer.getvalue()


# The command


def main() -> int:
    arguments = _parser().parse_args()
    try:
        return run_all(arguments)
    except UserError as error:
        print(error, file=sys.stderr)
        return UserError.exit_code


def run_all(arguments: argparse.Namespace) -> int:
    """Run what has no row yet; the number of runs that failed decides over the exit code."""
    problems = select_problems(arguments.problems_folder, arguments.problems, arguments.skip_irregular)
    rows = [row for row in read_results(arguments.results) if ", average of " not in row.method]
    done, probabilities = {row.identity for row in rows}, arguments.results.with_suffix("") / PROBABILITIES
    runs = [
        run
        for seed in arguments.seeds
        for method in arguments.methods
        for cells in arguments.cells
        for run in (Run(name, method, cells, seed, arguments.protocol, arguments.ensemble_size) for name in problems)
        if _identity(run) not in done
    ]
    sizes = {name: problem.train * problem.length for name, problem in problems.items()}
    # All problems of one seed before those of the next; the largest first, so that no core waits long in the end.
    runs.sort(key=lambda run: (run.seed, -sizes[run.dataset]))
    failed = 0
    with _open_results(arguments.results, rows) as table, _workers() as pool:
        waiting = {
            pool.submit(train_and_test, run, arguments.problems_folder / run.dataset, probabilities): run
            for run in runs
        }
        bar = tqdm(as_completed(waiting), total=len(runs), unit="run", disable=not sys.stderr.isatty())
        for number, finished in enumerate(bar, 1):
            run = waiting[finished]
            name = f"{run.dataset}, {run.method}, {run.cells} cells, seed {run.seed}"
            try:
                row = finished.result()
            except UserError as error:
                failed += 1
                bar.write(f"{name}: {error}", file=sys.stderr)
                continue
            table.writerow(asdict(row))
            rows.append(row)
            bar.write(f"[{number}/{len(runs)}] {name}: accuracy {row.accuracy:.4f}, {row.seconds:.0f} s")
            sys.stdout.flush()
    if arguments.average:
        rows += average_runs(rows, arguments.average, probabilities)
    rows.sort(key=lambda row: (row.protocol, row.method, row.cells, row.dataset, row.seed))
    _write_whole(arguments.results, _table(rows).encode())
    print(f"{arguments.results}: {len(rows)} rows" + (f"; {failed} runs failed" if failed else ""))
    return UserError.exit_code if failed else 0


def select_problems(folder: Path, names: list[str] | None, skip_irregular: bool) -> dict[str, Description]:
    """The problems in a folder, or those of them that are named.

    Raises:
        UserError: there is none, or not one of that name.
    """
    found = sorted(path.parent.name for path in folder.glob("*/problem.json"))
    if not found:
        raise UserError(f"{folder} holds no problems; write some there with python -m lstm_fcn.benchmarks.archive.")
    for name in names or []:
        if name not in found:
            raise UserError(f"{folder} has no problem {name!r}; it has {', '.join(found)}.")
    problems = {name: load_description(folder / name) for name in names or found}
    if skip_irregular:
        problems = {n: p for n, p in problems.items() if p.shortest == p.length and not p.missing}
    return problems


def _identity(run: Run) -> tuple[str, str, int, int, str]:
    method = run.method if run.ensemble == 1 else f"{run.method}, ensemble of {run.ensemble}"
    return run.dataset, method, run.cells, run.seed, run.protocol


def _workers() -> ProcessPoolExecutor:
    """As many processes as there are cores, each on a core of its own."""
    context = multiprocessing.get_context("spawn")
    cores: multiprocessing.Queue[int] = context.Queue()
    for core in sorted(os.sched_getaffinity(0)):
        cores.put(core)
    return ProcessPoolExecutor(available_cores(), context, initializer=_stay_on_core, initargs=(cores,))


def _stay_on_core(cores: "multiprocessing.Queue[int]") -> None:
    prepare_worker()
    os.sched_setaffinity(0, {cores.get()})
    torch.set_num_threads(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=os.environ.get("_LSTM_FCN_COMMAND", "python -m lstm_fcn.benchmarks.accuracy"),
        description=(__doc__ or "").split("\n\n")[0],
    )
    parser.add_argument("problems_folder", type=Path, metavar="PROBLEMS", help="folder written by benchmarks.archive")
    parser.add_argument("results", type=Path, metavar="RESULTS.csv", help="table that rows are added to")
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=["LSTM-FCN"], metavar="METHOD", help=", ".join(METHODS)
    )
    parser.add_argument("--cells", nargs="+", type=int, default=[8], help="8, 64 and 128 in the papers (default: 8)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--protocol", choices=PROTOCOLS, default="fast", help="paper: 2000 epochs; fast: 200 (default)")
    parser.add_argument("--ensemble-size", type=int, default=1, help="networks that are trained together in a run")
    parser.add_argument("--average", type=int, default=0, metavar="K", help="add the averages of K seeds' predictions")
    parser.add_argument("--problems", nargs="+", metavar="NAME", help="only these")
    parser.add_argument("--skip-irregular", action="store_true", help="leave out missing values and varying lengths")
    return parser


if __name__ == "__main__":
    sys.exit(main())
