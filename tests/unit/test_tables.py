"""Tables as channels and as input of predictions: the same series as in CSV, and what is refused."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from numpy.typing import NDArray
from pyarrow import feather, parquet

from lstm_fcn.container.channels import Source
from lstm_fcn.container.csv_header import Columns
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.hyperparameters import parse_hyperparameters
from lstm_fcn.container.preprocess import Preprocessing
from lstm_fcn.container.tables import TableReader, is_table
from lstm_fcn.training.data.datasets import Data
from lstm_fcn.training.data.loading import load
from lstm_fcn.training.distributed import Group

SERIES = np.random.default_rng(0).normal(size=(40, 2, 6)).round(6)
LABELS = ["a", "b", "c", "b"] * 10
PAD = Preprocessing(length_policy="pad")
GAPS = Preprocessing(missing_values="interpolate")


def write(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    parquet.write_table(pyarrow.table(columns), path, **options)
    return path


def read(path: Path, **options: Any) -> tuple[list[str], NDArray[np.float64]]:
    blocks = list(TableReader(path, "f", **options))
    return [label for block in blocks for label in block.labels], np.concatenate([block.series for block in blocks])


def lists(series: NDArray[np.float64] = SERIES) -> dict[str, Any]:
    return {"label": LABELS, "acc": list(series[:, 0]), "gyr": list(series[:, 1])}


class TestLayouts:
    @pytest.mark.parametrize("kind", ["list", "large list", "fixed", "float32", "int"])
    def test_lists_are_variables(self, tmp_path: Path, kind: str) -> None:
        series = SERIES.astype(np.float32).astype(np.float64) if kind == "float32" else SERIES
        series = (series * 100).round() if kind == "int" else series
        types = {
            "list": pyarrow.list_(pyarrow.float64()),
            "large list": pyarrow.large_list(pyarrow.float64()),
            "fixed": pyarrow.list_(pyarrow.float64(), 6),
            "float32": pyarrow.list_(pyarrow.float32()),
            "int": pyarrow.list_(pyarrow.int16()),
        }
        values = [pyarrow.array(list(series[:, k].astype(np.int16) if kind == "int" else series[:, k])) for k in (0, 1)]
        columns = {"label": LABELS, **{f"v{k}": each.cast(types[kind]) for k, each in enumerate(values)}}
        labels, found = read(write(tmp_path / "f", columns, row_group_size=15))
        assert labels == LABELS
        np.testing.assert_array_equal(found, series)

    def test_numbers_are_time_steps(self, tmp_path: Path) -> None:
        columns = {"kind": LABELS, **{f"t{k}": SERIES[:, 0, k] for k in range(6)}}
        labels, found = read(write(tmp_path / "f", columns))
        assert labels == LABELS
        np.testing.assert_array_equal(found, SERIES[:, :1])

    def test_names_of_a_header(self, tmp_path: Path) -> None:
        columns = {f"x_{v}_{t}": SERIES[:, v, t] for t in range(6) for v in (1, 0)} | {"y_a": [0, 1] * 20}
        reader = TableReader(write(tmp_path / "f", columns), "f")
        (block,) = reader
        assert reader.variables == 2
        assert block.targets[:2].tolist() == [[0.0], [1.0]]
        np.testing.assert_array_equal(block.series, SERIES[:, ::-1])

    def test_the_column_of_labels_may_be_anywhere_if_it_is_called_label(self, tmp_path: Path) -> None:
        labels, found = read(write(tmp_path / "f", {"a": [1.0, 2.0], "b": [3.0, 4.0], "label": ["x", "y"]}))
        assert labels == ["x", "y"]
        assert found.tolist() == [[[1.0, 3.0]], [[2.0, 4.0]]]

    def test_arrow_files_and_the_index_of_pandas(self, tmp_path: Path) -> None:
        table = pyarrow.table(lists() | {"__index_level_0__": np.arange(40)})
        feather.write_feather(table, tmp_path / "f", chunksize=7)
        assert is_table(tmp_path / "f")
        labels, found = read(tmp_path / "f")
        assert labels == LABELS
        np.testing.assert_array_equal(found, SERIES)

    @pytest.mark.parametrize(
        ("labels", "expected"),
        [
            (pyarrow.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
            (pyarrow.array([1, -2]), ["1", "-2"]),
            (pyarrow.array([1.0, 0.5]), ["1.0", "0.5"]),
            (pyarrow.array([True, False]), ["true", "false"]),
        ],
    )
    def test_labels_are_text(self, tmp_path: Path, labels: Any, expected: list[str]) -> None:
        found, _ = read(write(tmp_path / "f", {"label": labels, "v": [[1.0, 2.0], [3.0, 4.0]]}))
        assert found == expected


class TestMissing:
    def test_nulls_and_nan(self, tmp_path: Path) -> None:
        columns = {"label": ["a", "b"], "v": [[1.0, None, 3.0], [float("nan"), 2.0, 3.0]]}
        _, found = read(write(tmp_path / "f", columns), preprocessing=GAPS)
        np.testing.assert_array_equal(found[:, 0], [[1, np.nan, 3], [np.nan, 2, 3]])

    def test_lists_of_different_length(self, tmp_path: Path) -> None:
        columns = {"label": ["a", "b"], "v": [[1.0], [2.0, 3.0, 4.0]]}
        _, found = read(write(tmp_path / "f", columns), preprocessing=PAD)
        np.testing.assert_array_equal(found[:, 0], [[1, np.nan, np.nan], [2, 3, 4]])

    def test_numbers(self, tmp_path: Path) -> None:
        columns = {"label": ["a", "b"], "t0": [1.0, 2.0], "t1": [None, 3.0], "t2": [5, 6]}
        _, found = read(write(tmp_path / "f", columns), preprocessing=GAPS)
        np.testing.assert_array_equal(found[:, 0], [[1, np.nan, 5], [2, 3, 6]])


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"label": ["a", None], "v": [[1.0], [2.0]]}, {}, "f, row 2, column label is empty; every row needs a label."),
        ({"v": [[1.0, 2.0], [3.0]], "label": ["a", "b"]}, {}, r"f, row 2, column v has 1 value, but row 1 has 2; all"),
        ({"label": ["a", "b"], "v": [[1.0], None]}, {}, "f, row 2, column v is empty; every series needs values."),
        ({"label": ["a"], "v": [[1.0, float("inf")]]}, {}, "f, row 1, column v, value 2 is inf; every value must be"),
        ({"label": ["a"], "v": [[1.0, None]]}, {}, "f, row 1, column v, value 2 is missing; .* Set missing-values=int"),
        ({"label": ["a"], "t0": [1.0], "t1": [None]}, {}, "f, row 1, column t1 is missing; every value must be a num"),
        ({"label": ["a"], "id": ["k"], "v": [1.0]}, {}, "f has string in its column 'id'; values must be numbers"),
        ({"label": ["a"], "v": [["k"]]}, {}, "f has string in its column 'v'; values must be numbers"),
        ({"label": ["a"], "v": [[1.0]], "w": [1.0]}, {}, "f has lists, but its column 'w' has none"),
        ({"label": ["a"], "v": [[1.0]], "w": [[1.0]]}, {"variables": 3}, r"f has 2 list columns \('v', 'w'\), but "),
        ({"label": ["a"]}, {}, "f has no columns of values."),
        ({"label": [["a"]], "v": [1.0]}, {}, r"f has list<.*> in its column 'label', which is no type of a label"),
        ({"label": ["a"], "Acc": [[1.0]]}, {"names": ["acc"]}, r"f lacks the column 'acc'; did you mean 'Acc'\?"),
        ({"label": ["a"], "z": [[1.0]]}, {"names": ["acc"]}, "f lacks the column 'acc'; it has 'z'"),
        ({"y": [2], "x1": [1.0], "x2": [1.0]}, {}, "f, row 1, column y is 2; targets must be 0 or 1"),
        ({"y": [1], "x1": [1.0]}, {"columns": Columns(("y",), ("x1", "x2"))}, "f lacks column 'x2'"),
        ({"v": [[1.0, 2.0]]}, {"labelled": False, "length": 3}, "f, row 1, column v has 2 values, but the model takes"),
        (
            {"v": [[1.0, 2.0], [1.0, 2.0, 3.0, 4.0]]},
            {"labelled": False, "length": 3, "preprocessing": PAD},
            "f, row 2 has 4 values, but the model takes series of up to 3 values.",
        ),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path: Path, columns: dict[str, Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(write(tmp_path / "f", columns), **options)


@pytest.mark.parametrize("content", [b"PAR1 and then something else PAR1", b"PAR1", b"ARROW1\0\0 broken"])
def test_damaged_tables_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(UserError, match="f cannot be read as a table: "):
        read(tmp_path / "f")


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    content = write(tmp_path / "f", lists()).read_bytes()
    for size in range(4, len(content), 97):
        (tmp_path / "f").write_bytes(content[:size])
        with pytest.raises(UserError, match="f cannot be read as a table: "):
            read(tmp_path / "f")


def test_without_pyarrow_the_message_names_the_extra(tmp_path: Path) -> None:
    path = write(tmp_path / "f", lists())
    code = f"""
