"""Makes a golden artifact of the current schema version: a tiny model, series, and its probabilities for them.

    python -m tests.golden.make_golden

Run once for each schema version and commit the folder; it must load for ever, so it is never made again.
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np

from container.artifact import SCHEMA_VERSION
from serving.predictor import Predictor
from tests.programs import TrainingJob, labelled_csv

FOLDER = Path(__file__).parent / f"v{SCHEMA_VERSION}"


def main() -> None:
    if FOLDER.exists():
        raise SystemExit(f"{FOLDER} exists already; a golden artifact is never made again.")
    text = labelled_csv(60).replace("up,", '"up, not ""down""",').replace("down,", "1.0,")
    with tempfile.TemporaryDirectory() as folder:
        job = TrainingJob(Path(folder)).prepare(text, epochs="40", lr="0.02")
        result = job.run()
        if result.code:
            raise SystemExit(result.stderr)
        shutil.copytree(job.model, FOLDER / "model")
    rows = [line.split(",", 1)[1] for line in labelled_csv(8, seed=1).splitlines()]
    (FOLDER / "series.csv").write_text("\n".join(rows) + "\n")
    series = np.array([row.split(",") for row in rows], dtype=np.float64)[:, None]
    np.savetxt(FOLDER / "probabilities.csv", Predictor(FOLDER / "model", 1).predict(series), delimiter=",", fmt="%.6f")


if __name__ == "__main__":
    main()
