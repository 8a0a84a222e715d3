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
# A bias is this much above its quantile. Otherwise, where a series is constant and the response is 0 but for rounding,
# rounding would decide whether it is above a bias of 0, differently in each engine.
ABOVE_ROUNDING = 1e-5


class Bank(nn.Module):
    """All kernels at one dilation, and their biases: series `[B, M, T]` to responses `[B, 84, T]`.

    Unlike in the paper, all responses are padded; leaving out the padding for half of the kernels gains nothing.
    """

    channels: Tensor
    bias: Tensor

    def __init__(self, dilation: int, biases: int, channels: Tensor) -> None:
        """`channels`, bool `[84, M]`: the variables that each kernel reads; their responses are added."""
        super().__init__()
        self.dilation = dilation
        self.padding = (WIDTH // 2) * dilation
        self.register_buffer("channels", channels)
        self.register_buffer("bias", torch.zeros(len(HIGH), biases))
        self._weights = torch.full((len(HIGH), 1, WIDTH), -1.0)
        for row, places in enumerate(HIGH):
            self._weights[row, 0, list(places)] = 2.0

    @property
    def weights(self) -> Tensor:
        """float32 `[84, M, WIDTH]`."""
        return self._weights.to(self.channels.device) * self.channels[:, :, None]

    def responses(self, series: Tensor) -> Tensor:
        return F.conv1d(series, self.weights, padding=self.padding, dilation=self.dilation)

    def above(self, series: Tensor) -> Tensor:
        """Where responses are above the biases, float32 `[B, 84 * biases, T]`."""
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
        for dilation, biases in choose_dilations(length, each):
            channels = torch.from_numpy(np.stack([draw_channels(num_variables, random) for _ in HIGH]))
            banks.append(Bank(dilation, biases, channels))
        self.banks = nn.ModuleList(banks)  # type: ignore[assignment]  # it holds nothing else
        self.count = len(HIGH) * each

    def draw_biases(self, series: Tensor, seed: int) -> None:
        """Set the biases to quantiles of the response to a series that is drawn anew for each kernel and dilation.

        Args:
            series: scaled training series, float32 `[K, M, T]`.
            seed: of the draw.
        """
        random, number = np.random.default_rng(seed), 1
        for bank in self.banks:
            drawn = torch.from_numpy(random.integers(len(series), size=len(HIGH)))
            responses = bank.responses(series[drawn.to(series.device)]).diagonal().T
            levels = torch.arange(number, number + bank.bias.numel(), dtype=torch.float64) * GOLDEN_RATIO % 1
            number += bank.bias.numel()
            for row, (response, shares) in enumerate(zip(responses, levels.view(bank.bias.shape), strict=True)):
                bank.bias[row] = response.quantile(shares.float().to(response.device)) + ABOVE_ROUNDING

    def forward(self, series: Tensor) -> Tensor:
        return torch.cat([bank.above(series).mean(dim=2) for bank in self.banks], dim=1)


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
    """Kernel features and a linear layer: scaled series `[B, M, T]` to logits `[B, C]`."""

    def __init__(self, features: KernelFeatures, num_classes: int) -> None:
        super().__init__()
        self.features = features
        self.linear = nn.Linear(features.count, num_classes).requires_grad_(False)

    def forward(self, series: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.features(series))
        return logits

    def activation_map(self, series: Tensor, classes: Tensor) -> Tensor:
        """How much each time step adds to the logit of a class, as `LSTMFCN.activation_map`: float32 `[B, T]`."""
        sizes = [bank.bias.numel() for bank in self.features.banks]
        weights = self.linear.weight[classes].unsqueeze(1).split(sizes, dim=2)  # type: ignore[no-untyped-call]
        parts = [
            torch.matmul(weight, bank.above(series)) for weight, bank in zip(weights, self.features.banks, strict=True)
        ]
        return torch.stack(parts).sum(dim=0).squeeze(1)
