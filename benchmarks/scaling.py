"""How training scales from one process to two: part of `make bench-train`.

Each process plays a machine of its own with half of this machine's cores; the two talk over the loopback interface. The
same job runs on one of them, on both, and as one process on all cores. Times are those from the second epoch's line to
the last one's.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lstm_fcn.container.cores import available_cores

LENGTH, ROWS, CLASSES, EPOCHS = 150, 1024, 4, 6
HOSTS = ("127.0.0.1", "127.0.0.2")


def prepare(root: Path, hosts: Sequence[str], host: str) -> Path:
    """A job's tree for one of its machines."""
    rng = np.random.default_rng(0)
    data, config = root / "input" / "data" / "training", root / "input" / "config"
    data.mkdir(parents=True)
    config.mkdir()
    labels = rng.integers(CLASSES, size=(ROWS, 1))
    series = rng.normal(size=(ROWS, LENGTH)) + labels
    np.savetxt(data / "train.csv", np.hstack([labels, series]), delimiter=",", fmt="%.5g")
    (config / "hyperparameters.json").write_text(json.dumps({"epochs": str(EPOCHS), "checkpoint-minutes": "0"}))
    (config / "resourceconfig.json").write_text(json.dumps({"current_host": host, "hosts": list(hosts)}))
    return root


def seconds_per_epoch(hosts: Sequence[str], cores: int) -> float:
    """Of a job whose machines have `cores` cores each."""
    everything = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        processes = []
        for number, host in enumerate(hosts):
            mine = everything[number * cores : (number + 1) * cores]
            root = prepare(Path(folder) / str(number), hosts, host)
            os.sched_setaffinity(0, mine)  # which the process inherits
            command = [sys.executable, "-u", "-m", "lstm_fcn.training"]
            settings = os.environ | {"SAGEMAKER_BASE_DIR": str(root)}
            processes.append(
                subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            )
        os.sched_setaffinity(0, everything)
        times = [time.perf_counter() for line in processes[0].stdout or [] if "train_loss: " in line]
        for process in processes:
            process.communicate()
            if process.returncode:
                raise SystemExit(f"a process failed with exit code {process.returncode}")
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
