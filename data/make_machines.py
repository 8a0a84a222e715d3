"""Make recordings of machines: three sensors at different rates, with gaps, and two kinds of fault.

    python -m data.make_machines FOLDER

Every machine has a speed and levels of its own. A worn bearing adds short shocks to the vibration; imbalance makes it
swing with the speed and raises the current. FOLDER gets `machines.csv`, the rows of eight machines; `faults.csv`, when
they had which fault; and `new.csv` and `new_faults.csv` of two other machines.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

SEED = 2017
MINUTES = 10
RATES = {"vibration": 0.1, "current": 0.5, "temperature": 2.0}  # seconds from one value to the next
FAULTS = ("bearing", "imbalance")
START = pd.Timestamp("2025-03-01T08:00:00Z")


def make_machine(name: str, rng: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows and faults of one machine; a row has the values of the sensors that reported at its time."""
    end = 60.0 * MINUTES
    edges = np.sort(rng.uniform(0, end, 8)).round(1)
    faults = pd.DataFrame({"start": edges[::2], "end": edges[1::2], "label": rng.permutation(FAULTS * 2)})
    speed, levels = rng.uniform(0.8, 1.6), {name: rng.uniform(0.8, 1.2) for name in RATES}
    gap = rng.uniform(0.1, 0.9) * end
    columns = []
    for sensor, interval in RATES.items():
        times = np.arange(0, end, interval) + rng.uniform(0, interval / 5, round(end / interval))
        times = times[(times < gap) | (times > gap + 8)]
        active = {fault: _is_active(times, faults, fault) for fault in FAULTS}
        noise = rng.normal(size=len(times))
        if sensor == "vibration":
            swing = np.sin(2 * np.pi * speed * times)
            shocks = (times * speed * 3.1 % 1 < 0.25) * rng.choice([-1, 1], len(times))
            values = 0.3 * swing + 0.25 * noise + 0.9 * active["bearing"] * shocks + 0.5 * active["imbalance"] * swing
        elif sensor == "current":
            values = 4 + 0.15 * noise + 0.25 * active["imbalance"]
        else:
            values = 40 + 2 * np.sin(times / 200) + 0.1 * noise
        columns.append(pd.DataFrame({"time": times.round(3), sensor: (levels[sensor] * values).round(4)}))
    rows = pd.concat(columns).groupby("time", as_index=False).first()
    return _name(rows, name, ("time",)), _name(faults, name, ("start", "end"))


def _is_active(times: NDArray[np.float64], faults: pd.DataFrame, fault: str) -> NDArray[np.bool_]:
    active = np.zeros(len(times), dtype=np.bool_)
    for start, end in faults.loc[faults["label"] == fault, ["start", "end"]].to_numpy():
        active |= (times >= start) & (times < end)
    return active


def _name(table: pd.DataFrame, machine: str, times: tuple[str, ...]) -> pd.DataFrame:
    for column in times:
        moments = START + pd.to_timedelta(table[column], unit="s")
        table[column] = moments.dt.strftime("%Y-%m-%dT%H:%M:%S.%f").str[:-3] + "Z"
    table.insert(0, "machine", machine)
    return table


def main(folder: Path, known: int = 8, new: int = 2) -> None:
    """Write the four files."""
    rng = np.random.default_rng(SEED)
    machines = [make_machine(f"m{number}", rng) for number in range(known + new)]
    folder.mkdir(parents=True, exist_ok=True)
    for names, part in ((("machines", "faults"), machines[:known]), (("new", "new_faults"), machines[known:])):
        for name, tables in zip(names, zip(*part, strict=True), strict=True):
            pd.concat(tables).to_csv(folder / f"{name}.csv", index=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
