"""Random convolutional kernel features and a linear layer that reads them.

After MiniRocket (Dempster et al. 2021, "MiniRocket: A Very Fast (Almost) Deterministic Transform for Time Series
Classification"): 84 fixed kernels of nine weights, each at several dilations. A feature is the share of time in which
the response of a kernel is above a bias; the biases are quantiles of responses to training series.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 9
HIGH = tuple(itertools.combinations(range(WIDTH), 3))  # positions of the weights 2 of each kernel; the others are -1
GOLDEN_RATIO = (math.sqrt(5) + 1) / 2  # its multiples, modulo 1, spread evenly over 0 to 1
MOST_VARIABLES = 9  # that one kernel reads
# Series are rounded to this many steps per unit, so that responses are integers that float32 holds exactly, and biases
# lie halfway between two integers. Otherwise, rounding would decide some comparisons, differently in each engine.
STEPS_PER_UNIT = 2.0**14
MOST_VALUES = 2**24  # comparisons with biases that are held in memory at once


class Bank(nn.Module):
    """Half of the kernels at one dilation, with or without padding, and their biases.

    Rounded series `[B, M, T]` to responses `[B, 42, T']`. With padding T' is T; without, only positions count at which
    the kernel lies within the series.
    """

    channels: Tensor
    bias: Tensor

    def __init__(self, parity: int, dilation: int, padded: bool, biases: int, channels: Tensor) -> None:
        """Create the even (0) or odd (1) kernels in `HIGH`.

        `channels`, bool `[42, M]`: the variables that each kernel reads; their responses are added.
        """
        super().__init__()
        self.dilation = dilation
        self.padding = (WIDTH // 2) * dilation if padded else 0
        self.register_buffer("channels", channels)
        self.register_buffer("bias", torch.zeros(len(channels), biases))
        self._weights = torch.full((len(channels), 1, WIDTH), -1.0)
        for row, places in enumerate(HIGH[parity::2]):
            self._weights[row, 0, list(places)] = 2.0

    def steps(self, length: int) -> int:
        """T' for series of T steps."""
        return length if self.padding else length - (WIDTH - 1) * self.dilation

    @property
    def weights(self) -> Tensor:
        """float32 `[42, M, WIDTH]`."""
        return self._weights.to(self.channels.device) * self.channels[:, :, None]

    def responses(self, series: Tensor) -> Tensor:
        return F.conv1d(series, self.weights, padding=self.padding, dilation=self.dilation)

    def above(self, series: Tensor) -> Tensor:
        """Where responses are above the biases, float32 `[B, 42 * biases, T']`."""
        return (self.responses(series).unsqueeze(2) > self.bias[:, :, None]).flatten(1, 2).float()


