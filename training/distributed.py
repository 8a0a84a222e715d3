"""Training one model with several processes: one for each machine, or for each GPU of each machine."""

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

PORT = 29400  # of the launcher's store on the first machine; the store of the processes uses the next port
LATE_SECONDS = 300  # to wait for a machine to join
SILENT_SECONDS = 45  # without a heartbeat, after which a machine is considered lost
BEAT_SECONDS = 2.0  # between heartbeats


class HostLostError(AlgorithmError):
    """Another machine of the job has ended or does not respond."""


class Group:
    """The processes that train together; by default this process alone.

    rank, size: number of this process, and of all processes. Rank 0 logs metrics and writes checkpoints and the model.
    local_rank, local_size: the same among the processes of this machine.
    """

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0, local_size: int = 1) -> None:
        self.rank, self.size = rank, size
        self.local_rank, self.local_size = local_rank, local_size
        self._store: TCPStore | None = None
        self._gathered = 0
        self.has_left = False

    @classmethod
    def join(cls, resources: Resources, on_loss: Callable[[HostLostError], None]) -> "Group":
        """Join the processes that `launch` started on all machines.

        Args:
            resources: the job's machines.
            on_loss: called from another thread if a machine is lost; must not return.
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
            timeout=timedelta(hours=1),  # slow machines are waited for; the heartbeat finds lost ones
        )
        return group

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def gather(self, name: str, value: Any) -> list[Any]:
        """Exchange JSON values: return the value of each process, by rank.

        All processes gather the same names in the same order.
        """
        if self._store is None:
            return [value]
        self._gathered += 1
        self._store.set(f"{self._gathered} {name}/{self.rank}", json.dumps(value))
        names = [f"{self._gathered} {name}/{rank}" for rank in range(self.size)]
        while not self._store.check(names):  # without a time limit: the heartbeat watches the others
            time.sleep(0.05)
        return [json.loads(self._store.get(place)) for place in names]

    def sum(self, values: Tensor) -> Tensor:
        """Sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def broadcast(self, values: Tensor) -> Tensor:
        """Copy the values of the first process to all, in place; on the CPU."""
        if self.size > 1:
            dist.broadcast(values, src=0)
        return values

    def gather_rows(self, rows: Tensor) -> Tensor:
        """Concatenate the rows `[n, ...]` of all processes by rank, on the CPU; n may differ."""
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
        """Tell the other processes that this one has finished or failed, and wait until they know."""
        if self._store is None:
            return
        self.has_left = True
        with contextlib.suppress(RuntimeError):
            self._store.set(f"left/{self.rank}", json.dumps(failure))
            if failure is None:
                self._store.wait([f"left/{rank}" for rank in range(self.size)], timedelta(seconds=SILENT_SECONDS))
            elif self.rank == 0:
                time.sleep(3 * BEAT_SECONDS)  # the store ends with this process
        if failure is None and dist.is_initialized():
            dist.destroy_process_group()

    def explain(self, error: RuntimeError) -> None:
        """Raise `HostLostError` if a network error caused `error`."""
        if self.size == 1:
            return
        time.sleep(3 * BEAT_SECONDS)  # the heartbeat may find the actual cause
        if isinstance(error, dist.DistError) or "onnection" in str(error) or "gloo" in str(error):
            cause = re.sub(r"^\[[^]]*\] *", "", str(error)).split(". ")[0]  # without the place in gloo's source
            raise HostLostError(f"The connection to another machine was lost: {cause}. {ADVICE}") from error


class _Heartbeat(threading.Thread):
    """Tells the other processes that this one is alive, and detects lost ones."""

    def __init__(
        self, group: Group, store: TCPStore, resources: Resources, on_loss: Callable[[HostLostError], None]
    ) -> None:
        super().__init__(daemon=True)
        self._group = group
        self._hosts = [resources.hosts[rank // group.local_size] for rank in range(group.size)]
        self._on_loss = on_loss
        # A separate connection, because the other one may be blocked by a waiting call.
        self._store = store.clone()  # type: ignore[attr-defined]

    def run(self) -> None:
        beats: dict[int, tuple[int, float]] = {}
        while not self._group.has_left:
            try:
                loss = self._check(beats)
            except RuntimeError:
                loss = f"Host {self._hosts[0]} has ended or cannot be reached"
            if self._group.has_left:
                return
            if loss:
                self._on_loss(HostLostError(f"{loss}; training cannot continue without it. {ADVICE}"))
            time.sleep(BEAT_SECONDS)

    def _check(self, beats: dict[int, tuple[int, float]]) -> str | None:
        """Send one heartbeat and check the others'; return a description of a failure, or None."""
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
                return f"Host {host} has not responded for {SILENT_SECONDS} seconds"
        return None


ADVICE = "If the job is restarted with its checkpoints, it resumes from the latest one."


def is_worker(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process was started by `launch`."""
    return "TORCHELASTIC_RUN_ID" in environment


def launch(resources: Resources, one_process: bool) -> int:
    """Start this machine's processes of a job on several machines with torchrun's launcher; return an exit code.

    Each process runs `train` again, with its rank in environment variables. There is one process for each GPU, or one
    for the machine if `one_process` is true. SIGTERM and SIGINT are forwarded to the processes.

    Raises:
        UserError: another machine of the job cannot be reached.
        StopBeforeTraining: a signal came before the processes were started.
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
        # SIGTERM and SIGINT are forwarded here, because the launcher would kill its processes after 30 seconds.
        signals_to_handle="SIGHUP",
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _forward_signal)
    try:
        launch_agent(config, sys.executable, ["-u", "-m", "lstm_fcn.training"])
    except ChildFailedError as error:
        return int(error.get_first_failure()[1].exitcode)
    except (dist.DistError, TimeoutError) as error:
        raise UserError(
            f"The machines {', '.join(resources.hosts)} did not all join within {LATE_SECONDS} seconds: {error}. "
            f"{ADVICE}"
        ) from error
    return 0


def _forward_signal(number: int, _frame: object) -> None:
    main_thread = os.getpid()  # which starts the processes
    children = [int(child) for child in Path(f"/proc/self/task/{main_thread}/children").read_text().split()]
    if not children:  # the processes have not been started yet
        raise StopBeforeTraining
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)


def _wait_for_name(host: str) -> None:
    """Wait until the name of another machine can be resolved (T42)."""
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
    """Use the network interface that the platform names between machines, if it exists (T43)."""
    if name and name in [found for _, found in socket.if_nameindex()]:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", name)
