"""Running a function over many items in processes: of this machine with joblib, of a cluster with Ray.

A process computes with one thread, and keeps what it has imported and cached from one item to the next.
"""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, Self, TypeVar

from joblib.externals import loky
from joblib.externals.loky.process_executor import TerminatedWorkerError

from lstm_fcn.container.cores import available_cores
from lstm_fcn.container.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 2  # items in flight for each core, so that none waits for its next item
CONNECT_SECONDS = 15.0
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def spread(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int | None = None, cluster: str | None = None
) -> Iterator[tuple[Item, Result]]:
    """Call a function with each item in another process, and yield items and results as they complete.

    With Ray, the items of a machine that is lost run again on another one. If the caller stops early, as after Ctrl-C,
    the processes end.

    Args:
        function: of a module that the processes can import, or a `partial` of one.
        items: to call it with; they are taken as processes become free.
        workers: most processes; None: one for each core.
        cluster: address of a Ray cluster; None: this machine.

    Raises:
        UserError: Ray is not installed, the cluster cannot be reached, or a process was killed.
    """
    with _Cluster(function, cluster, workers) if cluster else _Cores(function, workers or available_cores()) as pool:
        running: dict[Any, Item] = {}
        for item in items:
            running[pool.submit(item)] = item
            while len(running) >= pool.most():
                yield from _collect(pool, running)
        while running:
            yield from _collect(pool, running)


def _collect(pool: "_Pool", running: dict[Any, Item]) -> Iterator[tuple[Item, Any]]:
    for task in pool.wait(list(running)):
        yield running.pop(task), pool.result(task)


class _Pool(Protocol):
    """Processes. `most`: how many tasks may be in flight; `wait` returns the tasks that are done, at least one."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None: ...

    def most(self) -> int: ...

    def submit(self, item: Any) -> Any: ...

    def wait(self, tasks: Sequence[Any]) -> Iterable[Any]: ...

    def result(self, task: Any) -> Any: ...


class _Cores:
    """Processes of this machine."""

    def __init__(self, function: Callable[[Any], Any], workers: int) -> None:
        self._function, self._workers = function, workers
        # The executor below joblib's Parallel, which would run a single worker within this process and its threads.
        self._executor = loky.ProcessPoolExecutor(workers, env=ONE_THREAD, initializer=_prepare)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._executor.shutdown(wait=True, kill_workers=kind is not None)

    def most(self) -> int:
        return AHEAD * self._workers

    def submit(self, item: Any) -> Any:
        return self._executor.submit(self._function, item)

    def wait(self, tasks: Sequence[Any]) -> Iterable[Any]:
        done: set[Any] = loky.wait(tasks, return_when=loky.FIRST_COMPLETED).done
        return done

    def result(self, task: Any) -> Any:
        try:
            return task.result()
        except TerminatedWorkerError as error:
            raise UserError(
                "A worker process was killed; the machine may have run out of memory. Use fewer --workers, and run the "
                "same command again to resume."
            ) from error


def _prepare() -> None:
    """Leave Ctrl-C to the parent process, and end when it ends, whatever ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()

    def end_with_parent() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


class _Cluster:
    """Processes of a Ray cluster, each with one core."""

    def __init__(self, function: Callable[[Any], Any], address: str, workers: int | None) -> None:
        try:
            import ray
        except ModuleNotFoundError as error:
            message = f"--ray needs the package {error.name}, which is not installed: pip install 'lstm-fcn[ray]'."
            raise UserError(message) from error
        self._ray: Any = ray
        self._workers = workers
        _connect(ray, address)

        def call(item: Any) -> Any:  # Ray takes no `partial`
            return function(item)

        self._task = ray.remote(num_cpus=1, scheduling_strategy="SPREAD")(call)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ray.shutdown()  # which ends the tasks that are running

    def most(self) -> int:
        return self._workers or AHEAD * max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def submit(self, item: Any) -> Any:
        return self._task.remote(item)

    def wait(self, tasks: Sequence[Any]) -> Iterable[Any]:
        done, _ = self._ray.wait(tasks, num_returns=1)
        return list(done)

    def result(self, task: Any) -> Any:
        exceptions = self._ray.exceptions
        try:
            return self._ray.get(task)
        except exceptions.RayTaskError:  # raised by the function
            raise
        except exceptions.RayError as error:
            reason = str(error).strip().splitlines()[0].rstrip(".")
            raise UserError(
                f"A task of the Ray cluster failed several times: {reason}. Run the same command again to resume."
            ) from error


def _connect(ray: Any, address: str) -> None:
    """Connect to a cluster, or raise `UserError` after `CONNECT_SECONDS`; Ray alone would try for minutes."""
    outcome: list[Exception | None] = []

    def connect() -> None:
        try:
            host, _, port = address.removeprefix("ray://").rpartition(":")
            if port.isdecimal():  # a closed port is found at once
                socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
            ray.init(address, log_to_driver=False, logging_level="ERROR", runtime_env={"env_vars": ONE_THREAD})
            outcome.append(None)
        except Exception as error:  # noqa: BLE001 - Ray raises many kinds
            outcome.append(error)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    problem = outcome[0] if outcome else TimeoutError(f"no answer within {CONNECT_SECONDS:.0f} seconds")
    if problem is not None:
        reason = (str(problem).strip() or type(problem).__name__).splitlines()[0].rstrip(".")
        raise UserError(
            f"The Ray cluster at {address} cannot be reached: {reason}. Check --ray, or start one: ray start --head."
        ) from problem
