"""Train, serve and predict with the sample data, as a user would do it by hand, and print the accuracy.

python -m data.demo FOLDER
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from lstm_fcn.benchmarks.programs import PROGRAMS, endpoint, environment, prepare_job

DATA = Path(os.path.relpath(Path(__file__).parent))
HYPERPARAMETERS = {"epochs": "60"}  # instead of 200, to be quick; everything else has its default
ROWS_PER_REQUEST = 64  # in the batch job


def main(folder: Path) -> None:
    """Run everything below `folder`: an /opt/ml tree in `ml`, the predictions in `predictions`."""
    ml = folder / "ml"
    print(f"== 1. Training on {DATA}/training (hyperparameters: {json.dumps(HYPERPARAMETERS)})", flush=True)
    shutil.rmtree(ml, ignore_errors=True)
    prepare_job(ml, (DATA / "training/train.csv").read_text(), HYPERPARAMETERS)
    (ml / "input/data/validation").mkdir()
    shutil.copy(DATA / "training/valid.csv", ml / "input/data/validation")
    subprocess.run([PROGRAMS / "train"], env=environment(ml), check=True)

    rows = (DATA / "inference/input/test_data.csv").read_bytes().splitlines(keepends=True)
    print(f"\n== 2. Serving the model, and sending {len(rows)} series in one request", flush=True)
    real_time = folder / "predictions/real-time/real_time_predictions.csv"
    predict(ml, rows, len(rows), real_time)

    print(f"\n== 3. The same as a batch job, with {ROWS_PER_REQUEST} series per request", flush=True)
    batch = folder / "predictions/batch/batch_predictions.csv"
    predict(ml, rows, ROWS_PER_REQUEST, batch, SAGEMAKER_BATCH="true")

    truth = DATA / "inference/output/test_labels.csv"
    print(f"\ntest accuracy: {accuracy(real_time, truth):.3f} (one request), {accuracy(batch, truth):.3f} (batch)")
    print(f"model:         {ml / 'model'}")
    print(f"predictions:   {real_time}\n               {batch}")
    print(f"true labels:   {truth}")
    print(
        f"\nNext: put your own CSV file, label first and no header, into {ml / 'input/data/training'}, and run\n"
        f"    SAGEMAKER_BASE_DIR={ml} .venv/bin/train\n"
        f"    SAGEMAKER_BASE_DIR={ml} .venv/bin/serve\n"
        f"To change hyperparameters, edit {ml / 'input/config/hyperparameters.json'}; `train --help` lists them.\n"
        "The README shows the same with Docker."
    )


def predict(ml: Path, rows: list[bytes], rows_per_request: int, output: Path, **settings: str) -> None:
    """Serve the model in `ml`/model, and write its predictions for CSV rows."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with endpoint(ml, **settings) as server, output.open("w") as file:
        for start in range(0, len(rows), rows_per_request):
            reply = server.invoke(b"".join(rows[start : start + rows_per_request]))
            if reply.status != 200:
                raise SystemExit(f"The server responded {reply.status}: {reply.text}")
            file.write(reply.text.removesuffix("\n") + "\n")


def accuracy(predictions: Path, truth: Path) -> float:
    """The share of equal lines."""
    predicted, expected = predictions.read_text().splitlines(), truth.read_text().splitlines()
    return sum(a == b for a, b in zip(predicted, expected, strict=True)) / len(expected)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
