"""Many small models: `lstm-fcn train-many` against a loop of `lstm-fcn train`, as a ratio, with the same files.

The loop trains some of the groups, spread over all; its time for the others is taken to be their mean. It is run with
all cores for each model, and with one core, which gives the same bytes as train-many. The faster one is the peer.
"""

import os
import subprocess
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import pyarrow
from pyarrow import compute, parquet

from lstm_fcn.benchmarks.programs import PROGRAMS
from lstm_fcn.container.cores import available_cores

CLASSES = ("low", "middle", "high")
FILES = ("model.json", "model.onnx", "weights.safetensors", "README.md")
NAME = "machine-{:04d}"


def write_table(path: Path, groups: int, series: int, length: int) -> None:
    """Noisy waves; each group has frequencies of its own. The rows are in random order."""
    rng = np.random.default_rng(0)
    classes = np.tile(np.arange(series) % len(CLASSES), groups)
    frequencies = np.repeat(rng.uniform(1, 4, groups), series) + 0.7 * classes
    phases = rng.normal(0, 0.5, (groups * series, 1))
    waves = np.sin(2 * np.pi * frequencies[:, None] * np.linspace(0, 1, length) + phases)
    values = waves + rng.normal(0, 0.6, waves.shape)
    order = rng.permutation(len(values))
    columns = {
        "label": np.array(CLASSES)[classes][order],
        "machine": np.repeat([NAME.format(k) for k in range(groups)], series)[order],
        **{f"value {k}": column for k, column in enumerate(values[order].T)},
    }
    parquet.write_table(pyarrow.table(columns), path)


def run(*arguments: object, **settings: str) -> float:
    """Run `lstm-fcn` with these arguments and environment variables; return the seconds that it took."""
    started = time.perf_counter()
    command = [str(PROGRAMS / "lstm-fcn"), *map(str, arguments)]
    subprocess.run(command, env=os.environ | settings, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def _contents(model: Path) -> list[bytes]:
    return [(model / name).read_bytes() for name in FILES]


@click.command(context_settings={"show_default": True})
@click.option("--groups", default=500)
@click.option("--series", default=60, help="of each group")
@click.option("--length", default=50, help="of a series")
@click.option("--epochs", default=10)
@click.option("--loop", default=10, help="groups that the loop trains")
def main(groups: int, series: int, length: int, epochs: int, loop: int) -> None:
    """Train many small models in both ways."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_table(folder / "table.parquet", groups, series, length)
        table = parquet.read_table(folder / "table.parquet")
        settings = ("--epochs", epochs)
        chosen = [NAME.format(k) for k in np.linspace(0, groups - 1, loop).astype(int)]
        seconds = {"all cores": 0.0, "one core": 0.0}
        for name in chosen:
            rows = table.filter(compute.field("machine") == name).drop_columns("machine")
            parquet.write_table(rows, folder / f"{name}.parquet")
            train = ("train", "--training", folder / f"{name}.parquet", *settings, "--output")
            seconds["all cores"] += run(*train, folder / "all cores" / name)
            seconds["one core"] += run(*train, folder / "loop" / name, OMP_NUM_THREADS="1")
        many = run("train-many", folder / "table.parquet", folder / "many", "--by", "machine", *settings)
        equal = [_contents(folder / "loop" / name) == _contents(folder / "many" / name) for name in chosen]
        trained = len(list((folder / "many").glob("*/model.json")))
    click.echo(f"{groups} models of {series} series of {length} values, {epochs} epochs, {available_cores()} cores")
    click.echo(f"train-many: {many:.1f} s for {trained} models, {many / trained:.2f} s each")
    for cores, total in seconds.items():
        click.echo(f"loop of train, {cores}: {total / loop:.2f} s each, measured on {loop}")
    best = min(seconds.values()) / loop * trained
    click.echo(
        f"train-many is {best / many:.1f} times as fast as the loop would be ({best:.0f} s for {trained} models)"
    )
    click.echo(f"same bytes: {sum(equal)} of {loop} models")


if __name__ == "__main__":
    main()
