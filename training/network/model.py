"""LSTM-FCN (Karim et al. 2017, "LSTM Fully Convolutional Networks for Time Series Classification") and its family.

A series takes two paths: through three convolutions and an average over time, and, with its dimensions shuffled,
through LSTM layers that see the T values of each variable as one step. A linear layer reads both.
"""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lstm_fcn.container.hyperparameters import Hyperparameters
from lstm_fcn.container.problem import Scaling
from lstm_fcn.training.network.kernels import KernelClassifier
from lstm_fcn.training.network.recurrent import make_layer
from lstm_fcn.training.network.views import Views

# What the networks of an ensemble see with `views=auto` and `dilations=auto`; a single network is the first. Networks
# that see the same make the same mistakes, and averaging them gains little.
MEMBERS = (
    ("values+differences", "1+2+4+8"),
    ("values", "1"),
    ("values+differences+deviations", "1+2+4+8"),
    ("differences", "1+2+4+8"),
)


def make_network(settings: Hyperparameters, num_variables: int, length: int, num_classes: int) -> "LSTMFCN | Ensemble":
    """Create the network, or the ensemble, that the hyperparameters describe, for series `[num_variables, length]`.

    The networks of an ensemble are initialised with the seeds `seed`, `seed` + 1, ...
    """
    squeeze_excite = {"true": True, "false": False, "auto": num_variables > 1}[settings.squeeze_excite]
    members = []
    for k in range(settings.ensemble_size):
        views, dilations = MEMBERS[k % len(MEMBERS)]
        torch.manual_seed(settings.seed + k)
        network = LSTMFCN(
            length,
            num_classes,
            num_variables=num_variables,
            recurrent=settings.recurrent,
            num_layers=settings.num_layers,
            hidden_size=settings.hidden_size,
            dropout=settings.dropout,
            dimension_shuffle=settings.dimension_shuffle == "true",
            convolutions=settings.convolutions == "true",
            squeeze_excite=squeeze_excite,
            filters=(settings.filters_1, settings.filters_2, settings.filters_3),
            kernel_sizes=(settings.kernel_size_1, settings.kernel_size_2, settings.kernel_size_3),
            views=(views if settings.views == "auto" else settings.views).split("+"),
            dilations=[int(d) for d in (dilations if settings.dilations == "auto" else settings.dilations).split("+")],
        )
        members.append(network)
    return members[0] if len(members) == 1 else Ensemble(members)


SQUEEZE = 16  # filters per cell of the bottleneck of a squeeze-and-excite block (Karim et al. 2018)


