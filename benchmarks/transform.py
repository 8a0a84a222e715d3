"""`lstm-fcn transform` on a large file against the bare ONNX Runtime session, and against the endpoint's responses.

The session gets the same rows, already in memory, in two ways: as a user would call it (512 series per call, the
runtime's threads) and as this project does (small blocks from as many threads as there are cores). It is timed before
and after the transform; the ratio refers to the faster way.
"""

import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import get_args

import click
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from lstm_fcn.benchmarks.ingestion import run, write_csv
from lstm_fcn.benchmarks.programs import endpoint
from lstm_fcn.benchmarks.serving import LENGTH, train_model
from lstm_fcn.container import artifact
from lstm_fcn.container.cores import available_cores
from lstm_fcn.container.media_types import Precision
from lstm_fcn.serving.predictor import Predictor

IN_MEMORY = 40_000  # rows for the bare session
BATCH = 512
COMPARED_ROWS, ROWS_PER_REQUEST = 100_000, 2000


def bare_session(model: Path) -> Callable[[NDArray[np.float64]], None]:
    session = onnxruntime.InferenceSession(artifact.load(model)[1], providers=["CPUExecutionProvider"])

    def predict(series: NDArray[np.float64]) -> None:
        for start in range(0, len(series), BATCH):
            session.run(["probabilities"], {"series": series[start : start + BATCH]})

    return predict


def rate(way: Callable[[NDArray[np.float64]], object], series: NDArray[np.float64]) -> float:
    """Rows per second."""
    way(series[:BATCH])
    started = time.perf_counter()
    way(series)
    return len(series) / (time.perf_counter() - started)


def compare_with_endpoint(source: Path, target: Path, root: Path, precision: str) -> int:
    """Compare the first rows with the endpoint's responses; return their number, or end the program if one differs."""
    compared = 0
    with source.open() as rows, target.open() as found, endpoint(root, LSTM_FCN_PRECISION=precision) as server:
        while compared < COMPARED_ROWS and (lines := list(islice(rows, ROWS_PER_REQUEST))):
            expected = server.invoke("".join(lines)).text.split("\n")
            if expected != [line.rstrip("\n") for line in islice(found, ROWS_PER_REQUEST)]:
                raise SystemExit(f"A row after row {compared} differs from the endpoint's response.")
            compared += len(lines)
    return compared


@click.command(help=__doc__)
@click.option("--gigabytes", type=float, default=0.3, show_default=True)
@click.option("--precision", type=click.Choice(get_args(Precision)), default="float32", show_default=True)
def main(gigabytes: float, precision: Precision) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model = train_model(root)
        source, target = root / "rows.csv", root / "labels.csv"
        write_csv(source, 1000 * gigabytes, LENGTH, labelled=False)
        series = np.random.default_rng(0).normal(size=(IN_MEMORY, 1, LENGTH))
        ways = {
            "bare session, its own threads": bare_session(model),
            "bare session, our blocks": Predictor(*artifact.load(model), available_cores(), precision).predict,
        }
        before = {name: rate(way, series) for name, way in ways.items()}
        started = time.perf_counter()
        arguments = [*map(str, (model, source, target)), "--precision", precision]
        _, megabytes = run(["-m", "lstm_fcn.serving.transform", *arguments])
        seconds = time.perf_counter() - started
        after = {name: rate(way, series) for name, way in ways.items()}
        compared = compare_with_endpoint(source, target, root, precision)
        with target.open("rb") as file:
            rows = sum(1 for _ in file)
        size = source.stat().st_size
    for name in ways:
        print(f"{name}: {before[name]:.0f} and {after[name]:.0f} rows/s")
    fastest = max((before[name] + after[name]) / 2 for name in ways)
    print(
        f"transform, {precision}: {size / 1e9:.2f} GB, {rows} rows, {rows / seconds:.0f} rows/s, "
        f"{rows / seconds / fastest:.2f} of the faster session; peak resident memory {megabytes:.0f} MB; "
        f"{compared} rows equal to the endpoint's"
    )


if __name__ == "__main__":
    main()
