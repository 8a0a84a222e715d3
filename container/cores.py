"""Processor cores: how many this process may use, and how its threads wait for each other."""

import math
import os
from pathlib import Path


def available_cores(cgroup_root: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores allowed by the scheduler and by the limit of the container (`docker run --cpus`), at least 1.

    `os.cpu_count()` counts the cores of the host: that many threads are slow in a container with a limit of two cores.
    """
    affinity = len(os.sched_getaffinity(0))
    quota = _cgroup_quota(cgroup_root)
    return affinity if quota is None else max(1, min(affinity, math.ceil(quota)))


def _cgroup_quota(root: Path) -> float | None:
    """The processor limit of the container in cores (cgroup v2, else v1); None without a limit."""
    try:
        limit, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            limit = (root / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if limit in ("max", "-1"):
        return None
    return int(limit) / int(period)


def allowed_threads(processes: int = 1) -> int:
    """Threads for each of the processes that compute on this machine: its share of the cores, at least 1.

    `OMP_NUM_THREADS` may lower it: so joblib keeps its workers (`n_jobs` in scikit-learn) from starting more threads
    than there are cores.
    """
    share = available_cores() // processes
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(share, int(limit)) if limit.isdecimal() else share)


def wait_passively() -> None:
    """Make the idle threads of an OpenMP program sleep instead of spinning; call it before torch is imported.

    A thread that spins takes its core from a program that could use it. Beside two busy processes on two cores, a
    training takes about half as long with this setting; on an idle machine it makes no difference. The results are the
    same. PASSIVE implies GOMP_SPINCOUNT=0 and KMP_BLOCKTIME=0. A value that the user has set is kept.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
