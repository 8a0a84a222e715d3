"""`lstm-fcn transform`: files, folders and pipes; an output is complete or absent."""

import csv
import gzip
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from click.testing import CliRunner
from pyarrow import parquet

from lstm_fcn.benchmarks.programs import endpoint, environment
from lstm_fcn.container.command_line import run_command
from lstm_fcn.serving import transform as module
from tests.contract.conftest import Mount
from tests.models import GOLDEN, LABELS, NAMES, ROWS, save_plain_model

LINES = ROWS.splitlines()
MANY = 4000  # times the rows: several blocks


@dataclass(frozen=True)
class Result:
    """How the command ended."""

    code: int
    stdout: bytes
    stderr: bytes

    @property
    def lines(self) -> list[str]:
        assert self.code == 0, self.stderr
        return self.stdout.decode().splitlines()

    def assert_refused(self, message: str) -> None:
        error = self.stderr.decode()
        assert self.code == 2, error
        assert error.splitlines()[-1].startswith("Error: ")
        assert message in error


@dataclass(frozen=True)
class Command:
    """`lstm-fcn transform` with a model."""

    model: Path

    def run(self, *arguments: str | Path, given: str | bytes = b"", model: Path | None = None) -> Result:
        """Run the command in this process; `given` is its standard input."""
        words = [str(model or self.model), *map(str, arguments)]
        text = given.encode() if isinstance(given, str) else given
        with CliRunner().isolation() as (stdout, stderr, _):
            sys.stdin = io.TextIOWrapper(io.BufferedReader(io.BytesIO(text)))
            code = run_command(module.transform, "lstm-fcn transform", words)
            return Result(code, stdout.getvalue(), stderr.getvalue())

    def start(self, *arguments: str | Path) -> "subprocess.Popen[bytes]":
        """Start the command in a process of its own."""
        words = [sys.executable, "-m", "lstm_fcn.serving.transform", str(self.model), *map(str, arguments)]
        pipe = subprocess.PIPE
        return subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, env=environment(Path("/nowhere")))


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Command:
    return Command(save_plain_model(tmp_path_factory.mktemp("plain") / "model"))


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text(ROWS)
    return path


def read_lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


