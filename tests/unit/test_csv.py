import contextlib
import io
import re
import signal
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from lstm_fcn.container import csv_blocks, csv_reader
from lstm_fcn.container.csv_header import HEADERLESS, Columns
from lstm_fcn.container.csv_reader import Block, SeriesReader, read_series
from lstm_fcn.container.errors import UserError
from lstm_fcn.container.preprocess import STRICT, Preprocessing

PLAIN = b"a,1,2.5,-3\nb,4e-3,.5,6.\n"
LABELS = ["a", "b"]
SERIES = np.array([[1, 2.5, -3], [4e-3, 0.5, 6]])

finite = st.floats(allow_nan=False, allow_infinity=False, width=64)
tables = npst.arrays(np.float64, npst.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=finite)
# What a CSV file can hold as a label: any text without line breaks that is not blank.
labels = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1).filter(lambda s: s.strip())


def read_labelled(data: bytes, source: str = "f", **settings: Any) -> Block:
    """All rows of a file with labels, as one block."""
    blocks = list(SeriesReader(io.BytesIO(data), source, **settings))
    return Block(
        [row for block in blocks for row in block.rows],
        [label for block in blocks for label in block.labels],
        np.concatenate([block.targets for block in blocks] or [np.empty((0, 0))]),
        np.concatenate([block.series for block in blocks] or [np.empty((0, 1, 2))]),
    )


@pytest.mark.parametrize(
    "data",
    [
        PLAIN,
        PLAIN.replace(b"\n", b"\r\n"),
        PLAIN.replace(b"\n", b"\r"),
        b"\xef\xbb\xbf" + PLAIN,
        PLAIN.rstrip(b"\n"),
        PLAIN + b"\n\n  \n\r\n",
        PLAIN.replace(b"\nb", b"\n\nb"),
        b'"a","1","2.5","-3"\n"b","4e-3",".5","6."\n',
        b"a, 1,2.5 ,-3\nb,4e-3, .5,6.\n",
    ],
)
def test_every_dialect_gives_the_same_rows(data: bytes) -> None:
    parsed = read_labelled(data, "f.csv")
    assert parsed.labels == LABELS
    np.testing.assert_array_equal(parsed.series[:, 0], SERIES)


@given(tables, st.data())
def test_files_written_by_pandas_are_read_exactly(table: NDArray[np.float64], data: st.DataObject) -> None:
    names = data.draw(st.lists(labels, min_size=len(table), max_size=len(table)))
    frame = pd.DataFrame(table)
    frame.insert(0, "label", names)
    parsed = read_labelled(frame.to_csv(header=False, index=False).encode(), "f.csv")
    assert parsed.labels == names
    np.testing.assert_array_equal(parsed.series[:, 0], table)


@given(tables)
def test_requests_are_read_as_pandas_reads_them(table: NDArray[np.float64]) -> None:
    text = pd.DataFrame(table).to_csv(header=False, index=False)
    expected = pd.read_csv(io.StringIO(text), header=None, dtype=np.float64).to_numpy()
    np.testing.assert_array_equal(read_series(text.encode(), "request", table.shape[1])[:, 0, :], expected)


def assert_rows_or_a_user_error(data: bytes) -> None:
    """Whatever the bytes are, a reader returns one finite row for each line that is not blank, or explains itself."""
    lines = sum(not line.isspace() for line in re.split(rb"\r\n|\r|\n", data.removeprefix(b"\xef\xbb\xbf")) if line)
    readers: tuple[Callable[[], NDArray[np.float64]], ...] = (
        lambda: read_labelled(data, "f").series,
        lambda: read_series(data, "f", 2),
    )
    for read in readers:
        message = ""
        try:
            series = read()
        except UserError as error:
            message = str(error)
        if message:
            assert re.match(r"f, row \d+(, column \d+)? \S", message)
        else:
            assert len(series) == lines
            assert np.isfinite(series).all()


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    assert_rows_or_a_user_error(data)


@given(st.text(st.sampled_from(list('019.-+eE,;"\n\r \tanif')), max_size=60))
def test_any_text_that_looks_like_csv(text: str) -> None:
    assert_rows_or_a_user_error(text.encode())


@pytest.mark.parametrize("label", ["1.0", "01", " a", "a ", "NaN", "None", "é", "1e3", "-"])
def test_labels_are_text_exactly_as_written(label: str) -> None:
    assert read_labelled(f"{label},1,2\n".encode(), "f").labels == [label]


def test_an_inch_is_no_quote() -> None:
    assert read_labelled(b'5" pipe,1,2\n', "f").labels == ['5" pipe']


