"""gunicorn's worker of threads, with connections spread evenly over the workers."""

import mmap
import select
import selectors
import socket
import time
from functools import partial
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from lstm_fcn.serving.settings import Settings

MOMENT = 0.002  # seconds that a worker leaves to those with fewer connections
LINGER = 100  # milliseconds for which a thread waits for its connection's next request, rather than the loop
MOST_LINGERING = 128  # connections, beyond which threads are too few for that
_VACANT = -1
# How many connections each worker has, in memory that all of them share; 4 bytes each are written at once.
_connections = memoryview(mmap.mmap(-1, 4 * Settings.from_environment().workers)).cast("i")
for _slot in range(len(_connections)):
    _connections[_slot] = _VACANT


class BalancedWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """Leaves new connections to workers that have fewer of them, and keeps to a connection while it is busy.

    A connection that is kept alive stays with its worker. Of many that arrive at once, whichever worker wakes up first
    would take all, and the other cores would have nothing to do.
    """

    slot: int

    def handle(self, conn: Any) -> Any:
        """One request after another, as long as the client sends the next one soon."""
        while True:
            result = super().handle(conn)
            if result is not True or not self.alive or self.nr_conns > MOST_LINGERING:
                return result
            if not conn.parser.unreader.buf.getvalue() and not _is_readable(conn.sock, LINGER):
                return result

    def accept(self, listener: Any) -> None:
        """Take on a connection, after a moment for the others if this worker has more of them already."""
        others = [count for slot, count in enumerate(_connections) if slot != self.slot and count != _VACANT]
        if others and min(others) < self.nr_conns < MOST_LINGERING:
            time.sleep(MOMENT)
        super().accept(listener)  # nothing, if another worker was there first
        _connections[self.slot] = self.nr_conns

    def enqueue_req(self, conn: Any) -> None:
        """A connection gets a thread once it has said something: thousands may say nothing."""
        if conn.initialized or conn.data_ready:
            super().enqueue_req(conn)
            return
        conn.sock.setblocking(False)
        conn.set_timeout()
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn))

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """With a sign of life in time after it: an idle worker must not be taken for one that hangs."""
        super().wait_for_and_dispatch_events(min(timeout, self.timeout))

    def _cap_keepalive(self, deadline: float) -> None:
        """When the worker stops, connections that have said nothing are no reason to wait."""
        super()._cap_keepalive(deadline)
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)

    def notify(self) -> None:
        _connections[self.slot] = self.nr_conns
        super().notify()


def _is_readable(connection: socket.socket, milliseconds: int) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(milliseconds))


def take_slot(worker: Any) -> None:
    """Before a worker is forked, in the process that forks it."""
    worker.slot = list(_connections).index(_VACANT)
    _connections[worker.slot] = 0


def leave_slot(worker: Any) -> None:
    """When a worker has ended, however that was."""
    _connections[worker.slot] = _VACANT
