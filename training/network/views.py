"""What a network sees of scaled series."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lstm_fcn.training.distributed import Group


class Views(nn.Module):
    """Scaled series `[B, M, T]` to their views `[B, M * views, T]`: those of the first variable, of the second, ...

    `values` are the scaled series, `differences` their first differences (the first one is 0), `deviations` their
    distances from the mean series of the training set. Differences and deviations are often much smaller than the
    values, so each is divided by its standard deviation.

    names: the views, in order.
    """

    difference_std: Tensor
    mean_series: Tensor
    deviation_std: Tensor

    def __init__(self, names: Sequence[str], num_variables: int, length: int) -> None:
        super().__init__()
        self.names, self.num_variables = tuple(names), num_variables
        if "differences" in names:
            self.register_buffer("difference_std", torch.ones(num_variables, 1))
        if "deviations" in names:
            self.register_buffer("mean_series", torch.zeros(num_variables, length))
            self.register_buffer("deviation_std", torch.ones(num_variables, 1))

    def forward(self, series: Tensor) -> Tensor:
        if self.names == ("values",):
            return series
        views = [getattr(self, name)(series) for name in self.names]
        return torch.stack(views, dim=2).flatten(1, 2)

    def values(self, series: Tensor) -> Tensor:
        return series

    def differences(self, series: Tensor) -> Tensor:
        return difference(series) / self.difference_std

    def deviations(self, series: Tensor) -> Tensor:
        return (series - self.mean_series) / self.deviation_std

    def set_statistics(self, statistics: "Statistics") -> None:
        """Take the statistics of the training set."""
        if "differences" in self.names:
            self.difference_std.copy_(statistics.difference_std)
        if "deviations" in self.names:
            self.mean_series.copy_(statistics.mean_series)
            self.deviation_std.copy_(statistics.deviation_std)


class Statistics(NamedTuple):
    """Of scaled training series: standard deviations `[M, 1]` and the mean series `[M, T]`, float64."""

    difference_std: Tensor
    mean_series: Tensor
    deviation_std: Tensor


def difference(series: Tensor) -> Tensor:
    """First differences of series `[..., T]`, of the same length."""
    return torch.diff(series, dim=-1, prepend=series[..., :1])


def measure_statistics(batches: Iterable[Tensor], num_variables: int, length: int, group: Group) -> Statistics:
    """Statistics of the series `[n, M, T]` in the batches of all processes. A standard deviation of 0 becomes 1."""
    count = torch.zeros(1, dtype=torch.float64)
    sums = torch.zeros(3, num_variables, length, dtype=torch.float64)
    for batch in batches:
        series = batch.cpu().double()
        count += len(series)
        sums += torch.stack([series.sum(0), series.square().sum(0), difference(series).square().sum(0)])
    count, sums = group.sum(count), group.sum(sums)
    mean, squares, differences = sums / count

    def std(variance: Tensor) -> Tensor:
        found = variance.clamp(min=0).mean(dim=1, keepdim=True).sqrt()
        return torch.where(found > 0, found, 1.0)

    return Statistics(std(differences), mean, std(squares - mean.square()))
