"""`lstm-fcn benchmark run`: what it trains, what it writes, and how it resumes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lstm_fcn.benchmarks import accuracy
from lstm_fcn.benchmarks.accuracy import Run, average_runs, select_problems, train_and_test
from lstm_fcn.benchmarks.problems import load_description
from lstm_fcn.benchmarks.programs import labelled_csv
from lstm_fcn.benchmarks.results import COLUMNS, Row, append_result, read_results, write_results
from lstm_fcn.client.__main__ import main
from lstm_fcn.container.errors import UserError

pytestmark = pytest.mark.slow


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


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings of two epochs."""
    for method, settings in accuracy.METHODS.items():
        monkeypatch.setitem(accuracy.METHODS, method, {**settings, "epochs": "2"})


def make_row(**values: object) -> Row:
    texts = dict.fromkeys(("device", "versions", "configuration"), "x")
    numbers = dict.fromkeys(COLUMNS, 1)
    row = {**numbers, **texts, "dataset": "Ramps", "method": "LSTM-FCN", "cells": 8, "seed": 0, "preset": "default"}
    return Row(**{**row, **values})  # type: ignore[arg-type]


@pytest.mark.usefixtures("_short")
def test_a_run_trains_and_tests_without_using_the_test_set_for_training(problems: Path, tmp_path: Path) -> None:
    run = Run("Ramps", "ALSTM-FCN", cells=4, seed=3, preset="default")
    networks, kernels, row = train_and_test(run, problems / "Ramps", tmp_path)
    assert [found.method for found in (networks, kernels)] == [row.method + name for name in accuracy.ALONE]
    assert len({networks.identity, kernels.identity, row.identity}) == 3
    assert (row.dataset, row.method, row.cells, row.seed, row.train, row.test) == ("Ramps", "ALSTM-FCN", 4, 3, 12, 8)
    assert row.identity == run.identity
    assert row.configuration == "recurrent=alstm hidden-size=4 epochs=2 seed=3"
    with np.load(run.probabilities(tmp_path)) as kept:
        assert kept["predicted"].shape == (8, 2)
        np.testing.assert_allclose(kept["predicted"].sum(axis=1), 1, atol=1e-5)
        assert row.accuracy == (kept["predicted"].argmax(axis=1) == kept["truth"]).mean()
    (problems / "Ramps/test/test.csv").write_text(labelled_csv(20, seed=5))
    *_, again = train_and_test(run, problems / "Ramps", tmp_path)
    assert (again.train_loss, again.epoch, again.test) == (row.train_loss, row.epoch, 20)


def test_settings_follow_the_data(problems: Path) -> None:
    problem = load_description(problems / "Gaps")
    run = Run("Gaps", "FCN", 8, 0, "paper", 5)
    settings = run.settings(problem.model_copy(update={"num_variables": 3, "shortest": 9}))
    assert (settings.recurrent, settings.epochs, settings.ensemble_size) == ("none", 2000, 5)
    assert (settings.num_variables, settings.missing_values, settings.length_policy) == (3, "interpolate", "resample")
    plain = Run("Ramps", "LSTM-FCN", 8, 0, "default").settings(load_description(problems / "Ramps"))
    assert plain.model_dump(exclude_defaults=True) == {}


def test_an_average_is_that_of_the_probabilities(tmp_path: Path) -> None:
    truth = np.array([0, 1])
    opinions = [[[0.9, 0.1], [0.45, 0.55]], [[0.3, 0.7], [0.2, 0.8]], [[0.9, 0.1], [0.4, 0.6]]]
    rows = []
    for seed, opinion in enumerate(opinions):
        run = Run("Ramps", "LSTM-FCN", 8, seed, "default")
        run.probabilities(tmp_path).write_bytes(accuracy.pack(np.array(opinion, np.float32), truth))
        rows.append(make_row(seed=seed, accuracy=0.5, seconds=2.0))
    (found,) = average_runs(rows, 3, tmp_path)
    assert (found.method, found.accuracy, found.seconds) == ("LSTM-FCN, average of 3", 1.0, 6.0)
    assert average_runs(rows[:2], 3, tmp_path) == []
    assert average_runs([replace(row, seed=row.seed + 5) for row in rows], 3, tmp_path) == []


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    rows = [make_row(seed=k, accuracy=0.25 * k, versions="torch 2, numpy 3") for k in range(3)]
    path = tmp_path / "results.csv"
    write_results(path, rows[:2])
    append_result(path, rows[2])
    assert read_results(path) == rows
    with path.open("a") as file:
        file.write("Ramps,LSTM")  # killed while writing
    assert read_results(path) == rows
    assert read_results(tmp_path / "none.csv") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [("a,b\n", "row 1: the columns must be"), (",".join(COLUMNS) + "\nRamps,LSTM-FCN\n", "row 2: ")],
)
def test_other_tables_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "results.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_results(tmp_path / "results.csv")


def test_problems_are_selected(problems: Path, tmp_path: Path) -> None:
    assert list(select_problems(problems)) == ["Gaps", "Ramps"]
    assert list(select_problems(problems, skip_irregular=True)) == ["Ramps"]
    with pytest.raises(UserError, match="has no problem 'Ramp'; it has Gaps, Ramps"):
        select_problems(problems, ["Ramp"])
    with pytest.raises(UserError, match="holds no problems"):
        select_problems(tmp_path / "nothing")


def test_the_command_runs_what_is_missing(
    problems: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a process, whose run has all 200 epochs; that is short enough on so little data."""
    monkeypatch.setattr("lstm_fcn.benchmarks.cores.available_cores", lambda: 1)
    results = tmp_path / "results.csv"
    write_results(results, [make_row(accuracy=0.125)])
    make_problem(problems / "Broken", "no numbers\n", labelled_csv(8))
    command = ["benchmark", "run", str(problems), str(results)]
    assert main(command) == UserError.exit_code
    printed = capsys.readouterr()
    assert "Broken, LSTM-FCN, 8 cells, seed 0: " in printed.err
    assert printed.out.endswith("results.csv: 4 rows; 1 of 2 runs failed\n")
    assert main([*command, "--problem", "Gaps", "--problem", "Ramps", "--average", "1"]) == 0  # nothing left to run
    rows = read_results(results)
    assert [(row.dataset, row.method) for row in rows] == [
        ("Gaps", "LSTM-FCN"),
        ("Ramps", "LSTM-FCN"),
        ("Gaps", "LSTM-FCN, average of 1"),
        *(("Gaps", "LSTM-FCN" + name) for name in sorted(accuracy.ALONE)),
    ]
    assert rows[1].accuracy == 0.125  # not run again
    assert rows[0].configuration == "missing-values=interpolate"
    assert rows[2].accuracy == rows[0].accuracy


def test_the_command_refuses_unknown_names(problems: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["benchmark", "run", str(problems), str(tmp_path / "results.csv")]
    assert main([*command, "--method", "LSTM-FNC"]) == 2
    assert "'LSTM-FNC' is not one of 'LSTM-FCN'" in capsys.readouterr().err
    assert main([*command, "--problem", "Ramp"]) == 2
    assert "Error: " in capsys.readouterr().err