def test_a_quoted_label_may_hold_commas_and_quotes() -> None:
    assert read_labelled(b'"sit, ""still""",1,2\n', "f").labels == ['sit, "still"']


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a,1,2\nb,3\n", "f.csv, row 2 has 1 value, but row 1 has 2 values; all series must have the same length."),
        (b"\n\na,1,2\n\nb,3,4,5\n", "f.csv, row 5 has 3 values, but row 3 has 2 values"),
        (b"a,1,x\n", "f.csv, row 1, column 3 is 'x'; every value must be a finite number."),
        (b"a,1,2\nb,nan,1\n", "f.csv, row 2, column 2 is 'nan'; every value must be a finite number. Set miss"),
        (b"a,1,2\nb,1,-inf\n", "f.csv, row 2, column 3 is '-inf'"),
        (b"a,1,2\nb,1,1e999\n", "f.csv, row 2, column 3 is '1e999', which is too large for a number."),
        (b"a,1,2\nb,,1\n", "f.csv, row 2, column 2 is empty; every value must be a number. Set miss"),
        (b"a,1,2,\n", "f.csv, row 1, column 4 is empty"),
        (b"a,1,2\n,1,2\n", "f.csv, row 2, column 1 has no label"),
        (b"a\nb\n", "f.csv, row 1 has a label and no values."),
        (b"a;1;2\n", "f.csv, row 1 has a label and no values; its cells seem to be separated by semicolons"),
        (b"a\t1\t2\n", "separated by tabs"),
        (b"label,x1,x2\na,1,2\n", "f.csv, row 1, column 1 names 'label'; column names must start with y (targets)"),
        (b"label,t1,t2\na,1,2\n", "f.csv, row 1 looks like a header ('t1,t2')"),
        (b"a,1,2\n\xff\xfe,1,2\n", "f.csv, row 2 is not UTF-8 text"),
        (b"\x1f\x8b\x08\x00", "f.csv, row 1 is not UTF-8 text (a compressed or binary file?)."),
        (b'a,1,2\n"b,1,2\n', "f.csv, row 2 has quotes that do not match."),
        (b'a,1,2\nb,1,"2\n', "f.csv, row 2 has quotes that do not match."),
        (b'"a"x,1,2\n', "f.csv, row 1 has quotes that do not match."),
        (b'a,1,"2,500"\nb,1,2\n', "f.csv, row 1, column 3 is '2,500'; every value must be a finite number."),
        (b"a,1,2\n" * 40000 + b"b,1,\n", "f.csv, row 40001, column 3 is empty"),
    ],
)
def test_messages_name_file_row_column_and_fix(data: bytes, message: str) -> None:
    with pytest.raises(UserError) as caught:
        read_labelled(data, "f.csv")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"1,2\n", "request, row 1 has 2 values, but the model takes series of 3 values."),
        (b"1,2,3\n1,2\n", "request, row 2 has 2 values"),
        (b"a,1,2,3\n", "the model takes series of 3 values; send the values only, without a label."),
        (b'"1,000",2\n', "request, row 1, column 1 is '1,000'; every value must be a finite number."),
        (b"1;2;3\n", "its cells seem to be separated by semicolons instead of commas."),
        (b"1,two,3\n", "request, row 1, column 2 is 'two'"),
        (b"x1,x2,x3\n1,2,3\n", "request, row 1 looks like a header"),
    ],
)
def test_messages_about_requests(data: bytes, message: str) -> None:
    with pytest.raises(UserError) as caught:
        read_series(data, "request", 3)
    assert message in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"\n", b" \r\n\n", b"\xef\xbb\xbf"])
def test_nothing_but_white_space_is_no_series(data: bytes) -> None:
    assert read_series(data, "request", 3).shape == (0, 1, 3)


INTERPOLATE = Preprocessing(missing_values="interpolate")
PAD = Preprocessing(length_policy="pad")
RESAMPLE = Preprocessing(length_policy="resample")
BOTH = Preprocessing(missing_values="interpolate", length_policy="pad")
NAN = np.nan


