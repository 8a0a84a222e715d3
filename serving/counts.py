"""Numbers that several processes count in shared memory, so that none is lost when a process is killed."""

import errno
import fcntl
import json
import mmap
import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

Name = tuple[str | int, ...]
SLOTS = 2**18  # of a process; a slot takes memory once it is used
SIZE = 8 * SLOTS  # bytes of the numbers of a process


class Counts(dict[Name, int]):
    """The slot of each name in `numbers`; a new name gets the next slot. Hold `lock` to look up slots and add to them.

    The file of a process has the numbers, as 64-bit floats, and then the names in the order of their slots, as lines of
    JSON. A name is written before its slot is used, and counts once its newline is there. The first name is empty; its
    slot is for all names that there is no room for.
    """

    def __init__(self, folder: Path | None) -> None:
        """Continue a file in `folder` whose process has ended, or start one; without a folder, use private memory."""
        super().__init__()
        self.lock = threading.Lock()
        self._folder, self._file, self._end = folder, -1, SIZE
        if folder is not None:
            self._file = _take_file(folder)
            names = _read_names(self._file)
            self.update((name, slot) for slot, name in enumerate(_parse(names)))
            self._end += len(names)
            os.truncate(self._file, self._end)  # without a name that was cut off
        self.numbers = memoryview(mmap.mmap(self._file, SIZE)).cast("d")
        self[()]

    def __missing__(self, name: Name) -> int:
        """Give a name the next slot, or the first one if there is no room: requests must not fail."""
        slot = len(self)
        try:
            self._write(name, slot)
        except OSError:
            if not slot:
                raise
            return 0
        self[name] = slot
        return slot

    def _write(self, name: Name, slot: int) -> None:
        """Write a name, so that other processes know it. Raises `OSError`: there is no room for it or its number."""
        line = json.dumps(name).encode() + b"\n"
        if slot == SLOTS:
            raise OSError(errno.ENOSPC, "There are too many names")
        if self._folder is not None:
            os.pwrite(self._file, bytes(8), 8 * slot)  # without room, writing to the mapping would kill the process
            if os.pwrite(self._file, line, self._end) < len(line):
                raise OSError(errno.ENOSPC, "The file system is full")
        self._end += len(line)

    def read(self) -> Iterator[tuple[Name, float, bool]]:
        """Each name and value of each process, and whether the process is running."""
        if self._folder is None:
            yield from ((name, value, True) for name, value in zip(list(self), self.numbers, strict=False) if name)
            return
        for path in self._folder.glob("counts-*"):
            with path.open("rb") as file:
                names = _parse(_read_names(file.fileno()))
                values = struct.unpack(f"{len(names)}d", os.pread(file.fileno(), 8 * len(names), 0))
                is_running = not _lock(file.fileno(), fcntl.LOCK_SH)
            yield from ((name, value, is_running) for name, value in zip(names, values, strict=True) if name)


def _take_file(folder: Path) -> int:
    """Open the first file that no process has locked, and lock it until this process ends.

    Workers that are replaced again and again thus leave no more files than there were workers at a time.
    """
    number = 0
    while True:
        file = os.open(folder / f"counts-{number}", os.O_RDWR | os.O_CREAT, 0o600)
        if _lock(file, fcntl.LOCK_EX):
            return file
        os.close(file)
        number += 1


def _lock(file: int, kind: int) -> bool:
    """Lock a file, unless another process has locked it."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_names(file: int) -> bytes:
    """The lines of all names that are valid."""
    content = os.pread(file, max(0, os.fstat(file).st_size - SIZE), SIZE)
    return content[: content.rfind(b"\n") + 1]


def _parse(names: bytes) -> list[Name]:
    return [tuple(json.loads(line)) for line in names.splitlines()]