class LSTMFCN(nn.Module):
    """Maps scaled series to logits of `num_classes` classes.

    Convolutions are 2-d of height 1 in channels-last memory, for which CPUs have the fastest kernels; the result equals
    that of `nn.Conv1d`.
    """

    def __init__(
        self,
        length: int,
        num_classes: int,
        num_variables: int = 1,
        recurrent: str = "lstm",
        num_layers: int = 1,
        hidden_size: int = 8,
        dropout: float = 0.8,
        dimension_shuffle: bool = True,
        convolutions: bool = True,
        squeeze_excite: bool = False,
        filters: tuple[int, int, int] = (128, 256, 128),
        kernel_sizes: tuple[int, int, int] = (8, 5, 3),
        views: Sequence[str] = ("values",),
        dilations: Sequence[int] = (1,),
    ) -> None:
        """Create a network for series `[num_variables, length]`.

        Args:
            length: time steps T.
            num_classes: C.
            num_variables: M.
            recurrent: kind of the recurrent layers (see `network.recurrent`); "none": convolutions only.
            num_layers: recurrent layers.
            hidden_size: cells of each recurrent layer.
            dropout: rate after each recurrent layer.
            dimension_shuffle: the recurrent layers see M steps of T features; otherwise T steps of M features.
            convolutions: False: recurrent layers only.
            squeeze_excite: the first two convolutions weight their filters for each series (Karim et al. 2018).
            filters: of each convolution.
            kernel_sizes: of each convolution, in time steps.
            views: what the network sees of each variable (see `Views`).
            dilations: the filters of the first convolution are divided among these. In the others, they would make
                training half as long again, and gain nothing.
        """
        super().__init__()
        self.views = Views(views, num_variables, length)
        self.dimension_shuffle = dimension_shuffle
        self.recurrent = nn.Sequential()
        self.fcn = nn.Sequential()
        width = 0
        if recurrent != "none":
            # With dimension shuffle, all views of a variable are one step.
            steps, features = num_variables, length * len(views)
            if not dimension_shuffle:
                steps, features = length, num_variables * len(views)
            for number in range(num_layers):
                last = number == num_layers - 1
                self.recurrent.append(make_layer(recurrent, features, hidden_size, steps, last))
                self.recurrent.append(nn.Dropout(dropout))
                features, steps = hidden_size, 1 if recurrent == "dense" else steps
            width += hidden_size
        if convolutions:
            channels = (num_variables * len(views), *filters)
            for k in range(3):
                squeeze, distances = squeeze_excite and k < 2, dilations if k == 0 else (1,)
                self.fcn.append(ConvBlock(channels[k], channels[k + 1], kernel_sizes[k], squeeze, distances))
            width += filters[-1]
        self.linear = nn.Linear(width, num_classes)
        nn.init.xavier_uniform_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's type declarations

    def forward(self, series: Tensor) -> Tensor:
        """Scaled series, float32 `[B, M, T]`, to logits `[B, num_classes]`."""
        hidden, features = self.extract(series)
        logits: Tensor = self.linear(_join(hidden, features))
        return logits

    def extract(self, series: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Inputs of the linear layer: the output of the recurrent layers `[B, hidden_size]`, and the output of
        the convolutions `[B, T, filters]` before the average over time; None for a part that this network lacks.
        """
        hidden: Tensor | None = None
        features: Tensor | None = None
        # In mixed precision, layers that read the series stay in float32: bfloat16 has three digits, which is not
        # enough if classes differ in the fourth, and these layers take hardly any time.
        with torch.autocast(series.device.type, enabled=False):
            viewed = self.views(series)
            if len(self.recurrent):
                hidden = self.recurrent(self.sequence(viewed))
            if len(self.fcn):
                image = viewed.unsqueeze(2).to(memory_format=torch.channels_last)  # [B, M, 1, T]
                features = self.fcn[0](image)
        if features is not None:
            features = self.fcn[1:](features).squeeze(2).transpose(1, 2)
        return hidden, features

    def sequence(self, viewed: Tensor) -> Tensor:
        """The steps `[B, S, F]` that the recurrent layers read of a viewed series `[B, M * views, T]`."""
        if not self.dimension_shuffle:
            return viewed.transpose(1, 2)
        return viewed.reshape(len(viewed), self.views.num_variables, viewed.shape[2] * len(self.views.names))

    def activation_map(self, features: Tensor, classes: Tensor) -> Tensor:
        """The class activation map (Zhou et al. 2016): how much each time step adds to the logit of a class.

        It is exact because the linear layer follows an average over time: the mean of the map is the convolutions' part
        of the logit.

        Args:
            features: from `extract`, float32 `[B, T, filters]`.
            classes: the class to explain for each series, int64 `[B]`.

        Returns:
            float32 `[B, T]`.
        """
        weights = self.linear.weight[classes, -features.shape[2] :]
        activation: Tensor = torch.matmul(features, weights.unsqueeze(-1)).squeeze(-1)
        return activation


def _join(hidden: Tensor | None, features: Tensor | None) -> Tensor:
    """Concatenate both parts, with the convolutions averaged over time."""
    parts = [] if hidden is None else [hidden]
    if features is not None:
        # A product instead of sum(), because its gradient keeps the channels-last order.
        parts.append(torch.matmul(features.new_ones(features.shape[1]), features) / features.shape[1])
    return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]


class ConvBlock(nn.Module):
    """Convolution over time with "same" padding, batch normalisation, ReLU: `[B, C, 1, T]` to `[B, F, 1, T]`.

    As in the paper's Keras code: He-uniform weights, zero bias; Keras' momentum of 0.99 is 0.01 here. With
    `squeeze`, a squeeze-and-excite block follows.

    convs: one for each dilation; they share the filters evenly.
    """

    convs: Sequence[nn.Conv2d]

    def __init__(
        self, channels: int, filters: int, kernel_size: int, squeeze: bool = False, dilations: Sequence[int] = (1,)
    ) -> None:
        super().__init__()
        convs, dilations = [], dilations[:filters]
        for k, dilation in enumerate(dilations):
            share = (filters + k) // len(dilations)
            conv = nn.Conv2d(channels, share, (1, kernel_size), dilation=(1, dilation))
            nn.init.kaiming_uniform_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(cast(Tensor, conv.bias))
            # An even kernel reaches one step further to the right, as in Keras.
            left, right = same_padding(conv)
            if left == right:
                conv.padding = (0, left)
            convs.append(conv)
        self.convs = nn.ModuleList(convs)  # type: ignore[assignment]  # it holds nothing else
        self.norm = nn.BatchNorm2d(filters, eps=1e-3, momentum=0.01)
        self.squeeze = SqueezeExcite(filters) if squeeze else None

    def forward(self, image: Tensor) -> Tensor:
        parts = []
        for conv in self.convs:
            left, right = same_padding(conv)
            parts.append(conv(image if left == right else F.pad(image, (left, right))))
        joined = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        active = F.relu(self.norm(joined), inplace=True)
        return active if self.squeeze is None else self.squeeze(active)


def same_padding(conv: nn.Conv2d) -> tuple[int, int]:
    """Steps to add to the left and to the right of a series so that a convolution does not change its length."""
    reach = conv.dilation[1] * (conv.kernel_size[1] - 1)
    return reach // 2, reach - reach // 2


class SqueezeExcite(nn.Module):
    """Weights the filters of each series by their averages over time (Karim et al. 2018): `[B, F, 1, T]`.

    As in the paper's Keras code: He-normal weights, no biases.
    """

    def __init__(self, filters: int) -> None:
        super().__init__()
        cells = max(1, filters // SQUEEZE)
        self.down = nn.Linear(filters, cells, bias=False)
        self.up = nn.Linear(cells, filters, bias=False)
        for linear in (self.down, self.up):
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")

    def forward(self, image: Tensor) -> Tensor:
        weights: Tensor = self.up(F.relu(self.down(image.mean(dim=(2, 3))))).sigmoid()
        return image * weights[:, :, None, None]


class Ensemble(nn.Module):
    """Networks of one kind that are trained together, each by its own loss, and whose probabilities are averaged."""

    def __init__(self, members: list[LSTMFCN]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, series: Tensor) -> Tensor:
        """Scaled series, float32 `[B, M, T]`, to the logits of each of K networks `[B, K, num_classes]`."""
        return torch.stack([member(series) for member in self.members], dim=1)


Network = LSTMFCN | Ensemble


def join_logits(logits: Tensor, independent: bool) -> Tensor:
    """Logits of the averaged probabilities of K members.

    Args:
        logits: float32 `[B, K, C]`; logits of a single network, `[B, C]`, are returned unchanged.
        independent: each class has its own probability; otherwise they sum to 1.

    Returns:
        float32 `[B, C]`.
    """
    if logits.ndim == 2:
        return logits
    each = logits.sigmoid() if independent else logits.log_softmax(dim=-1).exp()
    mean = each.mean(dim=1)
    return mean.logit(eps=1e-7) if independent else mean.clamp(min=1e-30).log()


class Scaler(nn.Module):
    """Centres and scales series in float64, then rounds to float32.

    Values with a large offset therefore keep their digits. A constant variable becomes zeros. Both training and the
    exported graph use this module.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, scaling: Scaling) -> None:
        super().__init__()
        self.method = scaling.method
        # [M, 1]: one for each variable.
        self.register_buffer("mean", torch.tensor(scaling.mean, dtype=torch.float64).reshape(-1, 1))
        self.register_buffer("std", torch.tensor(scaling.std, dtype=torch.float64).reshape(-1, 1))

    def forward(self, series: Tensor) -> Tensor:
        """Raw series, float64 `[B, M, T]`, to scaled ones, float32 `[B, M, T]`."""
        if self.method == "none":
            return series.float()
        if self.method == "dataset":
            return ((series - self.mean) / self.std).float()
        mean = series.mean(dim=-1, keepdim=True)
        centred = series - mean
        std = centred.square().mean(dim=-1, keepdim=True).sqrt()
        # The mean is rounded, so that a constant series minus its mean is noise of that size.
        std = torch.where(std > CONSTANT * mean.abs(), std, 1.0)
        return (centred / std).float()


