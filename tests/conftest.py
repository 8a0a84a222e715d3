"""Settings of all tests."""

import os
import signal

from hypothesis import HealthCheck, settings

# The time that an example takes says more about the machine than about the code.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_configure() -> None:
    """Take Ctrl-C, and keep each worker of pytest-xdist and all that it starts on its own core.

    A shell starts what runs in the background with SIGINT ignored, and everything below it inherits that. Workers
    without a core of their own would wait for each other.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})
