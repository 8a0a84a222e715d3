"""Numbers in shared memory, of processes that are killed."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lstm_fcn.serving import counts
from lstm_fcn.serving.counts import SIZE, Counts, Name

A, B, C, D = ("a", 1), ("b", 200), ("c",), ("d", 2)
KILLED = """
import json, os, signal, sys
from pathlib import Path
from lstm_fcn.serving.counts import Counts

counts = Counts(Path(sys.argv[1]))
for name in json.loads(sys.argv[2]):
    counts.numbers[counts[tuple(name)]] += 1
os.kill(os.getpid(), signal.SIGKILL)
"""


def count_and_be_killed(folder: Path, *names: Name) -> None:
    """Count the names in another process, which is then killed."""
    command = [sys.executable, "-c", KILLED, str(folder), json.dumps(names)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL


def add(to: Counts, name: Name) -> None:
    with to.lock:
        to.numbers[to[name]] += 1


def read(one: Counts) -> list[tuple[Name, float, bool]]:
    return sorted(one.read(), key=lambda found: (not found[2], found[0]))


def test_the_file_of_a_killed_process_is_continued(tmp_path: Path) -> None:
    for _ in range(3):
        count_and_be_killed(tmp_path, A, B, B)
    assert [path.name for path in tmp_path.iterdir()] == ["counts-0"]
    heir = Counts(tmp_path)
    add(heir, B)
    add(heir, C)
    assert read(heir) == [(A, 3, True), (B, 7, True), (C, 1, True)]


def test_running_and_killed_processes_are_told_apart(tmp_path: Path) -> None:
    first, second = Counts(tmp_path), Counts(tmp_path)
    count_and_be_killed(tmp_path, A)
    add(first, A)
    add(second, B)
    assert read(first) == read(second) == [(A, 1, True), (B, 1, True), (A, 1, False)]


def test_without_a_folder_nothing_is_shared() -> None:
    first, second = Counts(None), Counts(None)
    add(first, A)
    assert read(first) == [(A, 1, True)]
    assert read(second) == []


@pytest.mark.parametrize("missing", range(1, len('["b", 200]\n') + 1))
def test_a_name_that_was_cut_off_does_not_count(tmp_path: Path, missing: int) -> None:
    running = Counts(tmp_path)
    count_and_be_killed(tmp_path, A, B)
    path = tmp_path / "counts-1"
    os.truncate(path, path.stat().st_size - missing)
    assert read(running) == [(A, 1, False)]
    heir = Counts(tmp_path)
    add(heir, C)
    assert read(running) == [(A, 1, True), (C, 1, True)]


@pytest.mark.parametrize("size", [0, SIZE])
def test_a_process_that_was_killed_at_its_start(tmp_path: Path, size: int) -> None:
    (tmp_path / "counts-0").write_bytes(bytes(size))
    heir = Counts(tmp_path)
    assert read(heir) == []
    add(heir, A)
    assert read(heir) == [(A, 1, True)]


@pytest.mark.parametrize("shared", [False, True])
def test_more_names_than_slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: bool) -> None:
    monkeypatch.setattr(counts, "SLOTS", 3)
    full = Counts(tmp_path if shared else None)
    for name in (A, B, C, D, A, C):
        add(full, name)
    assert read(full) == [(A, 2, True), (B, 1, True)]


@pytest.mark.parametrize("written", [None, 3])
def test_a_full_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int | None) -> None:
    one = Counts(tmp_path)
    add(one, A)

    def write(file: int, data: bytes, offset: int) -> int:
        if written is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(file, data[:written], offset)

    original = os.pwrite
    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", write)
        add(one, B)
        add(one, A)
    add(one, C)
    assert read(one) == [(A, 2, True), (C, 1, True)]
