"""gunicorn's configuration; it reads the module's names."""

import os

from serving.settings import Settings

_settings = Settings.from_environment()

wsgi_app = "serving.app:application()"
bind = f"0.0.0.0:{_settings.port}"
workers = _settings.workers
worker_class = "gthread"  # health checks are answered while predictions run (S3)
threads = 16
timeout = _settings.timeout
graceful_timeout = 25  # the platform kills 30 seconds after SIGTERM (S8)
keepalive = 75
# Workers touch a file here to show that they live; with a read-only root there is only shared memory.
_shared_memory = "/dev/shm"  # noqa: S108
worker_tmp_dir = _shared_memory if os.access(_shared_memory, os.W_OK) else None
control_socket_disable = True
logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s [%(process)d] %(levelname)s %(message)s"}},
    "handlers": {"stdout": {"class": "logging.StreamHandler", "formatter": "plain", "stream": "ext://sys.stdout"}},
    "root": {"level": "INFO", "handlers": ["stdout"]},
    "loggers": {"gunicorn.error": {"level": "INFO", "handlers": ["stdout"], "propagate": False}},
}
