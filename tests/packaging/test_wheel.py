"""The files of the wheel, and each extra alone in an empty environment."""

import json
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import lstm_fcn
from lstm_fcn.benchmarks.programs import free_port, request, wait_until_healthy
from tests.packaging.environments import PROJECT, PYPROJECT, USERS_FOLDERS, Environment, variables

pytestmark = [pytest.mark.packaging, pytest.mark.xdist_group("packaging")]

DATA = PROJECT / "data" / "training"
SERIES = PROJECT / "tests" / "golden" / "v1" / "series.csv"
MODEL = PROJECT / "tests" / "golden" / "v1" / "model"
NAME = f"lstm_fcn-{lstm_fcn.__version__}"
SETTINGS = ("--epochs", "1", "--hidden-size", "2")
READ = f"""
import numpy
from lstm_fcn import LSTMFCNClassifier
model = LSTMFCNClassifier.load({str(MODEL)!r})
series = numpy.genfromtxt({str(SERIES)!r}, delimiter=",", skip_header=1).reshape(-1, 2, 16)
expected = numpy.loadtxt({str(MODEL.parent / "probabilities.csv")!r}, delimiter=",")[:, [1, 0, 2]]  # labels sorted
"""
Install = Callable[[str], Environment]


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(wheel: Path) -> None:
    packages: dict[str, str] = PYPROJECT["tool"]["setuptools"]["package-dir"]
    tracked = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    expected = {
        f"{package.replace('.', '/')}/{Path(path).relative_to(folder).as_posix()}"
        for path in tracked.split()
        for package, folder in packages.items()
        if path.startswith(f"{folder}/")
        and (PROJECT / path).is_file()
        and "/results/" not in path
        and "/kubernetes/" not in path
        and not path.endswith("eslint.config.mjs")
    }
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in names if not name.startswith(f"{NAME}.dist-info/")} == expected
    assert f"{NAME}.dist-info/licenses/LICENSE" in names


def test_the_source_distribution_has_licence_and_readme(distributions: Path) -> None:
    [source] = distributions.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = set(archive.getnames())
    assert {f"{NAME}/{name}" for name in ("LICENSE", "README.md", "pyproject.toml")} <= names


def test_without_extras_models_predict(install: Install, folder: Path) -> None:
    environment = install("")
    environment.run(folder, "lstm-fcn", "predict", MODEL, SERIES, "--output", "predictions.csv")
    predictions = (folder / "predictions.csv").read_text()
    assert len(predictions.splitlines()) == len(SERIES.read_text().splitlines())  # both have a header
    (folder / "input").mkdir()
    (folder / "input" / "series.csv").write_bytes(SERIES.read_bytes())
    environment.run(folder, "lstm-fcn", "transform", MODEL, "input", "output")
    assert [path.read_text() for path in (folder / "output").iterdir()] == [predictions]
    program = READ + "numpy.testing.assert_allclose(model.predict_proba(series), expected, atol=1e-5)"
    environment.run(folder, "python", "-c", program)


def test_without_extras_each_command_names_the_one_it_needs(install: Install, folder: Path) -> None:
    environment = install("")
    [packages] = (environment.folder / "lib").glob("python*/site-packages")
    assert {path.name for path in packages.glob("lstm_fcn*")} == {"lstm_fcn", f"{NAME}.dist-info"}
    assert not [name for name in USERS_FOLDERS if (packages / name).exists()]
    assert {"lstm-fcn", "serve", "train"} <= {path.name for path in (environment.folder / "bin").iterdir()}
    assert "Commands:" in environment.run(folder, "lstm-fcn", "--help")
    assert environment.run(folder, "lstm-fcn", "--version") == f"lstm-fcn, version {lstm_fcn.__version__}\n"
    training = ("--training", DATA / "train.csv", "--output", "model")
    for extra, *command in (
        ("train", "train", *training),
        ("train", "evaluate", MODEL, SERIES),
        ("train", "visualize", MODEL, SERIES, "pictures"),
        ("serve", "serve", MODEL),
        ("tables", "prepare", "rows.csv", "prepared", "--label", "state"),
        ("tune", "tune", *training),
        ("sagemaker", "sagemaker", "--help"),
        ("benchmark", "benchmark", "compare", "--help"),
    ):
        result = environment.result(folder, "lstm-fcn", *command)
        assert result.returncode == 2, command
        assert f"which is not installed: pip install 'lstm-fcn[{extra}]'." in result.stderr
        assert "Traceback" not in result.stderr


def write_recordings(path: Path) -> None:
    """Two recordings, whose state changes every ten seconds."""
    rows = [f"{name},{k},{k % 7},{'on' if k // 10 % 2 else 'off'}" for name in "ab" for k in range(60)]
    path.write_text("\n".join(["id,second,v,state", *rows, ""]))


RECORDINGS = ("--id", "id", "--time", "second", "--label", "state", "--every", "1s", "--window", "8")