class TestFiles:
    def test_one_line_per_row(self, command: Command, rows: Path, tmp_path: Path) -> None:
        result = command.run(rows, tmp_path / "new" / "labels.csv")
        assert (result.code, result.stdout) == (0, b""), result.stderr
        assert read_lines(tmp_path / "new" / "labels.csv") == LABELS
        assert os.listdir(tmp_path / "new") == ["labels.csv"]  # noqa: PTH208
        assert f"{rows}: 8 rows, " in result.stderr.decode()

    def test_into_an_existing_folder(self, command: Command, rows: Path, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        assert command.run(rows, tmp_path / "out").code == 0
        assert read_lines(tmp_path / "out" / "rows.csv.out") == LABELS

    def test_the_same_as_the_endpoint_over_many_blocks(self, command: Command, rows: Path, tmp_path: Path) -> None:
        rows.write_text(ROWS * MANY)
        outputs = "predicted_label,probability,probabilities"
        assert command.run(rows, tmp_path / "out", "--outputs", outputs).code == 0
        with endpoint(command.model.parent, SAGEMAKER_MODEL_SERVER_WORKERS="1") as server:
            reply = server.invoke(ROWS * MANY, Accept=f'text/csv; output="{outputs}"')
            assert (tmp_path / "out").read_bytes() == reply.body + b"\n"

    def test_gzip_by_content_and_by_name(self, command: Command, tmp_path: Path) -> None:
        (tmp_path / "rows.csv").write_bytes(gzip.compress(ROWS.encode()))
        assert command.run(tmp_path / "rows.csv", tmp_path / "out.gz").code == 0
        assert gzip.decompress((tmp_path / "out.gz").read_bytes()).decode().splitlines() == LABELS

    @pytest.mark.parametrize("given", [ROWS.encode(), gzip.compress(ROWS.encode())], ids=["text", "gzip"])
    def test_standard_input_and_output(self, command: Command, given: bytes) -> None:
        assert command.run("-", "-", given=given).lines == LABELS

    def test_an_empty_file_gives_an_empty_output(self, command: Command, tmp_path: Path) -> None:
        (tmp_path / "blank.csv").write_text("\n\n")
        assert command.run(tmp_path / "blank.csv", tmp_path / "out").code == 0
        assert (tmp_path / "out").read_bytes() == b""

    def test_an_existing_output_is_replaced_on_request_only(self, command: Command, rows: Path, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("mine")
        command.run(rows, tmp_path / "out").assert_refused("out exists; --overwrite replaces it.")
        assert (tmp_path / "out").read_text() == "mine"
        assert command.run(rows, tmp_path / "out", "--overwrite").code == 0
        assert read_lines(tmp_path / "out") == LABELS


class TestFolders:
    def test_files_without_an_output_are_predicted(self, command: Command, tmp_path: Path) -> None:
        for name in ("a.csv", "b/c.csv", "b/.hidden", "_SUCCESS"):
            (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "in" / name).write_text(ROWS)
        (tmp_path / "in" / "empty.csv").touch()
        assert command.run(tmp_path / "in", tmp_path / "out").code == 0
        outputs = [tmp_path / "out" / "a.csv.out", tmp_path / "out" / "b" / "c.csv.out"]
        assert sorted(path for path in (tmp_path / "out").rglob("*") if path.is_file()) == outputs
        assert [read_lines(path) for path in outputs] == [LABELS, LABELS]
        outputs[0].write_text("kept")
        outputs[1].unlink()
        result = command.run(tmp_path / "in", tmp_path / "out")
        assert b"1 of 2 outputs exist and are kept; --overwrite replaces them\n" in result.stderr
        assert [path.read_text() for path in outputs] == ["kept", "\n".join(LABELS) + "\n"]

    def test_an_invalid_file_leaves_the_outputs_of_those_before_it(self, command: Command, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "a.csv").write_text(ROWS)
        (tmp_path / "in" / "b.csv").write_text(ROWS + "1,2\n")
        command.run(tmp_path / "in", tmp_path / "out").assert_refused("b.csv, row 9 has 2 values")
        assert os.listdir(tmp_path / "out") == ["a.csv.out"]  # noqa: PTH208

    @pytest.mark.parametrize("target", ["-", "in", "in/out"])
    def test_outputs_lie_outside_of_the_inputs(self, command: Command, rows: Path, tmp_path: Path, target: str) -> None:
        (tmp_path / "in").mkdir()
        rows.rename(tmp_path / "in" / "rows.csv")
        output = Path("-") if target == "-" else tmp_path / target
        command.run(tmp_path / "in", output).assert_refused("must be a folder outside of it")

    def test_shards_predict_every_row_once_even_if_one_runs_twice(self, command: Command, tmp_path: Path) -> None:
        rows = ROWS.splitlines()
        (tmp_path / "in").mkdir()
        for number in range(10):
            (tmp_path / "in" / f"{number}.csv").write_text(f"{rows[number % len(rows)]}\n" * (1 + number))
        shards = [0, 1, 2, 3, 4, 5, 6, 3]
        started = [command.start(tmp_path / "in", tmp_path / "out", "--shard", f"{k}/7") for k in shards]
        for process in started:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
        found = {path.name: read_lines(path) for path in sorted((tmp_path / "out").iterdir())}
        assert found == {f"{k}.csv.out": [LABELS[k % len(rows)]] * (1 + k) for k in range(10)}

    def test_a_shard_of_a_file(self, command: Command, rows: Path, tmp_path: Path) -> None:
        result = command.run(rows, tmp_path / "out", "--shard", "0/2")
        result.assert_refused("--shard divides the files of a folder; ")

    def test_what_a_killed_process_left_is_removed(self, command: Command, rows: Path, tmp_path: Path) -> None:
        process = command.start("-", tmp_path / "out")
        assert process.stdin is not None
        process.stdin.write(ROWS.encode())
        process.stdin.flush()
        while not (left := list(tmp_path.glob(".out.*.partial"))):
            time.sleep(0.01)
        assert command.run(rows, tmp_path / "out").code == 0
        assert left[0].exists()  # it is still being written
        process.kill()
        process.communicate()
        assert command.run(rows, tmp_path / "out", "--overwrite").code == 0
        assert {path.name for path in tmp_path.iterdir()} == {"rows.csv", "out"}

    def test_a_folder_without_data_files(self, command: Command, tmp_path: Path) -> None:
        command.run(tmp_path, tmp_path.parent / "out").assert_refused("contains no data files")


class TestForms:
    def test_join(self, command: Command) -> None:
        text = "\n".join([LINES[0], "", LINES[1].replace(",", " , ", 1), *LINES[2:]])
        joined = command.run("-", "-", "--join", "--outputs", "predicted_label,probability", given=text).lines
        for line, row, label in zip(joined, [line for line in text.splitlines() if line], LABELS, strict=True):
            assert line.startswith(f"{row},{label},0.")

    def test_join_over_many_blocks_keeps_rows_together(self, command: Command) -> None:
        lines = [f"{number}," + LINES[number % 8].partition(",")[2] for number in range(5000)]
        joined = command.run("-", "-", "--join", given="\n".join(lines)).lines
        assert [line[: len(row)] for line, row in zip(joined, lines, strict=True)] == lines

    def test_header_line(self, command: Command) -> None:
        lines = command.run("-", "-", "--header", "--outputs", "probability", given=ROWS).lines
        assert (lines[0], len(lines)) == ("probability", 9)

    def test_json_lines(self, command: Command) -> None:
        lines = command.run("-", "-", "--format", "jsonlines", given=ROWS).lines
        assert [json.loads(line)["predicted_label"] for line in lines] == NAMES

    def test_data_with_a_header(self, command: Command) -> None:
        text = (GOLDEN / "series.csv").read_text()
        result = command.run("-", "-", "--join", given=text, model=GOLDEN / "model")
        table = list(csv.DictReader(io.StringIO("\n".join(result.lines))))
        assert list(table[0])[-6:] == ["y_rises", "y_falls", "y_stays", "p_rises", "p_falls", "p_stays"]
        expected = [line.split(",")[0] for line in text.splitlines()[1:]]
        assert [row["x_speed_0"] for row in table] == expected


class TestTables:
    @pytest.fixture
    def table(self, tmp_path: Path) -> Path:
        """The rows many times."""
        series = np.loadtxt(LINES, delimiter=",")
        parquet.write_table(
            pyarrow.table({"series": list(series) * MANY}), tmp_path / "rows.parquet", row_group_size=9999
        )
        return tmp_path / "rows.parquet"

    def test_predictions_are_those_of_csv(self, command: Command, rows: Path, table: Path, tmp_path: Path) -> None:
        rows.write_text(ROWS * MANY)
        outputs = ["--outputs", "predicted_label,probability,probabilities,explanation"]
        for source in (rows, table):
            result = command.run(source, tmp_path / "out.parquet", *outputs, "--format", "parquet", "--overwrite")
            assert result.code == 0, result.stderr
            (tmp_path / "out.parquet").rename(tmp_path / f"{source.name}.out")
        found = parquet.read_table(tmp_path / "rows.parquet.out")
        assert found.equals(parquet.read_table(tmp_path / "rows.csv.out"))
        assert found["predicted_label"].to_pylist() == NAMES * MANY
        assert found.schema.field("probability").type == pyarrow.float32()
        assert found.column_names[:2] == ["predicted_label", "probability"]
        assert found.column_names[2].startswith("probability_")

    def test_join_keeps_the_columns_of_the_table(self, command: Command, table: Path, tmp_path: Path) -> None:
        given = parquet.read_table(table)
        assert command.run(table, tmp_path / "out", "--join").code == 0
        joined = parquet.read_table(tmp_path / "out")
        assert joined.column_names == ["series", "predicted_label"]
        assert joined["series"].combine_chunks().equals(given["series"].combine_chunks())

    def test_on_standard_output_they_are_csv(self, command: Command, table: Path) -> None:
        assert command.run(table, "-").lines == LABELS * MANY

    def test_a_folder_of_tables_and_csv(self, command: Command, rows: Path, table: Path, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        rows.rename(tmp_path / "in" / "a.csv")
        table.rename(tmp_path / "in" / "b.parquet")
        assert command.run(tmp_path / "in", tmp_path / "out").code == 0
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.csv.out", "b.parquet.out.parquet"]

    def test_a_table_without_rows(self, command: Command, tmp_path: Path) -> None:
        empty = pyarrow.table({"series": pyarrow.array([], pyarrow.list_(pyarrow.float64()))})
        parquet.write_table(empty, tmp_path / "in")
        assert command.run(tmp_path / "in", tmp_path / "out").code == 0
        assert parquet.read_table(tmp_path / "out").schema.names == ["predicted_label"]

    def test_what_is_refused(self, command: Command, table: Path, tmp_path: Path) -> None:
        command.run(table, tmp_path / "out", "--join", "--format", "csv").assert_refused("--join writes Parquet")
        series = [[1.0] * len(LINES[0].split(",")), [1e300] * len(LINES[0].split(","))]
        parquet.write_table(pyarrow.table({"series": series}), tmp_path / "in")
        command.run(tmp_path / "in", tmp_path / "out").assert_refused("in, row 2 has values too large for the model.")
        assert not (tmp_path / "out").exists()


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["nowhere.csv", "out"], "There is no file or folder nowhere.csv."),
            (["-", "out", "--outputs", "label"], "--outputs label: 'label' is not an output; supported: predicted_la"),
            (["-", "out", "--join", "--format", "jsonlines"], "--join cannot be combined with --header or --form"),
            (["-", "out", "--join", "--header"], "--join cannot be combined with --header or --format"),
            (["-", "out", "--header", "--format", "parquet"], "--header is for CSV; a Parquet file names its columns."),
            (["-", "out", "--join", "--format", "parquet"], "--join with --format parquet requires a table as input."),
            (["-"], "Missing argument 'OUTPUT'."),
        ],
    )
    def test_arguments(self, command: Command, arguments: list[str], message: str) -> None:
        command.run(*arguments, given=ROWS).assert_refused(message)
        assert not Path("out").exists()

    def test_an_invalid_row_leaves_no_output(self, command: Command, rows: Path, tmp_path: Path) -> None:
        rows.write_text(ROWS * MANY + ROWS.replace(",", ",x", 1))
        command.run(rows, tmp_path / "out").assert_refused(f"{rows}, row {8 * MANY + 1}, column 2 is 'x")
        assert list(tmp_path.iterdir()) == [rows]

    def test_values_too_large_are_located(self, command: Command, rows: Path, tmp_path: Path) -> None:
        rows.write_text(ROWS + "1e300" + ROWS[ROWS.index(",") :])
        command.run(rows, tmp_path / "out").assert_refused(f"{rows}, row 9 has values too large for the model.")

    def test_a_truncated_gzip_file(self, command: Command, tmp_path: Path) -> None:
        (tmp_path / "rows.gz").write_bytes(gzip.compress(ROWS.encode() * 10)[:-20])
        command.run(tmp_path / "rows.gz", tmp_path / "out").assert_refused("rows.gz is not a complete gzip file")
        assert not (tmp_path / "out").exists()

    def test_no_model(self, command: Command, rows: Path, tmp_path: Path) -> None:
        result = command.run(rows, tmp_path / "out", model=tmp_path)
        result.assert_refused("holds no model: model.json is missing")

    def test_a_full_disk_leaves_no_output(self, command: Command, rows: Path, tmp_path: Path, mount: Mount) -> None:
        mount(tmp_path / "small", "size=16k")
        rows.write_text(ROWS * MANY)
        command.run(rows, tmp_path / "small" / "out").assert_refused("No space left on device")
        assert list((tmp_path / "small").iterdir()) == []


