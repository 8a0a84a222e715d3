from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lstm_fcn.container.errors import UserError
from lstm_fcn.container.files import check_writable, write_atomically


def test_files_are_written_and_folders_created(tmp_path: Path) -> None:
    a, b = tmp_path / "new" / "a", tmp_path / "b"
    write_atomically((a, b"1"), (b, b"2"))
    assert (a.read_bytes(), b.read_bytes()) == (b"1", b"2")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "new"]


def test_files_are_renamed_in_the_given_order_once_all_are_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renamed: list[str] = []
    replace = Path.replace

    def note(path: Path, target: Path) -> Path:
        assert path.name == f".{target.name}.partial"
        assert (tmp_path / "a").exists() or (tmp_path / ".a.partial").exists()
        renamed.append(target.name)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", note)
    write_atomically((tmp_path / "b", b"1"), (tmp_path / "a", b"2"))
    assert renamed == ["b", "a"]


def test_after_a_failure_the_old_files_are_unchanged_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_atomically((tmp_path / "a", b"old"), (tmp_path / "b", b"old"))
    opened = Path.open

    def full_disk(path: Path, *arguments: Any) -> object:
        if path.name.startswith(".b"):
            raise OSError(28, "No space left on device")
        return opened(path, *arguments)

    monkeypatch.setattr(Path, "open", full_disk)
    with pytest.raises(UserError, match=r"b cannot be written: No space left on device\."):
        write_atomically((tmp_path / "a", b"new"), (tmp_path / "b", b"new"))
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"old", "b": b"old"}


def test_a_folder_that_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/a cannot be written: "):
        write_atomically((tmp_path / "file" / "a", b"1"))
    with pytest.raises(UserError, match=r"The model folder .*file cannot be written to: "):
        check_writable(tmp_path / "file", "model")


def test_many_processes_can_check_one_folder_at_a_time(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: check_writable(tmp_path / "new", "model"), range(300)))
    assert not list((tmp_path / "new").iterdir())
