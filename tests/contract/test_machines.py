"""Several machines that train one model: two processes, each with its own tree and address (T32, T41, T53, M5)."""

import fcntl
import json
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lstm_fcn.container import artifact
from lstm_fcn.container.errors import AlgorithmError, UserError
from tests.programs import MODEL_FILES, Background, Result, TrainingJob, assert_succeeded, labelled_csv

HOSTS = ["127.0.0.1", "127.0.0.2"]
LIMIT = 120  # seconds that a machine may take to notice that another is gone
ROWS = labelled_csv(13).splitlines(keepends=True)


class Machines:
    """The machines of one job; the first one is the first of `HOSTS`."""

    def __init__(self, root: Path) -> None:
        self.jobs = [TrainingJob(root / host) for host in HOSTS]
        self.running: list[Background] = []

    def prepare(self, **hyperparameters: str) -> "Machines":
        """Everything but the training data."""
        for host, job in zip(HOSTS, self.jobs, strict=True):
            job.set(**hyperparameters)
            resources = {"current_host": host, "hosts": HOSTS, "network_interface_name": "ethwe"}
            job.write("input/config/resourceconfig.json", resources)
        return self

    def give_all(self, text: str) -> "Machines":
        """The same training data to each machine."""
        for job in self.jobs:
            job.write("input/data/training/train.csv", text)
        return self

    def give_shares(self, *files: str) -> "Machines":
        """Each file to one machine, in turn, as the platform does with `ShardedByS3Key`."""
        settings = {"TrainingInputMode": "File", "S3DistributionType": "ShardedByS3Key"}
        for job in self.jobs:
            job.write("input/config/inputdataconfig.json", {"training": settings})
            (job.root / "input/data/training").mkdir(parents=True)
        for number, text in enumerate(files):
            self.jobs[number % len(self.jobs)].write(f"input/data/training/{number}.csv", text)
        return self

    def start(self) -> list[Background]:
        self.running = [job.start() for job in self.jobs]
        return self.running

    def finish(self) -> list[Result]:
        return [background.finish() for background in self.running]

    def run(self) -> list[Result]:
        self.start()
        return self.finish()

    def assert_succeeded(self, results: list[Result]) -> None:
        """One model, from the first machine; metrics and epochs are printed there only."""
        first, second = self.jobs
        assert_succeeded(first, results[0])
        assert results[1].code == 0, results[1].stderr
        assert second.files() == []
        assert not second.failure.exists()
        assert results[0].metric_lines()
        assert results[1].metric_lines() == []
        assert "epoch: " not in results[1].stdout
        assert not second.checkpoints.exists() or list(second.checkpoints.iterdir()) == []


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    made = Machines(tmp_path)
    # The ports between machines are fixed, so only one of these tests can run at a time.
    with (Path(tempfile.gettempdir()) / "lstm-fcn-test-machines.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield made
        for background in made.running:
            background.kill()
            background.finish()


def test_the_same_data_on_both(machines: Machines) -> None:
    """Each takes its share of the rows; metrics are over all."""
    for job in machines.jobs:
        job.write("input/data/validation/valid.csv", labelled_csv(7, seed=1))
    results = machines.prepare(batch_size="4", checkpoint_epochs="1").give_all("".join(ROWS)).run()
    machines.assert_succeeded(results)
    first, second = machines.jobs
    metrics = artifact.load(first.model)[0].metrics
    for name, count in (("train_accuracy", 13), ("valid_accuracy", 7)):
        assert metrics[name] * count == pytest.approx(round(metrics[name] * count))
    for result in results:
        assert "task: binary; classes: 'down': 6, 'up': 7" in result.stdout
    assert len(results[0].metric_lines()) == 3 + 1
    assert list(first.checkpoints.iterdir()) == []
    assert not second.checkpoints.exists()


def test_a_share_of_the_files_for_each(machines: Machines) -> None:
    parts = ("".join(ROWS[:4]), "".join(ROWS[4:9]).replace("down,", "below,"), "".join(ROWS[9:]))
    results = machines.prepare(batch_size="4").give_shares(*parts).run()
    machines.assert_succeeded(results)
    assert "training: 8 series of 16 values from 2 file(s)" in results[0].stdout
    assert "training: 5 series of 16 values from 1 file(s)" in results[1].stdout
    metadata, _ = artifact.load(machines.jobs[0].model)
    assert metadata.problem.classes == ("below", "down", "up")  # of which neither machine has all
    for result in results:
        assert "task: multiclass; classes: 'below': 2, 'down': 4, 'up': 7" in result.stdout
    report = json.loads((machines.jobs[0].root / "output/data/metrics.json").read_text())
    assert report["evaluated_on"] == {"data": "training", "rows": 13, "of": 13}
    assert sum(map(sum, report["confusion"])) == 13


def test_a_machine_without_any_file(machines: Machines) -> None:
    results = machines.prepare(cross_validation_folds="2").give_shares("".join(ROWS)).run()
    machines.assert_succeeded(results)
    assert "training: 13 series" in results[0].stdout
    assert "cross-validation: fold 2 of 2, accuracy so far " in results[0].stdout


@pytest.mark.parametrize("broken", [0, 1])
def test_bad_data_on_one_ends_the_other_with_its_text(machines: Machines, broken: int) -> None:
    machines.prepare().give_all("".join(ROWS))
    machines.jobs[broken].write("input/data/training/train.csv", "".join(ROWS) + "up,1,2\n")
    started = time.monotonic()
    results = machines.run()
    assert time.monotonic() - started < LIMIT
    cause = "train.csv, row 14 has 2 values, but row 1 has 16 values"
    assert results[broken].code == UserError.exit_code
    assert machines.jobs[broken].failure.read_text().startswith("UserError: ")
    assert results[1 - broken].code == AlgorithmError.exit_code
    text = machines.jobs[1 - broken].failure.read_text()
    assert f"Host {HOSTS[broken]} failed: UserError: " in text
    for job, result in zip(machines.jobs, results, strict=True):
        assert cause in job.failure.read_text()[:1024]
        assert cause in result.stderr
        assert job.files() == []


def test_a_machine_that_is_lost_ends_the_other_and_both_resume_later(machines: Machines) -> None:
    """First the second machine is lost, then the first; in the end both are stopped, and there is a model."""
    machines.prepare(epochs="20000", batch_size="4", checkpoint_epochs="1").give_all("".join(ROWS))
    resumed = 1
    for lost in (1, 0):
        running = machines.start()
        running[0].wait_for(f"epoch: {resumed + 5}/")
        running[lost].kill()
        started = time.monotonic()
        result = running[1 - lost].finish()
        assert time.monotonic() - started < LIMIT
        assert result.code == AlgorithmError.exit_code
        text = machines.jobs[1 - lost].failure.read_text()
        assert text.startswith("AlgorithmError: ")
        assert "If the job is restarted with its checkpoints, it resumes from the latest one." in text
        running[lost].finish()
        resumed += 4

    running = machines.start()
    running[0].wait_for("resumed: ")
    running[0].wait_for("epoch: ")
    for background in running:
        background.terminate()
    results = machines.finish()
    assert [result.code for result in results] == [0, 0], results
    (epoch,) = re.findall(r"^resumed: epoch (\d+), step \d+$", results[0].stdout, re.MULTILINE)
    assert int(epoch) >= resumed
    assert results[0].metric_lines()[0].startswith(f"epoch: {epoch}/20000, ")
    assert [job.files() for job in machines.jobs] == [MODEL_FILES, []]
    assert not any(job.failure.exists() for job in machines.jobs)
    assert len(list(machines.jobs[0].checkpoints.iterdir())) == 2
