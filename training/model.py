"""LSTM-FCN (Karim et al. 2017, "LSTM Fully Convolutional Networks for Time Series Classification").

A series goes two ways: through three convolutions and an average over time, and, with its dimensions
shuffled, through LSTM layers that see all T values as one step. A linear layer reads both.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from container.artifact import Scaling


class LSTMFCN(nn.Module):
    """Logits of `num_classes` classes from scaled series.

    Convolutions are kept as 2-d ones of height 1 in channels-last memory, where the processor's kernels for
    them are fastest; the result is that of `nn.Conv1d`.
    """

    def __init__(
        self,
        length: int,
        num_classes: int,
        num_layers: int = 1,
        hidden_size: int = 8,
        dropout: float = 0.8,
        filters: tuple[int, int, int] = (128, 256, 128),
        kernel_sizes: tuple[int, int, int] = (8, 5, 3),
    ) -> None:
        super().__init__()
        input_sizes = [length] + [hidden_size] * (num_layers - 1)
        self.lstm = nn.Sequential(
            *(layer for size in input_sizes for layer in (OneStepLSTM(size, hidden_size), nn.Dropout(dropout)))
        )
        channels = (1, *filters)
        self.fcn = nn.Sequential(*(ConvBlock(channels[k], channels[k + 1], kernel_sizes[k]) for k in range(3)))
        self.linear = nn.Linear(hidden_size + filters[-1], num_classes)
        nn.init.xavier_uniform_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch declares no such form

    def forward(self, series: Tensor) -> Tensor:
        """Scaled series, float32 `[B, 1, T]`, to logits `[B, num_classes]`."""
        hidden, features = self.extract(series)
        # The sum over time as a product: its gradient keeps the channels-last order, that of sum() does not.
        average = torch.matmul(features.new_ones(features.shape[1]), features) / features.shape[1]
        logits: Tensor = self.linear(torch.cat([hidden, average], dim=1))
        return logits

    def extract(self, series: Tensor) -> tuple[Tensor, Tensor]:
        """What the linear layer reads: the LSTM's output `[B, hidden_size]` and, before their average over time,
        the convolutions' `[B, T, filters]`.
        """
        shuffled = series[:, 0, :]  # dimension shuffle: one step of T features
        image = series.unsqueeze(2).to(memory_format=torch.channels_last)  # [B, 1, 1, T]
        # In mixed precision, what reads the series itself stays in float32: the three digits of bfloat16 are too
        # few where classes differ in the fourth, and these layers take hardly any of the time.
        with torch.autocast(series.device.type, enabled=False):
            hidden = self.lstm(shuffled)
            image = self.fcn[0](image)
        return hidden, self.fcn[1:](image).squeeze(2).transpose(1, 2)


class ConvBlock(nn.Module):
    """Convolution over time with "same" padding, batch normalisation, ReLU: `[B, C, 1, T]` to `[B, F, 1, T]`.

    As in the paper's Keras code: He-uniform weights, zero bias; Keras' momentum of 0.99 is 0.01 here.
    """

    def __init__(self, channels: int, filters: int, kernel_size: int) -> None:
        super().__init__()
        # An even kernel reaches one step further to the right, as in Keras.
        self.padding = ((kernel_size - 1) // 2, kernel_size // 2)
        symmetric = (0, self.padding[0]) if self.padding[0] == self.padding[1] else (0, 0)
        self.conv = nn.Conv2d(channels, filters, (1, kernel_size), padding=symmetric)
        self.norm = nn.BatchNorm2d(filters, eps=1e-3, momentum=0.01)
        nn.init.kaiming_uniform_(self.conv.weight, nonlinearity="relu")
        nn.init.zeros_(cast(Tensor, self.conv.bias))

    def forward(self, image: Tensor) -> Tensor:
        if self.padding[0] != self.padding[1]:
            image = F.pad(image, self.padding)
        return F.relu(self.norm(self.conv(image)), inplace=True)


class OneStepLSTM(nn.LSTM):
    """An LSTM layer on a sequence of one step, from a zero state: `[B, features]` to `[B, hidden_size]`.

    The recurrent weights then multiply zeros and the forget gate keeps nothing, so one matrix product with
    the input weights is all there is. Same parameters and result as `torch.nn.LSTM`, faster.

    As in Keras: Glorot-uniform input weights, orthogonal recurrent weights, one bias vector (the second one
    of `nn.LSTM` stays zero and is not trained), forget bias 1.
    """

    weight_ih_l0: nn.Parameter
    weight_hh_l0: nn.Parameter
    bias_ih_l0: nn.Parameter
    bias_hh_l0: nn.Parameter

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size, batch_first=True)
        nn.init.xavier_uniform_(self.weight_ih_l0)
        nn.init.orthogonal_(self.weight_hh_l0).requires_grad_(False)  # multiplies zeros
        nn.init.zeros_(self.bias_ih_l0)
        nn.init.zeros_(self.bias_hh_l0).requires_grad_(False)
        with torch.no_grad():
            self.bias_ih_l0[hidden_size : 2 * hidden_size] = 1.0

    def forward(self, features: Tensor) -> Tensor:  # type: ignore[override]  # one step needs no sequence, no state
        gates = F.linear(features, self.weight_ih_l0, self.bias_ih_l0 + self.bias_hh_l0)
        input_gate, _, cell, output_gate = gates.chunk(4, dim=-1)
        return output_gate.sigmoid() * (input_gate.sigmoid() * cell.tanh()).tanh()


class Scaler(nn.Module):
    """Centres and scales series in float64, and only then rounds to float32.

    A large offset thus does no harm. A constant series becomes zeros. Training and the exported graph both
    use this module.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, scaling: Scaling) -> None:
        super().__init__()
        self.method = scaling.method
        self.register_buffer("mean", torch.tensor(scaling.mean, dtype=torch.float64))
        self.register_buffer("std", torch.tensor(scaling.std, dtype=torch.float64))

    def forward(self, series: Tensor) -> Tensor:
        """Raw series, float64 `[B, 1, T]`, to scaled ones, float32 `[B, 1, T]`."""
        if self.method == "none":
            return series.float()
        if self.method == "dataset":
            return ((series - self.mean) / self.std).float()
        mean = series.mean(dim=-1, keepdim=True)
        centred = series - mean
        std = centred.square().mean(dim=-1, keepdim=True).sqrt()
        # The mean itself is rounded: what is left of a constant series is noise of that size.
        std = torch.where(std > CONSTANT * mean.abs(), std, 1.0)
        return (centred / std).float()