class TestHeader:
    """Files whose first row names target columns `y…` and value columns `x…`."""

    def test_targets_and_values_are_told_apart_by_their_names(self) -> None:
        reader = SeriesReader(io.BytesIO(b"y1,y2,x1,x2\n0,1,2,3\n1,1,4,5\n"), "f")
        (block,) = reader
        assert reader.columns == Columns(("y1", "y2"), ("x1", "x2"))
        assert (list(block.rows), block.labels) == ([2, 3], [])
        np.testing.assert_array_equal(block.targets, [[0, 1], [1, 1]])
        np.testing.assert_array_equal(block.series[:, 0], [[2, 3], [4, 5]])

    @pytest.mark.parametrize(
        "data",
        [
            b"x1,y1,x2,x3,y2\n1,0,2,3,1\n",
            b"\xef\xbb\xbfx1,y1,x2,x3,y2\r\n1,0,2,3,1\r\n",
            b'\n \n"x1","y1","x2","x3","y2"\n1,"0",2,3,1',
            b" x1 ,y1, x2,x3,y2\n1.0,0.0,2e0,3,1\n",
        ],
    )
    def test_columns_may_come_in_any_order_and_dialect(self, data: bytes) -> None:
        block = read_labelled(data)
        np.testing.assert_array_equal(block.targets, [[0, 1]])
        np.testing.assert_array_equal(block.series[:, 0], [[1, 2, 3]])

    def test_further_files_are_put_in_the_order_of_the_first(self) -> None:
        columns = Columns(("y1", "y2"), ("x1", "x2"))
        block = read_labelled(b"x2,y2,x1,y1\n4,1,3,0\n", columns=columns)
        np.testing.assert_array_equal(block.targets, [[0, 1]])
        np.testing.assert_array_equal(block.series[:, 0], [[3, 4]])

    def test_a_header_that_comes_again_is_skipped(self) -> None:
        block = read_labelled(b"y,x1,x2\n0,1,2\ny,x1,x2\r\n1,3,4\n")
        assert block.rows == [2, 4]
        np.testing.assert_array_equal(block.targets, [[0], [1]])

    def test_a_header_that_comes_again_at_the_start_of_a_block_is_skipped(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(csv_blocks, "BLOCK_BYTES", 16)
        block = read_labelled(b"y,x1,x2\n0,1,2\n" * 5)
        assert block.rows == [2, 4, 6, 8, 10]

    def test_a_header_alone_is_no_row(self) -> None:
        reader = SeriesReader(io.BytesIO(b"y,x1,x2\n\n"), "f")
        assert list(reader) == []
        assert reader.columns == Columns(("y",), ("x1", "x2"))

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"y1,x1,x2\n0,1,2\n2,1,2\n", "f, row 3, column 1 is 2; targets must be 0 or 1."),
            (b"x1,y1,x2\n0,1,2\n2,0.5,2\n", "f, row 3, column 2 is 0.5; targets must be 0 or 1."),
            (b"x1,y1,x2\n0,a,2\n", "f, row 2, column 2 is 'a'; every value must be a finite number."),
            (b"y1,x1,x2\n0,1\n", "f, row 2 has 2 cells, but the header names 3 columns."),
            (b"y1,x1,x2\n0,1,2,3\n", "f, row 2 has 4 cells, but the header names 3 columns."),
            (b"y1,x1,x2\n0,1,\n", "f, row 2, column 3 is empty; every value must be a number."),
            (b"y1,x1,x1\n0,1,2\n", "f, row 1, column 3 names 'x1' twice."),
            (b"y1,x1,x2,y1\n0,1,2,0\n", "f, row 1, column 4 names 'y1' twice."),
            (b"x1,x2\n1,2\n", "f, row 1 is a header without columns of targets (y...)."),
            (b"y1,y2\n1,0\n", "f, row 1 is a header without columns of values (x...)."),
            (b"y1,x1,x2,id\n1,0,2,3\n", "f, row 1, column 4 names 'id'; column names must start with y (t"),
            (b"y1,x1,x2\n0,1,2\ny1,x1,x3\n", "f, row 3, column 1 is 'y1'; every value must be a finite number."),
            (b"0,1,2\ny1,x1,x2\n0,1,2\n", "f, row 2, column 2 is 'x1'; every value must be a finite number."),
        ],
    )
    def test_messages_name_row_column_and_fix(self, data: bytes, message: str) -> None:
        with pytest.raises(UserError) as caught:
            read_labelled(data)
        assert message in str(caught.value)

    @pytest.mark.parametrize("data", [b",y1,x1,x2\n0,1,2,3\n1,0,2,3\n", b"y1,x1,,x2\n0,1,0,3\n"])
    def test_every_column_of_a_header_needs_a_name(self, data: bytes) -> None:
        with pytest.raises(UserError, match="row 1"):
            read_labelled(data)

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"0,1,2\n", "f, row 1 must be the header (y1,x1,x2,...), as in the training data of the model."),
            (b"y1,x1\n0,1\n", "f, row 1 lacks column 'x2'; its header must name y1, x1, x2."),
            (b"y1,x1,x2,x3\n0,1,2,3\n", "f, row 1 has column 'x3'; its header must name y1, x1, x2."),
            (b"x1,x2\n1,2\n", "f, row 1 is a header without columns of targets"),
        ],
    )
    def test_further_files_must_have_the_same_columns(self, data: bytes, message: str) -> None:
        with pytest.raises(UserError) as caught:
            read_labelled(data, columns=Columns(("y1",), ("x1", "x2")))
        assert message in str(caught.value)

    def test_after_a_file_without_header_none_is_expected(self) -> None:
        with pytest.raises(
            UserError, match=r"f, row 1 looks like a header \('x1,x2'\), but the data has none; remove this row"
        ):
            read_labelled(b"y1,x1,x2\n0,1,2\n", columns=HEADERLESS)

    @pytest.mark.parametrize(
        "data", [b"x1,x2\n1,2\n3,4\n", b"x2,x1\n2,1\n4,3", b'"x2", "x1"\n2,1\n4,3'.replace(b" ", b"")]
    )
    def test_requests_name_the_columns_of_the_series(self, data: bytes) -> None:
        found = read_series(data, "request", 2, Columns(series=("x1", "x2")))
        np.testing.assert_array_equal(found, [[[1, 2]], [[3, 4]]])

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"1,2\n", "request, row 1 must be the header (x1,x2,...), as in the training data of the model."),
            (b"x1\n1\n", "request, row 1 lacks column 'x2'; its header must name x1, x2."),
            (b"y1,x1,x2\n0,1,2\n", "request, row 1 has column 'y1'; its header must name x1, x2."),
            (b"a,b\n1,2\n", "request, row 1 looks like a header ('a,b'); column names must start with y"),
            (b"x1,x2\n1,2,3\n", "request, row 2 has 3 cells, but the header names 2 columns."),
        ],
    )
    def test_messages_about_requests(self, data: bytes, message: str) -> None:
        with pytest.raises(UserError) as caught:
            read_series(data, "request", 2, Columns(series=("x1", "x2")))
        assert message in str(caught.value)

    @pytest.mark.parametrize("data", [b"", b"\n", b"x1,x2\n", b"\r\nx2,x1\r\n\r\n"])
    def test_a_request_of_a_header_alone_has_no_series(self, data: bytes) -> None:
        assert read_series(data, "request", 2, Columns(series=("x1", "x2"))).shape == (0, 1, 2)


