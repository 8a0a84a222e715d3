"""`lstm-fcn tune` as a black box: real trainings of a tiny network, ended in all the ways that there are."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.programs import SMALL, Background, Result, TrainingJob, descendants, free_port, labelled_csv, side_by_side

# As `lstm-fcn` starts it, but a trial of a dead process is taken over within seconds; and Ctrl-C counts, which a shell
# has ignored in what it runs in the background, such as these tests.
PROGRAM = """
import signal
import sys
from lstm_fcn.client import study
from lstm_fcn.client.__main__ import main
study.ALIVE, study.ABANDONED = 0.5, 6.0
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main())
"""
NETWORK = {name: SMALL[name] for name in SMALL if name not in ("epochs", "hidden-size")} | {"precision": "float32"}
POSTGRES_FOLDER = "/usr/lib/postgresql"


class Tuning:
    """Data in a folder, and the command for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = folder / "tuning"
        self.training = folder / "train.csv"
        self.validation = folder / "valid.csv"
        self.training.write_text(labelled_csv(24))
        self.validation.write_text(labelled_csv(12, seed=1))

    def start(self, *arguments: str, trials: int, epochs: int = 3, output: Path | None = None) -> Background:
        command = ["--training", str(self.training), "--validation", str(self.validation)]
        command += ["--output", str(output or self.output), "--trials", str(trials), "--seed", "0"]
        for name, value in (NETWORK | {"epochs": str(epochs)}).items():
            command += ["--set", f"{name}={value}"]
        return Background(
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM, "tune", *command, *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )

    def rows(self, output: Path | None = None) -> list[dict[str, str]]:
        with ((output or self.output) / "trials.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    def states(self, output: Path | None = None) -> list[str]:
        return [row["state"] for row in self.rows(output)]


@pytest.fixture
def tuning(tmp_path: Path) -> Tuning:
    return Tuning(tmp_path)


def assert_refused(result: Result, *messages: str) -> None:
    assert result.code == 2, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    for message in messages:
        assert message in result.stderr


def done(lines: list[str]) -> int:
    return sum(line.startswith("[") for line in lines)


def test_the_best_hyperparameters_are_found_and_can_be_trained_with(tuning: Tuning, tmp_path: Path) -> None:
    ranges = ("--range", "lr=0.0001:0.05:log", "--range", "recurrent=lstm,none")
    result = tuning.start(*ranges, "--workers", "2", trials=6, epochs=8).finish()
    assert result.code == 0, result.stdout + result.stderr
    assert "training: 24 series of 16 values" in result.stdout
    assert done(result.stdout.splitlines()) == 6
    rows = tuning.rows()
    assert {row["state"] for row in rows} <= {"complete", "pruned"}
    assert len(rows) == 6
    assert len({row["lr"] for row in rows}) == 6
    values = [float(row["valid_accuracy"]) for row in rows if row["state"] == "complete"]
    assert f"# Tuning: valid_accuracy {max(values):.4f}" in (tuning.output / "report.md").read_text()
    # As a job, they reach the same: to the last digit, on one core like the trial.
    best = json.loads((tuning.output / "hyperparameters.json").read_text())
    assert best["epochs"] == "8"
    job = TrainingJob(tmp_path / "ml")
    job.write("input/data/training/train.csv", tuning.training.read_text())
    job.write("input/data/validation/valid.csv", tuning.validation.read_text())
    job.write("input/config/hyperparameters.json", best)
    (trained,) = side_by_side(TrainingJob.run, [job])
    saved = next(line for line in trained.stdout.splitlines() if line.startswith("saved: "))
    for name in ("train_loss", "valid_loss", "valid_accuracy"):
        value = saved.partition(f"{name}: ")[2].split(",")[0]
        assert f"{name} {float(value):.4f}" in (tuning.output / "report.md").read_text()


def test_bad_trials_are_pruned(tuning: Tuning) -> None:
    ranges = ("--range", "lr=0.0000001:0.05:log", "--objective", "valid_loss", "--set", "lr-schedule=constant")
    result = tuning.start(*ranges, "--workers", "2", trials=12, epochs=20).finish()
    assert result.code == 0, result.stdout + result.stderr
    rows = tuning.rows()
    pruned = [row for row in rows if row["state"] == "pruned"]
    assert 1 <= len(pruned) <= 7  # not before five are complete
    assert len(rows) == 12
    best = min(float(row["valid_loss"]) for row in rows if row["state"] == "complete")
    for row in pruned:
        assert 8 <= int(row["epochs"]) < 20
        assert float(row["valid_loss"]) > best
    shutil.rmtree(tuning.output)
    assert tuning.start(*ranges, "--no-pruning", trials=8, epochs=20).finish().code == 0
    assert tuning.states() == ["complete"] * 8


def test_a_killed_search_goes_on_and_replaces_what_was_running(tuning: Tuning) -> None:
    ranges = ("--range", "lr=0.001:0.01:log", "--workers", "2")
    first = tuning.start(*ranges, trials=7, epochs=150)
    assert first.wait_until(lambda lines: done(lines) >= 2)
    processes = list(descendants(first.process.pid))
    os.kill(first.process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while any(map(is_running, processes)):
        assert time.monotonic() < deadline, "the trials of a killed search go on"
        time.sleep(0.1)
    first.finish()
    before = {line.split("trial ")[1].split(":")[0]: line for line in first.lines if line.startswith("[")}
    result = tuning.start(*ranges, trials=7, epochs=150).finish()
    assert result.code == 0, result.stdout + result.stderr
    rows = {row["number"]: row for row in tuning.rows()}
    finished = [row for row in rows.values() if row["state"] in ("complete", "pruned")]
    interrupted = [row for row in rows.values() if row["state"] == "interrupted"]
    assert len(finished) == 7
    assert 1 <= len(interrupted) <= 2
    assert {row["lr"] for row in interrupted} <= {row["lr"] for row in finished}
    assert len({row["lr"] for row in finished}) == 7
    for number, line in before.items():
        assert f"lr={rows[number]['lr']}" in line
        assert rows[number]["state"] == "complete"
    assert done(result.stdout.splitlines()) == 7 - len(before)


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_ctrl_c_writes_what_there_is_and_the_same_command_goes_on(tuning: Tuning) -> None:
    ranges = ("--preset", "paper-grid", "--workers", "2")
    first = tuning.start(*ranges, trials=20, epochs=150)
    assert first.wait_until(lambda lines: done(lines) >= 1)
    first.process.send_signal(signal.SIGINT)
    stopped = first.finish()
    assert stopped.code == 130
    assert "Stopped; the same command goes on." in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert "complete" in tuning.states()
    assert (tuning.output / "hyperparameters.json").exists()
    result = tuning.start(*ranges, trials=20, epochs=150).finish()
    assert result.code == 0, result.stdout + result.stderr
    finished = [row for row in tuning.rows() if row["state"] == "complete"]
    assert sorted(row["hidden-size"] for row in finished) == ["128", "64", "8"]  # each once, and no 20 trials


def test_a_trial_that_dies_has_failed_and_the_others_go_on(tuning: Tuning) -> None:
    search = tuning.start("--range", "dropout=0.1:0.8", "--workers", "2", trials=4, epochs=150)
    assert search.wait_until(lambda lines: done(lines) >= 1)
    time.sleep(0.5)
    forkserver = list(Path(f"/proc/{search.process.pid}/task").glob("*/children"))
    children = {child for path in forkserver for child in map(int, path.read_text().split())}
    trials = [child for child in descendants(search.process.pid) if child not in children]
    os.kill(trials[-1], signal.SIGKILL)
    result = search.finish()
    assert result.code == 0, result.stdout + result.stderr
    assert sorted(tuning.states()) == ["complete", "complete", "complete", "failed"]
    assert "Its process ended with exit code -9" in (tuning.output / "report.md").read_text()


def test_combinations_that_are_no_network_have_failed(tuning: Tuning) -> None:
    ranges = ("--range", "recurrent=lstm,none", "--range", "convolutions=true,false")
    result = tuning.start(*ranges, trials=9).finish()
    assert result.code == 0, result.stdout + result.stderr
    assert sorted(tuning.states()) == ["complete", "complete", "complete", "failed"]
    assert "recurrent=none with convolutions=false leaves no network" in (tuning.output / "report.md").read_text()
    (row,) = [row for row in tuning.rows() if row["state"] == "failed"]
    assert (row["recurrent"], row["convolutions"]) == ("none", "false")


def test_what_is_wrong_for_all_trials_ends_the_search_at_once(tuning: Tuning, tmp_path: Path) -> None:
    cases: list[tuple[list[str], tuple[str, ...]]] = [
        (["--set", "num-variables=3"], ("train.csv, row 1", "num-variables")),
        (["--training", str(tmp_path / "bad.csv")], ("bad.csv, row 2, column 4", "abc")),
        (["--objective", "valid_f2"], ("There is no objective 'valid_f2'",)),
        (["--range", "lr=0.1:7"], ("lr=7 must be a number from 1e-07 to 1.0",)),
        (["--storage", f"postgresql://me:secret@localhost:{free_port()}/x"], ("me:***@localhost", "cannot be used")),
        (["--training", str(tmp_path / "many.csv"), "--objective", "valid_auc"], ("has no valid_auc", "two classes")),
    ]
    (tmp_path / "bad.csv").write_text("up,1,2,3\ndown,1,2,abc\n")
    (tmp_path / "many.csv").write_text(labelled_csv(12, labels=("up", "down", "flat")))

    def run(case: tuple[list[str], tuple[str, ...]]) -> Result:
        number = cases.index(case)
        return tuning.start(*case[0], trials=2, output=tmp_path / f"out-{number}").finish()

    for number, (result, (_, messages)) in enumerate(zip(side_by_side(run, cases), cases, strict=True)):
        assert_refused(result, *messages)
        written = [path.name for path in (tmp_path / f"out-{number}").glob("*")]
        assert written == (["study.db"] if "valid_auc" in messages[0] else [])


# Several searches at a time


def assert_shared(tuning: Tuning, storage: str) -> None:
    """Two calls that start together and train together reach the wanted trials, and no more, and agree on them."""
    outputs = [tuning.folder / "a", tuning.folder / "b"]
    arguments = ("--range", "lr=0.001:0.01:log", "--storage", storage)
    results = side_by_side(
        lambda output: tuning.start(*arguments, trials=7, epochs=60, output=output).finish(), outputs
    )
    for result in results:
        assert result.code == 0, result.stdout + result.stderr
    shares = [done(result.stdout.splitlines()) for result in results]
    assert sum(shares) == 7
    assert min(shares) >= 1
    rows = [tuning.rows(output) for output in outputs]
    assert rows[0] == rows[1]
    assert sum(row["state"] in ("complete", "pruned") for row in rows[0]) == 7
    best = [(output / "hyperparameters.json").read_text() for output in outputs]
    assert best[0] == best[1]


def test_two_searches_share_a_file(tuning: Tuning) -> None:
    assert_shared(tuning, str(tuning.folder / "shared.db"))


@pytest.fixture
def postgresql() -> Iterator[tuple[str, Callable[[], None]]]:
    """URL of an empty database on a server of its own, and how to stop the server."""
    programs = find_postgresql()
    user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="postgresql-") as folder:
        data = Path(folder) / "data"
        if user:
            shutil.chown(folder, "postgres")
        initialise = [*user, f"{programs}/initdb", "--username=me", "--auth=trust", "--no-sync", str(data)]
        subprocess.run(initialise, check=True, stdout=subprocess.DEVNULL, cwd="/")
        run = [*user, f"{programs}/postgres", "-D", str(data), "-p", str(port), "-k", "", "-F"]
        with subprocess.Popen(run, stderr=subprocess.DEVNULL, cwd="/") as server:

            def stop() -> None:
                os.kill(int((data / "postmaster.pid").read_text().split()[0]), signal.SIGQUIT)
                server.wait(30)

            ready = [f"{programs}/pg_isready", "--quiet", "--host=localhost", f"--port={port}"]
            deadline = time.monotonic() + 60
            while subprocess.run(ready, check=False).returncode:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield f"postgresql://me@localhost:{port}/postgres", stop
            if server.poll() is None:
                stop()


def find_postgresql() -> Path:
    """Folder of Debian's programs, which are installed if they are not there yet."""
    for attempt in ("look", "install", "look again"):
        found = sorted(Path(POSTGRES_FOLDER).glob("*/bin/initdb"))
        if found:
            return found[-1].parent
        if attempt == "install" and os.geteuid() == 0 and shutil.which("apt-get"):
            subprocess.run(
                ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", "postgresql"],
                check=False,
                stdout=subprocess.DEVNULL,
            )
    pytest.skip("PostgreSQL is not installed, and cannot be installed by apt-get")


def test_two_searches_share_a_server(tuning: Tuning, postgresql: tuple[str, Callable[[], None]]) -> None:
    url, stop = postgresql
    assert_shared(tuning, url)
    arguments = ("--range", "lr=0.001:0.01:log", "--workers", "2", "--storage", url, "--study", "second")
    search = tuning.start(*arguments, trials=5, epochs=150)
    assert search.wait_until(lambda lines: done(lines) >= 1)
    stop()
    assert_refused(search.finish(), "The storage was lost", "The same call goes on when it is back.")
