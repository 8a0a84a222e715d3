import gzip
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lstm_fcn.container import csv_blocks
from lstm_fcn.container.artifact import Metadata
from lstm_fcn.container.channels import Source
from lstm_fcn.container.csv_header import HEADERLESS, Columns
from lstm_fcn.container.csv_reader import read_series
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.hyperparameters import parse_hyperparameters
from lstm_fcn.container.preprocess import Preprocessing
from lstm_fcn.container.problem import Problem, Scaling
from lstm_fcn.training.data import reading, store
from lstm_fcn.training.data import scaling as scaling_module
from lstm_fcn.training.data.datasets import Data, Dataset
from lstm_fcn.training.data.labels import sort_classes
from lstm_fcn.training.data.loading import load
from lstm_fcn.training.data.scaling import Moments
from lstm_fcn.training.data.splits import draw_validation_rows
from lstm_fcn.training.distributed import Group
from lstm_fcn.training.network.model import Scaler
from tests.unit.groups import run_together

ONE_HOT = "y1,y2,y3,x1,x2\n0,0,1,1,2\n1,0,0,3,4\n0,1,0,5,6\n1,0,0,7,8\n"
SEVERAL = ONE_HOT + "1,1,0,9,9\n0,0,0,9,9\n"


def channel(folder: Path, *texts: str | bytes, name: str = "training", sharded: bool = False) -> Source:
    """A channel of files 1.csv, 2.csv, ..."""
    paths = []
    for number, text in enumerate(texts, 1):
        path = folder / name / f"{number}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        paths.append(path)
    return Source(name, folder / name, tuple(paths), sharded=sharded)


def read(
    folder: Path,
    *training: str | bytes,
    validation: str | None = None,
    group: Group | None = None,
    earlier: Metadata | None = None,
    **settings: Any,
) -> Data:
    """Load the files of a job; hyperparameters are written with underscores for dashes."""
    channels = {"training": channel(folder, *training)}
    if validation is not None:
        channels["validation"] = channel(folder, validation, name="validation")
    return load_channels(channels, group, earlier, **settings)


def load_channels(
    channels: dict[str, Source], group: Group | None = None, earlier: Metadata | None = None, **settings: Any
) -> Data:
    names = {name.replace("_", "-"): value for name, value in settings.items()}
    return load(channels, parse_hyperparameters(names), group or Group(), earlier)


def values(dataset: Dataset | None) -> list[list[float]]:
    """The series of a set, in its order, of the first variable."""
    found: list[list[float]] = all_values(dataset)[:, 0].tolist()
    return found


def all_values(dataset: Dataset | None) -> NDArray[np.float32]:
    """The series of a set, in its order, float32 `[n, M, T]`."""
    assert dataset is not None
    found: NDArray[np.float32] = dataset.batch(torch.arange(len(dataset)))[0].numpy()
    return found


def labels(dataset: Dataset | None) -> list[Any]:
    assert dataset is not None
    found: list[Any] = dataset.batch(torch.arange(len(dataset)))[1].tolist()
    return found


def earlier_model(
    length: int,
    method: Literal["dataset", "none"] = "dataset",
    classes: tuple[str, ...] = ("a", "b"),
    variables: int = 1,
) -> Metadata:
    problem = Problem(
        task="binary",
        classes=classes,
        length=length,
        num_variables=variables,
        scaling=Scaling(method=method, mean=(100.0,) * variables, std=(50.0,) * variables),
    )
    return Metadata(problem=problem, hyperparameters={}, metrics={}, versions={})


def random_rows(count: int, length: int = 4, classes: str = "abc", seed: int = 0) -> str:
    return write(np.random.default_rng(seed).normal(size=(count, length)), classes)


def write(series: NDArray[np.float64], classes: str = "abc") -> str:
    """Headerless CSV of series `[n, M, T]` or `[n, T]` with the classes in turn."""
    rows = enumerate(series.reshape(len(series), -1).tolist())
    return "".join(f"{classes[k % len(classes)]},{','.join(map(repr, row))}\n" for k, row in rows)


def write_as(series: NDArray[np.float64], headed: bool) -> tuple[str, dict[str, Any]]:
    """The series `[n, M, T]` with or without a header, and the hyperparameters that they need."""
    return (write_headed(series), {}) if headed else (write(series, "ab"), {"num_variables": str(series.shape[1])})


def write_headed(series: NDArray[np.float64]) -> str:
    """The same under a header, step by step, for two classes a and b."""
    _, variables, steps = series.shape
    names = [f"x_{m}_{t}" for t in range(steps) for m in range(variables)]
    rows = enumerate(series.transpose(0, 2, 1).reshape(len(series), -1).tolist())
    lines = [f"{1 - k % 2},{k % 2},{','.join(map(repr, row))}" for k, row in rows]
    return "\n".join([",".join(["y_a", "y_b", *names]), *lines, ""])


def test_rows_of_all_files_in_order(tmp_path: Path) -> None:
    data = read(tmp_path, "b,1,2\na,3,4", "a,5,6\n", scaling="none")
    assert data.problem.classes == ("a", "b")
    assert labels(data.training) == [1, 0, 0]
    assert data.training.series.tolist() == [[[1, 2]], [[3, 4]], [[5, 6]]]
    assert (data.problem.class_counts, data.problem.series_count) == ((2, 1), 3)
    assert data.validation is None


def test_validation_uses_the_classes_of_the_training_data(tmp_path: Path) -> None:
    data = read(tmp_path, "x,1,2\ny,3,4\n", validation="y,3,4\n")
    assert labels(data.validation) == [1]


def test_classes_are_ordered_as_numbers_where_they_are_numbers() -> None:
    assert sort_classes({"10", "9", "-1", "2.5"}) == ["-1", "2.5", "9", "10"]
    assert sort_classes({"1", "1.0", "0"}) == ["0", "1", "1.0"]
    assert sort_classes({"10", "9", "x"}) == ["10", "9", "x"]
    assert sort_classes({"10", "9", "nan", "7"}) == ["10", "7", "9", "nan"]


