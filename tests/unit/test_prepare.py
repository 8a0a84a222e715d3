"""`lstm_fcn.data.prepare`: from tables of recordings to steps with labels."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pytest
from pyarrow import parquet

from lstm_fcn.container.errors import UserError
from lstm_fcn.container.steps import read_preparation
from lstm_fcn.data import Prepared, prepare

START = pd.Timestamp("2025-03-01T00:00:00Z")


def recording(name: str, length: int = 40, start: pd.Timestamp = START) -> pd.DataFrame:
    """A row a second: x counts up, the state changes every ten rows."""
    steps = np.arange(length)
    return pd.DataFrame(
        {
            "machine": name,
            "when": start + pd.to_timedelta(steps, unit="s"),
            "x": steps.astype(float),
            "y": -steps * 0.5,
            "state": np.where(steps // 10 % 2 == 0, "run", "stop"),
        }
    )


TABLE = pd.concat([recording("a"), recording("b", 25)], ignore_index=True)
USUAL: dict[str, Any] = {"id": "machine", "time": "when", "label": "state", "window": 5, "stride": 5}


def run(source: Any, output: Path, **options: Any) -> Prepared:
    return prepare(source, output, **{**USUAL, **options})


def steps(output: Path, part: str = "training") -> pd.DataFrame:
    found: pd.DataFrame = parquet.read_table(output / part / "recordings.parquet").to_pandas()
    return found


class TestSources:
    def test_all_of_them_give_the_same_steps(self, tmp_path: Path) -> None:
        TABLE.to_parquet(tmp_path / "f.parquet", index=False)
        TABLE.to_csv(tmp_path / "f.csv", index=False)
        (tmp_path / "folder").mkdir()
        TABLE[:30].to_parquet(tmp_path / "folder" / "1.parquet", index=False)
        TABLE[30:].to_parquet(tmp_path / "folder" / "2.parquet", index=False)
        arrow = pyarrow.Table.from_pandas(TABLE)
        sources = {
            "parquet": tmp_path / "f.parquet",
            "csv": tmp_path / "f.csv",
            "folder": tmp_path / "folder",
            "files": [tmp_path / "folder" / "1.parquet", tmp_path / "folder" / "2.parquet"],
            "query": f"FROM '{tmp_path}/f.csv' WHERE x >= 0",
            "frame": TABLE,
            "table": arrow,
            "batches": iter(arrow.to_batches(max_chunksize=7)),
        }
        expected = None
        for name, source in sources.items():
            run(source, tmp_path / name)
            found = steps(tmp_path / name)
            expected = found if expected is None else expected
            pd.testing.assert_frame_equal(found, expected)
        assert expected is not None
        assert expected["recording"].tolist() == ["a"] * 40 + ["b"] * 25
        np.testing.assert_array_equal(expected["x"], TABLE["x"])
        assert expected["label"].tolist() == TABLE["state"].tolist()
        assert expected["time"].tolist() == TABLE["when"].tolist()

    def test_rows_are_sorted_and_the_report_says_so(self, tmp_path: Path) -> None:
        prepared = run(TABLE.sample(frac=1, random_state=1), tmp_path / "out")
        run(TABLE, tmp_path / "expected")
        pd.testing.assert_frame_equal(steps(tmp_path / "out"), steps(tmp_path / "expected"))
        (line,) = prepared.findings.lines()
        assert "not in order of time; they are sorted (a, row " in line

    def test_of_rows_at_one_time_the_first_value_counts(self, tmp_path: Path) -> None:
        again = TABLE.iloc[[3, 3]].assign(x=[99.0, 98.0], y=[np.nan, 5.0])
        again.loc[:, "x"] = [99.0, np.nan]
        first = TABLE[:4].assign(y=[0.0, 1.0, 2.0, np.nan])
        prepared = run(pd.concat([first, again, TABLE[4:]]), tmp_path / "out")
        assert prepared.findings.lines() == [
            "2 row(s) are at the time of an earlier one; the first value of each column counts (a, row 5; a, row 6)"
        ]
        found = steps(tmp_path / "out")
        assert len(found) == len(TABLE)
        assert found[["x", "y"]].iloc[3].tolist() == [3.0, 5.0]

    def test_without_id_and_time_rows_are_in_order(self, tmp_path: Path) -> None:
        run(TABLE[["x", "state"]], tmp_path / "out", id=None, time=None)
        found = steps(tmp_path / "out")
        assert found["time"].tolist() == list(range(1, 66))
        assert set(found["recording"]) == {"recording"}

    def test_times_that_are_numbers(self, tmp_path: Path) -> None:
        table = TABLE.assign(when=TABLE["x"] * 1000)
        run(table, tmp_path / "out", unit="ms", every="500ms", window="2s", stride="1s")
        found = steps(tmp_path / "out")
        assert found["time"].tolist()[:3] == [0, 500_000_000, 1_000_000_000]
        assert found["x"].tolist()[:3] == [0.0, 0.5, 1.0]

    def test_times_without_an_offset_in_a_timezone(self, tmp_path: Path) -> None:
        local = TABLE.assign(when=TABLE["when"].dt.tz_convert("Europe/Berlin").dt.tz_localize(None))
        run(local, tmp_path / "out", timezone="Europe/Berlin")
        assert steps(tmp_path / "out")["time"].tolist() == TABLE["when"].tolist()

    def test_values_are_all_other_columns_of_numbers(self, tmp_path: Path) -> None:
        run(TABLE.assign(note="text"), tmp_path / "out")
        found = read_preparation(tmp_path / "out" / "training" / "recordings.parquet")
        assert found is not None
        assert found.values == ("x", "y")


class TestLabels:
    def test_windows_of_each_class_are_counted(self, tmp_path: Path) -> None:
        part = run(TABLE, tmp_path / "out", window=4, stride=1, minimum_share=1).parts["training"]
        # Ten rows of one state hold seven windows, the last five of b two.
        assert part.windows == {"run": 3 * 7 + 7 - 7 + 2, "stop": 3 * 7}
        assert part.unlabelled == 37 + 22 - sum(part.windows.values())

    def test_intervals(self, tmp_path: Path) -> None:
        run(TABLE, tmp_path / "expected")
        starts = [START + pd.Timedelta(seconds=10 * k) for k in range(4)]
        intervals = pd.DataFrame({"machine": "a", "start": starts, "label": ["run", "stop"] * 2})
        intervals = pd.concat([intervals, intervals[:3].assign(machine="b")])
        intervals["end"] = intervals["start"] + pd.Timedelta(seconds=10)
        intervals.to_csv(tmp_path / "intervals.csv", index=False)
        run(TABLE.drop(columns="state"), tmp_path / "out", label=None, intervals=tmp_path / "intervals.csv")
        pd.testing.assert_frame_equal(steps(tmp_path / "out"), steps(tmp_path / "expected"))

    def test_what_lies_between_intervals_has_no_label_or_a_class_of_its_own(self, tmp_path: Path) -> None:
        intervals = pd.DataFrame({"start": [START + pd.Timedelta(seconds=3)], "end": [START + pd.Timedelta(seconds=7)]})
        options = {"id": None, "label": None, "intervals": intervals.assign(label="fault"), "window": 4, "stride": 1}
        table = recording("a", 12).drop(columns="state")
        part = run(table, tmp_path / "out", **options).parts["training"]
        assert (part.windows, part.unlabelled) == ({"fault": 5}, 4)
        labels = steps(tmp_path / "out")["label"]
        assert labels.isna().tolist() == [True] * 3 + [False] * 4 + [True] * 5
        part = run(table, tmp_path / "out", **options, unlabelled="normal").parts["training"]
        assert part.windows == {"fault": 5, "normal": 4}  # of equal shares, the class that was seen first

    def test_the_label_of_the_last_step(self, tmp_path: Path) -> None:
        part = run(recording("a", 20), tmp_path / "out", stride=1, label_by="last", minimum_share=0).parts["training"]
        assert part.windows == {"run": 6, "stop": 10}


class TestParts:
    def test_a_split_in_time_has_no_window_on_both_sides(self, tmp_path: Path) -> None:
        parts = run(TABLE, tmp_path / "out", split_at="2025-03-01T00:00:20").parts
        assert (parts["training"].steps, parts["validation"].steps) == (40, 25)
        training, validation = steps(tmp_path / "out"), steps(tmp_path / "out", "validation")
        assert training["time"].max() < validation["time"].min() == START + pd.Timedelta(seconds=20)

    def test_a_gap_divides_a_recording(self, tmp_path: Path) -> None:
        part = run(TABLE.drop(index=range(5, 12)), tmp_path / "out", max_gap="3s").parts["training"]
        assert (part.recordings, part.pieces) == (2, 3)
        assert steps(tmp_path / "out")["piece"].tolist() == [0] * 5 + [1] * 28 + [0] * 25

    def test_groups(self, tmp_path: Path) -> None:
        run(TABLE.assign(site="north"), tmp_path / "out", group="site")
        assert set(steps(tmp_path / "out")["group"]) == {"north"}

    def test_an_earlier_result_is_replaced(self, tmp_path: Path) -> None:
        run(TABLE, tmp_path / "out", split_at="2025-03-01T00:00:20")
        run(TABLE, tmp_path / "out")
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["training"]
        assert len(steps(tmp_path / "out")) == 65


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"id": "machin"}, r"The table has no column 'machin'; did you mean 'machine'\?"),
        ({}, {"values": ["x", "q"]}, "The table has no column 'q'; it has 'machine', 'when', 'x', 'y', 'state'."),
        ({}, {"values": ["state"]}, "The table, row 1, column state is 'run'; values must be numbers."),
        ({}, {"label": None}, "Labels come from a column"),
        ({}, {"time": None, "every": "1s"}, "every needs a column of times"),
        ({}, {"every": "1 second"}, "every=1 second must be a number and a unit of time"),
        ({}, {"window": "10s"}, "window=10s is a time, which needs a grid"),
        ({}, {"window": "10s", "every": "3s"}, "window=10s is not a whole number of steps of 3s."),
        ({}, {"window": 1}, "window=1 is too short"),
        ({}, {"window": 100}, "A window has 100 steps, but the longest piece of a recording has 40"),
        ({}, {"minimum_share": 2.0}, "minimum_share=2 must be from 0 to 1."),
        ({}, {"split_at": "March"}, "'March' is no time in ISO 8601"),
        ({"state": None}, {}, "No window has a label"),
        ({"machine": [None, *TABLE["machine"][1:]]}, {}, "The table, row 1, column machine is empty."),
        ({"when": [*TABLE["when"][:-1], None]}, {}, "The table, row 65, column when is empty or no time"),
        ({"when": ["soon", *TABLE["when"][1:].astype(str)]}, {}, "The table, row 1, column when is empty or no time"),
        ({"x": [np.inf, *TABLE["x"][1:]]}, {}, "The table, row 1, column x is infinite"),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path: Path, change: dict[str, Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(TABLE.assign(**change), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_text_among_the_numbers_of_csv(tmp_path: Path) -> None:
    text = TABLE.to_csv(index=False).replace(",7.0,", ",seven,", 1)
    (tmp_path / "f.csv").write_text(text)
    with pytest.raises(UserError, match=r"f\.csv, row 8, column x is 'seven'; values must be numbers\."):
        run(tmp_path / "f.csv", tmp_path / "out", values=["x", "y"])


def test_damaged_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "f.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(UserError, match=r"f\.parquet cannot be read: "):
        run(tmp_path / "f.parquet", tmp_path / "out")
    with pytest.raises(UserError, match=r"There is no file or folder .*nowhere"):
        run(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(UserError, match=r"The query cannot be read: .*nothing"):
        run("SELECT * FROM nothing", tmp_path / "out")


@pytest.mark.parametrize(
    ("starts", "ends"), [([0, 5], [6, 9]), ([4], [4]), ([4], [2])], ids=["overlapping", "empty", "backwards"]
)
def test_intervals_that_are_refused(tmp_path: Path, starts: list[int], ends: list[int]) -> None:
    intervals = pd.DataFrame({"start": START + pd.to_timedelta(starts, "s"), "end": START + pd.to_timedelta(ends, "s")})
    with pytest.raises(UserError, match="the intervals of recording overlap, or one does not end after its start"):
        run(TABLE[:40], tmp_path / "out", id=None, label=None, intervals=intervals.assign(label="fault"))


def test_times_that_daylight_saving_time_leaves_out_or_repeats(tmp_path: Path) -> None:
    for moment in ("2025-03-30T02:30", "2025-10-26T02:30"):
        table = TABLE.assign(when=pd.Timestamp(moment) + pd.to_timedelta(TABLE["x"], "s"))
        with pytest.raises(UserError, match="Give times with an offset"):
            run(table, tmp_path / "out", timezone="Europe/Berlin")