def test_extra_train(install: Install, folder: Path) -> None:
    environment = install("train")
    data = ("--training", DATA / "train.csv", "--validation", DATA / "valid.csv")
    environment.run(folder, "lstm-fcn", "train", *data, "--output", "model", *SETTINGS)
    assert {"model.onnx", "model.json", "weights.safetensors", "report.html"} <= set(names(folder / "model"))
    assert "accuracy" in environment.run(folder, "lstm-fcn", "evaluate", "model", DATA / "valid.csv")
    environment.run(folder, "lstm-fcn", "visualize", "model", DATA / "valid.csv", "pictures")
    assert "curves.png" in names(folder / "pictures")
    (folder / "job" / "input" / "config").mkdir(parents=True)
    (folder / "job" / "input" / "config" / "hyperparameters.json").write_text('{"epochs": "1", "hidden-size": "2"}')
    (folder / "job" / "input" / "data").mkdir()
    (folder / "job" / "input" / "data" / "training").symlink_to(DATA)
    environment.run(folder, "train", SAGEMAKER_BASE_DIR=str(folder / "job"))
    assert "model.onnx" in names(folder / "job" / "model")


def test_extra_serve(install: Install, folder: Path) -> None:
    environment = install("serve")
    environment.run(folder, "lstm-fcn", "predict", MODEL, SERIES, "--output", "predictions.csv")
    predictions = (folder / "predictions.csv").read_text()
    port = free_port()
    options = ["--port", str(port), "--workers", "2"]
    command: list[str | Path] = [environment.program("lstm-fcn"), "serve", MODEL, *options]
    with subprocess.Popen(command, cwd=folder, env=variables(), stdout=subprocess.DEVNULL) as process:
        try:
            address = f"http://127.0.0.1:{port}"
            wait_until_healthy(address)
            assert request(f"{address}/invocations", SERIES.read_bytes()).text == predictions.rstrip("\n")
            assert "<html" in request(f"{address}/").text
        finally:
            process.terminate()
            process.wait(timeout=15)  # gunicorn would wait 25 seconds for a worker that hangs
    assert process.returncode == 0


def test_extra_tables(install: Install, folder: Path) -> None:
    environment = install("tables")
    write_recordings(folder / "rows.csv")
    environment.run(folder, "lstm-fcn", "prepare", "rows.csv", "prepared", *RECORDINGS)
    assert names(folder / "prepared" / "training") == ["recordings.parquet"]
    environment.run(folder, "lstm-fcn", "predict", MODEL, SERIES, "--output", "predictions.csv")


def test_extra_sagemaker(install: Install, folder: Path) -> None:
    environment = install("sagemaker")
    assert "Start a training job" in environment.run(folder, "lstm-fcn", "sagemaker", "--help")
    image = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/lstm-fcn-train:latest"
    job = ("--image", image, "--role", "arn:aws:iam::123456789012:role/name", "--name", "first", "--dry-run")
    places = ("--training", "s3://bucket/train/", "--output", "s3://bucket/models")
    printed = environment.run(folder, "lstm-fcn", "sagemaker", "train", *job, *places, AWS_DEFAULT_REGION="eu-west-1")
    assert '"TrainingJobName": "first"' in printed


def test_extra_mlflow(install: Install, folder: Path) -> None:
    environment = install("mlflow")
    program = """
import mlflow
from lstm_fcn.mlflow import load_model, save_model
save_model(model, "saved", input_example=series[:2])
found = mlflow.pyfunc.load_model("saved").predict(series)
numpy.testing.assert_allclose(found.filter(like="probability"), expected, atol=1e-5)
assert found["predicted_label"].tolist() == load_model("saved").predict(series).tolist()
"""
    environment.run(folder, "python", "-c", READ + program)
    assert {"MLmodel", "data", "requirements.txt"} <= set(names(folder / "saved"))


def test_extra_tune(install: Install, folder: Path) -> None:
    environment = install("tune")
    data = ("--training", DATA / "train.csv", "--validation", DATA / "valid.csv", "--output", "search")
    settings = ("--trials", "1", "--workers", "1", "--range", "lr=0.001:0.01:log")
    environment.run(folder, "lstm-fcn", "tune", *data, *settings, *SETTINGS)
    assert float(json.loads((folder / "search" / "hyperparameters.json").read_text())["lr"]) > 0


def test_extra_benchmark(install: Install, folder: Path) -> None:
    environment = install("benchmark")
    results = [("dataset", "method", "seed", "accuracy")]
    results += [(f"d{i}", method, "0", f"0.{i + ours}") for i in range(1, 8) for ours, method in enumerate("AB")]
    (folder / "published.csv").write_text("".join(f"{d},{m},{a}\n" for d, m, _, a in results))
    environment.run(folder, "lstm-fcn", "benchmark", "compare", "--published", "published.csv", "--output", "report")
    assert "report.md" in names(folder / "report")


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]
