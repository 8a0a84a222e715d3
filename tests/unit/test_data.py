from pathlib import Path

import numpy as np
import pytest

from container.errors import UserError
from training.data import load_datasets, measure_scaling, sort_classes


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_rows_of_all_files_in_order(tmp_path: Path) -> None:
    first, second = write(tmp_path / "1", "b,1,2\na,3,4"), write(tmp_path / "2", "a,5,6\n")
    training, validation, classes = load_datasets({"training": [first, second]})
    assert classes == ["a", "b"]
    assert training.labels.tolist() == [1, 0, 0]
    np.testing.assert_array_equal(training.series, [[[1, 2]], [[3, 4]], [[5, 6]]])
    assert validation is None


def test_validation_uses_the_classes_of_the_training_data(tmp_path: Path) -> None:
    channels = {
        "training": [write(tmp_path / "1", "x,1,2\ny,3,4\n")],
        "validation": [write(tmp_path / "2", "y,3,4\n")],
    }
    _, validation, _ = load_datasets(channels)
    assert validation is not None
    assert validation.labels.tolist() == [1]


def test_classes_are_ordered_as_numbers_where_they_are_numbers() -> None:
    assert sort_classes({"10", "9", "-1", "2.5"}) == ["-1", "2.5", "9", "10"]
    assert sort_classes({"1", "1.0", "0"}) == ["0", "1", "1.0"]
    assert sort_classes({"10", "9", "x"}) == ["10", "9", "x"]
    assert sort_classes({"10", "9", "nan", "7"}) == ["10", "7", "9", "nan"]


@pytest.mark.parametrize(
    ("training", "validation", "message"),
    [
        ("a,1,2\na,3,4\n", None, r"one class only \('a', 2 rows\); at least two are needed"),
        (
            "a,1,2\nb,3,4\n",
            "c,1,2\nb,1,2\n",
            r"valid\.csv, row 1, column 1: the training data has no label 'c'; it has 'a', 'b'\.",
        ),
        (
            "1,1,2\n2,3,4\n",
            "1.0,1,2\n",
            r"row 1, column 1: the training data has no label '1\.0'.*compared as text, exactly as written",
        ),
        (
            "a,1,2\nb,3,4\n",
            "a,1,2,3\n",
            r"valid\.csv has series of 3 values, but the training data has series of 2; all must be",
        ),
        (" \n", None, "Channel training has no data"),
        ("a,1\nb,2\n", None, "The training series have one value each; at least two are needed"),
    ],
)
def test_what_is_refused(tmp_path: Path, training: str, validation: str | None, message: str) -> None:
    channels = {"training": [write(tmp_path / "train.csv", training)]}
    if validation is not None:
        channels["validation"] = [write(tmp_path / "valid.csv", validation)]
    with pytest.raises(UserError, match=message):
        load_datasets(channels)


def test_a_first_column_that_does_not_look_like_labels_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load_datasets({"training": [write(tmp_path / "1", "0.31,1,2\n0.32,3,4\n0.33,5,6\n")]})
    assert "WARNING: 3 series have 3 different labels; is the label in the first column?" in caplog.text


def test_files_of_different_length_are_named(tmp_path: Path) -> None:
    files = [write(tmp_path / "1.csv", "a,1,2\n"), write(tmp_path / "2.csv", "b,1,2,3\n")]
    with pytest.raises(UserError, match=r"2\.csv has series of 3 values, but .*1\.csv has series of 2; all must be"):
        load_datasets({"training": files})


def test_dataset_scaling_survives_a_large_offset() -> None:
    series = np.random.default_rng(0).normal(size=(100, 1, 50)) + 1e7
    scaling = measure_scaling(series, "dataset")
    assert scaling.mean == pytest.approx(1e7, abs=0.1)
    assert scaling.std == pytest.approx(1, abs=0.05)


def test_constant_data_is_not_divided_by_nothing() -> None:
    assert measure_scaling(np.full((3, 1, 7), 0.1), "dataset").std == 1.0


def test_data_that_is_too_large() -> None:
    with pytest.raises(UserError, match="too large to be scaled"), np.errstate(over="ignore"):
        measure_scaling(np.array([[[1e300, -1e300]]]), "dataset")
