"""Tables divided by a column, and names of folders."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import feather, parquet

from lstm_fcn.container.errors import UserError
from lstm_fcn.container.steps import read_preparation
from lstm_fcn.data import prepare
from lstm_fcn.training import partition
from lstm_fcn.training.partition import Part, divide, folder_names

ROWS = 600


@pytest.fixture
def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "machine": rng.choice(["a", "b", "c"], ROWS),
            "label": rng.choice(["01", "1"], ROWS),
            "first": np.arange(ROWS),
            "second": rng.normal(size=ROWS),
        }
    )


def rows_of(part: Part) -> pd.DataFrame:
    found: pd.DataFrame = parquet.read_table(part.path).to_pandas()
    return found


def expect_parts(parts: list[Part], table: pd.DataFrame) -> None:
    assert [part.group for part in parts] == ["a", "b", "c"]
    for part in parts:
        expected = table[table["machine"] == part.group].drop(columns="machine").reset_index(drop=True)
        pd.testing.assert_frame_equal(rows_of(part), expected, check_dtype=False)
        assert part.rows == len(expected)


class TestRows:
    def test_every_kind_of_table_keeps_the_order_and_the_values(self, table: pd.DataFrame, tmp_path: Path) -> None:
        table.to_csv(tmp_path / "t.csv", index=False)
        table.to_csv(tmp_path / "t.csv.gz", index=False)
        parquet.write_table(pyarrow.Table.from_pandas(table), tmp_path / "t.parquet", row_group_size=50)
        feather.write_feather(table, tmp_path / "t.arrow", compression="uncompressed", chunksize=50)
        (tmp_path / "folder").mkdir()
        table[:250].to_parquet(tmp_path / "folder" / "1.parquet", index=False)
        table[250:].to_parquet(tmp_path / "folder" / "2.parquet", index=False)
        for name in ("t.csv", "t.csv.gz", "t.parquet", "t.arrow", "folder"):
            expect_parts(divide(tmp_path / name, "machine", tmp_path / f"parts of {name}"), table)

    def test_a_file_depends_on_the_rows_of_its_group_only(
        self, table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(partition, "GROUP_BYTES", 700)  # several row groups in each file
        table.to_parquet(tmp_path / "all.parquet", index=False)
        table[table["machine"] != "a"].to_parquet(tmp_path / "others.parquet", index=False)
        before = divide(tmp_path / "all.parquet", "machine", tmp_path / "1")
        expect_parts(before, table)
        assert parquet.ParquetFile(before[1].path).num_row_groups > 2
        after = divide(tmp_path / "others.parquet", "machine", tmp_path / "2")
        assert [part.sha256 for part in after] == [part.sha256 for part in before[1:]]
        assert len({part.sha256 for part in before}) == 3

    def test_lists_and_targets(self, tmp_path: Path) -> None:
        values = pyarrow.array([[1.0, 2.0], [3.0], [4.0, None]], pyarrow.list_(pyarrow.float32()))
        table = pyarrow.table({"label": ["x", "y", "x"], "series": values, "machine": [2, 1, 2]})
        parquet.write_table(table, tmp_path / "t.parquet")
        _, second = divide(tmp_path / "t.parquet", "machine", tmp_path / "parts")
        assert second.group == "2"
        assert parquet.read_table(second.path).equals(table.take([0, 2]).drop_columns("machine"))
        (tmp_path / "t.csv").write_text("machine,y_up,y_down,x_1,x_2\n1,0,1,0.5,1e3\n")
        (part,) = divide(tmp_path / "t.csv", "machine", tmp_path / "parts")
        assert {str(kind) for kind in parquet.read_schema(part.path).types} == {"double"}

    def test_text_among_values_fails_with_its_row_and_the_other_groups_do_not(self, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_text("label,machine,v1,v2\nx,a,1,2\ny,b,3,4\nx,b,5,six\nx,b,,7\n")
        good, bad = divide(tmp_path / "t.csv", "machine", tmp_path / "parts")
        assert good.error == ""
        assert bad.error == f"{tmp_path}/t.csv, row 3, column v2 is 'six'; values must be numbers."

    def test_rows_without_a_group_have_no_model(self, tmp_path: Path) -> None:
        parquet.write_table(
            pyarrow.table({"label": ["x"] * 4, "v": [1.0] * 4, "machine": ["a", None, "", None]}),
            tmp_path / "t.parquet",
        )
        parts = divide(tmp_path / "t.parquet", "machine", tmp_path / "parts")
        assert [(part.group, part.rows, bool(part.error)) for part in parts] == [
            ("", 1, False),
            ("a", 1, False),
            ("", 2, True),
        ]
        assert "column machine is empty in 2 rows, first in row 2" in parts[2].error

    @pytest.mark.parametrize(
        ("by", "message"),
        [
            ("machin", "has no column 'machin'; did you mean 'machine'?"),
            ("label", "the column label has the labels; give another one"),
            ("first", "column first has 600 different values; a model for each of at most 599"),
        ],
    )
    def test_a_column_that_cannot_be_used(
        self, by: str, message: str, table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(partition, "MOST_GROUPS", 599)
        table.to_parquet(tmp_path / "t.parquet")
        with pytest.raises(UserError) as raised:
            divide(tmp_path / "t.parquet", by, tmp_path / "parts")
        assert message in str(raised.value)
        assert not (tmp_path / "parts").exists()

    def test_a_missing_header(self, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_text("a,1.5,-2\nb,0.25,3\n")
        with pytest.raises(UserError, match=r"no column 'machine'; it has 'a', '1\.5', '-2'\. Is its header missing\?"):
            divide(tmp_path / "t.csv", "machine", tmp_path / "parts")

    def test_what_is_no_table(self, tmp_path: Path) -> None:
        (tmp_path / "t.parquet").write_bytes(b"PAR1 and nothing else")
        (tmp_path / "t.arrow").write_bytes(b"ARROW1 and nothing else")
        for name in ("t.parquet", "t.arrow"):
            with pytest.raises(UserError, match="cannot be read"):
                divide(tmp_path / name, "machine", tmp_path / "parts")


class TestRecordings:
    @pytest.fixture
    def prepared(self, tmp_path: Path) -> Path:
        steps = np.arange(40)
        frames = [
            pd.DataFrame(
                {
                    "machine": name,
                    "site": site,
                    "when": pd.Timestamp("2025-01-01") + pd.to_timedelta(steps, unit="s"),
                    "x": steps * factor,
                    "state": np.where(steps // 10 % 2 == 0, "run", "stop"),
                }
            )
            for name, site, factor in (("1", "north", 1.0), ("2", "south", -1.0), ("3", "north", 2.0))
        ]
        source = tmp_path / "source.parquet"
        pd.concat(frames).to_parquet(source, index=False)
        prepare(source, tmp_path, id="machine", time="when", label="state", group="site", window=5)
        return tmp_path / "training"

    def test_files_are_prepared_recordings(self, prepared: Path, tmp_path: Path) -> None:
        (whole,) = prepared.glob("*.parquet")
        for by, names in (("group", ["north", "south"]), ("recording", ["1", "2", "3"])):
            parts = divide(prepared, by, tmp_path / by)
            assert [part.group for part in parts] == names
            for part in parts:
                assert read_preparation(part.path) == read_preparation(whole)
                expected: Any = parquet.read_table(whole).to_pandas()
                expected = expected[expected[by] == part.group].reset_index(drop=True)
                found = rows_of(part)
                pd.testing.assert_frame_equal(found, expected, check_categorical=False)
                assert parquet.read_schema(part.path).types == parquet.read_schema(whole).types

    def test_only_whole_recordings(self, prepared: Path, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="can be divided by the column group or recording"):
            divide(prepared, "label", tmp_path / "parts")
        parquet.write_table(pyarrow.table({"recording": ["1"]}), prepared / "other.parquet")
        with pytest.raises(UserError, match="not prepared in the same way"):
            divide(prepared, "group", tmp_path / "parts")


class TestNames:
    def test_ordinary_values_are_the_names(self) -> None:
        groups = ["machine-1", "Köln 3", "0", "a.b", "x=1"]
        assert folder_names(groups) == {group: group for group in groups}

    @pytest.mark.parametrize(
        "group",
        [
            "../up",
            "/root",
            "a/b",
            "",
            ".",
            "..",
            ".hidden",
            "-rf",
            "_x",
            "a.",
            "a ",
            "a\nb",
            "a\0b",
            "x" * 300,
            "report",
        ],
    )
    def test_others_are_part_of_a_name(self, group: str) -> None:
        (name,) = folder_names([group], ["REPORT"]).values()
        assert name != group
        assert name[0].isalnum()
        assert not set(name) & set("/\\\n\0")

    def test_names_that_differ_in_case_only(self) -> None:
        names = folder_names(["a", "A", "b", "é", "e\u0301"])
        assert names["b"] == "b"
        assert len({name.casefold() for name in names.values()}) == 5

    @given(st.lists(st.text(st.characters(codec="utf-8")), unique=True))
    def test_all_names_are_different_and_short_enough(self, groups: list[str]) -> None:
        names = list(folder_names(groups, ["summary.csv"]).values())
        assert len({name.casefold() for name in names}) == len(groups)
        assert all(len(name.encode()) <= 255 and "/" not in name and name not in (".", "..") for name in names)
