"""How fast CSV and Parquet are read, and with how much memory: part of `make bench-train`; `make bench-large`.

Reading means everything that happens before training can start: parsing, checking, scaling, and storing as float32 in
memory or in a mapped scratch file. It is compared with `pandas.read_csv` (C engine) and `pandas.read_parquet`, which
stop at a table of float64. Each reads the same file in a separate process, one after the other.
"""

import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import numpy as np
import pandas as pd

from lstm_fcn.benchmarks.programs import environment, prepare_job

LENGTHS = (24, 150, 1000)  # of the series in the small files
MEGABYTES = (10, 160)
ROUNDS = 3
BLOCK_MEGABYTES = 30  # of different rows, repeated to make a large file

# Importing is not reading: the clock starts after the imports.
PROGRAMS = {
    "pandas": """
import pandas, pyarrow.parquet, sys, time
path = sys.argv[1]
started = time.perf_counter()
pandas.read_parquet(path) if path.endswith(".parquet") else pandas.read_csv(path, header=None, engine="c")
print(time.perf_counter() - started)
""",
    "ours": """
import sys, time
from pathlib import Path
from lstm_fcn.container.channels import Source
from lstm_fcn.container.hyperparameters import parse_hyperparameters
from lstm_fcn.training.data.loading import load
from lstm_fcn.training.distributed import Group
path = Path(sys.argv[1])
started = time.perf_counter()
load({"training": Source("training", path.parent, (path,))}, parse_hyperparameters({}), Group())
print(time.perf_counter() - started)
""",
}


def write_csv(path: Path, megabytes: float, length: int, labelled: bool = True) -> None:
    """Write headerless CSV with six decimals; the rows of a large file repeat."""
    rng = np.random.default_rng(length)
    rows = max(1, int(min(megabytes, BLOCK_MEGABYTES) * 1e6 / (9 * length)))
    table = pd.DataFrame(rng.normal(size=(rows, length)))
    if labelled:
        table.insert(0, "label", rng.integers(1, 6, size=rows))
    text = table.to_csv(header=False, index=False, float_format="%.6f").encode()
    with path.open("wb") as file:
        for _ in range(max(1, round(megabytes * 1e6 / len(text)))):
            file.write(text)


def write_parquet(path: Path) -> Path:
    """Write the rows of a CSV file as Parquet, a list for each series; return its path."""
    table = pd.read_csv(path, header=None)
    lists = pd.DataFrame({"label": table[0].astype(str), "series": table.iloc[:, 1:].to_numpy().tolist()})
    lists.to_parquet(target := path.with_suffix(".parquet"))
    return target


def run(arguments: list[str], variables: dict[str, str] | None = None) -> tuple[list[str], float]:
    """Run Python; return the lines that it printed and its peak resident memory in MB."""
    with subprocess.Popen([sys.executable, *arguments], env=variables, stdout=subprocess.PIPE, text=True) as process:
        lines = list(process.stdout or [])
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"a program failed with exit code {process.returncode}")
    return lines, usage.ru_maxrss / 1000


def compare(path: Path, rounds: int) -> None:
    """Print a row of the table."""
    seconds: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    peak = dict.fromkeys(PROGRAMS, 0.0)
    for _ in range(rounds):
        for name, code in PROGRAMS.items():
            lines, memory = run(["-c", code, str(path)])
            seconds[name].append(float(lines[-1]))
            peak[name] = max(peak[name], memory)
    megabytes = path.stat().st_size / 1e6
    rate = {name: megabytes / statistics.median(times) for name, times in seconds.items()}
    print(
        f"| {path.name} | {megabytes / 1000:.2f} GB | {rate['pandas']:.0f} MB/s | {rate['ours']:.0f} MB/s "
        f"| {rate['ours'] / rate['pandas']:.2f} | {peak['pandas']:.0f} MB | {peak['ours']:.0f} MB |",
        flush=True,
    )


def train(path: Path) -> None:
    """Train a small network on a large file for one epoch, and print the log and the peak memory."""
    settings = {"epochs": "1", "batch-size": "512", **{f"filters-{k}": "8" for k in (1, 2, 3)}}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        prepare_job(root, "", settings)
        (root / "input/data/training/train.csv").unlink()
        (root / "input/data/training/train.csv").symlink_to(path)
        lines, memory = run(["-m", "lstm_fcn.training"], environment(root))
    print("\nA job of one epoch on the large file:\n")
    print("".join(line for line in lines if re.match("training: |epoch: 1/1, t|saved", line)), end="")
    print(f"peak resident memory: {memory / 1000:.2f} GB", flush=True)


@click.command(help=__doc__)
@click.option("--gigabytes", type=float, default=0.0, help="size of a large file to read, too")
@click.option("--length", type=int, default=150, help="length of the series in the large file")
@click.option("--train", "trains", is_flag=True, help="train on the large file, too, and report the job's peak memory")
def main(gigabytes: float, length: int, trains: bool) -> None:
    print("| file | size | pandas | ours | ours / pandas | pandas, peak memory | ours, peak memory |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for small in LENGTHS:
            for megabytes in MEGABYTES:
                path = Path(folder) / f"length {small}.csv"
                write_csv(path, megabytes, small)
                compare(path, ROUNDS)
            compare(write_parquet(path), ROUNDS)
        if gigabytes:
            path = Path(folder) / f"large, length {length}.csv"
            write_csv(path, gigabytes * 1000, length)
            compare(path, rounds=1)
            if trains:
                train(path)


if __name__ == "__main__":
    main()
