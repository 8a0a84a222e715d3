"""Fixtures of several test files."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.models import GOLDEN, save_plain_model
from tests.programs import Endpoint, Result, TrainingJob, assert_succeeded, endpoint, labelled_csv, side_by_side

EPOCHS = 60  # of each of the two rounds of an interrupted job
INTERRUPTED = {
    "epochs": str(EPOCHS),
    "batch_size": "5",  # three steps an epoch
    "lr_schedule": "one-cycle",
    "lr": "0.01",
    "fine_tune_rounds": "1",
}
BY_EPOCH = {"checkpoint_epochs": "1", "checkpoint_minutes": "0"}

Mount = Callable[[Path, str], None]


@pytest.fixture
def mount() -> Iterator[Mount]:
    """Mounts a file system in memory at a folder, with options such as `size=8k`, until the test ends."""
    mounted: list[Path] = []

    def mount_at(folder: Path, options: str) -> None:
        if os.geteuid() != 0:
            pytest.skip("mounting a file system needs root")
        folder.mkdir(parents=True)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=False).returncode:
            pytest.skip("this machine mounts no file systems")
        mounted.append(folder)

    yield mount_at
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)


def prepare_interrupted(root: Path, **settings: str) -> TrainingJob:
    """A job that takes a while, to be interrupted."""
    return TrainingJob(root).prepare(validation=labelled_csv(6, seed=1), **(INTERRUPTED | settings))


def stop_in_training(job: TrainingJob) -> Result:
    """Start the job and stop it by SIGTERM after some epochs; it ends well."""
    background = job.start()
    background.wait_until(lambda lines: sum("epoch: " in line for line in lines) >= 3)
    background.terminate()
    result = background.finish()
    assert_succeeded(job, result)
    assert "stop requested in epoch" in result.stdout
    return result


@pytest.fixture(scope="session")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> TrainingJob:
    """A job that was stopped after some epochs, with checkpoints; to be copied."""
    job = prepare_interrupted(tmp_path_factory.mktemp("stopped") / "ml", **BY_EPOCH)
    side_by_side(stop_in_training, [job])
    return job


# Responses are logged to a pipe that is read only at the end, so that the shared endpoints must not log each request.
QUIET = {"SAGEMAKER_MODEL_SERVER_WORKERS": "2", "SAGEMAKER_CONTAINER_LOG_LEVEL": "30"}


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """An endpoint with the plain model, for tests that leave it as it is."""
    root = tmp_path_factory.mktemp("plain")
    save_plain_model(root / "model")
    with endpoint(root, **QUIET) as running:
        yield running


@pytest.fixture(scope="session")
def trained_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """An endpoint with the golden model, for tests that leave it as it is."""
    root = tmp_path_factory.mktemp("trained")
    shutil.copytree(GOLDEN / "model", root / "model")
    with endpoint(root, **QUIET) as running:
        yield running