@pytest.mark.parametrize(
    ("training", "validation", "message"),
    [
        ("a,1,2\na,3,4\n", None, r"only one class \('a', 2 rows\); at least two are needed"),
        (
            "a,1,2\nb,3,4\n",
            "c,1,2\nb,1,2\n",
            r"1\.csv, row 1, column 1: the label 'c' is not in the training data, whose labels are 'a', 'b'\.",
        ),
        (
            "1,1,2\n2,3,4\n",
            "1.0,1,2\n",
            r"row 1, column 1: the label '1\.0' is not in the training data.*compared as text, exactly as written",
        ),
        (
            "a,1,2\nb,3,4\n",
            "a,1,2,3\n",
            r"validation.1\.csv has series of 3 values, but the training data has series of 2; all series must",
        ),
        (
            "a,1,2,3\nb,3,4,5\n",
            "1,2,3\n",
            r"series of 2 values, but .* to allow different lengths\. Is the label missing from its first column\?",
        ),
        (" \n", None, "Channel training has no data: its files contain only blank lines"),
        ("y,x1,x2\n", None, "Channel training has no data"),
        ("a,1,2\nb,3,4\n", "\n", "Channel validation has no data: its files contain only blank lines"),
        ("a,1\nb,2\n", None, "The training series have one value each; a series needs at least two"),
        (ONE_HOT, "y1,y2,y3,x1\n1,0,0,1\n", r"row 1 lacks column 'x2'; its header must name y1, y2, y3, \.\.\. x2"),
        (ONE_HOT, "1,0,0,1,2\n", r"row 1 must be the header \(y1,y2,y3,\.\.\.\)"),
        (ONE_HOT, ONE_HOT + "1,1,0,1,2\n", r"validation.1\.csv, row 6: exactly one of the columns 'y1', 'y2', 'y3' m"),
        ("a,1,2\nb,3,4\n", "y1,x1,x2\n1,0,0\n", r"row 1 looks like a header \('x1,x2'\), but the data has none"),
    ],
)
def test_what_is_refused(tmp_path: Path, training: str, validation: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(tmp_path, training, validation=validation)


def test_a_first_column_that_does_not_look_like_labels_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    read(tmp_path, "0.31,1,2\n0.32,3,4\n0.33,5,6\n")
    assert "WARNING: 3 series have 3 different labels; is the label in the first column?" in caplog.text


def test_files_of_different_length_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"2\.csv has series of 3 values, but .*1\.csv has series of 2; all series"):
        read(tmp_path, "a,1,2\n", "b,1,2,3\n")


def test_what_was_read_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    read(tmp_path, "a,1,2\nb,3,4,5\n", "b,5\n", length_policy="pad")
    assert "training: 3 series of up to 3 values from 2 file(s)" in caplog.messages


