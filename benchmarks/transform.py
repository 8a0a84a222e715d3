"""`serving.transform` on a large file against the bare ONNX Runtime session, and against the endpoint's answers.

    python -m lstm_fcn.benchmarks.transform [--gigabytes 3] [--precision bfloat16]

The session gets rows of the same file that are in memory already, in two ways: as a user would call it (512 series a
call, the runtime's own threads), and as this project does (small blocks from as many threads as there are cores). It is
timed before and after the transform; the ratio is that to the faster way.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import get_args

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from lstm_fcn.benchmarks.programs import endpoint
from lstm_fcn.benchmarks.serving import train_model
from lstm_fcn.container import artifact
from lstm_fcn.container.cores import available_cores
from lstm_fcn.container.media_types import Precision
from lstm_fcn.serving.predictor import Predictor

LENGTH = 150
BLOCK_ROWS = 20_000  # different rows, repeated to make a large file
IN_MEMORY = 40_000  # rows for the bare session
BATCH = 512
COMPARED_ROWS, PER_REQUEST = 100_000, 2000


def write_rows(path: Path, gigabytes: float) -> None:
    rng = np.random.default_rng(0)
    text = "".join(
        ",".join(f"{value:.6f}" for value in row) + "\n" for row in rng.normal(size=(BLOCK_ROWS, LENGTH)).tolist()
    ).encode()
    with path.open("wb") as file:
        for _ in range(max(1, round(gigabytes * 1e9 / len(text)))):
            file.write(text)


def session_of_a_user(model: Path) -> Callable[[NDArray[np.float64]], None]:
    session = onnxruntime.InferenceSession(artifact.load(model)[1], providers=["CPUExecutionProvider"])

    def run(series: NDArray[np.float64]) -> None:
        for start in range(0, len(series), BATCH):
            session.run(["probabilities"], {"series": series[start : start + BATCH]})

    return run


def rate(run: Callable[[NDArray[np.float64]], object], series: NDArray[np.float64]) -> float:
    """Rows a second."""
    run(series[:BATCH])
    started = time.perf_counter()
    run(series)
    return len(series) / (time.perf_counter() - started)


def transform(source: Path, target: Path, model: Path, precision: str) -> tuple[float, float]:
    """Seconds and peak resident MB."""
    command = [sys.executable, "-m", "lstm_fcn.serving.transform", str(source), str(target), "--model", str(model)]
    started = time.perf_counter()
    process = subprocess.Popen([*command, "--precision", precision], stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit("the transform failed")
    return time.perf_counter() - started, usage.ru_maxrss / 1000


def compare_with_endpoint(source: Path, target: Path, root: Path, precision: str) -> int:
    """How many rows were compared; ends the program if one differs."""
    compared = 0
    with source.open() as rows, target.open() as found, endpoint(root, LSTM_FCN_PRECISION=precision) as server:
        while compared < COMPARED_ROWS and (lines := list(islice(rows, PER_REQUEST))):
            expected = server.invoke("".join(lines)).text.split("\n")
            if expected != [line.rstrip("\n") for line in islice(found, PER_REQUEST)]:
                raise SystemExit(f"a row after row {compared} is not what the endpoint says")
            compared += len(lines)
    return compared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=0.3)
    parser.add_argument("--precision", choices=get_args(Precision), default="float32")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        train_model(root)
        source, target, model = root / "rows.csv", root / "labels.csv", root / "model"
        write_rows(source, arguments.gigabytes)
        series = np.random.default_rng(0).normal(size=(IN_MEMORY, 1, LENGTH))
        ways = {
            "bare session, its own threads": session_of_a_user(model),
            "bare session, our blocks": Predictor(model, available_cores(), arguments.precision).predict,
        }
        rates: dict[str, list[float]] = {name: [rate(run, series)] for name, run in ways.items()}
        seconds, megabytes = transform(source, target, model, arguments.precision)
        for name, run in ways.items():
            rates[name].append(rate(run, series))
        compared = compare_with_endpoint(source, target, root, arguments.precision)
        with target.open("rb") as file:
            rows = sum(1 for _ in file)
        size = source.stat().st_size
    fastest = max(sum(found) / 2 for found in rates.values())
    for name, found in rates.items():
        print(f"{name}: {found[0]:.0f} and {found[1]:.0f} rows/s")
    print(
        f"transform, {arguments.precision}: {size / 1e9:.2f} GB, {rows} rows, {rows / seconds:.0f} rows/s, "
        f"{rows / seconds / fastest:.2f} of the faster session; peak resident memory {megabytes:.0f} MB; "
        f"{compared} rows equal to the endpoint's"
    )


if __name__ == "__main__":
    main()
