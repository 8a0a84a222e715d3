"""`lstm-fcn tune` as a black box: real trainings of a tiny network, ended in different ways."""

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

import psutil
import pytest

from lstm_fcn.client.__main__ import main
from tests.programs import SMALL, Background, descendants, free_port, is_running, labelled_csv, side_by_side

# The command as `lstm-fcn` starts it, except that an abandoned trial is replaced within seconds, and that Ctrl-C works,
# which a shell disables in programs that run in the background, such as these tests.
PROGRAM = """
import signal
import sys
from lstm_fcn.client.__main__ import main
from lstm_fcn.client.tuning import study
study.HEARTBEAT_SECONDS, study.GRACE_SECONDS = 1, 6
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main())
"""
NETWORK = {name: SMALL[name] for name in SMALL if name not in ("epochs", "hidden-size")} | {"precision": "float32"}
LR = ("--range", "lr=0.001:0.01:log")


class Tuning:
    """Data in a folder, and the command that tunes on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = folder / "tuning"
        (folder / "train.csv").write_text(labelled_csv(24))
        (folder / "valid.csv").write_text(labelled_csv(12, seed=1))
        self.data = ["--training", str(folder / "train.csv"), "--validation", str(folder / "valid.csv")]

    def start(self, *arguments: str, trials: int, epochs: int = 3, output: Path | None = None) -> Background:
        command = [*self.data, "--output", str(output or self.output), "--trials", str(trials), "--search-seed", "0"]
        for name, value in (NETWORK | {"epochs": str(epochs)}).items():
            command += [f"--{name}", value]
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


@pytest.fixture
def tuning(tmp_path: Path) -> Tuning:
    return Tuning(tmp_path)


def done(lines: list[str]) -> int:
    return sum(line.startswith("[") for line in lines)


def test_an_interrupted_search_is_resumed_and_its_result_can_be_trained_with(
    tuning: Tuning, capfd: pytest.CaptureFixture[str]
) -> None:
    # Killed: the trials end, too.
    killed = tuning.start(*LR, "--workers", "2", trials=5, epochs=60)
    assert killed.wait_until(lambda lines: done(lines) >= 1)
    processes = descendants(killed.process.pid)
    os.kill(killed.process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while any(map(is_running, processes)):
        assert time.monotonic() < deadline, "the trials of a killed search continue"
        time.sleep(0.1)
    killed.finish()
    # Resumed, and stopped by Ctrl-C: the results so far are written.
    stopped = tuning.start(*LR, "--workers", "2", trials=5, epochs=60)
    assert stopped.wait_until(lambda lines: done(lines) >= 1)
    stopped.process.send_signal(signal.SIGINT)
    result = stopped.finish()
    assert result.code == 130
    assert "Interrupted. Run the same command again to resume the search." in result.stderr
    assert "Traceback" not in result.stderr
    assert (tuning.output / "hyperparameters.json").exists()
    # Resumed again, to the end: interrupted trials are replaced, finished ones are kept.
    result = tuning.start(*LR, trials=5, epochs=60).finish()
    assert result.code == 0, result.stdout + result.stderr
    rows = {row["number"]: row for row in tuning.rows()}
    complete = [row for row in rows.values() if row["state"] == "complete"]
    interrupted = [row for row in rows.values() if row["state"] == "interrupted"]
    assert len(complete) == 5
    assert len({row["lr"] for row in complete}) == 5
    assert interrupted
    assert {row["lr"] for row in interrupted} <= {row["lr"] for row in complete}
    lines = [line for line in killed.lines + stopped.lines if line.startswith("[")]
    assert done(result.stdout.splitlines()) == 5 - len(lines)
    for line in lines:
        number = line.split("trial ")[1].split(":")[0]
        assert f"lr={rows[number]['lr']}" in line
        assert rows[number]["state"] == "complete"
    # The best trial, trained as a job on one core like the trial, reaches the same metrics.
    best = tuning.output / "hyperparameters.json"
    assert json.loads(best.read_text())["epochs"] == "60"
    model = tuning.folder / "model"
    capfd.readouterr()
    assert train(*tuning.data, "--output", str(model), "--hyperparameters", str(best)) == 0
    saved = next(line for line in capfd.readouterr().out.splitlines() if line.startswith("saved: "))
    for name in ("train_loss", "valid_loss", "valid_accuracy"):
        value = float(saved.partition(f"{name}: ")[2].split(",")[0])
        assert f"{name} {value:.4f}" in (tuning.output / "report.md").read_text()


def train(*arguments: str) -> int:
    """`lstm-fcn train` on one core."""
    command = [sys.executable, "-m", "lstm_fcn.client", "train", *arguments]
    return side_by_side(lambda command: subprocess.run(command, check=False).returncode, [command])[0]


def test_a_trial_that_dies_has_failed(tuning: Tuning) -> None:
    search = tuning.start("--range", "recurrent=lstm,gru", "--workers", "1", trials=2, epochs=300)
    deadline = time.monotonic() + 120
    program = psutil.Process(search.process.pid)
    # The search starts a fork server, which starts the process of each trial.
    while not (trials := set(program.children(recursive=True)) - set(program.children())):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    trials.pop().kill()
    result = search.finish()
    assert result.code == 0, result.stdout + result.stderr
    assert [row["state"] for row in tuning.rows()] == ["failed", "complete"]
    text = (tuning.output / "report.md").read_text()
    assert "- trial 0: The process of the trial ended with exit code -9; the machine may have run" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num-variables", "3"], "row 1"),
        (["--training", "{folder}/bad.csv"], "bad.csv, row 2, column 4"),
    ],
)
def test_bad_data_ends_the_search_before_any_trial(
    tuning: Tuning, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tuning.folder / "bad.csv").write_text("up,1,2,3\ndown,1,2,abc\n")
    paths = [argument.format(folder=tuning.folder) for argument in arguments]
    assert main(["tune", *tuning.data, "--output", str(tuning.output), *paths]) == 2
    assert message in capsys.readouterr().err
    assert list(tuning.output.iterdir()) == []


# Several searches at a time


def assert_shared(tuning: Tuning, storage: str) -> None:
    """Two searches that start together reach the wanted number of trials together, and report the same results."""
    outputs = [tuning.folder / "a", tuning.folder / "b"]
    searches = [tuning.start(*LR, "--storage", storage, trials=7, epochs=60, output=output) for output in outputs]
    results = [search.finish() for search in searches]
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
    """URL of an empty database on a new server, and a function that stops the server."""
    initdb = shutil.which("initdb") or next(map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))), None)
    if initdb is None:
        pytest.skip("PostgreSQL is not installed (Debian package postgresql).")
    programs = Path(initdb).resolve().parent
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


@pytest.mark.database
def test_two_searches_share_a_server(tuning: Tuning, postgresql: tuple[str, Callable[[], None]]) -> None:
    url, stop = postgresql
    assert_shared(tuning, url)
    search = tuning.start(*LR, "--workers", "2", "--storage", url, "--study", "second", trials=5, epochs=150)
    assert search.wait_until(lambda lines: done(lines) >= 1)
    stop()
    result = search.finish()
    assert result.code == 2, result.stdout + result.stderr
    assert "The connection to the storage was lost" in result.stderr
    assert "Run the same search again to resume it." in result.stderr
    assert "Traceback" not in result.stderr
