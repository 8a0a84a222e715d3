import threading
import time

import pytest
from werkzeug.exceptions import ServiceUnavailable

from lstm_fcn.serving.admission import LARGE, RETRY_AFTER, Admission


def test_more_requests_than_places_are_told_to_come_back() -> None:
    admission = Admission(requests=2, size=100, turns=1)
    with admission.admit(1), admission.admit(1):
        with pytest.raises(ServiceUnavailable) as caught, admission.admit(1):
            pass
        assert caught.value.retry_after == RETRY_AFTER
    with admission.admit(1):
        pass


def test_the_gauge_shows_the_admitted_requests() -> None:
    gauge = memoryview(bytearray(8)).cast("d")
    admission = Admission(requests=2, size=100, turns=1, gauge=gauge)
    with admission.admit(1):
        with admission.admit(1), pytest.raises(ServiceUnavailable), admission.admit(1):
            pass
        assert gauge[0] == 1
    assert gauge[0] == 0


def test_bodies_have_so_much_room_together() -> None:
    admission = Admission(requests=10, size=100, turns=1)
    with admission.admit(60):
        with pytest.raises(ServiceUnavailable), admission.admit(41):
            pass
        with admission.admit(40):
            pass


def test_a_request_alone_is_taken_however_large() -> None:
    with Admission(requests=1, size=1, turns=1).admit(1000):
        pass


def test_a_place_is_given_back_when_the_request_fails() -> None:
    admission = Admission(requests=1, size=1, turns=1)
    for _ in range(3):
        with pytest.raises(ValueError, match="mine"), admission.admit(1):
            raise ValueError("mine")


def test_many_threads_never_hold_more_places_than_there_are() -> None:
    admission, inside, most, lock = Admission(requests=3, size=100, turns=1), 0, 0, threading.Lock()

    def ask() -> None:
        nonlocal inside, most
        for _ in range(200):
            try:
                with admission.admit(1):
                    with lock:
                        inside += 1
                        most = max(most, inside)
                    with lock:
                        inside -= 1
            except ServiceUnavailable:
                pass

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= most <= 3
    assert inside == 0


def test_large_requests_take_turns_and_small_ones_do_not_wait() -> None:
    admission = Admission(requests=10, size=100, turns=1)
    done: list[str] = []
    with admission.turn(LARGE):

        def wait() -> None:
            with admission.turn(LARGE):
                done.append("large")

        thread = threading.Thread(target=wait)
        thread.start()
        with admission.turn(LARGE - 1):
            done.append("small")
        thread.join(0.05)
        assert done == ["small"]
    thread.join()
    assert done == ["small", "large"]


def test_large_requests_are_worked_on_as_they_came() -> None:
    admission, order = Admission(requests=10, size=100, turns=1), []

    def ask(number: int) -> None:
        with admission.turn(LARGE):
            order.append(number)

    with admission.turn(LARGE):
        threads = []
        for number in range(8):
            threads.append(threading.Thread(target=ask, args=(number,)))
            threads[-1].start()
            while len(admission._waiting) <= number:
                time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert order == list(range(8))
    with admission.turn(LARGE):  # none was lost
        pass
