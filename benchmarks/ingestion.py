"""How fast CSV files are read, and how much memory a large one takes: part of `make bench-train`; `make bench-large`.

Reading means all that happens until training can start: parsing, checking, scaling, float32 in memory or in a mapped
scratch file. The peer is `pandas.read_csv` with its C engine, which stops at a table of float64. Both read the same
file in processes of their own, in turn.

    python -m lstm_fcn.benchmarks.ingestion [--gigabytes 6] [--length 150] [--train]

`--train` goes on to train one epoch of a small network on the large file, and reports the whole job's peak memory.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

CASES = (24, 150, 1000)  # lengths of the small files
SMALL_MEGABYTES = 150
ROUNDS = 3
BLOCK_MEGABYTES = 30  # of different rows, repeated to make a large file

PANDAS = "import pandas, sys; print(pandas.read_csv(sys.argv[1], header=None, engine='c').shape[0])"
OURS = """
import sys
from pathlib import Path
from lstm_fcn.container.channels import Source
from lstm_fcn.container.hyperparameters import parse_hyperparameters
from lstm_fcn.training.data.loading import load
from lstm_fcn.training.distributed import Group
path = Path(sys.argv[1])
source = Source("training", path.parent, (path,))
START
print(load({"training": source}, parse_hyperparameters({}), Group()).problem.count)
"""
# Imports are not reading: the clock starts after them.
CLOCK = "import time; started = time.perf_counter()"
STOP = "print(time.perf_counter() - started)"


def write_csv(path: Path, megabytes: float, length: int) -> None:
    """Headerless CSV, label first, six decimals; not all rows of a large file are different."""
    rng = np.random.default_rng(length)
    rows = max(1, int(min(megabytes, BLOCK_MEGABYTES) * 1e6 / (9 * length)))
    values, labels = rng.normal(size=(rows, length)), rng.integers(1, 6, size=rows)
    text = "".join(
        f"{label}," + ",".join(f"{value:.6f}" for value in row) + "\n"
        for label, row in zip(labels.tolist(), values.tolist(), strict=True)
    ).encode()
    with path.open("wb") as file:
        for _ in range(max(1, round(megabytes * 1e6 / len(text)))):
            file.write(text)


def measure(code: str, path: Path) -> tuple[float, float]:
    """Seconds and peak resident MB of a program that reads `path`."""
    process = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True)
    output = process.communicate()[0] if process.stdout is None else process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"a reader failed with status {status}")
    return float(output.split()[-1]), usage.ru_maxrss / 1000


def programs() -> dict[str, str]:
    pandas = PANDAS.replace("; print", f"; {CLOCK}; print") + f"; {STOP}"
    return {"pandas": pandas, "ours": OURS.replace("START", CLOCK) + STOP}


def compare(path: Path, rounds: int) -> None:
    megabytes = path.stat().st_size / 1e6
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in programs()}
    for _ in range(rounds):
        for name, code in programs().items():
            found[name].append(measure(code, path))
    rate = {name: megabytes / statistics.median(seconds for seconds, _ in runs) for name, runs in found.items()}
    peak = {name: max(memory for _, memory in runs) for name, runs in found.items()}
    print(
        f"| {path.stem} | {megabytes / 1000:.2f} GB | {rate['pandas']:.0f} MB/s | {rate['ours']:.0f} MB/s "
        f"| {rate['ours'] / rate['pandas']:.2f} | {peak['pandas']:.0f} MB | {peak['ours']:.0f} MB |",
        flush=True,
    )


def train(path: Path) -> None:
    """One epoch of a small network on a large file, as a job of its own."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "input" / "data" / "training").mkdir(parents=True)
        (root / "input" / "config").mkdir()
        (root / "input" / "data" / "training" / path.name).symlink_to(path)
        settings = {"epochs": "1", "batch-size": "512", **{f"filters-{k}": "8" for k in (1, 2, 3)}}
        (root / "input" / "config" / "hyperparameters.json").write_text(json.dumps(settings))
        environment = os.environ | {"SAGEMAKER_BASE_DIR": folder}
        process = subprocess.Popen(
            [sys.executable, "-m", "lstm_fcn.training"], env=environment, stdout=subprocess.PIPE, text=True
        )
        lines = list(process.stdout or [])
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit("training failed")
    print("\nA job of one epoch on the large file:\n")
    print("".join(line for line in lines if re.match("training: |epoch: 1/1, t|saved", line)), end="")
    print(f"peak resident memory: {usage.ru_maxrss / 1e6:.2f} GB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=0.0, help="size of a large file to read as well")
    parser.add_argument("--length", type=int, default=150, help="its series' length")
    parser.add_argument("--train", action="store_true")
    arguments = parser.parse_args()
    print("| file | size | pandas | ours | ours / pandas | pandas, peak memory | ours, peak memory |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for length in CASES:
            path = Path(folder) / f"length {length}.csv"
            write_csv(path, SMALL_MEGABYTES, length)
            compare(path, ROUNDS)
        if arguments.gigabytes:
            path = Path(folder) / f"large, length {arguments.length}.csv"
            write_csv(path, arguments.gigabytes * 1000, arguments.length)
            compare(path, rounds=1)
            if arguments.train:
                train(path)


if __name__ == "__main__":
    main()