class TestMissingValues:
    """Cells that are empty or NaN, and rows of different length, where the settings allow them."""

    @pytest.mark.parametrize("cell", ["", " ", "nan", "NaN", "NA", "n/a", "N/A", "null", "NULL", "None", " nan "])
    @pytest.mark.parametrize("rules", [INTERPOLATE, BOTH])
    def test_spellings(self, cell: str, rules: Preprocessing) -> None:
        block = read_labelled(f"a,{cell},1,{cell},2\n".encode(), preprocessing=rules)
        np.testing.assert_array_equal(block.series[:, 0], [[NAN, 1, NAN, 2]])

    @pytest.mark.parametrize("rules", [STRICT, INTERPOLATE, PAD, RESAMPLE, BOTH])
    @pytest.mark.parametrize("cell", ["-", "missing", "inf", "nan0", "1 2", "?"])
    def test_other_words_are_no_values(self, cell: str, rules: Preprocessing) -> None:
        with pytest.raises(UserError, match=r"f, row 2, column 3 is '.*'; every value must be a finite number"):
            read_labelled(f"a,1,2\nb,1,{cell}\n".encode(), preprocessing=rules)

    @pytest.mark.parametrize("rules", [PAD, RESAMPLE])
    def test_shorter_rows_end_with_nan(self, rules: Preprocessing) -> None:
        block = read_labelled(b"a,1,2,3\nb,4\nc,5,6,\n", preprocessing=rules)
        np.testing.assert_array_equal(block.series[:, 0], [[1, 2, 3], [4, NAN, NAN], [5, 6, NAN]])

    @pytest.mark.parametrize(
        ("rules", "data", "message"),
        [
            (
                INTERPOLATE,
                b"a,1,2\nb,1\n",
                "f, row 2 has 1 value, but row 1 has 2 values; all series must have the same",
            ),
            (INTERPOLATE, b"a,1,2\nb,,nan\n", "f, row 2 has no values, only missing ones."),
            (PAD, b"a,1,2\nb,,\n", "f, row 2 has no values, only missing ones."),
            (PAD, b"a,1,2,3\nb,1,,2\n", "f, row 2, column 3 is missing, with values after it; missing-values=interp"),
            (RESAMPLE, b"a,,2,3\n", "f, row 1, column 2 is missing, with values after it"),
            (PAD, b"y,x1,x2,x3\n0,1,,2\n", "f, row 2, column 3 is missing, with values after it"),
            (INTERPOLATE, b"y,x1,x2\n,1,2\n", "f, row 2, column 1 is missing; targets must be 0 or 1."),
            (BOTH, b"a,1,2\nb,1,1e999\n", "f, row 2, column 3 is '1e999', which is too large for a number."),
        ],
    )
    def test_messages(self, rules: Preprocessing, data: bytes, message: str) -> None:
        with pytest.raises(UserError) as caught:
            read_labelled(data, preprocessing=rules)
        assert message in str(caught.value)

    @pytest.mark.parametrize(
        ("rules", "data", "expected"),
        [
            (INTERPOLATE, b"1,,3\n,2,\n", [[1, 2, 3], [2, 2, 2]]),
            (PAD, b"1\n1,2\n1,2,3\n", [[1, 1, 1], [1, 2, 2], [1, 2, 3]]),
            (BOTH, b"1,nan,3\n,1\n", [[1, 2, 3], [1, 1, 1]]),
            (RESAMPLE, b"1,5\n1,2,3,4,5\n7\n", [[1, 3, 5], [1, 3, 5], [7, 7, 7]]),
        ],
    )
    def test_requests_are_completed(self, rules: Preprocessing, data: bytes, expected: list[list[float]]) -> None:
        found = read_series(data, "request", 3, preprocessing=rules)
        np.testing.assert_array_equal(found[:, 0], expected)

    def test_requests_that_are_too_long_to_pad_are_refused(self) -> None:
        with pytest.raises(UserError, match="row 2 has 4 values, but the model takes series of up to 3 values"):
            read_series(b"1,2\n1,2,3,4\n", "request", 3, preprocessing=PAD)

    def test_a_single_missing_value_is_no_blank_line(self) -> None:
        with pytest.raises(UserError, match="request, row 2 has no values, only missing ones"):
            read_series(b"1\nnan\n", "request", 1, preprocessing=INTERPOLATE)


