import multiprocessing
import os
import socket
import time
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
import torch
from torch.distributed import HashStore  # type: ignore[attr-defined]

from lstm_fcn.container.errors import UserError
from lstm_fcn.container.optml import Resources
from lstm_fcn.training import distributed
from lstm_fcn.training.distributed import (
    Group,
    HostLostError,
    _Heartbeat,
    _use_network_interface,
    _wait_for_name,
    is_worker,
    launch,
)
from tests.programs import free_port

RESOURCES = Resources("algo-1", ("algo-1", "algo-2"), None)


class TestAlone:
    """A group of this process only needs no network and no other process."""

    def test_it_is_the_first_of_one(self) -> None:
        group = Group()
        assert (group.rank, group.size, group.local_rank, group.local_size) == (0, 1, 0, 1)
        assert group.is_first

    def test_it_gathers_what_it_has(self) -> None:
        value = [1, None, "x"]
        assert Group().gather("name", value) == [value]

    def test_sums_and_broadcasts_are_its_own_values(self) -> None:
        values = torch.tensor([1.0, 2.0])
        assert Group().sum(values) is values
        assert Group().broadcast(values) is values
        assert values.tolist() == [1, 2]

    def test_it_has_all_rows(self) -> None:
        rows = torch.arange(6).view(3, 2).T
        assert torch.equal(Group().gather_rows(rows), rows)

    def test_errors_stay_what_they_are(self) -> None:
        Group().explain(RuntimeError("Connection reset by peer"))

    def test_it_leaves_without_a_word(self) -> None:
        Group().leave(None)
        Group().leave("UserError: x")


def work_together(rank: int, port: int, results: "multiprocessing.Queue[Any]") -> None:
    """What one of two real processes does in `test_two_processes_exchange_values`."""
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port - 1),
    }
    group = Group.join(RESOURCES, lambda loss: results.put((rank, str(loss))))
    rows = torch.arange(2.0 * (rank + 1)).view(-1, 2) + 10 * rank  # as many as its number, and one more
    found: dict[str, Any] = {
        "group": (group.rank, group.size, group.is_first),
        "gather": group.gather("name", {"rank": rank, "values": [None, 1.5]}),
        "sum": group.sum(torch.tensor([1.0, rank])).tolist(),
        "broadcast": group.broadcast(torch.full((2,), 5 + rank, dtype=torch.uint8)).tolist(),
        "rows": group.gather_rows(rows).tolist(),
        "no rows of one": group.gather_rows(rows[: rank * 2, :1]).tolist(),
        "bytes": group.gather_rows(torch.tensor([[rank, 255]], dtype=torch.uint8)).tolist(),
    }
    results.put((rank, found))
    group.leave(None)


