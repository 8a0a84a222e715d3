"""Numbers read one block at a time: kept in memory while they are few, in a mapped scratch file beyond that."""

import contextlib
import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lstm_fcn.container.errors import UserError

MEMORY_LIMIT = 512 * 1024 * 1024  # bytes of one store; joining its blocks takes as much again for a moment


class MappedArray:
    """A flat array that lies in memory or in a scratch file; `values` is the same to use either way."""

    def __init__(self, values: NDArray[np.generic], mapping: mmap.mmap | None = None) -> None:
        self.values = values
        self._mapping = mapping

    @property
    def in_file(self) -> bool:
        return self._mapping is not None

    def release(self) -> None:
        """Give back the memory of the pages that were read or written; they stay in the file and its cache."""
        if self._mapping is not None:
            self._mapping.madvise(mmap.MADV_DONTNEED)

    def expect_random_access(self) -> None:
        """Keep the system from reading neighbours of each row ahead."""
        if self._mapping is not None:
            self._mapping.madvise(mmap.MADV_RANDOM)


class Store:
    """Collects numbers of one type, whose count is not known in advance."""

    def __init__(self, dtype: DTypeLike, memory_limit: int | None = None) -> None:
        """Numbers of `dtype`, at most `memory_limit` bytes of them in memory."""
        self._dtype = np.dtype(dtype)
        self._limit = min(MEMORY_LIMIT, available_memory() // 8) if memory_limit is None else memory_limit
        self._blocks: list[NDArray[np.generic]] = []
        self._bytes = 0
        self._file: BinaryIO | None = None

    def append(self, values: NDArray[np.generic]) -> None:
        """Add numbers of any shape, in their order. Raises `UserError` if the scratch folder is full."""
        block = np.ascontiguousarray(values, dtype=self._dtype).reshape(-1)
        self._bytes += block.nbytes
        if self._file is None and self._bytes <= self._limit:
            self._blocks.append(block)
            return
        with self._explained():
            self._write(block)

    def finish(self) -> MappedArray:
        """All that was added, as one flat array that can be written to. The store is of no use afterwards."""
        if self._file is None:
            values = np.concatenate(self._blocks) if self._blocks else np.empty(0, self._dtype)
            self._blocks = []
            return MappedArray(values)
        with self._explained():
            self._file.flush()
            mapping = mmap.mmap(self._file.fileno(), self._bytes)
        self._file.close()
        return MappedArray(np.frombuffer(mapping, dtype=self._dtype), mapping)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn an error of the disk into one for the user; nothing stays behind."""
        try:
            yield
        except OSError as error:
            if self._file is not None:
                with contextlib.suppress(OSError):
                    self._file.close()
            raise UserError(
                f"The scratch folder {scratch_folder()} cannot take the data ({self._bytes / 1e9:.1f} GB so far): "
                f"{error.strerror}. Make room, or name another folder in the environment variable TMPDIR."
            ) from error

    def _write(self, block: NDArray[np.generic]) -> None:
        if self._file is None:
            # It has no name: whatever ends this process, nothing stays behind.
            self._file = tempfile.TemporaryFile(dir=scratch_folder())  # noqa: SIM115 - `finish` closes it
            for earlier in self._blocks:
                self._file.write(earlier.data)
            self._blocks = []
        self._file.write(block.data)


def scratch_folder() -> Path:
    """Where temporary files go: `TMPDIR`, else `/tmp` (T14)."""
    return Path(tempfile.gettempdir())


def available_memory(cgroup_root: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of memory that this machine, or the container's limit, leaves us."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # cgroup v2, v1
        try:
            return min(memory, int((cgroup_root / name).read_text()))
        except (OSError, ValueError):
            continue
    return memory
