"""A model for each value of a column."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lstm_fcn.client.__main__ import main
from lstm_fcn.container import artifact
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.hyperparameters import parse_hyperparameters
from lstm_fcn.data import prepare
from lstm_fcn.training import many as module
from lstm_fcn.training.many import COLUMNS, RECORD, WORK, Trained, train_group, train_many
from lstm_fcn.training.output.many import page
from lstm_fcn.training.partition import Part

SMALL = {"filters-1": "4", "filters-2": "4", "filters-3": "4", "kernel-features": "84", "epochs": "2"}
OPTIONS = [word for name, value in SMALL.items() for word in (f"--{name}", value)]
FILES = ("model.json", "model.onnx", "weights.safetensors", "README.md")


def make_table(path: Path, groups: tuple[str, ...] = ("a", "b", "c"), rows: int = 12, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    count = rows * len(groups)
    labels = np.tile(["up", "down"], count // 2)
    values = np.where(labels == "up", 1, -1)[:, None] * np.linspace(-1, 1, 16) + rng.normal(scale=0.1, size=(count, 16))
    columns = {"label": labels, "machine": np.repeat(groups, rows)} | {f"v{k}": v for k, v in enumerate(values.T)}
    table = pd.DataFrame(columns)
    table.to_parquet(path, index=False)
    return table


def models(output: Path) -> dict[str, list[bytes]]:
    """The files of each model, which is complete."""
    found = {}
    for record in output.glob(f"*/{RECORD}"):
        artifact.load_all(record.parent)
        found[record.parent.name] = [(record.parent / name).read_bytes() for name in FILES]
    return found


def run(*arguments: object) -> int:
    return main(["train-many", *map(str, arguments), *OPTIONS])


@pytest.mark.slow
class TestModels:
    def test_the_same_bytes_as_those_of_train(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        table = make_table(tmp_path / "t.parquet")
        assert run(tmp_path / "t.parquet", tmp_path / "many", "--by", "machine", "--workers", 2) == 0
        found = models(tmp_path / "many")
        assert sorted(found) == ["a", "b", "c"]
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        for name, files in found.items():
            rows = table[table["machine"] == name].drop(columns="machine")
            rows.to_parquet(tmp_path / f"{name}.parquet", index=False)
            output = tmp_path / f"model of {name}"
            assert main(["train", "--training", f"{tmp_path}/{name}.parquet", "--output", str(output), *OPTIONS]) == 0
            assert [(output / file).read_bytes() for file in FILES] == files

    def test_recordings(self, tmp_path: Path) -> None:
        steps = np.arange(120)
        parts = [
            pd.DataFrame({"machine": name, "x": np.sin(steps * 0.7) + steps // 20 % 2, "state": steps // 20 % 2})
            for name in ("1", "2")
        ]
        prepare(pd.concat(parts), tmp_path / "all", id="machine", label="state", window=10)
        prepare(parts[1], tmp_path / "second", id="machine", label="state", window=10)
        found = train_many(tmp_path / "all" / "training", tmp_path / "many", "recording", SMALL, workers=1)
        assert [(trained.group, trained.error) for trained in found] == [("1", ""), ("2", "")]
        alone = train_many(tmp_path / "second" / "training", tmp_path / "one", "group", SMALL, workers=1)
        assert alone[0].series == found[1].series
        assert models(tmp_path / "many")["2"] == models(tmp_path / "one")["2"]
        assert artifact.load(tmp_path / "many" / "1")[0].problem.preparation is not None

    def test_groups_that_cannot_be_trained_do_not_stop_the_others(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        table = make_table(tmp_path / "t.parquet", ("good", "one class", "one series", "text", "missing", "../up"))
        table.loc[table["machine"] == "one class", "label"] = "up"
        table = table.drop(table.index[table["machine"] == "one series"][1:]).astype({"v3": object})
        table.loc[table.index[table["machine"] == "text"][2], "v3"] = "three"
        table.loc[table.index[table["machine"] == "missing"][1], "v4"] = np.nan
        table.to_csv(tmp_path / "t.csv", index=False)
        output = tmp_path / "many"
        assert run(tmp_path / "t.csv", output, "--by", "machine", "--workers", 2) == UserError.exit_code
        with (output / "summary.csv").open(newline="") as file:
            rows = {row["group"]: row for row in csv.DictReader(file)}
        assert list(rows)[:4] == ["missing", "one class", "one series", "text"]
        errors = {group: row["error"] for group, row in rows.items() if row["error"]}
        assert "column v4 is missing" in errors["missing"]
        assert "only one class ('up', 12 rows)" in errors["one class"]
        assert "only one class" in errors["one series"]
        assert re.search(r"t\.csv, row 28, column v3 is 'three'; values must be numbers", errors["text"])
        assert len(errors) == 4
        assert rows["good"]["folder"] == "good"
        assert rows["good"]["estimate"] == "training"
        assert set(models(output)) == {"good", rows["../up"]["folder"]}
        assert sorted(path.name for path in output.iterdir()) == sorted(
            ["good", rows["../up"]["folder"], "report.html", "summary.csv"]
        )
        log = capfd.readouterr().out
        assert "2 models; 4 failed" in log
        assert "good: training accuracy" in log

    def test_only_what_has_changed_is_trained_again(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        table = make_table(tmp_path / "t.parquet")
        output = tmp_path / "many"
        command = (tmp_path / "t.parquet", output, "--by", "machine", "--workers", 1)
        assert run(*command) == 0
        before = {path: path.stat().st_mtime_ns for path in output.glob("*/*")}
        summary = (output / "summary.csv").read_bytes()
        assert run(*command) == 0
        assert "3 of 3 models exist and are kept" in capfd.readouterr().out
        assert {path: path.stat().st_mtime_ns for path in output.glob("*/*")} == before
        assert (output / "summary.csv").read_bytes() == summary
        table.loc[table.index[table["machine"] == "b"][0], "v0"] += 0.5
        table.to_parquet(tmp_path / "t.parquet", index=False)
        assert run(*command) == 0
        assert {p.parent.name for p in output.glob("*/*") if before[p] != p.stat().st_mtime_ns} == {"b"}
        assert run(*command, "--seed", 1) == 0
        assert all(before[path] != path.stat().st_mtime_ns for path in output.glob("*/*"))

    def test_a_program_that_is_killed_leaves_whole_models(self, tmp_path: Path) -> None:
        groups = tuple(f"m{k}" for k in range(20))
        make_table(tmp_path / "t.parquet", groups)
        output = tmp_path / "many"
        arguments = ["train-many", tmp_path / "t.parquet", output, "--by", "machine", "--workers", "2", *OPTIONS]
        command = [sys.executable, "-m", "lstm_fcn.client", *map(str, arguments)]
        for _ in range(2):
            done = len(models(output))
            program = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while len(list(output.glob(f"*/{RECORD}"))) < done + 2:
                assert program.poll() is None
                time.sleep(0.01)
            program.kill()
            program.wait()
        kept = models(output)
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        assert re.search(r"\d+ of 20 models exist and are kept", result.stdout)
        found = models(output)
        assert set(found) == set(groups)
        assert kept.items() <= found.items()
        assert not list(output.glob(f"{WORK}*"))

    def test_interrupted(self, tmp_path: Path) -> None:
        make_table(tmp_path / "t.parquet", tuple(f"m{k}" for k in range(30)))
        output = tmp_path / "many"
        arguments = ["train-many", tmp_path / "t.parquet", output, "--by", "machine", "--workers", "1", *OPTIONS]
        command = [sys.executable, "-m", "lstm_fcn.client", *map(str, arguments)]
        program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while not list(output.glob(f"*/{RECORD}")):
            assert program.poll() is None
            time.sleep(0.01)
        os.kill(program.pid, signal.SIGINT)
        _, errors = program.communicate(timeout=60)
        assert (program.returncode, errors.strip()) == (130, "Interrupted.")
        assert models(output)
        assert not list(output.glob(f"{WORK}*"))


class TestOneGroup:
    def task(self, tmp_path: Path, **columns: Any) -> module.Task:
        (tmp_path / "many" / WORK).mkdir(parents=True)
        table = make_table(tmp_path / "rows.parquet", ("a",)).drop(columns="machine")
        table.assign(**columns).to_parquet(tmp_path / "rows.parquet", index=False)
        part = Part("a", tmp_path / "rows.parquet", 12, "abc")
        return module.Task(part, tmp_path / "many" / "a", "fingerprint")

    def test_messages_do_not_name_the_file_of_the_rows(self, tmp_path: Path) -> None:
        found = train_group(self.task(tmp_path, v3=np.inf), parse_hyperparameters(SMALL))
        assert found.error == "its rows, row 1, column v3 is inf; every value must be finite."

    def test_a_folder_of_somebody_else_is_left_alone(self, tmp_path: Path) -> None:
        task = self.task(tmp_path)
        task.target.mkdir()
        (task.target / "thesis.txt").write_text("years of work")
        assert "but train-many has not written it" in train_group(task, parse_hyperparameters(SMALL)).error
        assert (task.target / "thesis.txt").exists()

    def test_rows_that_this_machine_does_not_see(self, tmp_path: Path) -> None:
        task = self.task(tmp_path)
        task.part.path.unlink()
        assert "all machines of the cluster must share OUTPUT" in train_group(task, parse_hyperparameters(SMALL)).error

    def test_an_internal_error_is_that_of_the_group(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_save", lambda *_: 1 / 0)
        found = train_group(self.task(tmp_path), parse_hyperparameters(SMALL))
        assert found.error == "internal error: ZeroDivisionError: division by zero"

    @pytest.mark.parametrize(
        ("settings", "estimate"),
        [
            ({}, "training"),
            ({"validation-fraction": "0.25"}, "validation"),
            ({"cross-validation-folds": "2"}, "cross-validation"),
        ],
    )
    def test_where_the_accuracy_comes_from(self, settings: dict[str, str], estimate: str, tmp_path: Path) -> None:
        found = train_group(self.task(tmp_path), parse_hyperparameters(SMALL | settings))
        assert (found.error, found.estimate, found.classes) == ("", estimate, 2)
        metrics = artifact.load(tmp_path / "many" / "a")[0].metrics
        assert found.accuracy == metrics["train_accuracy" if estimate == "training" else "valid_accuracy"]
        assert Trained.model_validate_json((tmp_path / "many" / "a" / RECORD).read_bytes()) == found


@pytest.mark.parametrize(
    ("by", "message"), [("machin", "did you mean 'machine'?"), ("v0", "v0 has 12 different values; a model for each")]
)
def test_nothing_is_written_for_a_column_that_cannot_be_used(
    by: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lstm_fcn.training.partition.MOST_GROUPS", 11)
    make_table(tmp_path / "t.parquet", ("a",))
    assert run(tmp_path / "t.parquet", tmp_path / "many", "--by", by) == 2
    assert message in capsys.readouterr().err
    assert list((tmp_path / "many").iterdir()) == []


def test_the_report_escapes_values_and_is_well_formed() -> None:
    rows: list[dict[str, Any]] = [
        dict.fromkeys(COLUMNS, "") | {"group": "<script>", "series": 3, "error": "has <b>"},
        {"group": "b", "folder": "b", "series": 1234, "classes": 2, "accuracy": 0.75, "estimate": "training"}
        | {"seconds": 1.5, "error": ""},
    ]
    text = page("a & b", rows)
    assert "<script>" not in text
    assert "a &amp; b" in text
    assert "1 of 2 groups have a model" in text
    assert "says little about new series" in text
    assert "<svg" in text
    assert "<svg" not in page("x", rows[:1])
    many = page("x", rows[1:] * 1001)
    assert "The first 1,000 are shown" in many
    assert many.count('<th scope="row">') == 1000
    HTMLParser().feed(text)
