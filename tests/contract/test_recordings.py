"""Recordings from the table to the prediction: the commands, the endpoint and rows that arrive give the same."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from pyarrow import parquet

from lstm_fcn.benchmarks.programs import Endpoint, endpoint
from lstm_fcn.client.__main__ import lstm_fcn
from lstm_fcn.container.recording import SECOND, Preparation
from tests.models import CLASSES, LENGTH, save_model_of_recordings, save_plain_model

PREPARATION = Preparation(
    id="machine", time="when", values=("speed",), every=SECOND, max_gap=5 * SECOND, window=LENGTH, stride=4
)


def make_table(names: str = "ab", length: int = 90) -> pd.DataFrame:
    """Speed rises and falls every 30 seconds; rows come about every second, and some are missing."""
    rng = np.random.default_rng(3)
    parts = []
    for name in names:
        times = np.sort(rng.uniform(0, length, length)).round(3)
        times = times[(times < 40) | (times > 47)]
        speed = np.where(times // 30 % 2 == 0, times % 30, 30 - times % 30) / 10
        when = pd.Timestamp("2025-03-01T00:00:00Z") + pd.to_timedelta(times, unit="s")
        parts.append(pd.DataFrame({"machine": name, "when": when.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), "speed": speed}))
    return pd.concat(parts, ignore_index=True)


TABLE = make_table()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model_of_recordings(tmp_path_factory.mktemp("recordings") / "model", PREPARATION)


@pytest.fixture(scope="module")
def server(model: Path) -> Any:
    with endpoint(model.parent, SAGEMAKER_MODEL_SERVER_WORKERS="1") as running:
        yield running


def run(*arguments: str | Path, given: str | None = None) -> Result:
    return CliRunner().invoke(lstm_fcn, [str(each) for each in arguments], input=given)


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture(scope="module")
def expected(model: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The predictions of `lstm-fcn predict` for the table as CSV."""
    folder = tmp_path_factory.mktemp("table")
    TABLE.to_csv(folder / "table.csv", index=False)
    result = run("predict", model, folder / "table.csv", "--output", folder / "out.csv")
    assert result.exit_code == 0, result.output
    return (folder / "out.csv").read_text()


def test_a_row_for_each_window(expected: str) -> None:
    rows = rows_of(expected)
    assert list(rows[0]) == ["machine", "start", "end", "predicted_label", "probability"]
    assert {row["predicted_label"] for row in rows} == set(CLASSES)
    first = pd.Timestamp(rows[0]["start"])
    assert pd.Timestamp(rows[0]["end"]) - first == pd.Timedelta(seconds=LENGTH - 1)
    assert pd.Timestamp(rows[1]["start"]) - first == pd.Timedelta(seconds=4)
    gap = [row for row in rows if row["machine"] == "a" and "00:00:41" <= row["start"][11:19] <= "00:00:45"]
    assert not gap


@pytest.mark.parametrize("kind", ["parquet", "shuffled", "stdin"])
def test_other_forms_of_the_table(model: Path, expected: str, tmp_path: Path, kind: str) -> None:
    table = TABLE.sample(frac=1, random_state=0) if kind == "shuffled" else TABLE
    if kind == "stdin":
        found = run("predict", model, "-", given=TABLE.to_csv(index=False)).stdout
    else:
        table.assign(when=pd.to_datetime(table["when"])).to_parquet(tmp_path / "f.parquet")
        found = run("predict", model, tmp_path / "f.parquet").stdout
    assert found == expected


def test_rows_as_they_arrive(model: Path, expected: str) -> None:
    mixed = TABLE.assign(order=TABLE["when"]).sort_values("order", kind="stable").drop(columns="order")
    found = run("watch", model, given=mixed.to_csv(index=False)).stdout
    assert sorted(found.splitlines()) == sorted(expected.splitlines())