def test_two_processes_exchange_values() -> None:
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[Any] = context.Queue()
    port = free_port()
    processes = [context.Process(target=work_together, args=(rank, port, results)) for rank in range(2)]
    for process in processes:
        process.start()
    found = dict(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    for rank in range(2):
        assert found[rank] == {
            "group": (rank, 2, rank == 0),
            "gather": [{"rank": k, "values": [None, 1.5]} for k in range(2)],
            "sum": [2, 1],
            "broadcast": [5, 5],
            "rows": [[0, 1], [10, 11], [12, 13]],
            "no rows of one": [[10], [12]],
            "bytes": [[0, 255], [1, 255]],
        }


class TestHeartbeat:
    """How a process finds out what became of the others, on a store in this process."""

    class Store(HashStore):
        def clone(self) -> Any:
            return self

    @classmethod
    def make(cls) -> tuple[Any, Callable[[], str | None]]:
        """A store, and a look at it by the first of two processes."""
        store: Any = cls.Store()
        beats: dict[int, tuple[int, float]] = {}
        heart = _Heartbeat(Group(0, 2), store, RESOURCES, lambda _: None)
        return store, lambda: heart._check(beats)

    def test_it_beats_for_others_to_see(self) -> None:
        store, look = self.make()
        assert [look(), look()] == [None, None]
        assert store.add("beat/0", 0) == 2

    def test_a_process_that_beats_is_well(self, monkeypatch: pytest.MonkeyPatch) -> None:
        store, look = self.make()
        monkeypatch.setattr(distributed, "SILENT_SECONDS", 0)
        for _ in range(3):
            store.add("beat/1", 1)
            assert look() is None

    def test_one_that_has_been_silent_for_too_long_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        store, look = self.make()
        store.add("beat/1", 1)
        monkeypatch.setattr(distributed, "SILENT_SECONDS", 0)
        assert look() is None
        time.sleep(0.001)
        assert look() == "Host algo-2 has not responded for 0 seconds"

    def test_one_that_failed_is_named_with_its_reason(self) -> None:
        store, look = self.make()
        store.set("left/1", '"UserError: no data"')
        assert look() == "Host algo-2 failed: UserError: no data"

    def test_one_that_has_done_its_part_may_be_silent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        store, look = self.make()
        store.set("left/1", "null")
        monkeypatch.setattr(distributed, "SILENT_SECONDS", 0)
        for _ in range(2):
            assert look() is None
            time.sleep(0.001)

    def test_its_own_failure_is_no_news(self) -> None:
        store, look = self.make()
        store.set("left/0", '"UserError: no data"')
        assert look() is None

    def test_a_loss_is_reported_with_advice(self) -> None:
        store: Any = self.Store()
        store.set("left/1", '"AlgorithmError: x"')
        advice = r"training cannot continue without it\. If the job is restarted with its checkpoints, it resumes"
        with pytest.raises(HostLostError, match=rf"^Host algo-2 failed: AlgorithmError: x; {advice}"):
            _Heartbeat(Group(0, 2), store, RESOURCES, end).run()

    def test_where_the_first_machine_is_gone_it_is_named(self) -> None:
        class Gone(self.Store):  # type: ignore[name-defined,misc]
            def add(self, *_: object) -> int:
                raise RuntimeError("Connection reset by peer")

        gone: Any = Gone()
        with pytest.raises(HostLostError, match=r"^Host algo-1 has ended or cannot be reached; training cannot"):
            _Heartbeat(Group(1, 2), gone, RESOURCES, end).run()


def end(loss: HostLostError) -> NoReturn:
    """As a process that ends itself."""
    raise loss


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("[/src/gloo/pair.cc:553] Connection reset by peer. This is typically ...", "Connection reset by peer"),
        ("gloo: timeout", "gloo: timeout"),
        ("shapes do not match", None),
    ],
)
def test_errors_of_the_network_are_explained(monkeypatch: pytest.MonkeyPatch, text: str, cause: str | None) -> None:
    monkeypatch.setattr(distributed, "BEAT_SECONDS", 0)
    group, found = Group(0, 2), None
    try:
        group.explain(RuntimeError(text))
    except HostLostError as error:
        found = str(error)
    assert (found is None) is (cause is None)
    assert found is None or found.startswith(f"The connection to another machine was lost: {cause}. If the job")


class TestNames:
    def test_a_name_that_is_known_is_not_waited_for(self) -> None:
        _wait_for_name("localhost")

    def test_a_name_may_become_known_later(self, monkeypatch: pytest.MonkeyPatch) -> None:
        answers = [OSError("not yet"), OSError("not yet"), []]
        naps: list[float] = []

        def look_up(*_: object) -> object:
            answer = answers.pop(0)
            if isinstance(answer, OSError):
                raise answer
            return answer

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        monkeypatch.setattr(time, "sleep", naps.append)
        _wait_for_name("algo-1")
        assert (answers, len(naps)) == ([], 2)

    def test_a_name_that_cannot_be_resolved_is_reported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def look_up(*_: object) -> None:
            raise socket.gaierror(-2, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        monkeypatch.setattr(distributed, "LATE_SECONDS", -1)
        with pytest.raises(UserError, match=r"The name of host algo-1 cannot be resolved: .*Name or service not known"):
            launch(RESOURCES, one_process=True)


class TestNetworkInterface:
    NAMES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")

    @pytest.fixture(autouse=True)
    def _clean(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in self.NAMES:
            monkeypatch.setenv(name, "")  # so that it is restored
            monkeypatch.delenv(name)

    def test_one_that_is_there_is_used(self) -> None:
        _, name = socket.if_nameindex()[0]
        _use_network_interface(name)
        assert [os.environ.get(variable) for variable in self.NAMES] == [name, name]

    @pytest.mark.parametrize("name", ["ethwe9", "", None])
    def test_one_that_is_not_there_is_not(self, name: str | None) -> None:
        _use_network_interface(name)
        assert [os.environ.get(variable) for variable in self.NAMES] == [None, None]

    def test_what_the_user_has_set_stays(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth7")
        _use_network_interface(socket.if_nameindex()[0][1])
        assert os.environ["GLOO_SOCKET_IFNAME"] == "eth7"


def test_a_worker_is_known_by_its_environment() -> None:
    assert is_worker({"TORCHELASTIC_RUN_ID": "train"})
    assert not is_worker({"RANK": "0", "WORLD_SIZE": "2"})