CONSTANT = 1e-12  # a standard deviation below this share of the mean is rounding, not signal


class Classifier(nn.Module):
    """Maps raw series to class probabilities and their explanation; this module is exported.

    Its members, the networks and, with them, the kernel features, are trained separately. Their probabilities are
    averaged.
    """

    def __init__(
        self,
        scaler: Scaler,
        network: LSTMFCN | Ensemble,
        independent: bool = False,
        kernels: KernelClassifier | None = None,
    ) -> None:
        """`independent`: each class has its own probability; otherwise they sum to 1."""
        super().__init__()
        self.scaler = scaler
        self.network = network
        self.independent = independent
        self.kernels = kernels

    @property
    def members(self) -> list[LSTMFCN]:
        """The networks whose probabilities are averaged."""
        network = self.network
        return [network] if isinstance(network, LSTMFCN) else [cast(LSTMFCN, member) for member in network.members]

    @property
    def explains(self) -> bool:
        """Whether there are class activation maps: of convolutions, or of kernel features."""
        return len(self.members[0].fcn) > 0 or self.kernels is not None

    def forward(self, series: Tensor) -> tuple[Tensor, ...]:
        """Raw series, float64 `[B, M, T]`, to probabilities, float32 `[B, num_classes]`, and an explanation.

        The explanation, float32 `[B, T]`, is the activation map of the most probable class. Without convolutions
        and without kernel features there is none.
        """
        scaled = self.scaler(series)
        probabilities = self.probabilities(scaled)
        found = self.activation_map(scaled, probabilities.argmax(dim=1))
        return (probabilities,) if found is None else (probabilities, found)

    def logits(self, series: Tensor) -> Tensor:
        """Scaled series, float32 `[B, M, T]`, to the logits of the probabilities, float32 `[B, num_classes]`."""
        logits: Tensor = self.network(series)
        if self.kernels is not None:
            each = logits if logits.ndim == 3 else logits.unsqueeze(1)
            logits = torch.cat([each, self.kernels(series).unsqueeze(1)], dim=1)
        return join_logits(logits, self.independent)

    def probabilities(self, series: Tensor) -> Tensor:
        """Scaled series, float32 `[B, M, T]`, to probabilities, float32 `[B, num_classes]`."""
        logits = self.logits(series).float()
        return logits.sigmoid() if self.independent else logits.softmax(dim=1)

    def activation_map(self, series: Tensor, classes: Tensor) -> Tensor | None:
        """How much each time step adds to the logit of a class, averaged over the members like the probabilities.

        Args:
            series: scaled, float32 `[B, M, T]`.
            classes: the class to explain for each series, int64 `[B]`.

        Returns:
            float32 `[B, T]`; None if no member has a map.
        """
        maps, count = [], len(self.members)
        if len(self.members[0].fcn):
            maps = [member.activation_map(cast(Tensor, member.extract(series)[1]), classes) for member in self.members]
        if self.kernels is not None:
            maps, count = [*maps, self.kernels.activation_map(series, classes)], count + 1
        return torch.stack(maps).sum(dim=0) / count if maps else None
