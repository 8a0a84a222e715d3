"""How many processor cores this process may really use."""

import math
import os
from pathlib import Path


def available_cores(cgroup_root: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores that the scheduler and the container's limit (`docker run --cpus`) leave us, at least 1.

    `os.cpu_count()` counts the host's cores: starting that many threads in a container that may use
    two of them makes everything slower.
    """
    affinity = len(os.sched_getaffinity(0))
    quota = _cgroup_quota(cgroup_root)
    return affinity if quota is None else max(1, min(affinity, math.ceil(quota)))


def _cgroup_quota(root: Path) -> float | None:
    """The container's processor limit in cores, `None` without one (cgroup v2, else v1)."""
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
