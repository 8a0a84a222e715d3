import os
import signal
import time
from collections.abc import Iterator

import pytest

from lstm_fcn.training import stop as stop_module
from lstm_fcn.training.stop import StopBeforeTraining, StopSignal


@pytest.fixture
def stop() -> Iterator[StopSignal]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    listening = StopSignal()
    listening.listen()
    yield listening
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_before_training_a_signal_ends_the_program(stop: StopSignal, number: int) -> None:
    with pytest.raises(StopBeforeTraining):
        os.kill(os.getpid(), number)
    assert stop.requested


def test_during_training_a_signal_is_remembered(stop: StopSignal) -> None:
    stop.training_started = True
    assert not stop.requested
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.requested


def test_a_second_interrupt_means_it(stop: StopSignal) -> None:
    stop.training_started = True
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_time_for_computing_runs_out(stop: StopSignal, monkeypatch: pytest.MonkeyPatch) -> None:
    stop.training_started = True
    assert not stop.out_of_time
    os.kill(os.getpid(), signal.SIGTERM)
    assert not stop.out_of_time
    monkeypatch.setattr(stop_module, "COMPUTING_SECONDS", 0.0)
    time.sleep(0.001)
    assert stop.out_of_time


def test_a_resumable_job_that_is_about_to_end_has_time(stop: StopSignal, monkeypatch: pytest.MonkeyPatch) -> None:
    stop.training_started = stop.resumable = True
    os.kill(os.getpid(), signal.SIGTERM)
    monkeypatch.setattr(stop_module, "COMPUTING_SECONDS", -1.0)
    assert not stop.out_of_time


@pytest.mark.parametrize(("first", "second"), [(signal.SIGTERM, signal.SIGINT), (signal.SIGINT, signal.SIGTERM)])
def test_two_signals_of_one_interruption_count_once(stop: StopSignal, first: int, second: int) -> None:
    with pytest.raises(StopBeforeTraining):
        os.kill(os.getpid(), first)
    os.kill(os.getpid(), second)
    assert stop.requested
