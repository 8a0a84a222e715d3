"""Groups of processes for tests: threads, each of which has a group of its own and meets the others."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

from lstm_fcn.training.distributed import Group

SECONDS = 60  # after which a thread that waits for the others gives up

T = TypeVar("T")


class ThreadGroup(Group):
    """One of several threads that stand for processes."""

    def __init__(self, rank: int, local_size: int, barrier: threading.Barrier, values: list[Any]) -> None:
        super().__init__(rank, barrier.parties, rank % local_size, local_size)
        self._barrier = barrier
        self._values = values

    def gather(self, name: str, value: Any) -> list[Any]:
        names, values = zip(*map(json.loads, self._exchange(json.dumps([name, value]))), strict=True)
        assert set(names) == {name}, "all processes must gather the same in the same order"
        return list(values)

    def sum(self, values: Tensor) -> Tensor:
        return values.copy_(torch.stack(self._exchange(values.clone())).sum(dim=0))

    def broadcast(self, values: Tensor) -> Tensor:
        return values.copy_(self._exchange(values.clone())[0])

    def gather_rows(self, rows: Tensor) -> Tensor:
        return torch.cat(self._exchange(rows.clone()))

    def _exchange(self, value: Any) -> list[Any]:
        self._values[self.rank] = value
        self._barrier.wait(SECONDS)
        found = list(self._values)
        self._barrier.wait(SECONDS)
        return found


def run_together(size: int, work: Callable[[Group], T], local_size: int = 1) -> list[T]:
    """What `work` returns in each of `size` processes, by rank; raises what the first of them raises that fails."""
    barrier = threading.Barrier(size)
    values: list[Any] = [None] * size

    def run(rank: int) -> T:
        try:
            return work(ThreadGroup(rank, local_size, barrier, values))
        except Exception:
            barrier.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        futures = [pool.submit(run, rank) for rank in range(size)]
    errors = [error for future in futures if (error := future.exception())]
    for error in sorted(errors, key=lambda error: isinstance(error, threading.BrokenBarrierError)):
        raise error
    return [future.result() for future in futures]