class TestStop:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_stop_leaves_no_output(self, command: Command, tmp_path: Path, number: signal.Signals) -> None:
        with command.start("-", tmp_path / "out") as process:
            assert process.stdin is not None
            assert process.stderr is not None
            process.stdin.write(ROWS.encode() * 1000)
            process.stdin.flush()
            while not list(tmp_path.glob(".out.*.partial")):
                time.sleep(0.01)
            process.send_signal(number)
            assert process.wait(30) == 130
            assert process.stderr.read().endswith(b"Interrupted; the file that was being predicted has no output.\n")
        assert list(tmp_path.iterdir()) == []

    def test_a_stop_is_not_lost_when_an_output_is_completed_meanwhile(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stopping, completed, exited = threading.Event(), threading.Event(), threading.Event()
        unlink = Path.unlink

        def unlink_slowly(path: Path, missing_ok: bool = False) -> None:
            if threading.current_thread() is not threading.main_thread():
                stopping.set()
                assert completed.wait(30)
            unlink(path, missing_ok=missing_ok)

        monkeypatch.setattr(Path, "unlink", unlink_slowly)
        monkeypatch.setattr(os, "_exit", lambda _: exited.set())
        with module._exit_on_stop():
            with module.open_target(tmp_path / "out") as sink:
                sink.write(b"1\n")
                os.kill(os.getpid(), signal.SIGTERM)
                assert stopping.wait(30)
            completed.set()
            assert exited.wait(30)
        assert (tmp_path / "out").read_bytes() == b"1\n"

    def test_a_reader_that_closes_the_pipe(self, command: Command) -> None:
        with command.start("-", "-") as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            with process.stdin as stdin:
                stdin.write(ROWS.encode() * 1000)
            assert process.stderr.read() == b""
            assert process.wait(30) == 1
