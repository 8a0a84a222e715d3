import io
from pathlib import Path

import numpy as np
import pytest

from lstm_fcn.container.channels import Source
from lstm_fcn.container.csv_reader import SeriesReader
from lstm_fcn.container.errors import UserError
from lstm_fcn.training.data import reading
from lstm_fcn.training.data.reading import ParallelReader, Progress

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
def test_several_processes_read_what_one_reads(text: str, variables: int | None) -> None:
    assert read(ParallelReader, text, variables) == read(SeriesReader, text, variables)


def test_several_processes_find_the_same_mistake() -> None:
    with pytest.raises(UserError, match=r"f, row 1501, column 3 is 'oops'"):
        read(ParallelReader, ROWS.replace("0,1500,214.286", "0,1500,oops"))


def test_labels_that_are_no_ascii() -> None:
    (block,) = read(ParallelReader, "ä,1,2\nβ,3,4\n")
    assert block[1] == ["ä", "β"]


@pytest.mark.parametrize(("cores", "size", "expected"), [(2, 100, True), (2, 99, False), (1, 100, False)])
def test_only_large_channels_are_read_by_several_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, size: int, expected: bool
) -> None:
    monkeypatch.setattr(reading, "LARGE_BYTES", 100)
    monkeypatch.setattr(reading, "available_cores", lambda: cores)
    path = tmp_path / "f"
    path.write_bytes(bytes(size))
    assert Progress(Source("training", tmp_path, (path,))).is_large is expected


def test_a_large_channel_ends_up_as_a_small_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lstm_fcn.container.hyperparameters import parse_hyperparameters
    from lstm_fcn.training.data.loading import load
    from lstm_fcn.training.distributed import Group

    path = tmp_path / "f.csv"
    path.write_text("".join(f"{k % 3},{k},{k / 7:.3f},-1e-3,{-k},{k % 7},.5\n" for k in range(2000)))
    settings = parse_hyperparameters({"num-variables": "3"})
    channels = {"training": Source("training", tmp_path, (path,))}
    small = load(channels, settings, Group())
    monkeypatch.setattr(reading, "LARGE_BYTES", 1)
    monkeypatch.setattr(reading, "available_cores", lambda: 2)
    large = load(channels, settings, Group())
    assert large.problem.classes == small.problem.classes
    assert small.training.series.shape == (2000, 3, 2)
    np.testing.assert_array_equal(large.training.series, small.training.series)
    np.testing.assert_array_equal(large.training.labels, small.training.labels)
