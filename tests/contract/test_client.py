"""`lstm-fcn` from a CSV file to predictions, without an /opt/ml in sight."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.programs import (
    MODEL_FILES,
    PROGRAMS,
    SMALL,
    Background,
    Result,
    finish,
    free_port,
    labelled_csv,
    request,
    wait_until_healthy,
    without_labels,
)

OPTIONS = [word for name, value in SMALL.items() for word in (f"--{name}", value)]


def start(*arguments: object, cwd: Path) -> "subprocess.Popen[str]":
    command = [str(PROGRAMS / "lstm-fcn"), *map(str, arguments)]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(*arguments: object, cwd: Path) -> Result:
    return finish(start(*arguments, cwd=cwd))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train.csv, series.csv without labels, and model/, which the command has trained."""
    folder = tmp_path_factory.mktemp("client")
    (folder / "train.csv").write_text(labelled_csv(24))
    (folder / "test.csv").write_text(labelled_csv(10, seed=1))
    (folder / "series.csv").write_text(without_labels(labelled_csv(10, seed=1)))
    result = run("train", "--training", "train.csv", "--output", "model", *OPTIONS, "--epochs", 30, cwd=folder)
    assert result.code == 0, result.stdout + result.stderr
    assert "saved: epoch" in result.stdout
    assert f"model: {Path('model')}" in result.stdout.splitlines()
    return folder


def test_the_output_holds_model_and_report(folder: Path) -> None:
    found = sorted(path.name for path in (folder / "model").iterdir())
    assert found == sorted([*MODEL_FILES, "report.html", "metrics.json", "curves.csv"])


def test_predictions_come_on_standard_output(folder: Path) -> None:
    result = run("predict", "model", "series.csv", cwd=folder)
    assert result.code == 0, result.stderr
    assert set(result.stdout.split()) == {"up", "down"}
    assert len(result.stdout.split()) == 10
    to_file = run("predict", "model", "series.csv", "--output", "out.csv", "--outputs", "probabilities", cwd=folder)
    assert to_file.code == 0, to_file.stderr
    assert len((folder / "out.csv").read_text().splitlines()) == 10


def test_evaluation_agrees_with_predictions(folder: Path) -> None:
    predicted = run("predict", "model", "series.csv", cwd=folder).stdout.split()
    truth = [line.split(",")[0] for line in (folder / "test.csv").read_text().splitlines()]
    found = json.loads(run("evaluate", "model", "test.csv", "--json", cwd=folder).stdout)
    assert found["accuracy"] == sum(map(str.__eq__, predicted, truth)) / len(truth)
    text = run("evaluate", "model", "test.csv", cwd=folder).stdout
    assert f"accuracy             {found['accuracy']:.4f}" in text


def test_pictures_are_drawn(folder: Path) -> None:
    result = run("visualize", "model", "test.csv", "pictures", "--row", 3, "--class", "up", cwd=folder)
    assert result.code == 0, result.stderr
    names = {path.name for path in (folder / "pictures").iterdir()}
    assert names >= {"row-3.png", "filters-1.png", "curves.png", "confusion.png"}
    wrong = run("visualize", "model", "test.csv", "pictures", "--class", "sideways", cwd=folder)
    assert (wrong.code, "has no class 'sideways'; its classes are 'down', 'up'" in wrong.stderr) == (2, True)


def test_the_model_is_served_with_its_page(folder: Path) -> None:
    port = free_port()
    server = Background(start("serve", "model", "--port", port, "--workers", 1, cwd=folder))
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_healthy(url, server.process)
        assert "<html" in request(f"{url}/").text
        reply = request(f"{url}/invocations", (folder / "series.csv").read_text())
        assert reply.text.split() == run("predict", "model", "series.csv", cwd=folder).stdout.split()
    finally:
        server.terminate()
        assert server.finish().code == 0


def test_an_interrupted_training_goes_on(folder: Path) -> None:
    command = ["train", "--training", "train.csv", "--output", "again", *OPTIONS, "--epochs", 300]
    command += ["--checkpoint-epochs", 1]
    first = Background(start(*command, cwd=folder))
    first.wait_for("checkpoint: epoch 3,")
    first.kill()
    first.finish()
    second = run(*command, cwd=folder)
    assert second.code == 0, second.stderr
    assert "resumed: epoch" in second.stdout
    assert not (folder / "again/.job").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("up,1,2,3\ndown,1,x,3\n", "bad.csv, row 2, column 3 is 'x'; every value must be a finite number."),
        ("up,1,2,3\ndown,1,2\n", "bad.csv, row 2 has 2 values, but row 1 has 3 values"),
        ("up,1,2\nup,3,4\n", "only one class ('up', 2 rows)"),
    ],
)
def test_bad_data_is_named_as_the_user_knows_it(folder: Path, text: str, message: str) -> None:
    (folder / "bad.csv").write_text(text)
    result = run("train", "--training", "bad.csv", "--output", "bad-model", cwd=folder)
    assert (result.code, message in result.stderr) == (2, True), result.stderr
    assert ".job" not in result.stderr
    assert not list((folder / "bad-model").iterdir())
    assert "Traceback" not in result.stderr
    labelled = run("predict", "model", "test.csv", cwd=folder)
    assert (labelled.code, "send the values only, without a label" in labelled.stderr) == (2, True)
