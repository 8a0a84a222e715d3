"""Real problems of the UCR archive, through `train` and `serve` as a user would run them.

The folder that holds `ucr/NAME/NAME_TRAIN.tsv` and `_TEST.tsv` is named by the environment variable TIME_SERIES_DATA.
"""

import os
import re
import statistics
from pathlib import Path

import pytest

from tests.programs import TrainingJob, endpoint, side_by_side

FOLDER = Path(os.environ.get("TIME_SERIES_DATA", ""))
DATA = FOLDER / "ucr"
pytestmark = pytest.mark.skipif(
    not os.environ.get("TIME_SERIES_DATA") or not DATA.is_dir(),
    reason="TIME_SERIES_DATA names no folder with the UCR archive's problems in ucr/",
)

FAST = {"epochs": "200", "lr": "0.005", "lr-schedule": "one-cycle"}
SEEDS = ("0", "1", "2")
# Mean test accuracy over the seeds that is reached at least, a little below what was measured.
LEAST_ACCURACY = {
    "GunPoint": 0.98,
    "Coffee": 0.98,
    "CBF": 0.98,
    "Trace": 0.99,
    "ItalyPowerDemand": 0.95,
    "SyntheticControl": 0.97,
    "ECG200": 0.87,
    "DiatomSizeReduction": 0.88,
    "ECGFiveDays": 0.98,
    "SonyAIBORobotSurface1": 0.93,
}


def read(problem: str, part: str) -> str:
    return (DATA / problem / f"{problem}_{part}.tsv").read_text().replace("\t", ",")


def train_and_predict(root: Path, problem: str, hyperparameters: dict[str, str]) -> float:
    """Test accuracy of a model that was trained, checked, served and asked."""
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


@pytest.fixture(scope="module")
def accuracies(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    """Of each problem that is to be tested, one for each seed; trained side by side."""
    folder = tmp_path_factory.mktemp("fast")
    tests = [item for item in request.session.items if item.name.startswith("test_fast_training[")]
    problems = [problem for problem in LEAST_ACCURACY if f"test_fast_training[{problem}]" in {t.name for t in tests}]

    def run(case: tuple[str, str]) -> float:
        problem, seed = case
        return train_and_predict(folder / problem / seed, problem, FAST | {"seed": seed})

    found = side_by_side(run, [(problem, seed) for problem in problems for seed in SEEDS])
    return {problem: found[k * len(SEEDS) : (k + 1) * len(SEEDS)] for k, problem in enumerate(problems)}


@pytest.mark.parametrize("problem", LEAST_ACCURACY)
def test_fast_training(problem: str, accuracies: dict[str, list[float]]) -> None:
    print(f"{problem}: {accuracies[problem]}, mean {statistics.mean(accuracies[problem]):.4f}")
    assert statistics.mean(accuracies[problem]) >= LEAST_ACCURACY[problem]


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
    assert train_and_predict(tmp_path, problem, FAST | policy) >= least


def test_data_with_a_header(tmp_path: Path) -> None:
    samples = FOLDER / "sample_headers"
    if not samples.is_dir():
        pytest.skip("TIME_SERIES_DATA holds no sample_headers/")
    job = TrainingJob(tmp_path)
    job.write("input/data/training/train.csv", (samples / "training" / "train.csv").read_text())
    job.write("input/data/validation/valid.csv", (samples / "training" / "valid.csv").read_text())
    job.write("input/config/hyperparameters.json", FAST | {"epochs": "30"})
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


def test_the_papers_protocol_which_is_the_default(tmp_path: Path) -> None:
    # On one core: steps this small only wait for a second thread where something else needs its core.
    (accuracy,) = side_by_side(lambda problem: train_and_predict(tmp_path, problem, {}), ["ItalyPowerDemand"])
    assert accuracy >= 0.95
