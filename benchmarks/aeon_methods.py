"""Train and test classifiers of aeon on imported problems, to compare accuracies and training times with ours.

    python -m lstm_fcn.benchmarks.aeon_methods PROBLEMS RESULTS NAME [NAME ...]

`make bench-methods` runs it in an environment of its own, which has aeon and TensorFlow and nothing that this package
needs. As in `lstm-fcn benchmark run`, each core works on one run at a time, every run becomes a row of RESULTS as soon
as it finishes, and runs that have a row are skipped.
"""

import importlib.metadata
import json
import math
import os
import sys
import time
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lstm_fcn.benchmarks.cores import one_process_per_core
from lstm_fcn.benchmarks.results import Row, append_result, read_results, write_results

MULTIROCKET_HYDRA, LITE = "MultiRocket-Hydra (aeon)", "LITE (aeon)"


def make_classifier(method: str) -> Any:
    """A classifier with the default settings of aeon, on one core."""
    if method == MULTIROCKET_HYDRA:
        from aeon.classification.convolution_based import MultiRocketHydraClassifier

        return MultiRocketHydraClassifier(random_state=0)
    import tensorflow
    from aeon.classification.deep_learning import IndividualLITEClassifier

    tensorflow.config.threading.set_intra_op_parallelism_threads(1)
    tensorflow.config.threading.set_inter_op_parallelism_threads(1)
    return IndividualLITEClassifier(random_state=0)


def train_and_test(folder: Path, method: str) -> Row:
    """The row of one run. The seconds are those of `fit` and `predict`, as in our own rows."""
    problem = json.loads((folder / "problem.json").read_text())
    training, labels = read(folder / "training" / "train.csv")
    test, truth = read(folder / "test" / "test.csv")
    if method == MULTIROCKET_HYDRA:  # its functions are compiled when they are first called
        some = slice(None, None, max(1, len(training) // 20))  # files may be sorted by class
        make_classifier(method).fit(training[some], labels[some])
    classifier = make_classifier(method)
    started = time.process_time()  # CPU time, as in our own rows
    classifier.fit(training, labels)
    accuracy = float(np.mean(classifier.predict(test) == truth))
    seconds = time.process_time() - started
    versions = " ".join(f"{name} {importlib.metadata.version(name)}" for name in ("aeon", "numba", "numpy"))
    return Row(
        dataset=problem["name"],
        method=method,
        cells=0,
        seed=0,
        preset="aeon",
        accuracy=round(accuracy, 6),
        balanced_accuracy=math.nan,
        f1=math.nan,
        train_loss=math.nan,
        epoch=0,
        classes=len(problem["classes"]),
        train=len(training),
        test=len(test),
        length=problem["length"],
        variables=1,
        parameters=0,
        seconds=round(seconds, 1),
        device="cpu",
        versions=f"python {sys.version.split()[0]} {versions}",
        configuration="",
    )


def read(path: Path) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    """Series `[N, 1, T]` and their labels."""
    table = np.loadtxt(path, delimiter=",", dtype=str, ndmin=2)
    return table[:, 1:].astype(np.float64)[:, np.newaxis], table[:, 0]


def prepare() -> None:
    """Before the libraries are imported, whose threads would otherwise be as many as the machine has cores."""
    os.environ |= dict.fromkeys(("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"


def main(problems: Path, results: Path, names: list[str]) -> None:
    """Run every method on every problem."""
    rows = read_results(results)
    write_results(results, rows)
    done = {(row.dataset, row.method) for row in rows}
    runs = [(name, method) for method in (MULTIROCKET_HYDRA, LITE) for name in names if (name, method) not in done]
    with one_process_per_core(prepare) as pool:
        for future in as_completed([pool.submit(train_and_test, problems / name, method) for name, method in runs]):
            row = future.result()
            append_result(results, row)
            print(f"{row.dataset}, {row.method}: accuracy {row.accuracy:.4f}, {row.seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
