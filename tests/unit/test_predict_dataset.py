"""Predictions of many files."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from moto.server import ThreadedMotoServer
from pyarrow import feather, fs, parquet

from lstm_fcn.client.__main__ import main
from lstm_fcn.client.predict_dataset import SUFFIX, Folder, Model, predict_dataset
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.recording import Preparation
from tests.models import LENGTH, ROWS, save_model_of_recordings, save_plain_model

COUNTS = (1, 15, 16, 17, 40, 100)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_plain_model(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """A folder of tables and CSV files, also below it."""
    folder = tmp_path / "in"
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for count in COUNTS:
        values = pyarrow.array(list(rng.normal(size=(count, LENGTH))))
        table = pyarrow.table({"id": pyarrow.array(range(count)), "series": values})
        parquet.write_table(table.drop_columns("id"), folder / "more" / f"{count}.parquet")
    feather.write_feather(table.drop_columns("id"), folder / "a.arrow", compression="uncompressed")
    (folder / "rows.csv").write_text(ROWS)
    (folder / "_SUCCESS").write_text("no data")
    return folder


def transformed(model: Path, series: Path, output: Path) -> dict[str, bytes]:
    """The bytes that `lstm-fcn transform` writes."""
    assert main(["transform", "--format", "parquet", str(model), str(series), str(output)]) == 0
    return contents(output)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_bytes_as_those_of_transform(model: Path, series: Path, tmp_path: Path) -> None:
    expected = transformed(model, series, tmp_path / "expected")
    assert main(["predict-dataset", str(model), str(series), str(tmp_path / "out"), "--workers", "2"]) == 0
    assert contents(tmp_path / "out") == expected
    assert len(expected) == len(COUNTS) + 2


def test_files_that_have_an_output_are_skipped(
    model: Path, series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = transformed(model, series, tmp_path / "expected")
    output = tmp_path / "out"
    (output / "more").mkdir(parents=True)
    kept = output / "more" / f"16.parquet{SUFFIX}"
    kept.write_bytes(b"from before")
    (output / "more" / f".17.parquet{SUFFIX}.partial").write_bytes(b"half of it")
    command = ["predict-dataset", str(model), str(series), str(output), "--workers", "1"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "1 of 8 outputs exist and are kept" in printed
    assert [line.split()[0] for line in printed.splitlines() if line[0] == "["] == [f"[{k}/7]" for k in range(1, 8)]
    assert contents(output).items() >= (expected | {f"more/16.parquet{SUFFIX}": b"from before"}).items()
    assert main([*command, "--overwrite"]) == 0
    assert contents(output).items() >= expected.items()


def test_a_file_that_cannot_be_predicted_has_no_output_and_the_others_have(
    model: Path, series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (series / "bad.csv").write_text(f"{ROWS}1,2,three\n")
    (series / "bad.parquet").write_bytes(b"PAR1 and nothing else")
    assert main(["predict-dataset", str(model), str(series), str(tmp_path / "out"), "--workers", "1"]) == 2
    errors = capsys.readouterr().err
    assert f"Error: {series}/bad.csv, row 9" in errors
    assert f"Error: {series}/bad.parquet cannot be read as a table" in errors
    assert len(contents(tmp_path / "out")) == len(COUNTS) + 2


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a folder in a simulated S3, to be completed."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = f"endpoint_override={host}%3A{port}&scheme=http&region=us-east-1&allow_bucket_creation=true"
    files, _ = fs.FileSystem.from_uri(f"s3://bucket/?{options}")
    files.create_dir("bucket")
    yield f"s3://bucket/{{}}?{options}"
    server.stop()


def test_an_object_store(model: Path, series: Path, tmp_path: Path, bucket: str) -> None:
    expected = transformed(model, series, tmp_path / "expected")
    inputs, outputs = Folder.at(bucket.format("in")), Folder.at(bucket.format("out"))
    (series / "bad.csv").write_text("1,2,three\n")
    fs.copy_files(str(series), inputs.path, fs.LocalFileSystem(), inputs.files)
    opened = Model.read(model)
    failed = predict_dataset(opened, bucket.format("in"), bucket.format("out"), workers=1)
    assert list(failed) == ["bad.csv"]
    assert failed["bad.csv"].startswith("bucket/in/bad.csv, row 1")
    assert outputs.list() == sorted(expected)
    for name, content in expected.items():
        assert outputs.files.open_input_stream(f"bucket/out/{name}").read() == content
    predict_dataset(opened, bucket.format("in"), str(tmp_path / "here"), workers=1)
    assert contents(tmp_path / "here") == expected
    with pytest.raises(UserError, match="must be a folder outside of it"):
        predict_dataset(opened, bucket.format("in"), bucket.format("in/out"))


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ("in", "in/out", "must be a folder outside of it"),
        ("nowhere", "out", "There are no data files in"),
        ("in/rows.csv", "out", "in/rows.csv"),
    ],
)
def test_folders_that_cannot_be_used(
    inputs: str, outputs: str, message: str, model: Path, series: Path, tmp_path: Path
) -> None:
    assert series.exists()
    with pytest.raises(UserError, match=message):
        predict_dataset(Model.read(model), str(tmp_path / inputs), str(tmp_path / outputs))
    with pytest.raises(UserError, match="not the address of a folder"):
        predict_dataset(Model.read(model), "ftp://host/folder", str(tmp_path / outputs))


def test_models_that_cannot_be_used(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no model"):
        Model.read(tmp_path / "nowhere")
    with pytest.raises(UserError, match="--outputs certainty"):
        Model.read(model, "certainty")
    shutil.rmtree(model)
    save_model_of_recordings(model, Preparation(values=("x",), window=LENGTH, stride=8))
    with pytest.raises(UserError, match="is a model of recordings; predict each recording with lstm-fcn predict"):
        Model.read(model)
