"""gunicorn's configuration; gunicorn reads the names in this module."""

import ctypes
import os
import resource
import shutil
import socket
import struct
import tempfile
from pathlib import Path
from typing import Any

# Not the app: ONNX Runtime starts a thread when it is imported, and a fork would wait for it in the end.
from lstm_fcn.serving.admission import MAX_REQUESTS
from lstm_fcn.serving.registry import Registry, find_models
from lstm_fcn.serving.settings import STATE, Settings

_settings = Settings.from_environment()

# glibc returns the memory of large requests to the system, whichever of the many threads allocated it.
_MMAP_THRESHOLD, _ARENA_MAX = -3, -8  # from malloc.h
_mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
if _mallopt is not None:
    _mallopt(_MMAP_THRESHOLD, 128 * 1024)
    _mallopt(_ARENA_MAX, 2)

wsgi_app = "lstm_fcn.serving.app:application()"
bind = f"[{_settings.host}]:{_settings.port}" if ":" in _settings.host else f"{_settings.host}:{_settings.port}"
workers = _settings.workers
worker_class = "gthread"  # threads: health checks are answered while predictions run (S3)
# Threads are started on demand: one for each admitted request, the others for health checks and slow clients.
threads = MAX_REQUESTS + 256
_files, _max_files = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (_max_files, _max_files))
worker_connections = max(threads + 1, min(16384, _max_files - 256))
backlog = 4096
# An idle worker reports to gunicorn once a second; a shorter timeout would kill it as hung.
timeout = max(_settings.timeout, 3)
graceful_timeout = 25  # the platform kills 30 seconds after SIGTERM (S8)
keepalive = 75
# Workers touch a file here to show that they are alive; with a read-only root only shared memory is writable.
_shared_memory = "/dev/shm"  # noqa: S108
worker_tmp_dir = _shared_memory if os.access(_shared_memory, os.W_OK) else None
control_socket_disable = True
IDLE_SECONDS = 30  # without a byte sent or taken by the client, after which its connection is closed
logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s [%(process)d] %(levelname)s %(message)s"}},
    "handlers": {"stdout": {"class": "logging.StreamHandler", "formatter": "plain", "stream": "ext://sys.stdout"}},
    "root": {"level": _settings.log_level, "handlers": ["stdout"]},
    "loggers": {"gunicorn.error": {"level": _settings.log_level, "handlers": ["stdout"], "propagate": False}},
}


def on_starting(server: Any) -> None:  # noqa: ARG001
    """Create the folder of what workers share and what outlives them: counts, and the names of many models."""
    if not (_settings.metrics or _settings.models_folder):
        return
    state = Path(tempfile.mkdtemp(prefix="lstm-fcn-", dir=worker_tmp_dir))
    os.environ[STATE] = str(state)
    if _settings.models_folder:
        (state / "models").mkdir()
        registry = Registry(state / "models", _settings.models_folder)
        for folder in find_models(_settings.models_folder):
            registry.add(folder.name, folder)


def when_ready(server: Any) -> None:
    """Set socket options that accepted connections inherit, so that silent clients do not occupy threads."""
    for listener in server.LISTENERS:
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            listener.sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", IDLE_SECONDS, 0))
        # The kernel hands a connection over once the client has sent something: thousands may send nothing.
        if hasattr(socket, "TCP_DEFER_ACCEPT"):  # on Linux only
            listener.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, IDLE_SECONDS)


def on_exit(server: Any) -> None:  # noqa: ARG001
    """Remove what the workers shared."""
    if STATE in os.environ:
        shutil.rmtree(os.environ[STATE], ignore_errors=True)
