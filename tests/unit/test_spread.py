"""A function over many items, in processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from lstm_fcn.container.errors import UserError
from lstm_fcn.container.spread import AHEAD, spread
from tests.programs import free_port, is_running


def square(number: int) -> tuple[int, int, str]:
    return number**2, os.getpid(), os.environ["OMP_NUM_THREADS"]


def test_every_item_once_in_other_processes_with_one_thread() -> None:
    found = dict(spread(square, range(20), workers=2))
    assert {item: result[0] for item, result in found.items()} == {k: k * k for k in range(20)}
    processes = {process for _, process, _ in found.values()}
    assert os.getpid() not in processes
    assert len(processes) <= 2
    assert {threads for _, _, threads in found.values()} == {"1"}


def test_items_are_taken_as_processes_become_free() -> None:
    taken = []

    def items() -> Iterator[int]:
        for k in range(50):
            taken.append(k)
            yield k

    for done, _ in enumerate(spread(square, items(), workers=1)):
        assert len(taken) <= done + AHEAD + 1
    assert len(taken) == 50


def kill_one(number: int, fatal: int) -> int:
    if number == fatal:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_process_that_is_killed() -> None:
    with pytest.raises(UserError, match="A worker process was killed; the machine may have run out of memory"):
        list(spread(partial(kill_one, fatal=2), range(4), workers=1))


ENDLESS = """
import os, time
from lstm_fcn.container.spread import spread
from tests.unit.test_spread import wait_for_ever
try:
    for _ in spread(wait_for_ever, [{folder!r}] * 4, workers=2):
        pass
except KeyboardInterrupt:
    print("interrupted")
"""


def wait_for_ever(folder: str) -> None:
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(600)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_the_program(number: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-c", ENDLESS.format(folder=str(tmp_path))]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while len(list(tmp_path.iterdir())) < 2:
        assert program.poll() is None
        time.sleep(0.05)
    program.send_signal(number)
    output, errors = program.communicate(timeout=60)
    if number == signal.SIGINT:
        assert (output, errors) == ("interrupted\n", "")
    for path in tmp_path.iterdir():
        while is_running(int(path.name)):
            time.sleep(0.05)


def test_ray_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"--ray needs the package ray, .* pip install 'lstm-fcn\[ray\]'"):
        list(spread(square, [1], cluster="auto"))


def test_a_cluster_that_cannot_be_reached() -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    for address in (f"127.0.0.1:{free_port()}", f"ray://127.0.0.1:{free_port()}", "no-such-host.invalid:6379"):
        with pytest.raises(UserError) as raised:
            list(spread(square, [1], cluster=address))
        assert f"The Ray cluster at {address} cannot be reached: " in str(raised.value)
