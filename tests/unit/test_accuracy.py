"""The accuracy runner: what it trains, what it writes, and how it goes on."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lstm_fcn.benchmarks import accuracy
from lstm_fcn.benchmarks.accuracy import Row, Run, average_runs, read_results, select_problems, train_and_test
from lstm_fcn.benchmarks.archive import load_description
from lstm_fcn.container.errors import UserError
from tests.programs import labelled_csv


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    """Two problems, one of which has a missing value."""
    folder = tmp_path / "problems"
    make_problem(folder / "Ramps", labelled_csv(12), labelled_csv(8, seed=1))
    make_problem(folder / "Gaps", labelled_csv(12), labelled_csv(8, seed=1), missing=True)
    return folder


def make_problem(folder: Path, train: str, test: str, **description: object) -> None:
    for name, text in (("training/train.csv", train), ("test/test.csv", test)):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(text)
    source = {"path": "a", "size": 1, "sha256": ""}
    content = {"name": folder.name, "train": 12, "test": 8, "length": 16, "shortest": 16, "num_variables": 1}
    content |= {"classes": ["down", "up"], "missing": False, "format": "tsv", "sources": [source, source]}
    (folder / "problem.json").write_text(json.dumps(content | description))


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(accuracy.PROTOCOLS, "fast", {"epochs": "2", "lr": "0.005", "lr-schedule": "one-cycle"})


def make_row(**values: object) -> Row:
    texts = dict.fromkeys(("device", "versions", "configuration"), "x")
    numbers = dict.fromkeys(accuracy.COLUMNS, 1)
    row = {**numbers, **texts, "dataset": "Ramps", "method": "LSTM-FCN", "cells": 8, "seed": 0, "protocol": "fast"}
    return Row(**{**row, **values})  # type: ignore[arg-type]


def test_a_run_trains_tests_and_keeps_the_probabilities(problems: Path, tmp_path: Path) -> None:
    run = Run("Ramps", "ALSTM-FCN", cells=4, seed=3, protocol="fast", ensemble=1)
    row = train_and_test(run, problems / "Ramps", tmp_path)
    assert (row.dataset, row.method, row.cells, row.seed, row.train, row.test) == ("Ramps", "ALSTM-FCN", 4, 3, 12, 8)
    assert "recurrent=alstm" in row.configuration
    assert "hidden-size=4" in row.configuration
    with np.load(tmp_path / f"{run.key}.npz") as kept:
        assert kept["predicted"].shape == (8, 2)
        np.testing.assert_allclose(kept["predicted"].sum(axis=1), 1, atol=1e-5)
        assert row.accuracy == (kept["predicted"].argmax(axis=1) == kept["truth"]).mean()
    assert train_and_test(run, problems / "Ramps", tmp_path).train_loss == row.train_loss


def test_the_test_set_has_no_influence_on_training(problems: Path, tmp_path: Path) -> None:
    run = Run("Ramps", "LSTM-FCN", 8, 0, "fast", 1)
    first = train_and_test(run, problems / "Ramps", tmp_path)
    (problems / "Ramps/test/test.csv").write_text(labelled_csv(20, seed=5))
    second = train_and_test(run, problems / "Ramps", tmp_path)
    assert (first.train_loss, first.epoch) == (second.train_loss, second.epoch)
    assert second.test == 20


@pytest.mark.parametrize(("rows", "expected"), [(12, 16), (200, 25), (5000, 64)])
def test_an_epoch_of_the_fast_protocol_has_about_eight_steps(problems: Path, rows: int, expected: int) -> None:
    problem = load_description(problems / "Ramps").model_copy(update={"train": rows})
    assert Run("Ramps", "LSTM-FCN", 8, 0, "fast", 1).settings(problem).batch_size == expected


def test_settings_follow_the_data(problems: Path) -> None:
    problem = load_description(problems / "Gaps")
    run = Run("Gaps", "FCN", 8, 0, "paper", 5)
    settings = run.settings(problem.model_copy(update={"num_variables": 3, "shortest": 9}))
    assert (settings.recurrent, settings.epochs, settings.ensemble_size) == ("none", 2000, 5)
    assert (settings.num_variables, settings.missing_values, settings.length_policy) == (3, "interpolate", "resample")


def test_an_average_is_that_of_the_probabilities(tmp_path: Path) -> None:
    truth = np.array([0, 1])
    opinions = [[[0.9, 0.1], [0.45, 0.55]], [[0.3, 0.7], [0.2, 0.8]], [[0.9, 0.1], [0.4, 0.6]]]
    rows = []
    for seed, opinion in enumerate(opinions):
        run = Run("Ramps", "LSTM-FCN", 8, seed, "fast", 1)
        (tmp_path / f"{run.key}.npz").write_bytes(accuracy._pack(np.array(opinion, np.float32), truth))
        rows.append(make_row(seed=seed, accuracy=0.5, seconds=2.0))
    (found,) = average_runs(rows, 3, tmp_path)
    assert (found.method, found.accuracy, found.seconds) == ("LSTM-FCN, average of 3", 1.0, 6.0)
    assert average_runs(rows[:2], 3, tmp_path) == []
    assert average_runs([replace(row, seed=row.seed + 5) for row in rows], 3, tmp_path) == []


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    rows = [make_row(seed=k, accuracy=0.25 * k, versions="torch 2, numpy 3") for k in range(3)]
    path = tmp_path / "results.csv"
    path.write_text(accuracy._table(rows) + "Ramps,LSTM")  # killed while it wrote
    assert read_results(path) == rows
    assert read_results(tmp_path / "none.csv") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [("a,b\n", "row 1: the columns are not"), (",".join(accuracy.COLUMNS) + "\nRamps,LSTM-FCN\n", "row 2: ")],
)
def test_other_tables_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "results.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_results(tmp_path / "results.csv")


def test_problems_are_selected(problems: Path, tmp_path: Path) -> None:
    assert list(select_problems(problems, None, skip_irregular=False)) == ["Gaps", "Ramps"]
    assert list(select_problems(problems, None, skip_irregular=True)) == ["Ramps"]
    with pytest.raises(UserError, match="has no problem 'Ramp'; it has Gaps, Ramps"):
        select_problems(problems, ["Ramp"], skip_irregular=False)
    with pytest.raises(UserError, match="holds no problems"):
        select_problems(tmp_path / "nothing", None, skip_irregular=False)


def test_the_command_does_what_is_left_to_do(
    problems: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results.csv"
    done = make_row(seed=0, accuracy=0.125)
    results.write_text(accuracy._table([done]))
    (problems / "Gaps/test/test.csv").write_text("no numbers\n")
    command = ["accuracy", str(problems), str(results), "--seeds", "0", "--protocol", "fast"]
    monkeypatch.setattr("sys.argv", command)
    # The processes import the module anew, with its 200 epochs; that is short enough on so little data.
    assert accuracy.main() == UserError.exit_code
    assert read_results(results) == [done]
    assert "Gaps, LSTM-FCN, 8 cells, seed 0: " in capsys.readouterr().err
    (problems / "Gaps/test/test.csv").write_text(labelled_csv(8))
    assert accuracy.main() == 0
    with results.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["dataset"] for row in rows] == ["Gaps", "Ramps"]
    assert math.isclose(float(rows[1]["accuracy"]), 0.125)  # not run again
    assert "epochs=200" in rows[0]["configuration"]