class TestVariables:
    """Series of several variables: all values of the first one, then those of the next."""

    TEXT = b"a,1,2,3,4,5,6\nb,7,8,9,10,11,12\n"
    SERIES = np.arange(1.0, 13).reshape(2, 3, 2)

    @pytest.mark.parametrize("text", [TEXT, TEXT.replace(b"9", b'"9"'), TEXT.replace(b"\n", b"\r\n")])
    @pytest.mark.parametrize("rules", [STRICT, BOTH])
    def test_values_stand_variable_by_variable(self, text: bytes, rules: Preprocessing) -> None:
        block = read_labelled(text, variables=3, preprocessing=rules)
        assert block.labels == ["a", "b"]
        np.testing.assert_array_equal(block.series, self.SERIES)

    @pytest.mark.parametrize(
        ("header", "columns"),
        [
            ("y,x_b_1,x_b_2,x_a_1,x_a_2", ("x_b_1", "x_b_2", "x_a_1", "x_a_2")),
            ("x_b_1,x_a_1,y,x_b_2,x_a_2", ("x_b_1", "x_b_2", "x_a_1", "x_a_2")),
            ("x_a_2,x_b_2,x_a_1,x_b_1,y", ("x_a_1", "x_a_2", "x_b_1", "x_b_2")),
            ("X_b_10,x_a_10,x_b_9,x_a_9,y", ("x_b_9", "X_b_10", "x_a_9", "x_a_10")),
            ("x_b_lag_02,x_a_0,x_a_2,x_b_lag_0,y", ("x_b_lag_0", "x_b_lag_02", "x_a_0", "x_a_2")),
            ("x___1,x_1_1,y", ("x___1", "x_1_1")),
        ],
    )
    def test_a_header_tells_variables_and_their_steps_in_any_order(self, header: str, columns: tuple[str, ...]) -> None:
        names = header.split(",")
        row = ["1" if name == "y" else str(10 + columns.index(name)) for name in names]
        reader = SeriesReader(io.BytesIO(f"{header}\n{','.join(row)}\n".encode()), "f")
        (block,) = reader
        assert (reader.columns, reader.variables) == (Columns(("y",), columns, 2), 2)
        np.testing.assert_array_equal(block.targets, [[1]])
        np.testing.assert_array_equal(block.series, 10 + np.arange(len(columns)).reshape(1, 2, -1))

    @pytest.mark.parametrize(
        "header", ["y,x_lag_2,x_lag_1", "y,x2,x1", "y,x_2,x_1", "y,x_a_1,xb", "y,x_a_1,x_b_c", "y,x_a_1,x_a_01"]
    )
    def test_other_names_are_one_variable_in_the_order_given(self, header: str) -> None:
        reader = SeriesReader(io.BytesIO(f"{header}\n1,2,3\n".encode()), "f")
        (block,) = reader
        assert (reader.columns, reader.variables) == (Columns(("y",), tuple(header.split(",")[1:])), 1)
        np.testing.assert_array_equal(block.series, [[[2, 3]]])

    def test_a_number_too_long_for_a_step_is_none(self) -> None:
        header = f"y,x_a_{'1' * 5000},x_b_{'1' * 5000}\n"
        assert read_labelled(f"{header}0,1,2\n".encode()).series.shape == (1, 1, 2)

    def test_further_files_are_put_in_the_order_of_the_first(self) -> None:
        columns = Columns(("y",), ("x_b_1", "x_b_2", "x_a_1", "x_a_2"), 2)
        block = read_labelled(b"x_a_2,x_a_1,x_b_2,x_b_1,y\n4,3,2,1,0\n", columns=columns)
        np.testing.assert_array_equal(block.series, [[[1, 2], [3, 4]]])

    def test_requests(self) -> None:
        np.testing.assert_array_equal(read_series(b"1,2,3,4,5,6\n7,8,9,10,11,12", "r", 2, variables=3), self.SERIES)
        columns = Columns(series=("x_b_1", "x_b_2", "x_a_1", "x_a_2"), variables=2)
        text = b"x_a_1,x_b_1,x_a_2,x_b_2\n3,1,4,2\n"
        np.testing.assert_array_equal(read_series(text, "r", 2, columns, variables=2), [[[1, 2], [3, 4]]])
        assert read_series(b"\n", "r", 2, variables=3).shape == (0, 3, 2)

    @pytest.mark.parametrize("block_bytes", [1, 7, 16, 100])
    @pytest.mark.parametrize("header", ["", "y,x_a_1,x_b_1,x_c_1,x_a_2,x_b_2,x_c_2\n"])
    def test_blocks_may_end_anywhere(self, header: str, block_bytes: int) -> None:
        table = np.arange(120.0).reshape(20, 6)
        text = header + "".join(f"{k % 2},{','.join(map(str, row))}\n" for k, row in enumerate(table.tolist()))
        found = read_labelled(text.encode(), variables=3, block_bytes=block_bytes)
        expected = table.reshape(20, 2, 3).transpose(0, 2, 1) if header else table.reshape(20, 3, 2)
        assert found.rows == list(range(1 + bool(header), 21 + bool(header)))
        np.testing.assert_array_equal(found.series, expected)

    @pytest.mark.parametrize(
        ("rules", "reader", "data", "message"),
        [
            (
                STRICT,
                {"variables": 3},
                b"a,1,2,3,4\n",
                "f, row 1 has 4 values, which cannot be divided among 3 variables (num-variables); a row must hold "
                "all values of the first variable, then all values of the next.",
            ),
            (STRICT, {"variables": 2}, b"a,1,2\nb,1,2,3\n", "f, row 2 has 3 values, which cannot be divided among 2"),
            (STRICT, {"variables": 2}, b"a,1,2\nb,1,2,3,4\n", "f, row 2 has 4 values, but row 1 has 2 values; all se"),
            (PAD, {"variables": 2}, b"a,1,2,3,4\nb,1,2,3\n", "f, row 2 has 3 values, which cannot be divided among 2"),
            (
                PAD,
                {"variables": 2, "length": 2},
                b"a,1,2\nb,1,2,3,4,5,6\n",
                "f, row 2 has 6 values, but the model takes series of 2 variables with up to 2 values each.",
            ),
            (RESAMPLE, {"variables": 2, "length": 2}, b"a,1,2,3,4,5,6\nb,1\n", "f, row 2 has 1 value, which cannot be"),
            (
                STRICT,
                {},
                b"y,x_a_1,x_a_2,x_b_1\n0,1,2,3\n",
                "f, row 1 names other time steps for variable 'b' than for 'a'.",
            ),
            (STRICT, {}, b"y,x_a_1,x_b_2\n0,1,2\n", "f, row 1 names other time steps for variable 'b' than for 'a'."),
            (STRICT, {}, b"y,x_a_1,x_b_1,X_b_01,x_a_01\n0,1,2,3,4\n", "f, row 1 names 'x_a_1' twice, in two spellings"),
            (
                STRICT,
                {"variables": 3},
                b"y,x_a_1,x_b_1\n0,1,2\n",
                "f, row 1 names columns of 2 variables, but num-variables is 3; leave num-variables out.",
            ),
            (
                STRICT,
                {"variables": 1},
                b"y,x_a_1,x_b_1\n0,1,2\n",
                "f, row 1 names columns of 2 variables, but num-variables is 1; leave num-variables out.",
            ),
            (
                STRICT,
                {"variables": 2},
                b"y,x1,x2\n0,1,2\n",
                "f, row 1 names columns of 1 variable, but num-variables is 2; name them x_<variable>_<step>.",
            ),
            (STRICT, {}, b"y,x_a_1,x_b_1\n0,1\n", "f, row 2 has 2 cells, but the header names 3 columns."),
            (STRICT, {}, b"x_a_1,y,x_b_1\n0,1,two\n", "f, row 2, column 3 is 'two'; every value must be a finite num"),
            (STRICT, {"variables": 2}, b"a,1,2,3,\n", "f, row 1, column 5 is empty; every value must be a number."),
            (INTERPOLATE, {"variables": 2}, b"a,1,2,,\n", "f, row 1 has no values of variable 2, only missing ones."),
            (BOTH, {"variables": 2}, b"a,1,2\nb,,,3,4\n", "f, row 2 has no values of variable 1, only missing ones."),
            (PAD, {}, b"y,x_a_1,x_b_1\n0,1,\n", "f, row 2 has no values of variable 2, only missing ones."),
            (
                PAD,
                {"variables": 2},
                b"a,1,2,3,4,5,6\nb,1,2,3,\n",
                "f, row 2 lacks value 2 of variable 2: it is missing, with values beside it or after it; "
                "missing-values=interpolate fills it.",
            ),
            (
                RESAMPLE,
                {},
                b"y,x_a_1,x_b_1,x_a_2,x_b_2,x_a_3,x_b_3\n0,1,2,3,,5,6\n",
                "f, row 2, column 5 is missing, with values beside it or after it; missing-values=interpolate fills",
            ),
        ],
    )
    def test_messages(self, rules: Preprocessing, reader: dict[str, Any], data: bytes, message: str) -> None:
        with pytest.raises(UserError) as caught:
            read_labelled(data, preprocessing=rules, **reader)
        assert message in str(caught.value)

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"1,2,3\n", "r, row 1 has 3 values, but the model takes series of 2 variables with 2 values each."),
            (b"a,1,2,3,4\n", "with 2 values each; send the values only, without a label."),
            (b"1,2,3,4\n1,2\n", "r, row 2 has 2 values"),
        ],
    )
    def test_messages_about_requests(self, data: bytes, message: str) -> None:
        with pytest.raises(UserError) as caught:
            read_series(data, "r", 2, variables=2)
        assert message in str(caught.value)

    @pytest.mark.parametrize("rules", [PAD, RESAMPLE, BOTH])
    def test_each_variable_of_a_shorter_row_ends_with_nan(self, rules: Preprocessing) -> None:
        block = read_labelled(b"a,1,2,3,4,5,6\nb,7,8\nc,1,2,,3,4,\n", variables=2, preprocessing=rules)
        expected = [[[1, 2, 3], [4, 5, 6]], [[7, NAN, NAN], [8, NAN, NAN]], [[1, 2, NAN], [3, 4, NAN]]]
        np.testing.assert_array_equal(block.series, expected)

    def test_a_value_missing_in_one_variable_is_between_its_neighbours(self) -> None:
        found = read_series(b"1,,3,4,5,6\n,2,3,4,5,\n", "r", 3, preprocessing=INTERPOLATE, variables=2)
        np.testing.assert_array_equal(found, [[[1, 2, 3], [4, 5, 6]], [[2, 2, 3], [4, 5, 5]]])

    @pytest.mark.parametrize(
        ("rules", "expected"),
        [(PAD, [[1, 3, 3, 3], [7, 1, 1, 1]]), (RESAMPLE, [[1, 5 / 3, 7 / 3, 3], [7, 5, 3, 1]])],
    )
    def test_shorter_series_of_requests_are_completed(self, rules: Preprocessing, expected: list[list[float]]) -> None:
        for data in (b"1,3,7,1", b"1,3,,,7,1,,", b'"1",3,7,1'):
            found = read_series(data, "r", 4, preprocessing=rules, variables=2)
            np.testing.assert_allclose(found, [expected], rtol=1e-15)


