import csv
import io
import re
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from container.codec import read_labelled_series, read_series, write_labels
from container.errors import UserError

PLAIN = b"a,1,2.5,-3\nb,4e-3,.5,6.\n"
LABELS = ["a", "b"]
SERIES = np.array([[[1, 2.5, -3]], [[4e-3, 0.5, 6]]])

finite = st.floats(allow_nan=False, allow_infinity=False, width=64)
tables = npst.arrays(np.float64, npst.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=finite)
# What a CSV file can hold as a label: any text without line breaks that is not blank.
labels = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1).filter(lambda s: s.strip())


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
    parsed = read_labelled_series(data, "f.csv")
    assert parsed.labels == LABELS
    np.testing.assert_array_equal(parsed.series, SERIES)


@given(tables, st.data())
def test_files_written_by_pandas_are_read_exactly(table: NDArray[np.float64], data: st.DataObject) -> None:
    names = data.draw(st.lists(labels, min_size=len(table), max_size=len(table)))
    frame = pd.DataFrame(table)
    frame.insert(0, "label", names)
    parsed = read_labelled_series(frame.to_csv(header=False, index=False).encode(), "f.csv")
    assert parsed.labels == names
    np.testing.assert_array_equal(parsed.series[:, 0, :], table)


@given(tables)
def test_requests_are_read_as_pandas_reads_them(table: NDArray[np.float64]) -> None:
    text = pd.DataFrame(table).to_csv(header=False, index=False)
    expected = pd.read_csv(io.StringIO(text), header=None, dtype=np.float64).to_numpy()
    np.testing.assert_array_equal(read_series(text.encode(), "request", table.shape[1])[:, 0, :], expected)


@given(st.lists(labels, min_size=1))
def test_labels_survive_writing(names: list[str]) -> None:
    text = write_labels(names)
    assert [row[0] for row in csv.reader(io.StringIO(text, newline=""))] == names
    assert text.endswith("\n")


def assert_rows_or_a_user_error(data: bytes) -> None:
    """Whatever the bytes are, a reader returns one finite row for each line that is not blank, or explains itself."""
    lines = sum(not line.isspace() for line in re.split(rb"\r\n|\r|\n", data.removeprefix(b"\xef\xbb\xbf")) if line)
    readers: tuple[Callable[[], NDArray[np.float64]], ...] = (
        lambda: read_labelled_series(data, "f").series,
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
    assert read_labelled_series(f"{label},1,2\n".encode(), "f").labels == [label]


def test_an_inch_is_no_quote() -> None:
    assert read_labelled_series(b'5" pipe,1,2\n', "f").labels == ['5" pipe']


def test_a_quoted_label_may_hold_commas_and_quotes() -> None:
    assert read_labelled_series(b'"sit, ""still""",1,2\n', "f").labels == ['sit, "still"']


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a,1,2\nb,3\n", "f.csv, row 2 has 1 value, but row 1 has 2 values; all series must be of one length."),
        (b"\n\na,1,2\n\nb,3,4,5\n", "f.csv, row 5 has 3 values, but row 3 has 2 values"),
        (b"a,1,x\n", "f.csv, row 1, column 3 is 'x'; every value must be a finite number."),
        (b"a,1,2\nb,nan,1\n", "f.csv, row 2, column 2 is 'nan'; every value must be a finite number."),
        (b"a,1,2\nb,1,-inf\n", "f.csv, row 2, column 3 is '-inf'"),
        (b"a,1,2\nb,1,1e999\n", "f.csv, row 2, column 3 is '1e999', which is too large for a number."),
        (b"a,1,2\nb,,1\n", "f.csv, row 2, column 2 is empty; every value must be a number."),
        (b"a,1,2,\n", "f.csv, row 1, column 4 is empty"),
        (b"a,1,2\n,1,2\n", "f.csv, row 2, column 1 has no label"),
        (b"a\nb\n", "f.csv, row 1 has a label and no values."),
        (b"a;1;2\n", "f.csv, row 1 has a label and no values; its cells seem to be separated by semicolons"),
        (b"a\t1\t2\n", "separated by tabs"),
        (b"label,x1,x2\na,1,2\n", "f.csv, row 1 looks like a header ('x1,x2')"),
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
        read_labelled_series(data, "f.csv")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"1,2\n", "request, row 1 has 2 values, but the model takes series of 3 values."),
        (b"1,2,3\n1,2\n", "request, row 2 has 2 values"),
        (b"a,1,2,3\n", "the model takes series of 3 values; send the values only, without a label."),
        (b'"1,000",2\n', "request, row 1, column 1 is '1,000'; every value must be a finite number."),
        (b"1;2;3\n", "its cells seem to be separated by semicolons, where commas should be."),
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
