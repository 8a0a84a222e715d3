"""Channels of prepared recordings: the windows that a loop over the steps gives, stored once."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from lstm_fcn.container.channels import Source
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.hyperparameters import parse_hyperparameters
from lstm_fcn.data import prepare
from lstm_fcn.training.cross_validation import cross_validate
from lstm_fcn.training.data.datasets import Data, Dataset
from lstm_fcn.training.data.loading import load
from lstm_fcn.training.devices import choose_placement
from lstm_fcn.training.distributed import Group
from lstm_fcn.training.stop import StopSignal
from tests.unit.groups import run_together

WINDOW, STRIDE = 8, 3


def make_table(recordings: int = 6, length: int = 60, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    parts = []
    for number in range(recordings):
        state = (np.arange(length) // 20 + number) % 2
        parts.append(
            pd.DataFrame(
                {
                    "id": f"r{number}",
                    "t": np.arange(length, dtype=float),
                    "a": 1000 + 5 * rng.normal(size=length) + 20 * state,
                    "b": rng.normal(size=length) * (1 + state),
                    "label": np.where(state, "on", "off"),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def write(folder: Path, table: pd.DataFrame, **options: Any) -> Source:
    usual = {"id": "id", "time": "t", "label": "label", "window": WINDOW, "stride": STRIDE, "minimum_share": 0.6}
    prepare(table, folder, **{**usual, **options})
    path = folder / "training" / "recordings.parquet"
    return Source("training", path.parent, (path,))


def read(source: Source, validation: Source | None = None, group: Group | None = None, **settings: str) -> Data:
    channels = {"training": source} | ({"validation": validation} if validation else {})
    named = {name.replace("_", "-"): value for name, value in settings.items()}
    return load(channels, parse_hyperparameters(named), group or Group())


def literal(table: pd.DataFrame) -> tuple[list[np.ndarray[Any, Any]], list[str], list[str]]:
    """Series `[2, WINDOW]`, labels and recordings by a loop."""
    series, labels, names = [], [], []
    for name, recording in table.groupby("id"):
        for start in range(0, len(recording) - WINDOW + 1, STRIDE):
            part = recording.iloc[start : start + WINDOW]
            counts = part["label"].value_counts()
            if counts.iloc[0] >= 0.6 * WINDOW:
                series.append(part[["a", "b"]].to_numpy().T)
                labels.append(str(counts.index[0]))
                names.append(str(name))
    return series, labels, names


def everything(dataset: Dataset) -> tuple[np.ndarray[Any, Any], list[int]]:
    series, labels = dataset.batch(torch.arange(len(dataset)))
    return series.numpy(), labels.tolist()


def test_windows_are_those_of_a_loop(tmp_path: Path) -> None:
    table = make_table()
    data = read(write(tmp_path, table), cross_validation_folds="2")
    expected, labels, names = literal(table)
    series, found = everything(data.training)
    assert [data.problem.classes[k] for k in found] == labels
    groups = data.training.groups
    assert groups is not None
    assert [data.group_names[k] for k in groups.tolist()] == names
    mean, std = np.array(data.problem.scaling.mean)[:, None], np.array(data.problem.scaling.std)[:, None]
    np.testing.assert_allclose(series, (np.stack(expected) - mean) / std, atol=1e-6)
    covered = table.groupby("id").head(57 + 2)  # the last step of a recording is in no window: 60 = 17 * 3 + 8 + 1
    np.testing.assert_allclose(mean[:, 0], covered[["a", "b"]].mean(), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(std[:, 0], covered[["a", "b"]].std(ddof=0), rtol=1e-7)
    np.testing.assert_allclose(data.sample[0], expected[0], rtol=1e-6)
    assert (data.problem.length, data.problem.num_variables, data.problem.names) == (WINDOW, 2, ("a", "b"))


def test_steps_are_stored_once(tmp_path: Path) -> None:
    data = read(write(tmp_path, make_table(), stride=1))
    assert data.training.series.untyped_storage().nbytes() == 4 * 2 * 360
    assert len(data.training) > 200


@pytest.mark.parametrize("method", ["series", "none"])
def test_other_scalings(tmp_path: Path, method: str) -> None:
    table = make_table()
    series, _ = everything(read(write(tmp_path, table), scaling=method).training)
    expected = np.stack(literal(table)[0])
    if method == "series":
        expected = (expected - expected.mean(axis=2, keepdims=True)) / expected.std(axis=2, keepdims=True)
    np.testing.assert_allclose(series, expected, atol=2e-4, rtol=1e-6)


def test_validation_takes_whole_recordings_which_do_not_influence_the_scaling(tmp_path: Path) -> None:
    table = make_table()
    data = read(write(tmp_path, table), validation_fraction="0.34")
    assert data.validation is not None
    names = np.array(literal(table)[2])
    sides = [set(names[part.rows]) for part in (data.training, data.validation) if part.rows is not None]
    assert len(sides[1]) == 2
    assert not sides[0] & sides[1]
    kept = table[table["id"].isin(sides[0])].groupby("id").head(59)
    np.testing.assert_allclose(data.problem.scaling.mean, kept[["a", "b"]].mean(), rtol=1e-6, atol=1e-7)


def test_windows_of_one_group_are_in_one_fold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = read(write(tmp_path, make_table(3)), cross_validation_folds="3", epochs="1", kernel_features="0")
    seen: list[set[int]] = []

    def fit(part: Data, *_: object, **__: object) -> object:
        assert part.training.groups is not None
        assert part.training.rows is not None
        seen.append(set(part.training.groups[part.training.rows].tolist()))
        raise StopIteration

    monkeypatch.setattr("lstm_fcn.training.cross_validation.fit", fit)
    settings = parse_hyperparameters({"cross-validation-folds": "3"})
    with pytest.raises(StopIteration):
        cross_validate(data, settings, choose_placement("float32", Group(), "cpu"), Group(), StopSignal())
    assert len(seen[0]) == 2


def test_recordings_on_both_sides_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    training = write(tmp_path / "a", make_table(3))
    read(training, write(tmp_path / "b", make_table(1, seed=1)))
    assert "WARNING: 1 group is both in the training and in the validation data ('r0')" in caplog.text


def test_other_preparations_are_refused(tmp_path: Path) -> None:
    training, other = write(tmp_path / "a", make_table(3)), write(tmp_path / "b", make_table(1), stride=4)
    with pytest.raises(UserError, match="was prepared with stride=4, other files with 3; prepare all data in the same"):
        read(training, other)
    (tmp_path / "rows.csv").write_text("a,1,2\nb,3,4\n")
    with pytest.raises(UserError, match=r"rows\.csv is not written by lstm-fcn prepare"):
        read(Source("training", tmp_path, (*training.files, tmp_path / "rows.csv")))


def test_too_few_recordings_for_a_split(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="The training data has 1 group of windows; 2 are needed, because windows"):
        read(write(tmp_path, make_table(1)), validation_fraction="0.2")


def test_processes_share_the_recordings(tmp_path: Path) -> None:
    source = write(tmp_path, make_table())
    whole = read(source, validation_fraction="0.34")
    parts = run_together(2, lambda group: read(source, group=group, validation_fraction="0.34"))
    for name in ("mean", "std"):
        found = [getattr(part.problem.scaling, name) for part in parts]
        np.testing.assert_allclose(found, [getattr(whole.problem.scaling, name)] * 2, rtol=1e-6, atol=1e-7)
    assert sum(len(part.training) for part in parts) == len(whole.training)
    assert [set(part.group_names) for part in parts] == [{"r0", "r2", "r4"}, {"r1", "r3", "r5"}]


def test_how_the_file_is_divided_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(tmp_path, make_table())
    whole = read(source)
    monkeypatch.setattr("lstm_fcn.training.data.windows.BATCH_STEPS", 7)
    divided = read(source)
    assert divided.fingerprint == whole.fingerprint
    np.testing.assert_array_equal(everything(divided.training)[0], everything(whole.training)[0])