class TestVariables:
    """Series of several variables, each with a mean and a deviation of its own."""

    SERIES = np.random.default_rng(0).normal(size=(40, 3, 5)) * [[1], [1e-9], [3]] + [[1e7], [0], [-2]]

    @staticmethod
    def scale(series: NDArray[np.float64]) -> NDArray[np.float64]:
        mean, std = series.mean(axis=(0, 2), keepdims=True), series.std(axis=(0, 2), keepdims=True)
        scaled: NDArray[np.float64] = (series - mean) / std
        return scaled

    @pytest.mark.parametrize("headed", [False, True])
    def test_values_are_where_they_belong(self, tmp_path: Path, headed: bool) -> None:
        series = np.arange(24.0).reshape(4, 3, 2)
        text, settings = write_as(series, headed)
        data = read(tmp_path, text, text, validation=text, scaling="none", **settings)
        assert (data.problem.num_variables, data.problem.length, data.training.length) == (3, 2, 2)
        np.testing.assert_array_equal(all_values(data.training), np.concatenate([series, series]))
        np.testing.assert_array_equal(all_values(data.validation), series)
        np.testing.assert_array_equal(data.sample, np.concatenate([series, series]))
        names = tuple(f"x_{m}_{t}" for m in range(3) for t in range(2))
        assert data.problem.columns == (Columns(("y_a", "y_b"), names, 3) if headed else HEADERLESS)

    def test_one_variable_is_the_default(self, tmp_path: Path) -> None:
        data = read(tmp_path, write(self.SERIES))
        assert (data.problem.num_variables, data.problem.length) == (1, 15)
        np.testing.assert_array_equal(data.sample, self.SERIES.reshape(40, 1, 15))

    @pytest.mark.parametrize("headed", [False, True])
    def test_each_is_scaled_by_its_own_mean_and_deviation(self, tmp_path: Path, headed: bool) -> None:
        text, settings = write_as(self.SERIES, headed)
        data = read(tmp_path, text, validation=text, **settings)
        assert data.problem.scaling.mean == pytest.approx(self.SERIES.mean(axis=(0, 2)), rel=1e-12)
        assert data.problem.scaling.std == pytest.approx(self.SERIES.std(axis=(0, 2)), rel=1e-8)
        for dataset in (data.training, data.validation):
            np.testing.assert_allclose(all_values(dataset), self.scale(self.SERIES), atol=1e-6)

    def test_each_variable_of_each_series_is_scaled_separately(self, tmp_path: Path) -> None:
        data = read(tmp_path, write(self.SERIES), num_variables="3", scaling="series")
        mean, std = (f(self.SERIES, axis=2, keepdims=True) for f in (np.mean, np.std))
        np.testing.assert_allclose(all_values(data.training), (self.SERIES - mean) / std, atol=1e-6)

    def test_a_constant_variable_does_no_harm(self, tmp_path: Path) -> None:
        series = self.SERIES.copy()
        series[:, 1] = 0.1
        data = read(tmp_path, write(series), num_variables="3")
        assert data.problem.scaling.std[1] == 1.0
        assert not all_values(data.training)[:, 1].any()
        np.testing.assert_allclose(all_values(data.training)[:, ::2], self.scale(self.SERIES)[:, ::2], atol=1e-6)

    def test_a_variable_far_from_where_it_starts_keeps_its_digits(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(scaling_module, "CHUNK_VALUES", 30)  # the first chunk does not know the others
        series = self.SERIES.copy()
        series[20:] *= 5
        data = read(tmp_path, write(series), num_variables="3")
        assert data.problem.scaling.mean == pytest.approx(series.mean(axis=(0, 2)), rel=1e-12)
        np.testing.assert_allclose(all_values(data.training), self.scale(series), atol=1e-5)

    @pytest.mark.parametrize("policy", ["pad", "resample"])
    @pytest.mark.parametrize("block_bytes", [16, 4096])
    def test_each_is_brought_to_the_length_of_the_longest_series(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str, block_bytes: int
    ) -> None:
        monkeypatch.setattr(csv_blocks, "BLOCK_BYTES", block_bytes)
        monkeypatch.setattr(scaling_module, "PASS_VALUES", 10)
        text = "a,1,3,7,4\nb,5,6\n" * 3 + "a,1,2,3,9,8,7\nb,5,6,,1,1,\n"
        settings: dict[str, Any] = {"num_variables": "2", "length_policy": policy, "scaling": "none"}
        data = read(tmp_path, text, validation="a,1,2\nb,1,3,5,7\n", **settings)
        long: list[list[list[float]]] = [[[1, 3, 3], [7, 4, 4]], [[1, 3, 3], [5, 7, 7]]]
        if policy == "resample":
            long = [[[1, 2, 3], [7, 5.5, 4]], [[1, 2, 3], [5, 6, 7]]]
        end = [[5, 6, 6], [1, 1, 1]] if policy == "pad" else [[5, 5.5, 6], [1, 1, 1]]
        expected = [long[0], [[5, 5, 5], [6, 6, 6]]] * 3 + [[[1, 2, 3], [9, 8, 7]], end]
        assert all_values(data.training).tolist() == data.sample.tolist() == expected
        assert all_values(data.validation).tolist() == [[[1, 1, 1], [2, 2, 2]], long[1]]

    def test_values_missing_in_one_variable_are_filled(self, tmp_path: Path) -> None:
        data = read(tmp_path, "a,0,,2,5,6,7\nb,1,2,3,,4,\n", num_variables="2", missing_values="interpolate")
        raw = np.array([[[0, 1, 2], [5, 6, 7]], [[1, 2, 3], [4, 4, 4]]])
        np.testing.assert_array_equal(data.sample, raw)
        assert data.problem.scaling.mean == pytest.approx(raw.mean(axis=(0, 2)))

    @pytest.mark.parametrize("memory_limit", [64, store.MEMORY_LIMIT])
    @pytest.mark.parametrize("policy", ["error", "pad"])
    def test_not_a_bit_depends_on_files_blocks_and_memory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory_limit: int, policy: str
    ) -> None:
        monkeypatch.setattr(scaling_module, "CHUNK_VALUES", 60)
        text = write(self.SERIES) + ("a,1,2,3\n" if policy == "pad" else "")
        lines = text.splitlines(keepends=True)
        settings: dict[str, Any] = {"num_variables": "3", "length_policy": policy}
        whole = read(tmp_path / "1", text, validation=text, **settings)
        monkeypatch.setattr(csv_blocks, "BLOCK_BYTES", 100)
        monkeypatch.setattr(scaling_module, "PASS_VALUES", 50)
        monkeypatch.setattr(store, "MEMORY_LIMIT", memory_limit)
        parts = ["".join(lines[:7]), lines[7], "".join(lines[8:])]
        divided = read(tmp_path / "2", *parts, validation=text, **settings)
        assert divided.problem.scaling == whole.problem.scaling
        assert torch.equal(divided.training.series, whole.training.series)
        assert divided.fingerprint == whole.fingerprint

    @pytest.mark.parametrize("place", [(0, 0, 0), (39, 2, 4), (7, 1, 3)])
    def test_the_fingerprint_changes_with_every_value(self, tmp_path: Path, place: tuple[int, int, int]) -> None:
        changed = self.SERIES.copy()
        changed[place] += 1
        first, same, other = (
            read(tmp_path, write(series), num_variables="3", scaling="none").fingerprint
            for series in (self.SERIES, self.SERIES, changed)
        )
        assert first == same != other

    def test_exchanged_variables_are_other_data(self, tmp_path: Path) -> None:
        first, second = (
            read(tmp_path, write(series), num_variables="3").fingerprint
            for series in (self.SERIES, self.SERIES[:, ::-1])
        )
        assert first != second

    def test_data_with_a_header_is_the_same_as_without(self, tmp_path: Path) -> None:
        headed = read(tmp_path, write_headed(self.SERIES))
        plain = read(tmp_path, write(self.SERIES, "ab"), num_variables="3")
        assert headed.problem.scaling == plain.problem.scaling
        assert torch.equal(headed.training.series, plain.training.series)
        assert torch.equal(headed.training.labels, plain.training.labels)
        assert headed.fingerprint == plain.fingerprint

    def test_series_held_out_are_whole(self, tmp_path: Path) -> None:
        data = read(tmp_path, write(self.SERIES), num_variables="3", validation_fraction="0.25", scaling="none")
        assert (len(data.training), all_values(data.validation).shape) == (30, (10, 3, 5))
        both = np.concatenate([all_values(data.training), all_values(data.validation)])
        expected = self.SERIES.astype(np.float32)
        np.testing.assert_array_equal(both[np.argsort(both[:, 1, 0])], expected[np.argsort(expected[:, 1, 0])])

    def test_what_was_read_is_logged(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        read(tmp_path, write(self.SERIES), num_variables="3")
        assert "training: 40 series of 3 variables with 5 values each from 1 file(s)" in caplog.messages

    @pytest.mark.parametrize(
        ("earlier", "kept"), [((3, 5), True), ((1, 5), False), ((3, 4), False)], ids=["same", "other", "shorter"]
    )
    def test_means_of_an_earlier_model_are_kept_where_all_fits(
        self, tmp_path: Path, earlier: tuple[int, int], kept: bool
    ) -> None:
        variables, length = earlier
        model = earlier_model(length, classes=("a", "b", "c"), variables=variables)
        data = read(tmp_path, write(self.SERIES), num_variables="3", earlier=model)
        assert (data.problem.scaling == model.problem.scaling) is kept

    @pytest.mark.parametrize(
        ("texts", "validation", "settings", "message"),
        [
            (["a,1,2,3\n"], None, {"num_variables": "2"}, r"1\.csv, row 1 has 3 values, which cannot be divided among"),
            (["a,1,2,3,4\n", "a,1,2\n"], None, {"num_variables": "2"}, r"2\.csv has series of 1 values, but .*1\.csv"),
            (["a,1,2\nb,3,4\n"], None, {"num_variables": "2"}, "The training series have one value each; a series"),
            (
                [write_headed(SERIES)],
                None,
                {"num_variables": "2"},
                "row 1 names columns of 3 variables, but num-variab",
            ),
            (
                [write_headed(SERIES)],
                None,
                {"num_variables": "1"},
                "row 1 names columns of 3 variables, but num-variab",
            ),
            (["y,x1,x2\n0,1,2\n"], None, {"num_variables": "2"}, "row 1 names columns of 1 variable, but num-variable"),
            (
                ["a,1,2,3,4\nb,5,6,7,8\n"],
                "a,1,2,3\n",
                {"num_variables": "2"},
                "row 1 has 3 values, which cannot be divided among 2 variables",
            ),
            (
                ["a,1,2,3,4\nb,5,6,7,8\n"],
                "a,1,2,3,4,5,6\n",
                {"num_variables": "2"},
                "validation.1.csv has series of 3 values, but the training data has series of 2",
            ),
            (
                ["a,1,2,3,4\nb,5,6,7,8\n"],
                "a,1,2,3,4,5,6\n",
                {"num_variables": "2", "length_policy": "pad"},
                "row 1 has 6 values, but the model takes series of 2 variables with up to 2 values each",
            ),
            (
                ["a,1,2,3,4\nb,5,6,7,\n"],
                None,
                {"num_variables": "2", "length_policy": "pad"},
                r"1\.csv, row 2 lacks value 2 of variable 2: it is missing",
            ),
            (
                ["a,1,2,3,4\nb,5,6,,\n"],
                None,
                {"num_variables": "2", "missing_values": "interpolate"},
                r"1\.csv, row 2 has no values of variable 2, only missing ones",
            ),
            (["a,1e300,1,-1e300,1\nb,1,2,3,4\n"], None, {"num_variables": "2"}, "too large to be scaled"),
        ],
    )
    def test_what_is_refused(
        self, tmp_path: Path, texts: list[str], validation: str | None, settings: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(UserError, match=message):
            read(tmp_path, *texts, validation=validation, **settings)


class TestTasks:
    """What there is to predict, from the data and the hyperparameter `task`."""

    @pytest.mark.parametrize(
        ("text", "wanted", "task", "independent"),
        [
            ("a,1,2\nb,3,4\n", "auto", "binary", False),
            ("a,1,2\nb,3,4\n", "binary", "binary", False),
            ("a,1,2\nb,3,4\n", "multiclass", "multiclass", False),
            ("a,1,2\nb,3,4\nc,5,6\n", "auto", "multiclass", False),
            ("y,x1,x2\n0,1,2\n1,3,4\n", "auto", "binary", True),
            ("y,x1,x2\n0,1,2\n1,3,4\n", "binary", "binary", True),
            ("y,x1,x2\n0,1,2\n1,3,4\n", "multilabel", "multilabel", True),
            ("y1,y2,x1,x2\n0,1,1,2\n1,0,3,4\n", "auto", "binary", False),
            ("y1,y2,x1,x2\n0,1,1,2\n1,0,3,4\n", "multiclass", "multiclass", False),
            ("y1,y2,x1,x2\n0,1,1,2\n1,1,3,4\n1,0,3,4\n", "auto", "multilabel", True),
            (ONE_HOT, "auto", "multiclass", False),
            (ONE_HOT, "multiclass", "multiclass", False),
            (ONE_HOT, "multilabel", "multilabel", True),
            (SEVERAL, "auto", "multilabel", True),
        ],
    )
    def test_the_task(self, tmp_path: Path, text: str, wanted: str, task: str, independent: bool) -> None:
        data = read(tmp_path, text, task=wanted)
        assert (data.problem.task, data.problem.independent) == (task, independent)
        assert (data.training.labels.ndim > 1) is independent

    @pytest.mark.parametrize(
        ("text", "wanted", "message"),
        [
            ("a,1,2\nb,3,4\nc,5,6\n", "binary", "task=binary needs two classes, .* has 3: 'a', 'b', 'c'"),
            (
                "a,1,2\nb,3,4\n",
                "multilabel",
                "task=multilabel needs a header and target columns",
            ),
            (ONE_HOT, "binary", "task=binary needs one or two target columns, but there are 3: 'y1', 'y2', 'y3'"),
            (SEVERAL, "binary", "task=binary needs one or two target columns, but there are 3"),
            (
                SEVERAL,
                "multiclass",
                r"1\.csv, row 6: exactly one of the columns .* because task=multiclass",
            ),
            ("y1,y2,x1,x2\n0,1,1,2\n0,0,3,4\n", "binary", r"1\.csv, row 3: exactly one of the columns 'y1', 'y2' must"),
            (
                "y,x1,x2\n0,1,2\n1,3,4\n",
                "multiclass",
                "task=multiclass needs a target column for each class, but y is the only",
            ),
            ("y,x1,x2\n1,1,2\n1,3,4\n", "auto", "The target columns 'y' are constant in the training data"),
            ("y1,y2,x1,x2\n1,0,1,2\n1,0,3,4\n", "auto", r"only one class \('y1', 2 rows\)"),
            ("y1,y2,x1,x2\n1,1,1,2\n1,1,3,4\n", "auto", "The target columns 'y1', 'y2' are constant"),
        ],
    )
    def test_data_that_does_not_fit_the_task(self, tmp_path: Path, text: str, wanted: str, message: str) -> None:
        with pytest.raises(UserError, match=message):
            read(tmp_path, text, task=wanted)

    def test_one_class_a_row_is_a_number_each(self, tmp_path: Path) -> None:
        data = read(tmp_path, ONE_HOT, scaling="none")
        assert data.problem.classes == ("y1", "y2", "y3")
        assert data.problem.columns == Columns(("y1", "y2", "y3"), ("x1", "x2"))
        assert data.training.batch(torch.arange(2))[1].dtype == torch.int64
        assert labels(data.training) == [2, 0, 1, 0]
        assert data.problem.class_counts == (2, 1, 1)

    def test_several_classes_a_row_are_a_target_each(self, tmp_path: Path) -> None:
        data = read(tmp_path, SEVERAL)
        assert data.training.labels.dtype == torch.float32
        assert labels(data.training)[-2:] == [[1, 1, 0], [0, 0, 0]]
        assert data.problem.class_counts == (3, 2, 1)

    def test_classes_are_in_the_order_of_the_first_header(self, tmp_path: Path) -> None:
        text = "x2,y10,y2,x1\n1,0,1,2\n3,1,0,4\n"
        data = read(tmp_path, text, "y2,y10,x1,x2\n0,1,6,5\n", validation="x1,x2,y10,y2\n8,7,0,1\n", scaling="none")
        assert data.problem.columns == Columns(("y10", "y2"), ("x2", "x1"))
        assert data.problem.classes == ("y10", "y2")
        assert labels(data.training) == [1, 0, 0]
        assert values(data.training) == [[1, 2], [3, 4], [5, 6]]
        assert (labels(data.validation), values(data.validation)) == ([1], [[7, 8]])

    def test_data_without_header_names_no_columns(self, tmp_path: Path) -> None:
        assert read(tmp_path, "a,1,2\nb,3,4\n").problem.columns == HEADERLESS

    @pytest.mark.parametrize(
        "text", ["y1,y2,y3,x1,x2\n1,0,0,1,2\n0,1,0,1,2\n", "y1,y2,y3,x1,x2\n1,1,0,1,2\n0,1,0,1,2\n1,0,0,1,2\n"]
    )
    def test_a_constant_target_is_reported(self, tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
        read(tmp_path, text)
        assert "WARNING: 'y3' cannot be learned: constant in the training data" in caplog.messages

    def test_validation_data_of_several_classes_a_row(self, tmp_path: Path) -> None:
        data = read(tmp_path, ONE_HOT, validation=SEVERAL, task="multilabel")
        assert len(labels(data.validation)) == 6


class TestLengths:
    """Missing values and series of different length."""

    def test_missing_values_are_filled_before_anything_is_measured(self, tmp_path: Path) -> None:
        data = read(tmp_path, "a,0,,2\nb,,4,\n", missing_values="interpolate")
        raw = np.array([[0, 1, 2], [4, 4, 4]])
        assert data.sample[:, 0].tolist() == raw.tolist()
        assert data.problem.scaling.mean == pytest.approx((raw.mean(),))
        assert data.problem.scaling.std == pytest.approx((raw.std(),))
        np.testing.assert_allclose(values(data.training), (raw - raw.mean()) / raw.std(), atol=1e-6)
        assert data.problem.preprocessing == Preprocessing(missing_values="interpolate")

    @pytest.mark.parametrize("settings", [{}, {"length_policy": "pad"}, {"length_policy": "resample"}])
    def test_missing_values_are_refused_unless_they_are_interpolated(
        self, tmp_path: Path, settings: dict[str, Any]
    ) -> None:
        with pytest.raises(UserError, match=r"1\.csv, row 1, column 3 is (empty|missing)"):
            read(tmp_path, "a,0,,2\nb,1,2,3\n", **settings)

    @pytest.mark.parametrize(
        ("policy", "expected"),
        [
            ("pad", [[1, 3, 3], [4, 4, 4], [1, 2, 3], [5, 6, 6]]),
            ("resample", [[1, 2, 3], [4, 4, 4], [1, 2, 3], [5, 5.5, 6]]),
        ],
    )
    def test_shorter_series_are_brought_to_the_length_of_the_longest(
        self, tmp_path: Path, policy: str, expected: list[list[float]]
    ) -> None:
        data = read(tmp_path, "a,1,3\nb,4\n", "a,1,2,3\nb,5,6,\n", length_policy=policy, scaling="none")
        assert data.problem.length == data.training.length == 3
        assert values(data.training) == data.sample[:, 0].tolist() == expected

    def test_all_is_worked_on_in_parts(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(scaling_module, "PASS_VALUES", 5)
        data = read(tmp_path, "a,1,3\nb,4\n" * 5 + "a,1,2,3\n", length_policy="pad", scaling="none")
        assert values(data.training) == [[1, 3, 3], [4, 4, 4]] * 5 + [[1, 2, 3]]

    @pytest.mark.parametrize(
        ("policy", "validation", "expected"),
        [
            ("pad", "a,1\n", [[1, 1, 1]]),
            ("resample", "a,1,2,3,4,5\n", [[1, 3, 5]]),
            ("resample", "a,1,3\n", [[1, 2, 3]]),
        ],
    )
    def test_validation_series_are_brought_to_the_length_of_the_training_data(
        self, tmp_path: Path, policy: str, validation: str, expected: list[list[float]]
    ) -> None:
        training = "a,1,2,3\nb,3,2\n"
        data = read(tmp_path, training, validation=validation, length_policy=policy, scaling="none")
        assert values(data.validation) == expected

    def test_validation_series_that_are_too_long_to_pad_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"row 1 has 3 values, but the model takes series of up to 2 values"):
            read(tmp_path, "a,1,2\nb,3\n", validation="a,1,2,3\n", length_policy="pad")

    def test_under_a_header_short_series_end_with_empty_cells(self, tmp_path: Path) -> None:
        data = read(tmp_path, "y,x1,x2,x3\n0,1,2,\n1,3,,\n", length_policy="pad", scaling="none")
        assert values(data.training) == [[1, 2, 2], [3, 3, 3]]

    def test_a_request_like_the_training_rows_fits_the_model(self, tmp_path: Path) -> None:
        data = read(tmp_path, "y,x1,x2,x3\n0,1,2,\n1,3,,\n", length_policy="pad", scaling="none")
        problem = data.problem
        columns = Columns(series=problem.columns.series)
        found = read_series(b"x1,x2,x3\n1,2,\n3,,\n", "f", problem.length, columns, problem.preprocessing)
        np.testing.assert_array_equal(found, data.sample)

    @pytest.mark.parametrize(
        ("policy", "earlier_length", "length"),
        [("pad", 5, 5), ("pad", 2, 3), ("resample", 5, 5), ("resample", 2, 2), ("error", 5, 3)],
    )
    def test_the_length_of_an_earlier_model_is_kept_where_it_can_be(
        self, tmp_path: Path, policy: str, earlier_length: int, length: int
    ) -> None:
        rows = "a,1,2,3\nb,4,5,6\n"
        data = read(tmp_path, rows, earlier=earlier_model(earlier_length), length_policy=policy)
        assert data.problem.length == data.training.length == length


class TestScaling:
    """The training data's mean and standard deviation."""

    def test_it_survives_a_large_offset(self, tmp_path: Path) -> None:
        raw = np.random.default_rng(0).normal(size=(100, 50)) + 1e7
        data = read(tmp_path, "".join(f"{k % 2},{','.join(map(repr, row))}\n" for k, row in enumerate(raw.tolist())))
        assert data.problem.scaling.mean == pytest.approx((raw.mean(),), rel=1e-15)
        assert data.problem.scaling.std == pytest.approx((raw.std(),), rel=1e-9)
        np.testing.assert_allclose(values(data.training), (raw - raw.mean()) / raw.std(), atol=1e-6)

    def test_constant_data_is_not_divided_by_nothing(self, tmp_path: Path) -> None:
        data = read(tmp_path, "a,0.1,0.1,0.1\n" * 3 + "b,0.1,0.1,0.1\n")
        assert data.problem.scaling.std == (1.0,)
        assert values(data.training) == [[0, 0, 0]] * 4

    def test_data_that_is_too_large(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="too large to be scaled"):
            read(tmp_path, "a,1e300,-1e300\nb,1,2\n")

    def test_data_that_is_too_large_without_scaling(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="The training data has values too large for float32 after scaling"):
            read(tmp_path, "a,1e39,1\nb,1,2\n", scaling="none")

    def test_validation_data_that_is_too_large(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="The validation data has values too large for float32 after scaling"):
            read(tmp_path, "a,1,1\nb,1,2\n", validation="a,1e300,1\n")

    @pytest.mark.parametrize(("factor", "offset"), [(1.0, 0.0), (1e-3, 1e7), (1e-30, 0.0), (1e30, 0.0), (1e12, 1e15)])
    @pytest.mark.parametrize("method", ["dataset", "series"])
    def test_series_are_scaled_as_the_exported_graph_scales_them(
        self, tmp_path: Path, method: str, factor: float, offset: float
    ) -> None:
        raw = np.random.default_rng(0).normal(size=(20, 6)) * factor + offset
        rows = "".join(f"{k % 2},{','.join(map(repr, row))}\n" for k, row in enumerate(raw.tolist()))
        data = read(tmp_path, rows, scaling=method)
        expected = Scaler(data.problem.scaling)(torch.from_numpy(raw)[:, None])
        torch.testing.assert_close(data.training.series, expected, atol=1e-6, rtol=1e-6)

    @pytest.mark.parametrize("factor", [1e-42, 1e60])
    def test_series_far_outside_of_float32_are_scaled_all_the_same(self, tmp_path: Path, factor: float) -> None:
        raw = np.random.default_rng(0).normal(size=(20, 6)) * factor
        data = read(tmp_path, "".join(f"{k % 2},{','.join(map(repr, row))}\n" for k, row in enumerate(raw.tolist())))
        expected = Scaler(data.problem.scaling)(torch.from_numpy(raw)[:, None])
        torch.testing.assert_close(data.training.series, expected, atol=1e-5, rtol=1e-5)

    def test_an_earlier_model_keeps_its_way_of_scaling(self, tmp_path: Path) -> None:
        data = read(tmp_path, "a,1,2\nb,3,4\n", earlier=earlier_model(2, "none"), scaling="dataset")
        assert data.problem.scaling.method == "none"
        assert values(data.training) == [[1, 2], [3, 4]]

    @pytest.mark.parametrize(
        ("earlier", "kept"),
        [(earlier_model(2), True), (earlier_model(3), False), (earlier_model(2, classes=("a", "c")), False)],
    )
    def test_mean_and_deviation_of_an_earlier_model_are_kept_where_classes_and_length_are(
        self, tmp_path: Path, earlier: Metadata, kept: bool
    ) -> None:
        data = read(tmp_path, "a,100,150\nb,50,0\n", earlier=earlier)
        assert (data.problem.scaling == earlier.problem.scaling) is kept
        if kept:
            np.testing.assert_allclose(values(data.training), [[0, 1], [-1, -2]], atol=1e-6)

    def test_moments_in_parts_are_those_of_the_whole(self) -> None:
        numbers = np.random.default_rng(0).normal(size=1000) * 3 + 1e6
        parts = Moments()
        for part in np.split(numbers, [0, 1, 10, 500]):
            parts.add(part)
        mean, std = parts.mean_and_std()
        assert mean == pytest.approx(numbers.mean(), rel=1e-14)
        assert std == pytest.approx(numbers.std(), rel=1e-9)


def test_the_sample_is_of_raw_series_and_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling_module, "SAMPLE_ROWS", 3)
    monkeypatch.setattr(csv_blocks, "BLOCK_BYTES", 16)
    data = read(tmp_path, "a,1,2\nb,3,4\n" * 5)
    assert data.sample.tolist() == [[[1, 2]], [[3, 4]], [[1, 2]]]


@pytest.mark.parametrize(
    "other", [["a,1,2\nb,3,5\n"], ["a,1,2\na,3,4\nb,3,4\n"], ["b,3,4\na,1,2\n"], ["b,1,2\na,3,4\n"]]
)
def test_the_fingerprint_changes_with_values_labels_and_order(tmp_path: Path, other: list[str]) -> None:
    first, same, second = (
        read(tmp_path, *texts).fingerprint for texts in (["a,1,2\nb,3,4\n"], ["a,1,2\n", "b,3,4"], other)
    )
    assert first == same != second


def test_the_fingerprint_covers_the_validation_data(tmp_path: Path) -> None:
    first, second = (read(tmp_path, "a,1,2\nb,3,4\n", validation=text).fingerprint for text in ("a,1,2\n", "b,1,2\n"))
    assert first != second


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"scaling": "series"},
        {"length_policy": "resample"},
        {"length_policy": "pad", "missing_values": "interpolate"},
        {"validation_fraction": "0.25"},
    ],
)
def test_mapped_data_is_the_same_as_data_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    text = random_rows(50)
    if "length_policy" in settings:
        text += "a,1,2\nb,3\n"
    monkeypatch.setattr(csv_blocks, "BLOCK_BYTES", 256)
    validation = None if "validation_fraction" in settings else random_rows(9, seed=1)
    plain = read(tmp_path, text, validation=validation, **settings)
    assert "scratch file" not in caplog.text
    monkeypatch.setattr(store, "MEMORY_LIMIT", 64)
    mapped = read(tmp_path, text, validation=validation, **settings)
    assert "training: 0.0 GB of float32 in a scratch file" in caplog.text
    assert mapped.fingerprint == plain.fingerprint
    assert mapped.problem.scaling == plain.problem.scaling
    np.testing.assert_array_equal(mapped.sample, plain.sample)
    for found, expected in ((mapped.training, plain.training), (mapped.validation, plain.validation)):
        assert values(found) == values(expected)
        assert labels(found) == labels(expected)
    picked = torch.tensor([7, 0, 7])
    assert torch.equal(mapped.training.batch(picked)[0], plain.training.batch(picked)[0])


