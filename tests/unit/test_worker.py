import time
from typing import Any

import pytest
from gunicorn.workers.gthread import ThreadWorker

from lstm_fcn.serving import worker as worker_module
from lstm_fcn.serving.worker import MOMENT, MOST_LINGERING, BalancedWorker, leave_slot, take_slot


class Pauses:
    """What a worker with so many connections does before it accepts one more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
        monkeypatch.setattr(worker_module, "_connections", memoryview(bytearray(4 * workers)).cast("i"))
        for slot in range(workers):
            worker_module._connections[slot] = worker_module._VACANT
        self.taken: list[float] = []
        monkeypatch.setattr(time, "sleep", self.taken.append)
        monkeypatch.setattr(ThreadWorker, "accept", lambda *_: None)

    def make(self, connections: int) -> Any:
        worker: Any = object.__new__(BalancedWorker)
        worker.nr_conns = connections
        take_slot(worker)
        worker_module._connections[worker.slot] = connections
        return worker

    def before_accepting(self, worker: Any) -> bool:
        self.taken.clear()
        worker.accept(None)
        return self.taken == [MOMENT]


def test_a_worker_waits_for_those_that_have_fewer_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = Pauses(monkeypatch, workers=3)
    few, many, most = (pauses.make(count) for count in (1, 2, 3))
    assert not pauses.before_accepting(few)
    assert pauses.before_accepting(many)
    assert pauses.before_accepting(most)


def test_not_for_one_that_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = Pauses(monkeypatch, workers=2)
    ended, alive = pauses.make(0), pauses.make(5)
    assert pauses.before_accepting(alive)
    leave_slot(ended)
    assert not pauses.before_accepting(alive)
    assert pauses.make(0).slot == ended.slot


def test_not_in_a_crowd(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = Pauses(monkeypatch, workers=2)
    pauses.make(0)
    assert not pauses.before_accepting(pauses.make(MOST_LINGERING))


def test_a_worker_alone_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = Pauses(monkeypatch, workers=1)
    assert not pauses.before_accepting(pauses.make(7))


@pytest.mark.parametrize(("replaced_after", "waits"), [(1, 0.5), (60, 1.0)])
def test_an_idle_worker_gives_signs_of_life_in_time(
    monkeypatch: pytest.MonkeyPatch, replaced_after: int, waits: float
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(ThreadWorker, "wait_for_and_dispatch_events", lambda _, timeout: waited.append(timeout))
    worker: Any = object.__new__(BalancedWorker)
    worker.timeout = replaced_after / 2  # as gunicorn tells it
    worker.wait_for_and_dispatch_events(timeout=1.0)
    assert waited == [waits]