shapes = npst.array_shapes(min_dims=3, max_dims=3, max_side=5)


@given(npst.arrays(np.float64, shapes, elements=finite), st.sampled_from([STRICT, INTERPOLATE, PAD, BOTH]), st.data())
def test_several_variables_are_one_long_one_cut_in_pieces(
    series: NDArray[np.float64], rules: Preprocessing, data: st.DataObject
) -> None:
    rows, variables, steps = series.shape
    text = pd.DataFrame(series.reshape(rows, -1)).to_csv(header=False, index=False).encode()
    one = read_series(text, "r", variables * steps, preprocessing=rules)
    several = read_series(text, "r", steps, preprocessing=rules, variables=variables)
    np.testing.assert_array_equal(several, series)
    np.testing.assert_array_equal(several.reshape(one.shape), one)
    if variables > 1:
        names = [f"x_{'abcde'[m]}_{t}" for m in range(variables) for t in range(steps)]
        order = data.draw(st.permutations(range(len(names))))
        frame = pd.DataFrame(series.reshape(rows, -1)[:, order], columns=[names[k] for k in order])
        frame.insert(0, "y", 1)
        reader = SeriesReader(io.BytesIO(frame.to_csv(index=False).encode()), "f", preprocessing=rules)
        (block,) = reader
        assert reader.columns is not None
        found = [names.index(name) for name in reader.columns.series]
        np.testing.assert_array_equal(block.series.reshape(rows, -1), series.reshape(rows, -1)[:, found])
        np.testing.assert_array_equal(np.array(found).reshape(variables, steps) % steps, [range(steps)] * variables)
        assert all(len(set(row // steps)) == 1 for row in np.array(found).reshape(variables, steps))


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=6),
    st.integers(1, 3),
    st.booleans(),
    st.sampled_from([8, 16, csv_blocks.BLOCK_BYTES]),
)
def test_rows_that_end_early_and_rows_that_are_filled_up_are_the_same_series(
    lengths: list[int], variables: int, quoted: bool, block_bytes: int
) -> None:
    def write(fill: int) -> bytes:
        lines = []
        for row, length in enumerate(lengths):
            parts = [[f"{row}{m}{t}" for t in range(length)] + [""] * fill * (5 - length) for m in range(variables)]
            lines.append(",".join(cell for part in parts for cell in part))
        lines[0] = f'"{lines[0].replace(",", chr(34) + "," + chr(34))}"' if quoted else lines[0]
        return "\n".join(lines).encode()

    with patch.object(csv_blocks, "BLOCK_BYTES", block_bytes):
        short, filled = (read_series(write(k), "r", 5, preprocessing=PAD, variables=variables) for k in (0, 1))
    np.testing.assert_array_equal(short, filled)
    assert short[:, :, 0].tolist() == [[float(f"{row}{m}0") for m in range(variables)] for row in range(len(lengths))]
    assert short[:, :, -1].tolist() == [
        [float(f"{row}{m}{length - 1}") for m in range(variables)] for row, length in enumerate(lengths)
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((1, 1, STRICT), "series of 1 value"),
        ((3, 1, PAD), "series of up to 3 values"),
        ((3, 2, STRICT), "series of 2 variables with 3 values each"),
        ((1, 2, RESAMPLE), "series of 2 variables with up to 1 value each"),
    ],
)
def test_lengths_in_words(arguments: tuple[int, int, Preprocessing], words: str) -> None:
    assert csv_reader.describe_length(*arguments) == words