class TestCompressed:
    """Files in gzip's format, whatever their name."""

    TEXT = random_rows(3000)

    def test_they_are_unpacked(self, tmp_path: Path) -> None:
        data = read(tmp_path, gzip.compress(self.TEXT.encode()), self.TEXT)
        assert data.problem.series_count == 6000
        assert values(data.training)[:3000] == values(data.training)[3000:]

    def test_a_file_may_be_of_several_parts(self, tmp_path: Path) -> None:
        data = read(tmp_path, gzip.compress(b"a,1,2\nb,3,") + gzip.compress(b"4\n"), scaling="none")
        assert values(data.training) == [[1, 2], [3, 4]]

    @pytest.mark.parametrize("kept", [5, 11, 1000, -1])
    def test_a_truncated_file_is_named(self, tmp_path: Path, kept: int) -> None:
        with pytest.raises(UserError, match=r"training.1\.csv is not a complete gzip file: "):
            read(tmp_path, gzip.compress(self.TEXT.encode())[:kept])

    @pytest.mark.parametrize("place", [15, 2000, -6])
    def test_a_damaged_file_is_named(self, tmp_path: Path, place: int) -> None:
        content = bytearray(gzip.compress(self.TEXT.encode()))
        content[place] ^= 0xFF
        with pytest.raises(UserError, match=r"training.1\.csv"):
            read(tmp_path, bytes(content))

    def test_messages_name_the_row_of_the_text(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"1\.csv, row 2, column 2 is 'x'"):
            read(tmp_path, gzip.compress(b"a,1\nb,x\n"))


