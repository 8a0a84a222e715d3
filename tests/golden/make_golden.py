"""Make a golden artifact of the current schema version: a tiny model, a request, and the predictions for it.

    python -m tests.golden.make_golden

Run once for each schema version and commit the folder. It must load forever, so it is never made again.
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np

from lstm_fcn.container.artifact import SCHEMA_VERSION, load
from lstm_fcn.container.media_types import CSV
from lstm_fcn.serving.decode import decode
from lstm_fcn.serving.predictor import Predictor
from tests.programs import TrainingJob

FOLDER = Path(__file__).parent / f"v{SCHEMA_VERSION}"
LENGTH = 16
VARIABLES = ("speed", "height")
TARGETS = ("y_rises", "y_falls", "y_stays")
SETTINGS = {
    "recurrent": "alstm",
    "ensemble_size": "2",
    "missing_values": "interpolate",
    "length_policy": "pad",
    "epochs": "60",
    "lr": "0.02",
    "precision": "float32",
    "batch_size": "128",
    "lr_schedule": "plateau",
    "kernel_features": "84",
}


def make_rows(count: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """Targets, int64 `[count, 3]`, and series as CSV: the height tells the class, and the speed is far from zero.

    A value here and there is missing, and some series end early.
    """
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 3, size=count)
    height = np.array([1.0, -1.0, 0.0])[classes][:, None] * np.linspace(-1, 1, LENGTH)
    series = np.stack([np.full_like(height, 1000.0), height], axis=1)
    series += rng.normal(scale=[[[30.0], [0.1]]], size=series.shape)
    missing = rng.random(series.shape) < 0.05
    missing[:, :, LENGTH // 2 :] |= (rng.random(count) < 0.2)[:, None, None]
    cells = np.where(missing, "", np.char.mod("%.4f", series)).reshape(count, -1)
    return np.eye(3, dtype=int)[classes], [",".join(row) for row in cells]


def main() -> None:
    if FOLDER.exists():
        raise SystemExit(f"{FOLDER} exists; a golden artifact is never made again.")
    names = ",".join(f"x_{variable}_{k}" for variable in VARIABLES for k in range(LENGTH))
    targets, rows = make_rows(80, seed=0)
    labelled = [f"{row},{','.join(map(str, flags))}" for row, flags in zip(rows, targets, strict=True)]
    text = "\n".join([f"{names},{','.join(TARGETS)}", *labelled]) + "\n"
    with tempfile.TemporaryDirectory() as folder:
        job = TrainingJob(Path(folder)).prepare(text, **SETTINGS)
        result = job.run()
        if result.code:
            raise SystemExit(result.stderr)
        shutil.copytree(job.model, FOLDER / "model")
    request = "\n".join([names, *make_rows(8, seed=1)[1]]) + "\n"
    (FOLDER / "series.csv").write_text(request)
    predictor = Predictor(*load(FOLDER / "model"), threads=1)
    found = predictor.predict(decode(request.encode(), CSV, predictor.metadata))
    np.savetxt(FOLDER / "probabilities.csv", found.probabilities, delimiter=",", fmt="%.6f")
    np.savetxt(FOLDER / "explanation.csv", found.explanation, delimiter=",", fmt="%.6f")


if __name__ == "__main__":
    main()