def outcome(data: bytes, careful: bool, reader: dict[str, Any], block_bytes: int) -> tuple[str, Block | None]:
    """What a reader says, by the careful parser alone or as it is."""
    parse = (lambda *_: None) if careful else csv_blocks.parse_plain
    with patch.object(csv_reader, "parse_plain", parse), patch.object(csv_blocks, "BLOCK_BYTES", block_bytes):
        try:
            blocks = list(SeriesReader(io.BytesIO(data), "f", **reader))
        except UserError as error:
            return str(error), None
    if not blocks:
        return "", None
    width = max(block.series.shape[2] for block in blocks)
    return "", Block(
        [row for block in blocks for row in block.rows],
        [label for block in blocks for label in block.labels],
        np.concatenate([block.targets for block in blocks]),
        np.concatenate(
            [np.pad(b.series, ((0, 0), (0, 0), (0, width - b.series.shape[2])), constant_values=NAN) for b in blocks]
        ),
    )


def assert_both_parsers_agree(data: bytes, reader: dict[str, Any], block_bytes: int = csv_blocks.BLOCK_BYTES) -> None:
    (error, fast), (expected_error, careful) = (outcome(data, way, reader, block_bytes) for way in (False, True))
    assert error == expected_error
    assert (fast is None) == (careful is None)
    if fast and careful:
        assert (fast.rows, fast.labels) == (careful.rows, careful.labels)
        np.testing.assert_array_equal(fast.targets, careful.targets)
        np.testing.assert_array_equal(fast.series, careful.series)


numbers = st.sampled_from(["0", "1", "2.5", "-3", "4e-3", ".5", "6.", "+1", "01", " 7 ", "1e400", "1e-400", "-0"])
odd_cells = st.sampled_from(
    ["", "nan", "x", '"1"', "1;2", "\t", "\u00a0", "\x1f", "é", "1 2", "[1]", "[]", "{}", "true", "null", "1_0", "0x1"]
)
odd_lines = st.one_of(
    st.sampled_from(["", " ", "y1,x1,x2", "x1,x2", '"a",1,2', "[a,1,2", "0,1,2", "1,2", "a,1,2,3", "1"]),
    st.lists(st.one_of(numbers, odd_cells), min_size=1, max_size=4).map(",".join),
)
KINDS: list[tuple[str, str, dict[str, Any]]] = [
    ("", "a,", {}),
    ("", "é,", {"length": 2}),
    ("", "[,", {"columns": HEADERLESS}),
    ("y1,x1,x2", "1,", {}),
    ("x1,y1,x2", "0,1,", {"columns": Columns(("y1",), ("x1", "x2"))}),
    ("", "", {"labelled": False, "columns": HEADERLESS, "length": 2}),
    ("x2,x1", "", {"labelled": False, "columns": Columns((), ("x1", "x2")), "length": 2}),
    ("", "a,", {"variables": 2}),
    ("", "", {"labelled": False, "columns": HEADERLESS, "length": 2, "variables": 2}),
    ("y,x_a_1,x_b_1,x_b_2,x_a_2", "1,", {}),
    ("x_b_1,x_a_1", "", {"labelled": False, "columns": Columns((), ("x_a_1", "x_b_1"), 2), "length": 1}),
]


