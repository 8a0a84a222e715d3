"""A pool of processes for runs that are timed, each bound to its core."""

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

from lstm_fcn.container.cores import available_cores


def one_process_per_core(prepare: Callable[[], None]) -> ProcessPoolExecutor:
    """A pool with a process for each core; `prepare` is called in each before its first run."""
    context = multiprocessing.get_context("spawn")
    cores: multiprocessing.Queue[int] = context.Queue()
    for core in sorted(os.sched_getaffinity(0)):
        cores.put(core)
    return ProcessPoolExecutor(available_cores(), context, initializer=_start, initargs=(cores, prepare))


def _start(cores: "multiprocessing.Queue[int]", prepare: Callable[[], None]) -> None:
    os.sched_setaffinity(0, {cores.get()})
    prepare()
