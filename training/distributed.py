"""Several processes that train one model: one on each machine, or on each GPU of each machine."""

import contextlib
import json
import logging
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from lstm_fcn.container.errors import AlgorithmError, UserError
from lstm_fcn.container.optml import Resources
from lstm_fcn.training.stop import StopBeforeTraining

logger = logging.getLogger(__name__)

PORT = 29400  # of the launcher's store on the first machine; the one above it is that of the processes
LATE_SECONDS = 300  # a machine that has not come by then is given up
SILENT_SECONDS = 45  # a machine that has shown no sign of life for so long is given up
BEAT_SECONDS = 2.0


class HostLostError(AlgorithmError):
    """Another machine of the job ended or no longer answers."""


class Group:
    """The processes that train together. This one alone, unless `join` made it larger.

    rank: the number of this process; that of rank 0 prints, and writes checkpoints and the model.
    local_rank, local_size: the same among the processes of this machine.
    """

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0, local_size: int = 1) -> None:
        self.rank, self.size = rank, size
        self.local_rank, self.local_size = local_rank, local_size
        self._store: TCPStore | None = None
        self.has_left = False

    @classmethod
    def join(cls, resources: Resources, on_loss: Callable[[HostLostError], None]) -> "Group":
        """Join the processes that `launch` started on all machines.

        Args:
            resources: the job's machines.
            on_loss: called from another thread when a machine shows no sign of life any more; must not return.
        """
        local_size = int(os.environ["LOCAL_WORLD_SIZE"])
        group = cls(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_RANK"]), local_size)
        timeout = timedelta(seconds=LATE_SECONDS)
        group._store = store = TCPStore(
            os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]) + 1, group.size, group.rank == 0, timeout
        )
        _Heartbeat(group, store, resources, on_loss).start()
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
            store=PrefixStore("group", store),
            rank=group.rank,
            world_size=group.size,
            timeout=timedelta(hours=1),  # machines that are slow are waited for; dead ones are found by the heartbeat
        )
        return group

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def gather(self, name: str, value: Any) -> list[Any]:
        """What each process has under `name`, by rank. Values are what JSON knows; a name is used once."""
        if self._store is None:
            return [value]
        self._store.set(f"{name}/{self.rank}", json.dumps(value))
        names = [f"{name}/{rank}" for rank in range(self.size)]
        while not self._store.check(names):  # however long it takes: the heartbeat watches the others
            time.sleep(0.05)
        return [json.loads(self._store.get(f"{name}/{rank}")) for rank in range(self.size)]

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def broadcast(self, values: Tensor) -> Tensor:
        """What the first process has, in place; on the CPU."""
        if self.size > 1:
            dist.broadcast(values, src=0)
        return values

    def gather_rows(self, rows: Tensor) -> Tensor:
        """The rows `[n, ...]` of all processes, n may differ, one behind the other by rank; on the CPU."""
        rows = rows.cpu().contiguous()
        if self.size == 1:
            return rows
        counts = torch.zeros(self.size, dtype=torch.int64)
        counts[self.rank] = len(rows)
        longest = int(self.sum(counts).max())
        padded = torch.cat([rows, rows.new_zeros(longest - len(rows), *rows.shape[1:])])
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts.tolist(), strict=True)])

    def leave(self, failure: str | None = None) -> None:
        """Say that this process has done its part, or why it has not, and let the others see it."""
        if self._store is None:
            return
        self.has_left = True
        with contextlib.suppress(RuntimeError):
            self._store.set(f"left/{self.rank}", json.dumps(failure))
            if failure is None:
                self._store.wait([f"left/{rank}" for rank in range(self.size)], timedelta(seconds=SILENT_SECONDS))
            elif self.rank == 0:
                time.sleep(3 * BEAT_SECONDS)  # what the others read from ends with this process
        if failure is None and dist.is_initialized():
            dist.destroy_process_group()

    def explain(self, error: RuntimeError) -> None:
        """Raise `HostLostError` if an error of the network stands behind `error`."""
        if self.size == 1:
            return
        time.sleep(3 * BEAT_SECONDS)  # the heartbeat may know better what became of the others
        if isinstance(error, dist.DistError) or "onnection" in str(error) or "gloo" in str(error):
            cause = re.sub(r"^\[[^]]*\] *", "", str(error)).split(". ")[0]  # not where in gloo's source it is
            raise HostLostError(f"The connection to another machine broke: {cause}. {ADVICE}") from error