class TestPipe:
    """A channel in Pipe mode."""

    @staticmethod
    def read(path: Path, *chunks: bytes, pause: float = 0.0) -> Data:
        """What is read while another thread writes `chunks`."""

        def write() -> None:
            with path.open("wb", buffering=0) as pipe:
                for chunk in chunks:
                    pipe.write(chunk)
                    time.sleep(pause)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            return load_channels({"training": Source("training", path.parent, pipe=path)}, scaling="none")
        finally:
            writer.join()

    @pytest.fixture
    def pipe(self, tmp_path: Path) -> Path:
        path = tmp_path / "training_0"
        os.mkfifo(path)
        return path

    def test_it_is_read_to_its_end(self, pipe: Path, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        data = self.read(pipe, b"a,1,2\nb,3", b",4\n", b"a,5,6", pause=0.02)
        assert values(data.training) == [[1, 2], [3, 4], [5, 6]]
        assert "training: 3 series of 2 values from a pipe" in caplog.messages

    def test_files_one_behind_the_other_bring_their_headers(self, pipe: Path) -> None:
        data = self.read(pipe, b"y,x1,x2\n0,1,2\ny,x1,x2\n1,3,4\n")
        assert values(data.training) == [[1, 2], [3, 4]]

    def test_it_may_be_compressed(self, pipe: Path) -> None:
        assert values(self.read(pipe, gzip.compress(b"a,1,2\nb,3,4\n")).training) == [[1, 2], [3, 4]]

    def test_it_may_come_byte_by_byte(self, pipe: Path) -> None:
        content = gzip.compress(b"a,1,2\nb,3,4\n")
        chunks = [content[k : k + 1] for k in range(len(content))]
        assert values(self.read(pipe, *chunks, pause=0.005).training) == [[1, 2], [3, 4]]

    def test_one_that_is_larger_than_the_system_buffers(self, pipe: Path) -> None:
        assert self.read(pipe, random_rows(5000).encode()).problem.series_count == 5000

    def test_one_without_content_is_refused(self, pipe: Path) -> None:
        with pytest.raises(UserError, match=r"Channel training has no data: .*training_0"):
            self.read(pipe)

    def test_one_that_does_not_appear_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reading, "PIPE_SECONDS", 0.1)
        source = Source("training", tmp_path, pipe=tmp_path / "training_0")
        with pytest.raises(UserError, match=r"The pipe .*training_0 did not appear within 0 seconds"):
            load_channels({"training": source})

    def test_a_pipe_without_a_writer_is_reported(self, pipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reading, "PIPE_SECONDS", 0.1)
        with pytest.raises(UserError, match=r"No data arrived in the pipe .*training_0 within 0 seconds"):
            load_channels({"training": Source("training", pipe.parent, pipe=pipe)})


