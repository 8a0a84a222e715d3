import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_fcn.container.csv_header import HEADERLESS
from lstm_fcn.container.csv_reader import SeriesReader
from lstm_fcn.container.errors import UserError
from lstm_fcn.training.data.reading import ParallelReader, parse_block

ROWS = "".join(f"{k % 3},{k},{k / 7:.3f},-1e-3\n" for k in range(2000))


def read(
    kind: type[SeriesReader], text: str, variables: int | None = None
) -> list[tuple[list[int], list[str], list[list[list[float]]]]]:
    """Rows, labels and values of each block, in small blocks."""
    reader = kind(io.BytesIO(text.encode()), "f", variables=variables, block_bytes=4096)
    return [(list(block.rows), block.labels, block.series.tolist()) for block in reader]


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        (ROWS, None),
        (ROWS.replace("\n777 ", '\n"7" ').replace("0,777,", '"0",777,'), None),  # one block needs the careful parser
        ("y1,x1,x2,x3\n" + "".join(f"{k % 2},{k},{k / 7:.3f},-1e-3\n" for k in range(2000)), None),
        (ROWS, 3),
        ("x_a_0,y1,x_b_0,x_b_1,x_a_1\n" + "".join(f"{k},1,{k / 7:.3f},-1e-3,.5\n" for k in range(2000)), None),
        ("a,1,2\nb,3,4", None),
        ("", None),
    ],
)
def test_threads_read_what_one_reads(text: str, variables: int | None) -> None:
    assert read(ParallelReader, text, variables) == read(SeriesReader, text, variables)


def test_several_threads_find_the_same_mistake() -> None:
    with pytest.raises(UserError, match=r"f, row 1501, column 3 is 'oops'"):
        read(ParallelReader, ROWS.replace("0,1500,214.286", "0,1500,oops"))


def test_labels_that_are_no_ascii() -> None:
    (block,) = read(ParallelReader, "ä,1,2\nβ,3,4\n")
    assert block[1] == ["ä", "β"]


CELLS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.decimals(allow_nan=False, allow_infinity=False, places=3).map(str),
    st.sampled_from(
        ["", " ", "nan", "inf", "-0", "+1", "1.", ".5", "1e400", "0x10", "1_0", "1d5", "\t2 ", "\u0661", "--1"]
    ),
    st.text("0123456789.eE+- ", max_size=8),
)
LABELS = st.one_of(
    st.sampled_from(["a", " a", "", " ", "NULL", "1.0", "ä", "\xa0"]),
    st.text(st.characters(codec="utf-8", exclude_characters="\r\n,"), max_size=4),
)


@given(st.lists(st.tuples(LABELS, CELLS, CELLS), min_size=1, max_size=4), st.booleans())
@settings(max_examples=500, deadline=None)
def test_both_parsers_agree(rows: list[tuple[str, str, str]], labelled: bool) -> None:
    """What pyarrow understands, the careful parser reads alike, whatever the cells are."""
    lines = [",".join(row if labelled else row[1:]) for row in rows]
    text = "".join(f"{line}\n" for line in lines).encode()
    found = parse_block(text, labelled)
    if found is None:
        return
    reader = SeriesReader(io.BytesIO(text), "f", labelled=labelled, columns=HEADERLESS)
    reader.parse_plain_blocks = lambda texts: ((number, part, None) for number, part in texts)  # type: ignore[method-assign]
    (block,) = reader
    assert len(block.series) == len(rows)
    assert block.labels == found.labels
    np.testing.assert_array_equal(block.series[:, 0], found.values)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=9))
def test_every_number_is_read_to_its_last_bit(values: list[float]) -> None:
    found = parse_block(("a," + ",".join(map(repr, values)) + "\n").encode(), labelled=True)
    assert found is not None
    assert found.values.tobytes() == np.array([values]).tobytes()