CONSTANT = 1e-12  # a standard deviation below this share of the mean is rounding, not signal


class Classifier(nn.Module):
    """The whole way from raw series to class probabilities and their explanation, as it is exported."""

    def __init__(self, scaler: Scaler, network: LSTMFCN, independent: bool = False) -> None:
        """`independent` classes have a probability each; others share 1."""
        super().__init__()
        self.scaler = scaler
        self.network = network
        self.independent = independent

    def forward(self, series: Tensor) -> tuple[Tensor, Tensor]:
        """Raw series, float64 `[B, 1, T]`, to probabilities, float32 `[B, num_classes]`, and an explanation.

        The explanation, float32 `[B, T]`, is the class activation map (Zhou et al. 2016) of the most probable
        class: how much each time step adds to its logit. With an average over time before the linear layer it is
        exact: the map's mean is the convolutions' part of the logit.
        """
        linear = self.network.linear
        hidden, features = self.network.extract(self.scaler(series))
        logits: Tensor = linear(torch.cat([hidden, features.mean(dim=1)], dim=1))
        weights = linear.weight[logits.argmax(dim=1), hidden.shape[1] :]
        explanation = torch.matmul(features, weights.unsqueeze(-1)).squeeze(-1)
        return logits.sigmoid() if self.independent else logits.softmax(dim=-1), explanation
