"""How training scales from one process to two: part of `make bench-train`.

Each process represents a machine with half of this machine's cores; the two communicate over the loopback interface.
The same job runs on one of them, on both, and as one process on all cores. The first epoch is not timed.
"""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from lstm_fcn.benchmarks.programs import labelled_csv, prepare_job, start
from lstm_fcn.container.cores import available_cores

LENGTH, ROWS, CLASSES, EPOCHS = 150, 1024, ("1", "2", "3", "4"), 6
HOSTS = ("127.0.0.1", "127.0.0.2")


def start_host(root: Path, hosts: Sequence[str], host: str, cores: Sequence[int]) -> "subprocess.Popen[str]":
    """Start the part of a job that runs on one of its machines."""
    settings = {"epochs": str(EPOCHS), "batch-size": "128", "checkpoint-minutes": "0"}
    prepare_job(root, labelled_csv(ROWS, LENGTH, CLASSES), settings)
    (root / "input/config/resourceconfig.json").write_text(json.dumps({"current_host": host, "hosts": list(hosts)}))
    everything = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)  # inherited by the process
    try:
        return start("train", root, {"PYTHONUNBUFFERED": "1"})
    finally:
        os.sched_setaffinity(0, everything)


def seconds_per_epoch(hosts: Sequence[str], cores: int) -> float:
    """Seconds per epoch of a job whose machines have `cores` cores each."""
    everything = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            start_host(Path(folder) / str(k), hosts, host, everything[k * cores : (k + 1) * cores])
            for k, host in enumerate(hosts)
        ]
        times = [time.perf_counter() for line in processes[0].stdout or [] if "train_loss: " in line]
        for process in processes:
            _, errors = process.communicate()
            if process.returncode:
                raise SystemExit(f"a process failed with exit code {process.returncode}: {errors}")
    return (times[EPOCHS - 1] - times[1]) / (EPOCHS - 2)


def main() -> None:
    cores = available_cores() // 2
    if not cores:
        raise SystemExit("Two processes need two cores.")
    ways = {
        f"1 process on {cores} core(s)": seconds_per_epoch(HOSTS[:1], cores),
        f"2 processes on {cores} core(s) each": seconds_per_epoch(HOSTS, cores),
        f"1 process on {2 * cores} cores": seconds_per_epoch(HOSTS[:1], 2 * cores),
    }
    first = next(iter(ways.values()))
    print(f"{ROWS} series of {LENGTH}, batch 128, one epoch:\n\n| | seconds | times as fast |\n|---|---|---|")
    for name, seconds in ways.items():
        print(f"| {name} | {seconds:.2f} | {first / seconds:.2f} |")


if __name__ == "__main__":
    main()
