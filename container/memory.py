"""Memory: how much this machine or container has, and how much this process has taken."""

import os
from pathlib import Path


def available_memory(cgroup_root: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of memory of this machine, or of the container's limit."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # cgroup v2, v1
        try:
            return min(memory, int((cgroup_root / name).read_text()))
        except (OSError, ValueError):
            continue
    return memory


def resident_memory() -> int:
    """Bytes of memory that this process has taken."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