class KernelFeatures(nn.Module):
    """Scaled series `[B, M, T]` to features `[B, count]`.

    banks: in the order of their features.
    """

    banks: Sequence[Bank]

    def __init__(self, length: int, num_variables: int, count: int) -> None:
        """Create about `count` features, a multiple of 84, whose biases are still to be drawn."""
        super().__init__()
        each = max(1, round(count / len(HIGH)))
        banks = []
        random = np.random.default_rng(0)
        for number, (dilation, biases) in enumerate(choose_dilations(length, each)):
            for parity in (0, 1):
                # In turns with padding and without, if a kernel fits into the series at all.
                padded = (number + parity) % 2 == 0 or (WIDTH - 1) * dilation >= length
                channels = np.stack([draw_channels(num_variables, random) for _ in HIGH[parity::2]])
                banks.append(Bank(parity, dilation, padded, biases, torch.from_numpy(channels)))
        self.banks = nn.ModuleList(banks)  # type: ignore[assignment]  # it holds nothing else
        self.count = len(HIGH) * each

    def draw_biases(self, series: Tensor, seed: int) -> None:
        """Set the biases to quantiles of the response to a series that is drawn anew for each kernel and dilation.

        Args:
            series: scaled training series, float32 `[K, M, T]`.
            seed: of the draw.
        """
        random, number, series = np.random.default_rng(seed), 1, round_series(series)
        for bank in self.banks:
            drawn = torch.from_numpy(random.integers(len(series), size=len(bank.bias)))
            responses = bank.responses(series[drawn.to(series.device)]).diagonal().T
            levels = torch.arange(number, number + bank.bias.numel(), dtype=torch.float64) * GOLDEN_RATIO % 1
            number += bank.bias.numel()
            for row, (response, shares) in enumerate(zip(responses, levels.view(bank.bias.shape), strict=True)):
                bank.bias[row] = response.quantile(shares.float().to(response.device)).floor() + 0.5

    def forward(self, series: Tensor) -> Tensor:
        largest = max(bank.bias.numel() for bank in self.banks)
        size = max(1, MOST_VALUES // (largest * series.shape[2]))
        parts = round_series(series).split(size)  # type: ignore[no-untyped-call]
        return torch.cat([torch.cat([bank.above(part).mean(dim=2) for bank in self.banks], dim=1) for part in parts])


def round_series(series: Tensor) -> Tensor:
    """Scaled series in steps, rounded to integers, half to even; float32."""
    return (series * STEPS_PER_UNIT).round()


def choose_dilations(length: int, each: int) -> list[tuple[int, int]]:
    """Dilations 1, 2, 4, ... up to the length of the series, and how many of a kernel's `each` biases each one has."""
    largest = max(1, (length - 1) // (WIDTH - 1))
    dilations = [2**k for k in range(largest.bit_length())][:each]
    return [(dilation, each // len(dilations) + (k < each % len(dilations))) for k, dilation in enumerate(dilations)]


def draw_channels(num_variables: int, random: np.random.Generator) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    """Draw the variables that a kernel reads: one to nine, few more often than many; bool `[M]`."""
    most = min(num_variables, MOST_VARIABLES)
    count = int(2 ** random.uniform(0, math.log2(most + 1)))
    channels = np.zeros(num_variables, dtype=np.bool_)
    channels[random.choice(num_variables, count, replace=False)] = True
    return channels


class KernelClassifier(nn.Module):
    """Kernel features and a linear layer: scaled series `[B, M, T]` to logits `[B, C]`.

    mean: of each feature over the training series, float32 `[features]`; used by the activation map only.
    """

    mean: Tensor

    def __init__(self, features: KernelFeatures, num_classes: int) -> None:
        super().__init__()
        self.features = features
        self.linear = nn.Linear(features.count, num_classes).requires_grad_(False)
        self.register_buffer("mean", torch.zeros(features.count))

    def forward(self, series: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.features(series))
        return logits

    def activation_map(self, series: Tensor, classes: Tensor) -> Tensor:
        """How much more each time step adds to the logit of a class than in the mean training series, `[B, T]`.

        The mean over time is the logit minus that of the means of the features. Without taking them off, the map would
        be that of an arbitrary constant, which the bias of the linear layer makes up for.

        Args:
            series: scaled, float32 `[B, M, T]`.
            classes: the class to explain for each series, int64 `[B]`.
        """
        sizes = [bank.bias.numel() for bank in self.features.banks]
        weights = self.linear.weight[classes].unsqueeze(1).split(sizes, dim=2)  # type: ignore[no-untyped-call]
        means = self.mean.split(sizes)  # type: ignore[no-untyped-call]
        rounded = round_series(series)
        total = torch.zeros(len(series), 1, series.shape[2], device=series.device)
        for weight, mean, bank in zip(weights, means, self.features.banks, strict=True):
            part = torch.matmul(weight, bank.above(rounded)) - torch.matmul(weight, mean).unsqueeze(2)
            cut = (series.shape[2] - part.shape[2]) // 2
            total += F.pad(part, (cut, cut)) * (series.shape[2] / part.shape[2])  # fewer steps count more each
        return total.squeeze(1)