class TestHeldOutRows:
    """Rows that `validation-fraction` holds out have no influence on what the training set is measured for."""

    def test_the_hyperparameter_is_the_share(self, tmp_path: Path) -> None:
        data = read(tmp_path, random_rows(30), validation_fraction="0.2")
        assert (len(data.training), len(values(data.validation))) == (24, 6)

    def test_a_validation_channel_excludes_it(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="validation-fraction must be 0 if the job has a validation channel"):
            read(tmp_path, "a,1,2\nb,3,4\n", validation="a,1,2\n", validation_fraction="0.2")

    @pytest.mark.parametrize("size", [1, 2])
    @pytest.mark.parametrize("policy", ["error", "pad"])
    def test_they_influence_neither_scaling_nor_class_counts(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, policy: str
    ) -> None:
        monkeypatch.setattr(scaling_module, "PASS_VALUES", 10)
        rng = np.random.default_rng(0)
        raw = rng.normal(size=(30, 4)) + 1e6
        held_out = np.zeros(30, dtype=bool)
        for rank in range(size):
            codes = np.array([k % 3 for k in range(rank, 30, size)])
            held_out[rank::size] = draw_validation_rows(codes, 0.3, 0, Group())
        raw[held_out] *= 1e9
        channels = {"training": channel(tmp_path, write(raw))}
        settings: dict[str, Any] = {"validation_fraction": "0.3", "length_policy": policy}
        for rank, data in enumerate(run_together(size, lambda group: load_channels(channels, group, **settings))):
            assert data.problem.scaling.mean == pytest.approx((raw[~held_out].mean(),), rel=1e-12)
            assert data.problem.scaling.std == pytest.approx((raw[~held_out].std(),), rel=1e-8)
            assert data.problem.class_counts == tuple(np.bincount(np.arange(30)[~held_out] % 3).tolist())
            assert data.problem.series_count == 30 - held_out.sum()
            scaler = Scaler(data.problem.scaling)
            for dataset, chosen in ((data.training, ~held_out), (data.validation, held_out)):
                mine = np.flatnonzero(chosen & (np.arange(30) % size == rank))
                expected = scaler(torch.from_numpy(raw[mine])[:, None]).numpy()
                np.testing.assert_array_equal(all_values(dataset), expected)

    def test_the_scaling_of_an_earlier_model_is_kept(self, tmp_path: Path) -> None:
        data = read(tmp_path, random_rows(20, 2, "ab"), validation_fraction="0.5", earlier=earlier_model(2))
        assert data.problem.scaling == earlier_model(2).problem.scaling