def test_a_prediction_comes_as_soon_as_its_window_is_full(model: Path, expected: str) -> None:
    lines = TABLE.to_csv(index=False).splitlines(keepends=True)
    command = [sys.executable, "-m", "lstm_fcn.client", "watch", str(model)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.writelines(lines[:30])
        process.stdin.flush()
        assert [process.stdout.readline() for _ in range(2)] == expected.splitlines(keepends=True)[:2]
        process.stdin.close()


def test_a_row_from_the_past_is_left_out(model: Path, expected: str) -> None:
    lines = TABLE.to_csv(index=False).splitlines(keepends=True)
    result = run("watch", model, given="".join([*lines[:40], lines[5], *lines[40:]]))
    assert result.stdout == expected
    assert "WARNING: row 41 of a is earlier than the row before; it is left out" in result.stderr


def test_the_endpoint(server: Endpoint, expected: str) -> None:
    reply = server.invoke(TABLE.to_csv(index=False), **{"Content-Type": "text/csv"})
    found = rows_of(reply.text)
    assert [list(row.values()) for row in found] == [list(row.values())[:4] for row in rows_of(expected)]
    assert list(found[0]) == ["recording", "start", "end", "predicted_label"]


def test_the_endpoint_with_json(server: Endpoint, expected: str) -> None:
    document = json.dumps({"recording": TABLE.to_dict(orient="list")})
    reply = server.invoke(document, **{"Content-Type": "application/json"})
    found = json.loads(reply.text)["predictions"]
    assert [list(row.values()) for row in found] == [list(row.values())[:4] for row in rows_of(expected)]


def test_the_endpoint_takes_single_windows_too(server: Endpoint) -> None:
    assert server.invoke(",".join(map(str, range(LENGTH)))).text == '"up, not ""down"""'


class TestSteps:
    def test_each_step_has_the_mean_of_its_windows(self, model: Path, tmp_path: Path) -> None:
        TABLE.to_csv(tmp_path / "f.csv", index=False)
        found = rows_of(
            run("predict", model, tmp_path / "f.csv", "--each", "step", "--outputs", "probabilities").stdout
        )
        windows = rows_of(run("predict", model, tmp_path / "f.csv", "--outputs", "probabilities").stdout)
        name = f"probability_{CLASSES[0]}"
        for row in (found[0], found[20], found[-1]):
            covering = [
                float(window[name])
                for window in windows
                if window["machine"] == row["machine"] and window["start"] <= row["time"] <= window["end"]
            ]
            assert float(row[name]) == pytest.approx(np.mean(covering), abs=1e-6)

    def test_events_are_runs_of_steps(self, model: Path, tmp_path: Path) -> None:
        TABLE.to_csv(tmp_path / "f.csv", index=False)
        steps = rows_of(run("predict", model, tmp_path / "f.csv", "--each", "step").stdout)
        runs: list[list[str]] = []
        previous = pd.Timestamp(0, tz="UTC")
        for row in steps:
            follows = pd.Timestamp(row["time"]) - previous == pd.Timedelta(seconds=1)
            if runs and runs[-1][0] == row["machine"] and runs[-1][3] == row["predicted_label"] and follows:
                runs[-1][2] = row["time"]
            else:
                runs.append([row["machine"], row["time"], row["time"], row["predicted_label"]])
            previous = pd.Timestamp(row["time"])
        events = rows_of(run("predict", model, tmp_path / "f.csv", "--each", "event").stdout)
        assert [list(row.values())[:4] for row in events] == runs

    def test_parquet_and_a_picture(self, model: Path, expected: str, tmp_path: Path) -> None:
        TABLE.to_csv(tmp_path / "f.csv", index=False)
        picture = tmp_path / "picture.png"
        result = run("predict", model, tmp_path / "f.csv", "--output", tmp_path / "out.parquet", "--picture", picture)
        assert result.exit_code == 0, result.output
        table = parquet.read_table(tmp_path / "out.parquet")
        assert table["predicted_label"].to_pylist() == [row["predicted_label"] for row in rows_of(expected)]
        assert str(table.schema.field("start").type) == "timestamp[ns, tz=UTC]"
        assert picture.read_bytes().startswith(b"\x89PNG")


class TestErrors:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("machine,when,sped\na,2025-03-01T00:00:00Z,1\n", "has no column 'speed'; did you mean 'sped'?"),
            ("machine,when,speed\na,soon,1\n", "row 1, column when is empty or no time (ISO 8601)."),
            ("machine,when,speed\na,2025-03-01T00:00:00Z,fast\n", "row 1, column speed is 'fast'; values must be num"),
            ("machine,when,speed\na,2025-03-01T00:00:00Z,1\n", "no window is full; a window has 16 steps"),
            ("machine,when,speed\na,17,1\n", "column when: times must be timestamps, as in training."),
        ],
    )
    def test_of_predict(self, model: Path, tmp_path: Path, text: str, message: str) -> None:
        (tmp_path / "f.csv").write_text(text)
        result = run("predict", model, tmp_path / "f.csv", "--output", tmp_path / "out.csv")
        assert message in str(result.exception)
        assert not (tmp_path / "out.csv").exists()

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "machine,when,sped\na,2025-03-01T00:00:00Z,1",
                "request has no column 'speed', which the model needs; ",
            ),
            ("machine,when,speed\na,soon,1", "request, row 2, column when: 'soon' is no time in ISO 8601"),
            (
                "machine,when,speed\na,2025-03-01T00:00:00Z,fast",
                "request, row 2, column speed is 'fast'; every value",
            ),
            ("machine,when,speed\na,2025-03-01T00:00:00Z", "request, row 2 has 2 cells instead of 3."),
            ("machine,when,speed\na,2025-03-01T00:00:00Z,1", "request: no window is full; a window has 16 steps"),
            ("machine,when,speed\na,1500-03-01T00:00:00Z,1", "is too far away; times are from 1701 to 2249."),
            ("machine,when,speed\na,2025-03-01T00:00:00Z," + 400 * "9", "column speed is '9999"),
        ],
    )
    def test_of_the_endpoint(self, server: Endpoint, text: str, message: str) -> None:
        reply = server.invoke(text)
        assert reply.status == 400
        assert message in reply.text

    def test_a_request_that_would_take_forever(self, tmp_path: Path) -> None:
        model = save_model_of_recordings(tmp_path / "model", PREPARATION.model_copy(update={"max_gap": None}))
        with endpoint(model.parent, SAGEMAKER_MODEL_SERVER_WORKERS="1") as server:
            for year, message in (
                ("2026", "request has more than 100,000 windows"),
                ("2125", "steps of the grid follow"),
            ):
                rows = "machine,when,speed\na,2025-03-01T00:00:00Z,1\na," + year + "-03-01T00:00:00Z,2"
                reply = server.invoke(rows)
                assert (reply.status, message in reply.text) == (400, True), reply.text

    def test_models_of_rows(self, tmp_path: Path) -> None:
        model = save_plain_model(tmp_path / "model")
        TABLE.to_csv(tmp_path / "f.csv", index=False)
        assert "was trained with a series in each row" in str(run("watch", model, given="").exception)
        result = run("predict", model, tmp_path / "f.csv", "--each", "step")
        assert "--each and --picture are for models of recordings" in str(result.exception)

    def test_options_of_rows(self, model: Path, tmp_path: Path) -> None:
        TABLE.to_csv(tmp_path / "f.csv", index=False)
        assert "--header and --join are for" in str(run("predict", model, tmp_path / "f.csv", "--join").exception)


