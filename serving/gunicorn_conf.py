"""gunicorn's configuration; it reads the module's names."""

import ctypes
import os
import resource
import socket
import struct
from typing import Any

from lstm_fcn.serving.app import QUEUE
from lstm_fcn.serving.settings import Settings
from lstm_fcn.serving.worker import leave_slot, take_slot

_settings = Settings.from_environment()

# What large requests took is given back to the system, whichever of the many threads it was that took it.
_MMAP_THRESHOLD, _ARENA_MAX = -3, -8  # of glibc's malloc.h
_mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
if _mallopt is not None:
    _mallopt(_MMAP_THRESHOLD, 128 * 1024)
    _mallopt(_ARENA_MAX, 2)

wsgi_app = "lstm_fcn.serving.app:application()"
bind = f"[{_settings.host}]:{_settings.port}" if ":" in _settings.host else f"{_settings.host}:{_settings.port}"
workers = _settings.workers
worker_class = (
    "lstm_fcn.serving.worker.BalancedWorker"  # threads: health checks are answered while predictions run (S3)
)
# Threads start when they are needed: one for each request of the queue, and some that see to health checks and to
# clients who are slow to say what they want.
threads = QUEUE + 256
_files, _most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (_most_files, _most_files))
worker_connections = max(threads + 1, min(16384, _most_files - 256))
backlog = 4096
timeout = _settings.timeout
graceful_timeout = 25  # the platform kills 30 seconds after SIGTERM (S8)
keepalive = 75
# Workers touch a file here to show that they live; with a read-only root there is only shared memory.
_shared_memory = "/dev/shm"  # noqa: S108
worker_tmp_dir = _shared_memory if os.access(_shared_memory, os.W_OK) else None
control_socket_disable = True
SILENCE = 30  # seconds in which a client sends or takes nothing, after which its connection is closed
logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s [%(process)d] %(levelname)s %(message)s"}},
    "handlers": {"stdout": {"class": "logging.StreamHandler", "formatter": "plain", "stream": "ext://sys.stdout"}},
    "root": {"level": _settings.log_level, "handlers": ["stdout"]},
    "loggers": {"gunicorn.error": {"level": _settings.log_level, "handlers": ["stdout"], "propagate": False}},
}


def when_ready(server: Any) -> None:
    """Connections inherit what is set for the listening socket: a silent client holds a thread for so long only."""
    for listener in server.LISTENERS:
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            listener.sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", SILENCE, 0))


def pre_fork(_: Any, worker: Any) -> None:
    take_slot(worker)


def child_exit(_: Any, worker: Any) -> None:
    leave_slot(worker)
