import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from lstm_fcn.container.errors import UserError
from lstm_fcn.container.memory import available_memory
from lstm_fcn.training.data import store
from lstm_fcn.training.data.store import MappedArray, Store

blocks_of_numbers = st.lists(
    npst.arrays(np.float32, npst.array_shapes(max_dims=2, max_side=5, min_side=0), elements=st.floats(width=32)),
    max_size=5,
)


def collect(blocks: list[NDArray[np.float32]], limit: int) -> MappedArray:
    collected = Store(np.float32, memory_limit=limit)
    for block in blocks:
        collected.append(block)
    return collected.finish()


@given(blocks_of_numbers, st.integers(0, 200))
def test_a_store_in_a_file_holds_what_one_in_memory_holds(blocks: list[NDArray[np.float32]], limit: int) -> None:
    mapped, plain = collect(blocks, limit), collect(blocks, 10**9)
    assert mapped.in_file == (sum(block.nbytes for block in blocks) > limit)
    assert not plain.in_file
    assert mapped.values.dtype == plain.values.dtype == np.float32
    np.testing.assert_array_equal(mapped.values, plain.values)


@pytest.mark.parametrize("limit", [0, 8, 10**9])
def test_values_can_be_changed_and_released(limit: int) -> None:
    found = collect([np.arange(6, dtype=np.float32).reshape(2, 3)], limit)
    found.values[1] = 7
    found.expect_random_access()
    found.release()
    assert found.values.tolist() == [0, 7, 2, 3, 4, 5]


def test_numbers_are_of_the_type_of_the_store() -> None:
    collected = Store(np.uint8)
    collected.append(np.array([[0.0, 1.0]]))
    assert collected.finish().values.dtype == np.uint8


def test_blocks_that_do_not_lie_in_one_piece_are_kept_in_their_order() -> None:
    block = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert collect([block.T, block[:, ::2]], 0).values.tolist() == [0, 3, 1, 4, 2, 5, 0, 2, 3, 5]


def test_the_scratch_file_has_no_name_and_is_in_the_folder_that_the_user_chose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders: list[Path] = []
    real = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    def note(**settings: Any) -> Any:
        folders.append(settings["dir"])
        return real(**settings)

    monkeypatch.setattr(tempfile, "TemporaryFile", note)
    assert collect([np.ones(9, np.float32)], 0).in_file
    assert folders == [tmp_path]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("count", [10, 100_000])
def test_a_full_disk_is_reported(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    files: list[Any] = []

    def open_full_disk(**settings: Any) -> Any:
        file = Path("/dev/full").open("w+b", buffering=settings.get("buffering", -1))  # noqa: SIM115
        files.append(file)
        return file

    monkeypatch.setattr(tempfile, "TemporaryFile", open_full_disk)
    with pytest.raises(
        UserError, match=r"The scratch folder .* is too small for the data \(.* GB so far\): No space left .* TMPDIR"
    ):
        collect([np.ones(count, np.float32)], 0)
    with contextlib.suppress(OSError):
        files[0].close()


def test_a_missing_scratch_folder_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "scratch_folder", lambda: tmp_path / "nothing")
    with pytest.raises(UserError, match=r"The scratch folder .*nothing is too small for the data .*: No such file"):
        collect([np.ones(9, np.float32)], 0)


def test_a_store_takes_its_share_of_memory_and_no_more_than_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "available_memory", lambda: 800)
    for count, in_file in ((25, False), (26, True)):
        collected = Store(np.float32)
        collected.append(np.zeros(count))
        assert collected.finish().in_file is in_file
    monkeypatch.setattr(store, "MEMORY_LIMIT", 40)
    collected = Store(np.float32)
    collected.append(np.zeros(11))
    assert collected.finish().in_file


class TestAvailableMemory:
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    @pytest.mark.parametrize(("text", "limit"), [("1000000\n", 1_000_000), ("max\n", None), (f"{2**62}\n", None)])
    def test_limit_of_cgroup_2(self, tmp_path: Path, text: str, limit: int | None) -> None:
        (tmp_path / "memory.max").write_text(text)
        assert available_memory(tmp_path) == (limit or self.machine)

    @pytest.mark.parametrize(("text", "limit"), [("1000000\n", 1_000_000), (f"{2**63 - 4096}\n", None)])
    def test_limit_of_cgroup_1(self, tmp_path: Path, text: str, limit: int | None) -> None:
        (tmp_path / "memory").mkdir()
        (tmp_path / "memory" / "memory.limit_in_bytes").write_text(text)
        assert available_memory(tmp_path) == (limit or self.machine)

    def test_no_limit(self, tmp_path: Path) -> None:
        assert available_memory(tmp_path) == self.machine
