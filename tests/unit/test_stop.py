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


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_resumable_job_has_time_and_the_exit_code_of_its_signal(
    stop: StopSignal, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    stop.training_started = stop.resumable = True
    os.kill(os.getpid(), number)
    monkeypatch.setattr(stop_module, "COMPUTING_SECONDS", -1.0)
    assert (stop.out_of_time, stop.exit_code) == (False, code)
