"""Make the sample data: three classes of noisy waves.

Each series is a sine, square or triangle wave of random period, phase, amplitude and offset, with noise.

    python -m data.make_samples [FOLDER]
"""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SEED = 2017
LENGTH = 100
SIZES = {"train": 300, "valid": 90, "test": 150}
WAVES = ("sine", "square", "triangle")


def make_series(wave: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """One series of the class `wave`, float64 `[LENGTH]`."""
    period = rng.uniform(20, 50)
    phase = rng.uniform(0, 2 * np.pi)
    angle = 2 * np.pi * np.arange(LENGTH) / period + phase
    shapes = {
        "sine": np.sin(angle),
        "square": np.sign(np.sin(angle)),
        "triangle": 2 / np.pi * np.arcsin(np.sin(angle)),
    }
    noise = rng.normal(scale=0.1, size=LENGTH)
    series: NDArray[np.float64] = rng.uniform(0.8, 1.2) * (shapes[wave] + noise) + rng.uniform(-0.5, 0.5)
    return series


def make_rows(count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
    """`count` rows in random order, with equally many of each class: label, and values joined by commas."""
    labels = rng.permutation([WAVES[k % len(WAVES)] for k in range(count)])
    return [(str(label), ",".join(f"{value:.4f}" for value in make_series(label, rng))) for label in labels]


def main(folder: Path) -> None:
    """Write the training and validation data, the series to predict and their labels below `folder`."""
    rng = np.random.default_rng(SEED)
    rows = {name: make_rows(count, rng) for name, count in SIZES.items()}
    labelled = {name: [f"{label},{values}" for label, values in rows[name]] for name in SIZES}
    write_lines(folder / "training" / "train.csv", labelled["train"])
    write_lines(folder / "training" / "valid.csv", labelled["valid"])
    write_lines(folder / "inference" / "input" / "test_data.csv", [values for _, values in rows["test"]])
    write_lines(folder / "inference" / "output" / "test_labels.csv", [label for label, _ in rows["test"]])


def write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent)