@st.composite
def texts_and_readers(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A table that makes sense or nearly so, for what is rare in random text are whole tables; and how it is read."""
    header, start, settings = draw(st.sampled_from(KINDS))
    width = header.count(",") + 1 - start.count(",") if header else 2
    plain = numbers.filter(lambda cell: cell != "1e400")
    rows = draw(st.lists(st.lists(plain, min_size=width, max_size=width), max_size=6))
    lines = [header] * bool(header) + [start + ",".join(row) for row in rows]
    for odd in draw(st.lists(odd_lines, max_size=1)):
        lines.insert(draw(st.integers(0, len(lines))), odd)
    rules = draw(st.sampled_from([STRICT, INTERPOLATE, PAD, RESAMPLE, BOTH]))
    return draw(st.sampled_from(["\n", "\r\n", "\r"])).join([*lines, ""]), {"preprocessing": rules, **settings}


@settings(max_examples=300)
@given(texts_and_readers(), st.sampled_from([8, 16, csv_blocks.BLOCK_BYTES]))
def test_the_fast_parser_and_the_careful_one_agree(case: tuple[str, dict[str, Any]], block_bytes: int) -> None:
    text, reader = case
    assert_both_parsers_agree(text.encode(), reader, block_bytes)


rules_and_kinds = st.builds(
    lambda rules, kind: {"preprocessing": rules, **kind[2]},
    st.sampled_from([STRICT, INTERPOLATE, PAD, RESAMPLE, BOTH]),
    st.sampled_from(KINDS),
)


@given(st.text(st.sampled_from(list('019.-+eE,;"\n\r \txyanif')), max_size=60), rules_and_kinds)
def test_both_parsers_agree_on_any_text_that_looks_like_csv(text: str, reader: dict[str, Any]) -> None:
    assert_both_parsers_agree(text.encode(), reader)


@given(st.binary(max_size=100), rules_and_kinds)
def test_both_parsers_agree_on_any_bytes(data: bytes, reader: dict[str, Any]) -> None:
    assert_both_parsers_agree(data, reader)


@pytest.mark.parametrize("label", ["\u00a0", "\u3000", "\x1f", "\v", " ", ""])
def test_a_label_of_white_space_is_none_for_either_parser(label: str) -> None:
    data = f"a,1,2\n{label},1,2\n".encode()
    assert_both_parsers_agree(data, {})
    with pytest.raises(UserError, match="f, row 2, column 1 has no label: its first column is empty"):
        read_labelled(data)


@given(tables, st.data())
def test_plain_tables_take_the_fast_way_and_are_exact(table: NDArray[np.float64], data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(["a", "é", "1.0", " b"]), min_size=len(table), max_size=len(table)))
    text = "".join(f"{name},{','.join(map(repr, row))}\n" for name, row in zip(names, table.tolist(), strict=True))
    with patch.object(SeriesReader, "_parse_lines", side_effect=AssertionError):
        found = read_labelled(text.encode())
    assert found.labels == names
    np.testing.assert_array_equal(found.series[:, 0], table)


@pytest.mark.parametrize("header", ["", "y1,x1,x2\n"])
@pytest.mark.parametrize("odd", ["", '1,"2",3\n', "\n\n"])
def test_texts_larger_than_a_block_give_the_same_rows(monkeypatch: pytest.MonkeyPatch, header: str, odd: str) -> None:
    monkeypatch.setattr(csv_blocks, "BLOCK_BYTES", 64 * 1024)
    rows = [f"{k % 2},{k}.5,{k}" for k in range(20_000)]
    text = header + "".join(f"{row}\n{odd if k == 10_000 else ''}" for k, row in enumerate(rows))
    assert len(text) > 3 * csv_blocks.BLOCK_BYTES
    assert_both_parsers_agree(text.encode(), {}, csv_blocks.BLOCK_BYTES)
    blocks = list(SeriesReader(io.BytesIO(text.encode()), "f"))
    assert len(blocks) > 3
    numbers = [row for block in blocks for row in block.rows]
    lines_of_text = text.split("\n")
    assert numbers == [number for number, line in enumerate(lines_of_text, 1) if line and line != header.strip()]
    found = np.concatenate([block.series for block in blocks])[:, 0]
    np.testing.assert_array_equal(found[[0, -1]], [[0.5, 0], [19_999.5, 19_999]])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("block_bytes", [1, 2, 3, 5, 7, 64])
def test_blocks_may_end_anywhere(monkeypatch: pytest.MonkeyPatch, end: str, block_bytes: int) -> None:
    monkeypatch.setattr(csv_blocks, "BLOCK_BYTES", block_bytes)
    text = end.join(["é,1,2", '"b, c",3,4', "", "d,5,6"])
    block = read_labelled(text.encode())
    assert (block.rows, block.labels) == ([1, 2, 4], ["é", "b, c", "d"])
    np.testing.assert_array_equal(block.series[:, 0], [[1, 2], [3, 4], [5, 6]])


def test_a_byte_order_mark_is_skipped_in_a_line_longer_than_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_blocks, "BLOCK_BYTES", 4)
    assert read_labelled(b"\xef\xbb\xbfabcdef,1,2\n").labels == ["abcdef"]


def test_a_line_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_blocks, "BLOCK_BYTES", 1024)
    monkeypatch.setattr(csv_blocks, "LONGEST_LINE", 1024 * 1024)
    with pytest.raises(UserError, match="f, row 2 is longer than 1 MiB; is it CSV text"):
        read_labelled(b"a,1,2\n" + b"0" * (1024 * 1024 + 2048))


def test_all_blocks_must_have_one_width() -> None:
    with pytest.raises(UserError, match="f, row 40001 has 3 values, but row 1 has 2 values"):
        read_labelled(b"a,1,2\n" * 40000 + b"b,1,2,3\n")


@pytest.mark.parametrize("separator", [";", "\t", " "])
def test_wrong_separators_are_named_however_long_the_row(separator: str) -> None:
    row = separator.join(["a", *["1.5"] * 50_000])
    with pytest.raises(UserError, match=r"f, row 1 has a label and no values; its cells seem to be separated by"):
        read_labelled(row.encode())


@pytest.mark.parametrize(
    ("data", "rules"),
    [
        (b"1" * 200_000 + b"x,2\n", STRICT),
        (b"1," + b" " * 200_000 + b"x\n", STRICT),
        (b"1," + b" " * 200_000 + b"x\n", INTERPOLATE),
        (b"1," + b" " * 200_000 + b"2\n1,\n", INTERPOLATE),
    ],
)
def test_a_hostile_cell_does_not_hold_up_the_server(data: bytes, rules: Preprocessing) -> None:
    read_in_time(data, rules)


@pytest.mark.parametrize("name", ["x{}", "x_{}_1", "x_a_{}"])
def test_a_hostile_header_does_not_hold_up_the_server(name: str) -> None:
    names = [name.format(k) for k in range(40_000)]
    read_in_time(",".join(names).encode(), STRICT, Columns(series=tuple(names[:20_000])))
    read_in_time("\n".join([",".join(names[::-1]), ",".join("1" * 40_000)]).encode(), STRICT, Columns((), tuple(names)))


def read_in_time(data: bytes, rules: Preprocessing, columns: Columns = HEADERLESS) -> None:
    def give_up(*_: object) -> None:
        raise AssertionError("a single cell takes seconds")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(5)  # without backtracking it takes no time at all
    try:
        with contextlib.suppress(UserError):
            read_series(data, "request", 2, columns, rules)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
