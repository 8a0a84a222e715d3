"""Training speed against the usual PyTorch code: `make bench-train`.

The usual code ("plain") is that of tutorials: float32, `nn.Conv1d`, `nn.LSTM`, `TensorDataset`, `DataLoader`, Adam.
Both train the same network on the same data. Their steps and epochs take turns, so that a change in the machine's speed
affects all alike; figures are medians, and ratios are those of medians.
"""

import functools
import itertools
import math
import statistics
import time
import warnings
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lstm_fcn.training.data.datasets import Dataset
from lstm_fcn.training.devices import MixedPrecision, choose_placement
from lstm_fcn.training.distributed import Group
from lstm_fcn.training.evaluate import even_batches
from lstm_fcn.training.network.model import LSTMFCN
from lstm_fcn.training.step import GraphedStep, TrainingStep, make_optimizer

NUM_CLASSES = 3
STEP_CASES = ((60, 128), (150, 128), (500, 128), (150, 16), (1000, 32))  # length, batch size
EPOCH_CASES = ((150, 512, 128), (150, 500, 32), (24, 2000, 128))  # length, series, batch size
GPU_CASES = ((100, 128), (1000, 128))
GPU_STEPS = 100  # timed together, because a single one is too short
WARM_UP = 2
ROUNDS = 9


class PlainLSTMFCN(nn.Module):
    """LSTM-FCN as it is usually written in torch."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(length, 8, batch_first=True)
        self.dropout = nn.Dropout(0.8)
        self.conv1, self.norm1 = nn.Conv1d(1, 128, 8, padding="same"), nn.BatchNorm1d(128, 1e-3, 0.01)
        self.conv2, self.norm2 = nn.Conv1d(128, 256, 5, padding="same"), nn.BatchNorm1d(256, 1e-3, 0.01)
        self.conv3, self.norm3 = nn.Conv1d(256, 128, 3, padding="same"), nn.BatchNorm1d(128, 1e-3, 0.01)
        self.linear = nn.Linear(8 + 128, NUM_CLASSES)

    def forward(self, series: Tensor) -> Tensor:
        steps, _ = self.lstm(series)
        features = F.relu(self.norm1(self.conv1(series)))
        features = F.relu(self.norm2(self.conv2(features)))
        features = F.relu(self.norm3(self.conv3(features)))
        logits: Tensor = self.linear(torch.cat([self.dropout(steps[:, -1]), features.mean(dim=-1)], dim=1))
        return logits


Step = Callable[[Tensor, Tensor], object]


def plain_step(length: int, device: torch.device) -> Step:
    network = PlainLSTMFCN(length).to(device)
    optimizer = torch.optim.Adam(network.parameters())

    def step(series: Tensor, labels: Tensor) -> float:
        optimizer.zero_grad()
        loss = F.cross_entropy(network(series.to(device)), labels.to(device))
        torch.autograd.backward(loss)
        optimizer.step()
        return loss.item()

    return step


def our_step(length: int, device: torch.device, bfloat16: bool) -> TrainingStep:
    network = LSTMFCN(length, NUM_CLASSES).to(device)
    forward = MixedPrecision(network, bfloat16)
    return TrainingStep(forward, make_optimizer(network, 0.001), torch.ones(NUM_CLASSES, device=device))


def make_steps(length: int, device: torch.device) -> dict[str, Step]:
    """A step of the plain code, and ours in both precisions."""
    return {
        "plain": plain_step(length, device),
        "float32": our_step(length, device, bfloat16=False),
        "bfloat16": our_step(length, device, bfloat16=True),
    }


def plain_epoch(step: Step, series: Tensor, labels: Tensor, batch_size: int) -> None:
    """One epoch; the step moves the batches to its device."""
    for batch in DataLoader(TensorDataset(series, labels), batch_size=batch_size, shuffle=True):
        step(*batch)


def our_epoch(step: Step, series: Tensor, labels: Tensor, batch_size: int) -> None:
    for batch in even_batches(torch.randperm(len(labels)).to(series.device), math.ceil(len(labels) / batch_size)):
        step(series[batch], labels[batch])


def median_times(ways: Mapping[str, Callable[[], object]], device: torch.device) -> dict[str, float]:
    """Median seconds of each way over `ROUNDS` rounds, in which all ways take turns."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for round_number, (name, way) in itertools.product(range(WARM_UP + ROUNDS), ways.items()):
        started = time.perf_counter()
        way()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if round_number >= WARM_UP:
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def compare(title: str, ways: Mapping[str, Callable[[], object]], device: torch.device) -> None:
    times = median_times(ways, device)
    plain = times["plain"]
    cells = " | ".join(f"{plain / seconds:.2f}" for name, seconds in times.items() if name != "plain")
    print(f"| {title} | {1000 * plain:.1f} ms | {cells} |", flush=True)


def compare_on_gpu(length: int, batch_size: int, device: torch.device) -> None:
    """Our step on a GPU, eager and as a CUDA graph, in bfloat16; data on the device."""
    series, labels = random_series(4 * batch_size, length)
    training = Dataset(series.to(device), labels.to(device), device)
    step = our_step(length, device, bfloat16=True)
    graphed = GraphedStep(step, training)
    picked = torch.randperm(len(labels), device=device)[:batch_size]

    def eager() -> None:
        for _ in range(GPU_STEPS):
            step(*training.batch(picked))

    def graph() -> None:
        for _ in range(GPU_STEPS):
            graphed(picked)

    times = median_times({"eager": eager, "graph": graph}, device)
    eager_us, graph_us = (1e6 * times[name] / GPU_STEPS for name in ("eager", "graph"))
    title = f"length {length}, batch {batch_size}"
    print(f"| {title} | {eager_us:.0f} us | {graph_us:.0f} us | {eager_us / graph_us:.2f} |", flush=True)


def main() -> None:
    warnings.filterwarnings("ignore", "Using padding='same'")  # of the plain code
    device = choose_placement("float32", Group()).device
    print(f"torch {torch.__version__}. How many times as fast as the plain code (median of {ROUNDS}):\n")
    print("| one step | plain | ours, float32 | ours, bfloat16 |\n|---|---|---|---|")
    for length, batch_size in STEP_CASES:
        series, labels = random_series(batch_size, length)
        on_device = series.to(device), labels.to(device)
        steps = make_steps(length, device)
        compare(
            f"length {length}, batch {batch_size}",
            {name: functools.partial(step, *on_device) for name, step in steps.items()},
            device,
        )
    print("\n| one epoch | plain | ours, float32 | ours, bfloat16 |\n|---|---|---|---|")
    for length, count, batch_size in EPOCH_CASES:
        series, labels = random_series(count, length)
        on_device = series.to(device), labels.to(device)
        plain, *ours = make_steps(length, device).items()
        ways: dict[str, Callable[[], object]] = {
            "plain": functools.partial(plain_epoch, plain[1], series, labels, batch_size)
        }
        ways |= {name: functools.partial(our_epoch, step, *on_device, batch_size) for name, step in ours}
        compare(f"{count} series of {length}, batch {batch_size}", ways, device)
    if device.type == "cuda":
        print("\n| one step on the GPU | eager | as a graph | eager / graph |\n|---|---|---|---|")
        for length, batch_size in GPU_CASES:
            compare_on_gpu(length, batch_size, device)
    else:
        print("\nNo GPU found: GPU steps, eager and as a CUDA graph, were not timed.")


def random_series(count: int, length: int) -> tuple[Tensor, Tensor]:
    return torch.randn(count, 1, length), torch.randint(NUM_CLASSES, (count,))


if __name__ == "__main__":
    main()
