"""Jobs that are interrupted and restarted end with the same model as an uninterrupted job (T63 to T67)."""

import random
import re
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from lstm_fcn.container import artifact
from tests.contract.conftest import BY_EPOCH, EPOCHS, INTERRUPTED, Mount, prepare_interrupted, stop_in_training
from tests.programs import (
    Result,
    TrainingJob,
    assert_refused,
    assert_succeeded,
    assert_was_refused,
    labelled_csv,
    run_all,
    side_by_side,
)

KILLS = 6  # of each of two jobs
BY_TIME = {"checkpoint_minutes": "0.0002"}  # 12 ms: in mid epoch, too
WHOLE = re.compile(r"lstm-fcn-round\d\d-epoch\d{5}-step\d{8}\.safetensors")


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> TrainingJob:
    """The same job, never interrupted, and without any checkpoint."""
    job = prepare_interrupted(tmp_path_factory.mktemp("whole") / "ml", checkpoint_minutes="0")
    (result,) = run_all([job])
    assert_succeeded(job, result)
    assert "checkpoint" not in result.stdout.replace("checkpoint-", "")
    return job


def assert_same_model(job: TrainingJob, expected: TrainingJob) -> None:
    assert job.read("weights.safetensors") == expected.read("weights.safetensors")
    assert job.read("model.onnx") == expected.read("model.onnx")
    assert artifact.load(job.model)[0].metrics == artifact.load(expected.model)[0].metrics


class Killed(NamedTuple):
    job: TrainingJob
    last: Result
    kills: int
    resumed: int


def kill_again_and_again(job: TrainingJob) -> Killed:
    """Kill the job at random moments: in start-up, in training, at the end. Start it again; let it end at last."""
    chance = random.Random(f"kill {job.root.name}")  # noqa: S311 - the same moments each time, as far as that goes
    resumed = 0
    for number in range(KILLS):
        background = job.start()
        if number == 1:
            time.sleep(chance.uniform(0, 2))  # before it has read anything, probably
        elif number == KILLS - 1:
            background.wait_for("measuring the weights")
            time.sleep(chance.uniform(0, 2))
        else:
            lines = chance.randint(1, 20)
            background.wait_until(lambda seen, lines=lines: sum("epoch: " in line for line in seen) >= lines)  # type: ignore[misc]
            time.sleep(chance.uniform(0, 0.02))
        background.kill()
        background.finish()
        resumed += any(line.startswith("resumed: ") for line in background.lines)
        for path in job.checkpoints.iterdir():  # no file has the name of a checkpoint before it is whole
            assert WHOLE.fullmatch(path.name.removeprefix(".").removesuffix(".sagemaker-ignore"))
    return Killed(job, job.run(), KILLS, resumed)


def test_a_job_that_is_killed_again_and_again_ends_as_one_that_never_was(tmp_path: Path, expected: TrainingJob) -> None:
    jobs = [
        prepare_interrupted(tmp_path / "by-epoch", **BY_EPOCH),
        prepare_interrupted(tmp_path / "by-time", **BY_TIME),
    ]
    for killed in side_by_side(kill_again_and_again, jobs):
        assert_succeeded(killed.job, killed.last)
        assert killed.resumed >= killed.kills // 2
        assert_same_model(killed.job, expected)
        assert list(killed.job.checkpoints.iterdir()) == []  # which are of no more use


def test_a_stopped_job_is_resumed(stopped: TrainingJob, expected: TrainingJob, tmp_path: Path) -> None:
    """And may write its checkpoints more seldom then."""
    job = stopped.copy(tmp_path / "ml").set(**INTERRUPTED, checkpoint_epochs="50", checkpoint_minutes="0")
    assert artifact.load(job.model)[0].problem.classes == ("down", "up")
    names = sorted(path.name for path in job.checkpoints.iterdir())
    assert len(names) == 2
    assert all(WHOLE.fullmatch(name) for name in names)
    (result,) = run_all([job])
    assert_succeeded(job, result)
    (first,) = re.findall(r"^resumed: epoch (\d+), step \d$", result.stdout, re.MULTILINE)
    assert result.metric_lines()[0].startswith(f"epoch: {first}/{EPOCHS}, ")
    assert result.metric_lines()[-2].startswith(f"round: 1, epoch: {EPOCHS}/{EPOCHS}, ")
    assert_same_model(job, expected)