def test_a_batch_is_of_the_rows_of_the_set() -> None:
    dataset = Dataset(torch.arange(6.0).view(3, 1, 2), torch.tensor([0, 1, 0]), rows=torch.tensor([2, 0]))
    series, found = dataset.batch(torch.tensor([1, 0, 0]))
    assert (len(dataset), dataset.length) == (2, 2)
    assert series.tolist() == [[[0, 1]], [[4, 5]], [[4, 5]]]
    assert found.tolist() == [0, 0, 0]
    assert dataset.to(torch.device("cpu")).series is dataset.series


class TestGroups:
    """Several processes, each of which keeps its share of the rows."""

    @staticmethod
    def load_together(
        size: int, sources: Callable[[int], dict[str, Source]], local_size: int = 1, **settings: Any
    ) -> list[Data]:
        return run_together(
            size, lambda group: load_channels(sources(group.rank), group, **settings), local_size=local_size
        )

    @pytest.mark.parametrize("size", [2, 3])
    @pytest.mark.parametrize("header", [False, True])
    @pytest.mark.parametrize("policy", ["error", "pad"])
    def test_together_they_have_what_one_has(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, header: bool, policy: str
    ) -> None:
        monkeypatch.setattr(csv_blocks, "BLOCK_BYTES", 300)
        text = random_rows(20)
        if header:
            text = "y1,x1,x2,x3,x4\n" + random_rows(20, classes="01")
        channels = {
            "training": channel(tmp_path, text),
            "validation": channel(tmp_path, text, name="validation"),
        }
        alone = load_channels(channels, length_policy=policy)
        together = self.load_together(size, lambda _: channels, length_policy=policy)
        for rank, data in enumerate(together):
            assert data.problem.model_copy(update={"scaling": alone.problem.scaling}) == alone.problem
            assert data.problem.scaling.mean == pytest.approx(alone.problem.scaling.mean, abs=1e-12)
            assert data.problem.scaling.std == pytest.approx(alone.problem.scaling.std)
            np.testing.assert_allclose(values(data.training), values(alone.training)[rank::size], atol=1e-6)
            np.testing.assert_allclose(values(data.validation), values(alone.validation)[rank::size], atol=1e-6)
            assert labels(data.training) == labels(alone.training)[rank::size]
        assert len({data.fingerprint for data in together}) == 1
        assert len({str(data.problem.scaling) for data in together}) == 1

    def test_machines_that_got_other_files_agree_on_classes_and_scaling(self, tmp_path: Path) -> None:
        texts = ["b,1,2\nc,3,4\n", "a,5,6\nb,7,8\n"]
        found = self.load_together(
            2, lambda rank: {"training": channel(tmp_path / str(rank), texts[rank], sharded=True)}
        )
        for data in found:
            assert data.problem.classes == ("a", "b", "c")
            assert (data.problem.class_counts, data.problem.series_count) == ((1, 2, 1), 4)
            assert data.problem.scaling.mean == (4.5,)
        assert [labels(data.training) for data in found] == [[1, 2], [0, 1]]

    def test_the_processes_of_a_machine_share_the_files_that_it_got(self, tmp_path: Path) -> None:
        texts = ["a,1,2\nb,3,4\n", "a,5,6\nb,7,8\n"]
        found = self.load_together(
            4,
            lambda rank: {"training": channel(tmp_path / str(rank // 2), texts[rank // 2], sharded=True)},
            local_size=2,
            scaling="none",
        )
        assert [values(data.training) for data in found] == [[[1, 2]], [[3, 4]], [[5, 6]], [[7, 8]]]

    @pytest.mark.parametrize("headed", [False, True])
    @pytest.mark.parametrize("policy", ["error", "resample"])
    def test_together_they_scale_each_variable_as_one_does(self, tmp_path: Path, headed: bool, policy: str) -> None:
        series = TestVariables.SERIES[:21]
        text, settings = write_as(series, headed)
        settings |= {"length_policy": policy}
        channels = {"training": channel(tmp_path, text), "validation": channel(tmp_path, text, name="validation")}
        alone = load_channels(channels, **settings)
        for rank, data in enumerate(self.load_together(2, lambda _: channels, **settings)):
            assert data.problem.num_variables == 3
            assert data.problem.scaling.mean == pytest.approx(alone.problem.scaling.mean, rel=1e-12, abs=1e-20)
            assert data.problem.scaling.std == pytest.approx(alone.problem.scaling.std, rel=1e-8)
            for found, expected in ((data.training, alone.training), (data.validation, alone.validation)):
                np.testing.assert_allclose(all_values(found), all_values(expected)[rank::2], atol=1e-6)
            assert data.sample.shape == alone.sample.shape

    @pytest.mark.parametrize("empty", [0, 1])
    @pytest.mark.parametrize("scaling", ["dataset", "series"])
    @pytest.mark.parametrize("headed", [False, True])
    def test_a_machine_that_got_nothing_knows_the_variables(
        self, tmp_path: Path, headed: bool, scaling: str, empty: int
    ) -> None:
        series = TestVariables.SERIES
        text, settings = write_as(series, headed)
        settings |= {"scaling": scaling}
        found = self.load_together(
            2,
            lambda rank: {
                name: channel(tmp_path / str(rank), *([] if rank == empty else [text]), name=name, sharded=True)
                for name in ("training", "validation")
            },
            **settings,
        )
        nothing, all_of_it = found[empty], found[1 - empty]
        assert nothing.problem.num_variables == all_of_it.problem.num_variables == 3
        assert nothing.problem.columns == all_of_it.problem.columns
        assert nothing.problem.scaling == all_of_it.problem.scaling
        assert nothing.training.series.shape == all_values(nothing.validation).shape == (0, 3, 5)
        np.testing.assert_array_equal(nothing.sample, all_of_it.sample)

    @pytest.mark.parametrize("empty", [0, 1])
    @pytest.mark.parametrize("text", ["a,1,2\nb,3,4\n", ONE_HOT, SEVERAL])
    def test_a_machine_may_have_got_nothing(self, tmp_path: Path, text: str, empty: int) -> None:
        def sources(rank: int) -> dict[str, Source]:
            texts = [] if rank == empty else [text]
            return {
                name: channel(tmp_path / str(rank), *texts, name=name, sharded=True)
                for name in ("training", "validation")
            }

        found = self.load_together(2, sources)
        nothing, all_of_it = found[empty], found[1 - empty]
        assert (len(nothing.training), len(all_of_it.training)) == (0, all_of_it.problem.series_count)
        assert nothing.problem.classes == all_of_it.problem.classes
        assert nothing.training.series.shape == (0, 1, 2)
        assert nothing.training.labels.shape[1:] == all_of_it.training.labels.shape[1:]
        assert nothing.training.labels.dtype == all_of_it.training.labels.dtype
        assert values(nothing.validation) == []

    def test_the_first_machine_has_series_to_check_the_export_on_even_if_it_got_none(self, tmp_path: Path) -> None:
        first, _ = self.load_together(
            2,
            lambda rank: {
                "training": channel(tmp_path / str(rank), *(["a,1,2\nb,3,4\n"] if rank else []), sharded=True)
            },
        )
        assert first.sample.shape[0] > 0
        assert first.sample.shape[1:] == (1, 2)

    @pytest.mark.parametrize(
        ("texts", "settings", "message"),
        [
            (["a,1,2\nb,1,2\n", "a,1,2,3\n"], {}, "One machine has series of 2 values, another has series of 3; all"),
            (
                ["y1,x1,x2\n0,1,2\n", "y2,x1,x2\n1,1,2\n"],
                {},
                "The headers of the training files differ",
            ),
            (["a,1,2\n", "y2,x1,x2\n1,1,2\n"], {}, "The headers of the training files differ"),
            (["\n", "\n"], {}, "Channel training has no data"),
            ([ONE_HOT, SEVERAL], {"task": "multiclass"}, "row 6: exactly one of the columns"),
            (["a,1,2\n", "a,1,2\n"], {}, r"only one class \('a', 2 rows\)"),
        ],
    )
    def test_what_the_machines_do_not_agree_on(
        self, tmp_path: Path, texts: list[str], settings: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(UserError, match=message):
            self.load_together(
                2, lambda rank: {"training": channel(tmp_path / str(rank), texts[rank], sharded=True)}, **settings
            )

    def test_each_machine_holds_out_its_share(self, tmp_path: Path) -> None:
        channels = {"training": channel(tmp_path, random_rows(40, classes="ab"))}
        found = self.load_together(2, lambda _: channels, validation_fraction="0.2")
        assert [len(values(data.validation)) for data in found] == [4, 4]

    @pytest.mark.parametrize("policy", ["pad", "resample"])
    def test_the_longest_series_of_any_machine_decides(self, tmp_path: Path, policy: str) -> None:
        texts = ["a,1,2\nb,3,4\n", "a,5,6,7\n"]
        found = self.load_together(
            2,
            lambda rank: {"training": channel(tmp_path / str(rank), texts[rank], sharded=True)},
            length_policy=policy,
        )
        assert [data.training.length for data in found] == [3, 3]


def test_not_a_bit_depends_on_how_files_and_blocks_divide_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaling_module, "CHUNK_VALUES", 40)
    text = random_rows(50)
    lines = text.splitlines(keepends=True)
    whole = read(tmp_path, text)
    monkeypatch.setattr(csv_blocks, "BLOCK_BYTES", 100)
    (tmp_path / "divided").mkdir()
    files = []
    for number, part in enumerate((lines[:7], lines[7:8], lines[8:])):
        files.append(tmp_path / "divided" / str(number))
        files[-1].write_text("".join(part))
    divided = load_channels({"training": Source("training", tmp_path, tuple(files))})
    assert divided.problem.scaling == whole.problem.scaling
    assert torch.equal(divided.training.series, whole.training.series)
    assert divided.fingerprint == whole.fingerprint