import sys
sys.modules["pyarrow"] = None
from pathlib import Path
from lstm_fcn.container.tables import TableReader
list(TableReader(Path({str(path)!r}), "f"))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "f is a table, and reading it needs the package pyarrow. Install it (pip install 'lstm-fcn[tables]')" in (
        ended.stderr
    )


class TestChannels:
    @staticmethod
    def load(paths: list[Path], **settings: str) -> Data:
        settings = {name.replace("_", "-"): value for name, value in settings.items()}
        channels = {"training": Source("training", paths[0].parent, tuple(paths))}
        return load(channels, parse_hyperparameters(settings), Group())

    def test_tables_and_csv_become_the_same_data(self, tmp_path: Path) -> None:
        numbers = [",".join(map(repr, series.reshape(-1).tolist())) for series in SERIES]
        rows = [f"{label},{row}\n" for label, row in zip(LABELS, numbers, strict=True)]
        (tmp_path / "f.csv").write_text("".join(rows))
        expected = self.load([tmp_path / "f.csv"], num_variables="2")
        found = self.load([write(tmp_path / "f.parquet", lists(), row_group_size=3)])
        assert found.problem.names == ("acc", "gyr")
        assert found.problem.model_copy(update={"names": ()}) == expected.problem
        assert found.fingerprint == expected.fingerprint
        assert found.training.series.numpy().tobytes() == expected.training.series.numpy().tobytes()

    def test_the_next_file_may_have_its_columns_in_another_order(self, tmp_path: Path) -> None:
        columns = lists()
        other = {name: columns[name] for name in ("gyr", "label", "acc")}
        data = self.load([write(tmp_path / "a", columns), write(tmp_path / "b", other)])
        np.testing.assert_array_equal(data.training.series[40:], data.training.series[:40])

    def test_a_folder_of_both_kinds(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("a,1,2\nb,3,4\n")
        table = write(tmp_path / "b.parquet", {"label": ["a", "b"], "v": [[1.0, 2.0], [3.0, 4.0]]})
        assert len(self.load([tmp_path / "a.csv", table]).training) == 4