def test_from_the_table_to_the_prediction(tmp_path: Path) -> None:
    """The commands one after the other; accuracy on recordings that were never seen."""
    rng = np.random.default_rng(0)

    def table(count: int, first: int) -> pd.DataFrame:
        parts = []
        for number in range(first, first + count):
            state = np.arange(600) // 100 % 2
            phase = np.cumsum(np.where(state, 0.9, 0.4))
            values = np.sin(phase) + 0.2 * rng.normal(size=600)
            labels = np.where(state, "fast", "slow")
            parts.append(pd.DataFrame({"machine": number, "second": np.arange(600), "v": values, "state": labels}))
        return pd.concat(parts)

    table(6, 0).to_csv(tmp_path / "known.csv", index=False)
    table(2, 6).to_parquet(tmp_path / "new.parquet", index=False)
    columns = ["--id", "machine", "--time", "second", "--label", "state"]
    prepared = tmp_path / "prepared"
    result = run("prepare", tmp_path / "known.csv", prepared, *columns, "--values", "v", "--window", "50")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("training: 6 recordings in 6 pieces, 3600 steps, 138 windows (fast: ")
    network = [option for k in (1, 2, 3) for option in (f"--filters-{k}", "8")]
    arguments = ["--training", prepared / "training", "--output", tmp_path / "model", "--epochs", "5", *network]
    trained = subprocess.run(
        [sys.executable, "-m", "lstm_fcn.client", "train", *map(str, arguments), "--validation-fraction", "0.3"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert trained.returncode == 0, trained.stderr
    assert "those of 2 of 6 groups" in trained.stdout
    evaluated = run("evaluate", tmp_path / "model", prepared / "training" / "recordings.parquet", "--json").stdout
    assert json.loads(evaluated)["rows"] == 138
    pictures = run("visualize", tmp_path / "model", prepared / "training" / "recordings.parquet", tmp_path / "pictures")
    assert "confusion.png" in pictures.stdout
    found = rows_of(run("predict", tmp_path / "model", tmp_path / "new.parquet", "--each", "step").stdout)
    truth = ["fast" if int(row["time"]) // 100 % 2 else "slow" for row in found]
    share = np.mean([row["predicted_label"] == state for row, state in zip(found, truth, strict=True)])
    assert len(found) == 1200
    assert share > 0.85