def test_a_checkpoint_of_another_job_is_refused(stopped: TrainingJob, tmp_path: Path) -> None:
    settings, data, validation = (stopped.copy(tmp_path / name) for name in ("settings", "data", "validation"))
    settings.set(**(INTERRUPTED | BY_EPOCH | {"lr": "0.02", "dropout": "0.5"}))
    data.write("input/data/training/train.csv", labelled_csv(seed=7))
    validation.write("input/data/validation/valid.csv", labelled_csv(6, seed=7))
    for job in (settings, data, validation):
        job.model.rename(job.root / "earlier model")
    results = [job.run_here() for job in (settings, data, validation)]
    words = "it has dropout=0.8 instead of 0.5; lr=0.01 instead of 0.02. Restart that job with its"
    assert_was_refused(settings, results[0], " belongs to another job: ", words)
    assert_was_refused(data, results[1], "it has different data.")
    assert_was_refused(validation, results[2], "it has different data.")
    assert len(list(settings.checkpoints.iterdir())) == 2


def test_a_full_disk_leaves_the_checkpoints_that_there_are(stopped: TrainingJob, tmp_path: Path, mount: Mount) -> None:
    size = max(path.stat().st_size for path in stopped.checkpoints.iterdir())
    pages = -(-size // 4096)
    job = prepare_interrupted(tmp_path / "ml", **BY_EPOCH)
    mount(job.checkpoints, f"size={4 * (2 * pages + 1)}k")  # two checkpoints and a bit
    assert_refused(job, "Checkpoint: ", " cannot be written: No space left on device. Earlier checkpoints are")
    names = sorted(path.name for path in job.checkpoints.iterdir())
    assert len(names) == 2
    assert all(WHOLE.fullmatch(name) for name in names)


def test_a_checkpoint_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    """Is an error if the job asks for it, else a warning."""
    wanted, default = prepare_interrupted(tmp_path / "wanted"), TrainingJob(tmp_path / "default").prepare()
    for job in (wanted, default):
        job.write("checkpoints", "a file where a folder should be")
    wanted.write("input/config/checkpointconfig.json", {"S3Uri": "s3://b/c", "LocalPath": str(wanted.checkpoints)})
    refused, result = run_all((wanted, default))
    assert_was_refused(wanted, refused, f"{wanted.checkpoints} cannot be written to: File exists.")
    assert_succeeded(default, result)
    assert "WARNING: no checkpoints are written: " in result.stdout


@pytest.mark.checklist("45: the LocalPath in checkpointconfig.json is the folder of the checkpoints")
def test_another_folder_for_checkpoints(stopped: TrainingJob, tmp_path: Path) -> None:
    job = stopped.copy(tmp_path / "ml")
    elsewhere = tmp_path / "else" / "where"
    elsewhere.parent.mkdir()
    job.checkpoints.rename(elsewhere)
    job.write("input/config/checkpointconfig.json", {"S3Uri": "s3://bucket/prefix", "LocalPath": str(elsewhere)})
    before = sorted(path.name for path in elsewhere.iterdir())
    (result,) = side_by_side(stop_in_training, [job])
    assert re.search(r"^resumed: epoch \d+, step \d$", result.stdout, re.MULTILINE)
    after = sorted(path.name for path in elsewhere.iterdir())
    assert len(after) == 2
    assert after[0] > before[-1]
    assert not job.checkpoints.exists()


@pytest.mark.checklist("46: a damaged checkpoint is skipped for the one before; marker files are ignored")
def test_damaged_checkpoints_and_other_files(stopped: TrainingJob, tmp_path: Path) -> None:
    job = stopped.copy(tmp_path / "ml")
    older, newest = sorted(job.checkpoints.iterdir())
    newest.write_bytes(newest.read_bytes()[:-100])
    good = older.read_bytes()
    for ending in ("uploading", "uploaded", "ignore"):
        for name in ("x", "lstm-fcn-round99-epoch99999-step00000000.safetensors"):
            (job.checkpoints / f"{name}.sagemaker-{ending}").write_bytes(good)
    (job.checkpoints / "x.safetensors").write_bytes(b"of somebody else")
    (result,) = run_all([job])
    assert_succeeded(job, result)
    assert f"WARNING: checkpoint {newest} is damaged" in result.stdout
    epoch = int(re.findall(r"epoch(\d{5})", older.name)[0])
    assert f"\nresumed: epoch {epoch}, step " in result.stdout
    left = {path.name for path in job.checkpoints.iterdir()}
    assert {"x.safetensors", "x.sagemaker-uploading", "x.sagemaker-uploaded", "x.sagemaker-ignore"} <= left
