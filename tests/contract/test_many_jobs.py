"""Jobs that train a model for each value of a column: several machines, groups that fail, a stop and a restart."""

import csv
import time
from pathlib import Path

import numpy as np
import pytest

from lstm_fcn.container import artifact
from lstm_fcn.container.optml import BY
from tests.programs import Background, Result, TrainingJob, assert_was_refused, start

GROUPS = ("north", "south", "east", "west")
HOSTS = ["algo-1", "algo-2"]


def table(groups: tuple[str, ...], bad: str = "") -> str:
    """Twelve series for each group, of two classes, in turn; the group `bad` has one class."""
    rng = np.random.default_rng(0)
    lines = ["machine,label," + ",".join(f"v{k}" for k in range(16))]
    for number in range(12 * len(groups)):
        group, rising = groups[number % len(groups)], number // len(groups) % 2
        values = (1 if rising else -1) * np.linspace(-1, 1, 16) + rng.normal(scale=0.1, size=16)
        label = "up" if rising or group == bad else "down"
        lines.append(f"{group},{label}," + ",".join(f"{value:.4f}" for value in values))
    return "\n".join(lines) + "\n"


def begin(job: TrainingJob, **environment: str) -> Background:
    return Background(start("train", job.root, {BY: "machine", **environment}))


def finish(job: TrainingJob) -> Result:
    return begin(job).finish()


def folders(job: TrainingJob) -> list[str]:
    return sorted(path.name for path in job.model.iterdir())


def summary(job: TrainingJob, name: str = "summary.csv") -> dict[str, dict[str, str]]:
    with (job.root / "output" / "data" / name).open(newline="") as file:
        return {row["group"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> TrainingJob:
    """A finished job on one machine, in which one group fails."""
    job = TrainingJob(tmp_path_factory.mktemp("one")).prepare(table((*GROUPS, "bad"), "bad"))
    result = finish(job)
    assert result.code == 0, result.stdout + result.stderr
    assert f"models: 4 of 5 groups in {job.model}\n" in result.stdout
    return job


def test_a_model_for_each_group_and_the_reason_for_one_that_fails(one: TrainingJob) -> None:
    assert folders(one) == sorted(GROUPS)
    assert artifact.load(one.model / "north")[0].problem.classes == ("down", "up")
    found = summary(one)
    assert "has only one class ('up', 12 rows)" in found["bad"]["error"]
    assert {group: row["folder"] for group, row in found.items() if row["folder"]} == {name: name for name in GROUPS}
    assert (one.root / "output" / "data" / "report.html").exists()
    assert not one.failure.exists()


def test_machines_divide_the_groups(one: TrainingJob, tmp_path: Path) -> None:
    jobs = [TrainingJob(tmp_path / host).prepare(table((*GROUPS, "bad"), "bad")) for host in HOSTS]
    for host, job in zip(HOSTS, jobs, strict=True):
        job.write("input/config/resourceconfig.json", {"current_host": host, "hosts": HOSTS})
    for result in [background.finish() for background in map(begin, jobs)]:
        assert result.code == 0, result.stdout + result.stderr
    first, second = map(folders, jobs)
    assert not set(first) & set(second)
    assert sorted(first + second) == sorted(GROUPS)
    for job in jobs:
        for name in folders(job):
            for file in (artifact.GRAPH, artifact.WEIGHTS, artifact.METADATA):
                assert (job.model / name / file).read_bytes() == (one.model / name / file).read_bytes()
    rows = [summary(job, f"summary-{host}.csv") for host, job in zip(HOSTS, jobs, strict=True)]
    assert {**rows[0], **rows[1]}.keys() == summary(one).keys()


def test_refused(tmp_path: Path) -> None:
    no_column = TrainingJob(tmp_path / "column").prepare(table(GROUPS).replace("machine,", "machines,", 1))
    assert_was_refused(no_column, finish(no_column), "has no column 'machine'; did you mean 'machines'?")
    none = TrainingJob(tmp_path / "none").prepare(table(("a", "b")).replace("down", "up"))
    assert_was_refused(none, finish(none), "None of 2 groups could be trained. a: Error: The training data has only")
    message = "has one channel, training, in File mode and the same on all machines"
    validation = TrainingJob(tmp_path / "validation").prepare(table(GROUPS), table(GROUPS))
    assert_was_refused(validation, finish(validation), message)
    typo = TrainingJob(tmp_path / "typo").prepare(table(GROUPS), epoch="3")
    assert_was_refused(typo, finish(typo), "epoch is unknown; did you mean epochs?")


def test_a_stop_keeps_what_is_complete_and_a_restart_does_not_train_it_again(tmp_path: Path) -> None:
    many = tuple(f"m{number:02d}" for number in range(40))
    job = TrainingJob(tmp_path).prepare(table(many))
    job.write("input/config/checkpointconfig.json", {"LocalPath": str(job.checkpoints)})
    running = begin(job, OMP_NUM_THREADS="1")
    while len(list((job.checkpoints / "models").glob("m*"))) < 2:
        time.sleep(0.05)
    running.terminate()
    stopped = running.finish()
    assert stopped.code == 0, stopped.stdout + stopped.stderr
    kept = folders(job)
    assert 2 <= len(kept) < 40
    assert all(artifact.load(job.model / name) for name in kept)
    times = {name: (job.checkpoints / "models" / name / artifact.METADATA).stat().st_mtime_ns for name in kept}
    assert finish(job).code == 0
    assert folders(job) == list(many)
    assert summary(job).keys() == set(many)
    for name, before in times.items():
        assert (job.checkpoints / "models" / name / artifact.METADATA).stat().st_mtime_ns == before
