"""Arrays that are collected block by block, in memory while they are small, else in a mapped scratch file."""

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
from lstm_fcn.container.memory import available_memory

MEMORY_LIMIT = 512 * 1024 * 1024  # bytes of one store; joining its blocks briefly takes twice as much


class MappedArray:
    """A flat array `values` in memory or in a scratch file."""

    def __init__(self, values: NDArray[np.generic], mapping: mmap.mmap | None = None) -> None:
        self.values = values
        self._mapping = mapping

    @property
    def in_file(self) -> bool:
        return self._mapping is not None

    def release(self) -> None:
        """Free the memory of the pages that were read or written; they stay in the file and its cache."""
        if self._mapping is not None:
            self._mapping.madvise(mmap.MADV_DONTNEED)

    def expect_random_access(self) -> None:
        """Keep the system from reading ahead."""
        if self._mapping is not None:
            self._mapping.madvise(mmap.MADV_RANDOM)


def reserve(count: int, dtype: DTypeLike) -> MappedArray:
    """Room for up to `count` values; memory is taken as they are written, or, for very many, a scratch file.

    Raises:
        UserError: the scratch folder is too small.
    """
    size = max(1, count) * np.dtype(dtype).itemsize
    if size <= _memory_limit():
        return MappedArray(np.empty(count, dtype))
    with tempfile.TemporaryFile(dir=scratch_folder()) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise _too_small(size, error) from error
        mapping = mmap.mmap(file.fileno(), size)
    return MappedArray(np.frombuffer(mapping, dtype=dtype), mapping)


def _memory_limit() -> int:
    return min(MEMORY_LIMIT, available_memory() // 8)


def _too_small(size: int, error: OSError) -> UserError:
    return UserError(
        f"The scratch folder {scratch_folder()} is too small for the data ({size / 1e9:.1f} GB so far): "
        f"{error.strerror}. Free some space, or set the environment variable TMPDIR to another folder."
    )


class Store:
    """Collects an unknown number of values of one type."""

    def __init__(self, dtype: DTypeLike, memory_limit: int | None = None) -> None:
        """Collect values of `dtype`, at most `memory_limit` bytes of them in memory."""
        self._dtype = np.dtype(dtype)
        self._limit = _memory_limit() if memory_limit is None else memory_limit
        self._blocks: list[NDArray[np.generic]] = []
        self._bytes = 0
        self._file: BinaryIO | None = None

    def append(self, values: NDArray[np.generic]) -> None:
        """Append values of any shape, in order. Raises `UserError` if the scratch folder is full."""
        block = np.ascontiguousarray(values, dtype=self._dtype).reshape(-1)
        self._bytes += block.nbytes
        if self._file is None and self._bytes <= self._limit:
            self._blocks.append(block)
            return
        with self._explained():
            self._write(block)

    def finish(self) -> MappedArray:
        """Return all values as one writable flat array; the store cannot be used afterwards."""
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
        """Convert errors of the disk into `UserError`, and remove the scratch file."""
        try:
            yield
        except OSError as error:
            if self._file is not None:
                with contextlib.suppress(OSError):
                    self._file.close()
            raise _too_small(self._bytes, error) from error

    def _write(self, block: NDArray[np.generic]) -> None:
        if self._file is None:
            # The file has no name, so it disappears with this process, whatever ends it.
            self._file = tempfile.TemporaryFile(dir=scratch_folder())  # noqa: SIM115 - `finish` closes it
            for earlier in self._blocks:
                self._file.write(earlier.data)
            self._blocks = []
        self._file.write(block.data)


def scratch_folder() -> Path:
    """Folder for temporary files: `TMPDIR`, else `/tmp` (T14)."""
    return Path(tempfile.gettempdir())
