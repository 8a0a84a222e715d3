"""`lstm_fcn.serving.transform` as a black box: files, folders and pipes; all of an output or nothing of it."""

import csv
import gzip
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.contract.conftest import Mount
from tests.models import GOLDEN, LABELS, NAMES, ROWS, save_plain_model
from tests.programs import endpoint, environment

_folder = tempfile.TemporaryDirectory()
MODEL = save_plain_model(Path(_folder.name))
LINES = ROWS.splitlines()
MANY = 4000  # times the rows: several blocks


def command(*arguments: str | Path, model: Path = MODEL) -> list[str]:
    return [sys.executable, "-m", "lstm_fcn.serving.transform", *map(str, arguments), "--model", str(model)]


def transform(*arguments: str | Path, given: bytes = b"", model: Path = MODEL) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(command(*arguments, model=model), input=given, capture_output=True, check=False, timeout=120)


def assert_refused(result: "subprocess.CompletedProcess[bytes]", message: str) -> None:
    error = result.stderr.decode()
    assert result.returncode == 2, error
    assert error.splitlines()[-1].startswith("UserError: ")
    assert message in error
    assert "Traceback" not in error


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text(ROWS)
    return path


class TestFiles:
    def test_one_line_a_row(self, rows: Path, tmp_path: Path) -> None:
        result = transform(rows, tmp_path / "new" / "labels.csv")
        assert (result.returncode, result.stdout) == (0, b""), result.stderr
        assert (tmp_path / "new" / "labels.csv").read_text().splitlines() == LABELS
        assert os.listdir(tmp_path / "new") == ["labels.csv"]  # noqa: PTH208
        assert f"{rows}: 8 rows" in result.stderr.decode()

    def test_into_a_folder_that_is_there(self, rows: Path, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        assert transform(rows, tmp_path / "out").returncode == 0
        assert (tmp_path / "out" / "rows.csv.out").read_text().splitlines() == LABELS

    def test_the_same_as_the_endpoint_over_many_blocks(self, rows: Path, tmp_path: Path) -> None:
        rows.write_text(ROWS * MANY)
        assert transform(rows, tmp_path / "o", "--outputs", "predicted_label,probability,probabilities").returncode == 0
        shutil.copytree(MODEL, tmp_path / "model")
        accept = 'text/csv; output="predicted_label,probability,probabilities"'
        with endpoint(tmp_path, SAGEMAKER_MODEL_SERVER_WORKERS="1") as server:
            assert (tmp_path / "o").read_bytes() == server.invoke(ROWS * MANY, Accept=accept).body + b"\n"

    def test_gzip_by_content_and_by_name(self, tmp_path: Path) -> None:
        (tmp_path / "rows.csv").write_bytes(gzip.compress(ROWS.encode()))
        assert transform(tmp_path / "rows.csv", tmp_path / "out.gz").returncode == 0
        assert gzip.decompress((tmp_path / "out.gz").read_bytes()).decode().splitlines() == LABELS

    def test_standard_input_and_output(self) -> None:
        for given in (ROWS.encode(), gzip.compress(ROWS.encode())):
            result = transform("-", "-", given=given)
            assert result.stdout.decode().splitlines() == LABELS

    def test_an_empty_file_gives_an_empty_one(self, tmp_path: Path) -> None:
        (tmp_path / "blank.csv").write_text("\n\n")
        assert transform(tmp_path / "blank.csv", tmp_path / "out").returncode == 0
        assert (tmp_path / "out").read_bytes() == b""

    def test_an_output_that_is_there_is_not_overwritten_by_mistake(self, rows: Path, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("mine")
        assert_refused(transform(rows, tmp_path / "out"), "out exists already; --overwrite replaces it.")
        assert (tmp_path / "out").read_text() == "mine"
        assert transform(rows, tmp_path / "out", "--overwrite").returncode == 0
        assert (tmp_path / "out").read_text().splitlines() == LABELS


class TestFolders:
    def test_every_file_below_and_only_those_without_an_output(self, tmp_path: Path) -> None:
        for name in ("a.csv", "b/c.csv", "b/.hidden", "_SUCCESS"):
            (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "in" / name).write_text(ROWS)
        (tmp_path / "in" / "empty.csv").touch()
        assert transform(tmp_path / "in", tmp_path / "out").returncode == 0
        outputs = [tmp_path / "out" / "a.csv.out", tmp_path / "out" / "b" / "c.csv.out"]
        assert sorted(path for path in (tmp_path / "out").rglob("*") if path.is_file()) == outputs
        assert all(path.read_text().splitlines() == LABELS for path in outputs)
        outputs[0].write_text("kept")
        outputs[1].unlink()
        result = transform(tmp_path / "in", tmp_path / "out")
        assert "1 of 2 outputs exist already and are kept; --overwrite replaces them" in result.stderr.decode()
        assert [path.read_text() for path in outputs] == ["kept", "\n".join(LABELS) + "\n"]

    def test_a_bad_file_leaves_the_outputs_of_those_before_it(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "a.csv").write_text(ROWS)
        (tmp_path / "in" / "b.csv").write_text(ROWS + "1,2\n")
        assert_refused(transform(tmp_path / "in", tmp_path / "out"), "b.csv, row 9 has 2 values")
        assert os.listdir(tmp_path / "out") == ["a.csv.out"]  # noqa: PTH208

    @pytest.mark.parametrize("target", ["-", "in", "in/out"])
    def test_outputs_lie_outside_of_the_inputs(self, rows: Path, tmp_path: Path, target: str) -> None:
        (tmp_path / "in").mkdir()
        rows.rename(tmp_path / "in" / "rows.csv")
        output = Path("-") if target == "-" else tmp_path / target
        assert_refused(transform(tmp_path / "in", output), "go into a folder of their own, outside of it.")


class TestForms:
    def test_join(self) -> None:
        text = "\n".join([LINES[0], "", LINES[1].replace(",", " , ", 1), *LINES[2:]])
        result = transform("-", "-", "--join", "--outputs", "predicted_label,probability", given=text.encode())
        joined = result.stdout.decode().splitlines()
        for line, row, label in zip(joined, [line for line in text.splitlines() if line], LABELS, strict=True):
            assert line.startswith(f"{row},{label},0.")

    def test_join_over_many_blocks_keeps_rows_together(self) -> None:
        lines = [f"{number}," + LINES[number % 8].partition(",")[2] for number in range(5000)]
        result = transform("-", "-", "--join", given="\n".join(lines).encode())
        joined = result.stdout.decode().splitlines()
        assert [line[: len(row)] for line, row in zip(joined, lines, strict=True)] == lines

    def test_names_and_json_lines(self) -> None:
        lines = transform("-", "-", "--header", "--outputs", "probability", given=ROWS.encode()).stdout.splitlines()
        assert (lines[0], len(lines)) == (b"probability", 9)
        lines = transform("-", "-", "--format", "jsonlines", given=ROWS.encode()).stdout.splitlines()
        assert [json.loads(line)["predicted_label"] for line in lines] == NAMES

    def test_data_with_a_header(self) -> None:
        text = (GOLDEN / "series.csv").read_text()
        result = transform("-", "-", "--join", given=text.encode(), model=GOLDEN / "model")
        table = list(csv.DictReader(io.StringIO(result.stdout.decode())))
        assert len(table) == 8
        assert list(table[0])[-6:] == ["y_rises", "y_falls", "y_high", "p_rises", "p_falls", "p_high"]
        assert [row["x0"] for row in table] == [line.split(",")[0] for line in text.splitlines()[1:]]


class TestWhatGoesWrong:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["nowhere.csv", "out"], "There is no file or folder nowhere.csv."),
            (["-", "out", "--outputs", "label"], "--outputs label: 'label' is no output; there are predicted_label,"),
            (["-", "out", "--join", "--format", "jsonlines"], "--join goes with --format csv and without --header."),
            (["-", "out", "--outputs", "explanation"], "has no explanation: it is of an early release"),
        ],
    )
    def test_arguments(self, arguments: list[str], message: str) -> None:
        assert_refused(transform(*arguments, given=ROWS.encode()), message)
        assert not Path("out").exists()

    def test_a_wrong_row_leaves_no_output(self, rows: Path, tmp_path: Path) -> None:
        rows.write_text(ROWS * MANY + ROWS.replace(",", ",x", 1))
        result = transform(rows, tmp_path / "out")
        assert_refused(result, f"{rows}, row {8 * MANY + 1}, column 2 is 'x")
        assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]

    def test_values_too_large_are_found_by_row(self, rows: Path, tmp_path: Path) -> None:
        rows.write_text(ROWS + "1e300" + ROWS[ROWS.index(",") :])
        assert_refused(transform(rows, tmp_path / "out"), f"{rows}, row 9 has values too large for the model.")

    def test_a_truncated_gzip_file(self, tmp_path: Path) -> None:
        (tmp_path / "rows.gz").write_bytes(gzip.compress(os.urandom(10) + ROWS.encode() * 10)[:-20])
        (tmp_path / "rows.gz").write_bytes(gzip.compress(ROWS.encode() * 10)[:-20])
        assert_refused(transform(tmp_path / "rows.gz", tmp_path / "out"), "rows.gz is not a complete gzip file")
        assert not (tmp_path / "out").exists()

    def test_no_model(self, rows: Path, tmp_path: Path) -> None:
        assert_refused(transform(rows, tmp_path / "out", model=tmp_path), "holds no model: model.json is missing")

    def test_a_full_disk_leaves_no_output(self, rows: Path, tmp_path: Path, mount: Mount) -> None:
        mount(tmp_path / "small", "size=16k")
        rows.write_text(ROWS * MANY)
        assert_refused(transform(rows, tmp_path / "small" / "out"), "No space left on device")
        assert list((tmp_path / "small").iterdir()) == []

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_stop_leaves_no_output(self, tmp_path: Path, number: signal.Signals) -> None:
        with subprocess.Popen(
            command("-", tmp_path / "out"), stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(tmp_path)
        ) as process:
            assert process.stdin is not None
            assert process.stderr is not None
            process.stdin.write(ROWS.encode() * 10_000)
            process.stdin.flush()
            while not (tmp_path / ".out.partial").exists():
                time.sleep(0.01)
            process.send_signal(number)
            assert process.wait(30) == 130
            assert process.stderr.read() == b"stopped; the file that was being predicted has no output\n"
        assert list(tmp_path.iterdir()) == []

    def test_a_reader_that_has_had_enough(self) -> None:
        with subprocess.Popen(
            command("-", "-"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            with process.stdin as stdin:
                stdin.write(ROWS.encode() * 1000)
            assert process.stderr.read() == b""
            assert process.wait(30) == 1
