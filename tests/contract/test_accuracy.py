"""Real problems of the UCR archive, through `train` and `serve` as a user would run them.

The folder that holds `ucr/NAME/NAME_TRAIN.tsv` and `_TEST.tsv` is named by the environment variable TIME_SERIES_DATA.
"""

import os
import re
import statistics
from pathlib import Path

import pytest

from lstm_fcn.benchmarks.programs import endpoint
from tests.programs import TrainingJob

FOLDER = Path(os.environ.get("TIME_SERIES_DATA", ""))
DATA = FOLDER / "ucr"
pytestmark = [
    pytest.mark.accuracy,
    pytest.mark.skipif(
        not os.environ.get("TIME_SERIES_DATA") or not DATA.is_dir(),
        reason="TIME_SERIES_DATA names no folder with the UCR archive's problems in ucr/",
    ),
]

# Test accuracy of the default settings with seed 0: a margin of two to four points below what was measured.
LEAST_ACCURACY = {
    "GunPoint": 0.96,
    "Coffee": 0.96,
    "ItalyPowerDemand": 0.94,
    "ECG200": 0.84,
    "ECGFiveDays": 0.96,
    "SonyAIBORobotSurface1": 0.90,
}


def read(problem: str, part: str) -> str:
    return (DATA / problem / f"{problem}_{part}.tsv").read_text().replace("\t", ",")


def train_and_predict(root: Path, problem: str, hyperparameters: dict[str, str]) -> float:
    """Test accuracy of a model, by training it, comparing graph and network, serving it and requesting predictions."""
    job = TrainingJob(root)
    job.write("input/data/training/train.csv", read(problem, "TRAIN"))
    job.write("input/config/hyperparameters.json", hyperparameters)
    result = job.run()
    assert result.code == 0, result.stderr
    difference = re.search(r"largest difference to torch over \d+ series: (\S+)", result.stdout)
    assert difference is not None
    assert float(difference[1]) <= 1e-4
    rows = [line.split(",", 1) for line in read(problem, "TEST").splitlines()]
    with endpoint(root) as server:
        predicted = server.invoke("\n".join(values for _, values in rows)).text.split("\n")
    accuracy = statistics.mean(label == truth for label, (truth, _) in zip(predicted, rows, strict=True))
    print(f"{problem} {hyperparameters}: accuracy {accuracy:.4f}, torch to ONNX {difference[1]}")
    return accuracy


@pytest.mark.parametrize("problem", LEAST_ACCURACY)
def test_default_settings(problem: str, tmp_path: Path) -> None:
    assert train_and_predict(tmp_path, problem, {}) >= LEAST_ACCURACY[problem]


@pytest.mark.parametrize(
    ("problem", "policy", "least"),
    [
        ("DodgerLoopWeekend", {"missing-values": "interpolate"}, 0.93),  # some values are missing
        ("PickupGestureWiimoteZ", {"length-policy": "resample"}, 0.66),  # 29 to 361 values
    ],
)
def test_missing_values_and_different_lengths(
    problem: str, policy: dict[str, str], least: float, tmp_path: Path
) -> None:
    assert train_and_predict(tmp_path, problem, policy) >= least


def test_data_with_a_header(tmp_path: Path) -> None:
    samples = FOLDER / "sample_headers"
    if not samples.is_dir():
        pytest.skip("TIME_SERIES_DATA holds no sample_headers/")
    job = TrainingJob(tmp_path)
    job.write("input/data/training/train.csv", (samples / "training" / "train.csv").read_text())
    job.write("input/data/validation/valid.csv", (samples / "training" / "valid.csv").read_text())
    job.write("input/config/hyperparameters.json", {"epochs": "30"})
    assert job.run().code == 0
    with endpoint(tmp_path) as server:
        reply = server.invoke((samples / "inference" / "input" / "test_data.csv").read_text()).text
    today = (samples / "inference" / "output" / "batch" / "batch_predictions.csv").read_text().splitlines()
    predicted = [line.split(",") for line in reply.splitlines()]
    truth = [
        line.split(",") for line in (samples / "inference" / "output" / "test_labels.csv").read_text().splitlines()
    ]
    assert ",".join(predicted[0]) == today[0]
    assert len(predicted) == len(today) == len(truth)
    right = [
        [int(cell) for cell in found[:3]] == [float(cell) for cell in expected]
        for found, expected in zip(predicted[1:], truth[1:], strict=True)
    ]
    assert statistics.mean(right) >= 0.94


def test_the_preset_of_the_paper(tmp_path: Path) -> None:
    assert train_and_predict(tmp_path, "ItalyPowerDemand", {"preset": "paper", "epochs": "500"}) >= 0.95
