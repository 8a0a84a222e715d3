"""Makes a golden artifact of the current schema version: a tiny model, a request, and its probabilities for it.

    python -m tests.golden.make_golden

Run once for each schema version and commit the folder; it must load for ever, so it is never made again.
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np

from container.artifact import SCHEMA_VERSION
from serving.decode import decode
from serving.negotiation import CSV
from serving.predictor import Predictor
from tests.programs import TrainingJob

FOLDER = Path(__file__).parent / f"v{SCHEMA_VERSION}"
LENGTH = 16
TARGETS = ("y_rises", "y_falls", "y_high")


def make_rows(count: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """Targets, int64 `[count, 3]`, and series as CSV; a value here and there is missing."""
    rng = np.random.default_rng(seed)
    direction, high = rng.integers(-1, 2, size=count), rng.integers(0, 2, size=count)
    series = direction[:, None] * np.linspace(-1, 1, LENGTH) + 2 * high[:, None]
    series += rng.normal(scale=0.1, size=series.shape)
    missing = rng.random(series.shape) < 0.05
    cells = np.where(missing, "", np.char.mod("%.4f", series))
    return np.stack([direction > 0, direction < 0, high > 0], axis=1).astype(int), [",".join(row) for row in cells]


def main() -> None:
    if FOLDER.exists():
        raise SystemExit(f"{FOLDER} exists already; a golden artifact is never made again.")
    names = ",".join(f"x{k}" for k in range(LENGTH))
    targets, rows = make_rows(80, seed=0)
    labelled = [f"{row},{','.join(map(str, flags))}" for row, flags in zip(rows, targets, strict=True)]
    text = "\n".join([f"{names},{','.join(TARGETS)}", *labelled]) + "\n"
    with tempfile.TemporaryDirectory() as folder:
        job = TrainingJob(Path(folder)).prepare(
            text, epochs="60", lr="0.02", missing_values="interpolate", precision="float32"
        )
        result = job.run()
        if result.code:
            raise SystemExit(result.stderr)
        shutil.copytree(job.model, FOLDER / "model")
    request = "\n".join([names, *make_rows(8, seed=1)[1]]) + "\n"
    (FOLDER / "series.csv").write_text(request)
    predictor = Predictor(FOLDER / "model", threads=1)
    found = predictor.predict(decode(request.encode(), CSV, predictor.metadata))
    np.savetxt(FOLDER / "probabilities.csv", found.probabilities, delimiter=",", fmt="%.6f")
    np.savetxt(FOLDER / "explanation.csv", found.explanation, delimiter=",", fmt="%.6f")


if __name__ == "__main__":
    main()