class _Heartbeat(threading.Thread):
    """Shows the others that this process lives, and finds out when one of them does not."""

    def __init__(
        self, group: Group, store: TCPStore, resources: Resources, on_loss: Callable[[HostLostError], None]
    ) -> None:
        super().__init__(daemon=True)
        self._group = group
        self._hosts = [resources.hosts[rank // group.local_size] for rank in range(group.size)]
        self._on_loss = on_loss
        # A connection of its own: the other one may be waiting for something.
        self._store = store.clone()  # type: ignore[attr-defined]

    def run(self) -> None:
        beats: dict[int, tuple[int, float]] = {}
        while not self._group.has_left:
            try:
                loss = self._check(beats)
            except RuntimeError:
                loss = f"Host {self._hosts[0]} ended or cannot be reached"
            if self._group.has_left:
                return
            if loss:
                self._on_loss(HostLostError(f"{loss}; without it, training cannot go on. {ADVICE}"))
            time.sleep(BEAT_SECONDS)

    def _check(self, beats: dict[int, tuple[int, float]]) -> str | None:
        """Beat once, and look at the others; what is wrong, if something is."""
        now = time.monotonic()
        self._store.add(f"beat/{self._group.rank}", 1)
        for rank, host in enumerate(self._hosts):
            if self._store.check([f"left/{rank}"]):
                failure = json.loads(self._store.get(f"left/{rank}"))
                if failure is not None and rank != self._group.rank:
                    return f"Host {host} failed: {failure}"
                continue
            beat = self._store.add(f"beat/{rank}", 0)
            if rank not in beats or beats[rank][0] != beat:
                beats[rank] = (beat, now)
            elif now - beats[rank][1] > SILENT_SECONDS:
                return f"Host {host} has shown no sign of life for {SILENT_SECONDS} seconds"
        return None


ADVICE = "The same job, started again with its checkpoints, goes on from the last of them."


def is_worker(environment: Mapping[str, str] = os.environ) -> bool:
    """This process was started by `launch`."""
    return "TORCHELASTIC_RUN_ID" in environment


def launch(resources: Resources, one_process: bool) -> int:
    """Start this machine's processes of a job on several machines, by torchrun's launcher; returns an exit code.

    Each runs `train` again and finds itself in its environment. SIGTERM and SIGINT are passed on to them; what they
    do then is up to them. There is one process for each GPU, or for the machine if `one_process`.

    Raises:
        UserError: another machine of the job cannot be reached.
        StopBeforeTraining: a signal came before there were any processes.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, launch_agent

    first = resources.hosts[0]
    _wait_for_name(first)
    _use_network_interface(resources.network_interface)
    config = LaunchConfig(
        min_nodes=len(resources.hosts),
        max_nodes=len(resources.hosts),
        nproc_per_node=1 if one_process else max(1, torch.cuda.device_count()),
        run_id="train",
        rdzv_backend="static",
        rdzv_endpoint=f"{first}:{PORT}",
        rdzv_configs={"rank": resources.hosts.index(resources.current_host), "timeout": LATE_SECONDS},
        max_restarts=0,
        # SIGTERM and SIGINT stay ours: the launcher would give its processes half a minute only.
        signals_to_handle="SIGHUP",
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _pass_on)
    try:
        launch_agent(config, sys.executable, ["-u", "-m", "lstm_fcn.training"])
    except ChildFailedError as error:
        return int(error.get_first_failure()[1].exitcode)
    except (dist.DistError, TimeoutError) as error:
        raise UserError(
            f"The machines {', '.join(resources.hosts)} did not all come together within {LATE_SECONDS} seconds: "
            f"{error}. {ADVICE}"
        ) from error
    return 0


def _pass_on(number: int, _frame: object) -> None:
    children = [int(child) for file in Path("/proc/self/task").glob("*/children") for child in file.read_text().split()]
    if not children:  # the machines have not come together yet
        raise StopBeforeTraining
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)


def _wait_for_name(host: str) -> None:
    """Until the name of another machine is known here, which can take a while (T42)."""
    deadline = time.monotonic() + LATE_SECONDS
    while True:
        try:
            socket.getaddrinfo(host, PORT)
        except OSError as error:
            if time.monotonic() > deadline:
                raise UserError(f"The name of host {host} cannot be resolved: {error}.") from error
            time.sleep(1)
        else:
            return


def _use_network_interface(name: str | None) -> None:
    """Between machines, talk over the interface that the platform names, if it is really there (T43)."""
    if name and name in [found for _, found in socket.if_nameindex()]:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", name)
