"""The main job end to end, as a user would do it by hand: train, serve, predict, compare with the truth.

python -m data.demo FOLDER
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

DATA = Path(os.path.relpath(Path(__file__).parent))
PROGRAMS = Path(sys.executable).parent  # where `train` and `serve` are installed
HYPERPARAMETERS = {"epochs": "60", "lr": "0.005", "lr-schedule": "one-cycle"}
ROWS_PER_REQUEST = 64  # of the batch way
START_SECONDS = 60


def main(folder: Path) -> None:
    """Run everything below `folder`: an /opt/ml tree in `ml`, the predictions in `predictions`."""
    ml = folder / "ml"
    print(f"== 1. Training on {DATA}/training (hyperparameters: {json.dumps(HYPERPARAMETERS)})", flush=True)
    prepare_job(ml)
    subprocess.run([PROGRAMS / "train"], env=environment(ml), check=True)

    rows = (DATA / "inference" / "input" / "test_data.csv").read_bytes()
    print(f"\n== 2. Serving the model; sending {len(rows.splitlines())} series in one request", flush=True)
    real_time = folder / "predictions" / "real-time" / "real_time_predictions.csv"
    with endpoint(ml) as url:
        save(real_time, invoke(url, rows) + b"\n")
    print(f"\n== 3. The same as a batch job, {ROWS_PER_REQUEST} series a request", flush=True)
    batch = folder / "predictions" / "batch" / "batch_predictions.csv"
    lines = rows.splitlines(keepends=True)
    with endpoint(ml, SAGEMAKER_BATCH="true") as url:
        starts = range(0, len(lines), ROWS_PER_REQUEST)
        save(batch, b"".join(invoke(url, b"".join(lines[k : k + ROWS_PER_REQUEST])) for k in starts))

    truth = DATA / "inference" / "output" / "test_labels.csv"
    print(f"\ntest accuracy: {accuracy(real_time, truth):.3f} (one request), {accuracy(batch, truth):.3f} (batch)")
    print(f"model:         {ml / 'model'}")
    print(f"predictions:   {real_time}\n               {batch}")
    print(f"true labels:   {truth}")
    print(
        f"\nNext: put your own CSV, label first and no header, into {ml / 'input' / 'data' / 'training'}, change\n"
        f"{ml / 'input' / 'config' / 'hyperparameters.json'}, and run\n"
        f"    SAGEMAKER_BASE_DIR={ml} .venv/bin/train\n"
        f"    SAGEMAKER_BASE_DIR={ml} .venv/bin/serve\n"
        "`train --help` lists the hyperparameters; the README shows the same with docker."
    )


def prepare_job(ml: Path) -> None:
    """Lay out the input of a training job, as the platform would."""
    shutil.rmtree(ml, ignore_errors=True)
    for channel, name in (("training", "train.csv"), ("validation", "valid.csv")):
        (ml / "input" / "data" / channel).mkdir(parents=True)
        shutil.copy(DATA / "training" / name, ml / "input" / "data" / channel)
    (ml / "input" / "config").mkdir()
    (ml / "input" / "config" / "hyperparameters.json").write_text(json.dumps(HYPERPARAMETERS, indent=2) + "\n")


def environment(ml: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "SAGEMAKER_BASE_DIR": str(ml), **more}


@contextmanager
def endpoint(ml: Path, **more: str) -> Iterator[str]:
    """Run `serve` on a free port; gives its address once it is healthy, and stops it in the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen([PROGRAMS / "serve"], env=environment(ml, SAGEMAKER_BIND_TO_PORT=str(port), **more))
    try:
        wait_until_healthy(url, server)
        yield url
    finally:
        server.terminate()
        server.wait()


def wait_until_healthy(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/ping", timeout=2):
                return
        except urllib.error.URLError:
            time.sleep(0.05)
    raise SystemExit(f"The server did not answer at {url}/ping within {START_SECONDS} seconds; see its messages above.")


def invoke(url: str, rows: bytes) -> bytes:
    """The predictions for CSV rows."""
    request = urllib.request.Request(f"{url}/invocations", data=rows, headers={"Content-Type": "text/csv"})
    with urllib.request.urlopen(request, timeout=60) as response:
        content: bytes = response.read()
    return content


def save(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def accuracy(predictions: Path, truth: Path) -> float:
    """The share of lines that are the same in both files."""
    predicted, expected = (pd.read_csv(path, header=None, dtype=str)[0] for path in (predictions, truth))
    return float((predicted == expected).mean())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
