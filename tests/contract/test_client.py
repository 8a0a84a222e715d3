"""`lstm-fcn` from a CSV file to predictions: trained, interrupted, evaluated, drawn and served on this machine."""

import json
import os
import shutil
import signal
import subprocess
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lstm_fcn import LSTMFCNClassifier
from lstm_fcn.client.__main__ import main
from lstm_fcn.container.artifact import parse_metadata
from lstm_fcn.container.optml import OptML
from lstm_fcn.training.distributed import Group
from lstm_fcn.training.job import run as run_job
from lstm_fcn.training.stop import StopSignal
from tests.programs import (
    MODEL_FILES,
    PROGRAMS,
    SMALL,
    Background,
    Result,
    TrainingJob,
    finish,
    free_port,
    labelled_csv,
    request,
    wait_until_healthy,
    without_labels,
)

OPTIONS = [word for name, value in SMALL.items() for word in (f"--{name}", value)]
REPORT = ["report.html", "metrics.json", "curves.csv"]


def start(*arguments: object, cwd: Path) -> "subprocess.Popen[str]":
    """Start the command as a terminal does: in a process group, to which Ctrl-C is sent."""
    return subprocess.Popen(
        [str(PROGRAMS / "lstm-fcn"), *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train.csv, series.csv without labels, and model/, which the command has trained."""
    folder = tmp_path_factory.mktemp("client")
    (folder / "train.csv").write_text(labelled_csv(24))
    (folder / "test.csv").write_text(labelled_csv(10, seed=1))
    (folder / "series.csv").write_text(without_labels(labelled_csv(10, seed=1)))
    result = finish(start("train", "--training", "train.csv", "--output", "model", *OPTIONS, cwd=folder))
    assert result.code == 0, result.stdout + result.stderr
    assert "saved: epoch" in result.stdout
    assert "model: model" in result.stdout.splitlines()
    assert sorted(path.name for path in (folder / "model").iterdir()) == sorted([*MODEL_FILES, *REPORT])
    return folder


@pytest.fixture
def folder(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(trained)
    return trained


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Networks this small only wait for further threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> Result:
    """Run the command in this process."""
    code = main([str(argument) for argument in arguments])
    return Result(code, *capsys.readouterr())


def test_the_estimator_makes_the_same_model(trained: Path, tmp_path: Path) -> None:
    rows = [line.split(",") for line in (trained / "train.csv").read_text().splitlines()]
    series, labels = np.array([row[1:] for row in rows], dtype=np.float64), [row[0] for row in rows]
    settings: dict[str, Any] = {name.replace("-", "_"): int(value) for name, value in SMALL.items()}
    LSTMFCNClassifier(**settings).fit(series, labels).save(tmp_path)
    for name in MODEL_FILES:
        assert (tmp_path / name).read_bytes() == (trained / "model" / name).read_bytes(), name


@pytest.mark.usefixtures("folder")
class TestPredictions:
    def test_on_standard_output(self, capsys: pytest.CaptureFixture[str]) -> None:
        result = call(capsys, "predict", "model", "series.csv")
        assert result.code == 0, result.stderr
        assert len(result.stdout.splitlines()) == 10
        assert set(result.stdout.split()) <= {"up", "down"}

    def test_into_a_file_that_is_replaced(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (folder / "out.csv").write_text("old")
        result = call(capsys, "predict", "model", "series.csv", "--output", "out.csv", "--outputs", "probabilities")
        assert result.code == 0, result.stderr
        assert len((folder / "out.csv").read_text().splitlines()) == 10

    def test_labelled_series_are_refused(self, capsys: pytest.CaptureFixture[str]) -> None:
        result = call(capsys, "predict", "model", "test.csv")
        assert result.code == 2
        assert result.stderr.startswith("Error: ")
        assert "without a label" in result.stderr


NOISE = np.random.default_rng(0)


def random_csv(task: str, rows: int) -> str:
    """Series without a pattern, with labels for the task: scores between 0 and 1 tell implementations apart."""
    targets = {"headerless": 0, "one target": 1, "multilabel": 3}.get(task, 0)
    header = [*(f"y{k}" for k in range(targets)), *(f"x{k}" for k in range(8))] if targets else []
    lines = [",".join(header)] if targets else []
    for row in range(rows):
        if targets:
            labels = [str(value) for value in NOISE.integers(0, 2, targets)]
        else:
            labels = ["abc"[row % (2 if task == "headerless" else 3)]]
        lines.append(",".join([*labels, *(f"{value:.4f}" for value in NOISE.normal(size=8))]))
    return "\n".join(lines) + "\n"


class TestEvaluation:
    @pytest.mark.usefixtures("one_thread")
    @pytest.mark.parametrize("task", ["headerless", "multiclass", "one target", "multilabel"])
    def test_metrics_are_those_of_training(self, task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        validation = random_csv(task, 31)
        TrainingJob(tmp_path).prepare(random_csv(task, 40), validation, class_weight="balanced")
        run_job(OptML(tmp_path), StopSignal(), Group())
        logged = parse_metadata((tmp_path / "model" / "model.json").read_bytes(), tmp_path).metrics
        (tmp_path / "valid.csv").write_text(validation)
        found = json.loads(call(capsys, "evaluate", tmp_path / "model", tmp_path / "valid.csv", "--json").stdout)
        expected = {name.removeprefix("valid_"): v for name, v in logged.items() if name.startswith("valid_")}
        assert {"loss", "accuracy", "balanced_accuracy", "f1"} <= set(expected)
        assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-5)
        assert set(found) == {"rows", "classes", *expected}

    def test_table(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        predicted = call(capsys, "predict", "model", "series.csv").stdout.split()
        truth = [line.split(",")[0] for line in (folder / "test.csv").read_text().splitlines()]
        accuracy = sum(map(str.__eq__, predicted, truth)) / len(truth)
        lines = call(capsys, "evaluate", "model", "test.csv").stdout.splitlines()
        assert lines[0].split() == ["rows", "10"]
        assert f"accuracy             {accuracy:.4f}" in lines
        assert [line.split()[0] for line in lines[-3:]] == ["class", "down", "up"]


def test_pictures_are_drawn(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = call(capsys, "visualize", "model", "test.csv", "pictures", "--row", 3, "--class", "up")
    assert result.code == 0, result.stderr
    names = {path.name for path in (folder / "pictures").iterdir()}
    assert names >= {"row-3.png", "filters-1.png", "curves.png", "confusion.png"}
    assert str(Path("pictures/row-3.png")) in result.stdout.splitlines()
    wrong = call(capsys, "visualize", "model", "test.csv", "pictures", "--class", "sideways")
    assert (wrong.code, "has no class 'sideways'; its classes are 'down', 'up'" in wrong.stderr) == (2, True)


def test_the_model_is_served_with_its_page_on_this_machine_only(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    server = Background(start("serve", "model", "--port", port, "--workers", 1, cwd=folder))
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_healthy(url, server.process)
        assert "<html" in request(f"{url}/").text
        reply = request(f"{url}/invocations", (folder / "series.csv").read_text())
        assert reply.text.split() == call(capsys, "predict", "model", "series.csv").stdout.split()
        with pytest.raises(urllib.error.URLError, match="refused"):
            request(f"http://127.0.0.2:{port}/ping")  # reaches what listens on all interfaces
    finally:
        os.killpg(server.process.pid, signal.SIGINT)
        assert server.finish().code == 0
    assert server.lines[0] == f"{url}/\n"


class TestInterruption:
    def test_ctrl_c_keeps_the_checkpoint_and_the_old_model_and_the_same_command_resumes(self, folder: Path) -> None:
        command = ["train", "--training", "train.csv", *OPTIONS, "--epochs", 150, "--output"]
        shutil.copytree("model", "again")
        (folder / "again" / "report.html").write_text("an old report")
        before = {path.name: path.read_bytes() for path in (folder / "again").iterdir()}
        first = Background(start(*command, "again", cwd=folder))
        first.wait_for("epoch: 3/150")
        os.killpg(first.process.pid, signal.SIGINT)
        stopped = first.finish()
        assert stopped.code == 130, stopped.stderr
        assert "run the same command again to resume it." in stopped.stderr
        assert stopped.stderr.startswith("Interrupted after epoch ")
        assert "Traceback" not in stopped.stderr
        after = {path.name: path.read_bytes() for path in (folder / "again").iterdir() if path.is_file()}
        assert after == before
        assert main(["train", "--training", "train.csv", *OPTIONS, "--epochs", "150", "--output", "whole"]) == 0
        second = finish(start(*command, "again", cwd=folder))
        assert second.code == 0, second.stderr
        assert "resumed: epoch" in second.stdout
        for name in MODEL_FILES:
            assert (folder / "again" / name).read_bytes() == (folder / "whole" / name).read_bytes(), name
        assert "an old report" not in (folder / "again" / "report.html").read_text()
        assert not (folder / "again" / ".job").exists()

    def test_before_training_nothing_is_left(self, folder: Path) -> None:
        program = Background(start("train", "--training", "train.csv", "--output", "early", *OPTIONS, cwd=folder))
        program.wait_for("versions: ")
        os.killpg(program.process.pid, signal.SIGINT)
        result = program.finish()
        assert result.code == 130, result.stderr
        assert not list((folder / "early").glob("*.*"))


class TestWrongInput:
    def test_is_named_as_the_user_knows_it(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (folder / "bad.csv").write_text("up,1,2,3\ndown,1,x,3\n")
        result = call(capsys, "train", "--training", "bad.csv", "--output", "bad-model")
        assert result.code == 2
        assert result.stderr.startswith("Error: bad.csv, row 2, column 3 is 'x'; every value must be a finite number.")
        assert ".job" not in result.stderr
        assert not list((folder / "bad-model").iterdir())

    def test_a_channel_without_data(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (folder / "nothing").mkdir()
        result = call(capsys, "train", "--training", "nothing", "--output", "no-model")
        assert result.code == 2
        assert "Error: The folder nothing contains no data files.\n" in result.stderr

    def test_an_empty_file(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (folder / "empty.csv").touch()
        result = call(capsys, "train", "--training", "empty.csv", "--output", "no-model")
        assert result.code == 2
        assert "Error: Channel training has no data: empty.csv contains no files with content" in result.stderr
