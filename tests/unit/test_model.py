"""The network against the papers (Karim et al. 2017, 2018 and 2019) and their published Keras code."""

import math
from typing import Any, ClassVar, Literal, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lstm_fcn.container.hyperparameters import parse_hyperparameters
from lstm_fcn.container.problem import Scaling
from lstm_fcn.training.network.model import (
    LSTMFCN,
    MEMBERS,
    Classifier,
    ConvBlock,
    Ensemble,
    Scaler,
    SqueezeExcite,
    join_logits,
    make_network,
)
from lstm_fcn.training.network.recurrent import GRU, LSTM, RNN, AttentionLSTM, Dense

CONVOLUTIONS = (5 * 128 * 256 + 256) + (3 * 256 * 128 + 128)  # the second and the third
NORMS = 2 * (128 + 256 + 128)  # scale and shift; Keras' summary adds as many moving statistics


def count(module: nn.Module) -> int:
    """Parameters as Keras counts them: it has one bias where the layers of torch have two."""
    return sum(parameter.numel() for name, parameter in module.named_parameters() if "bias_hh" not in name)


def lstm(features: int, cells: int) -> int:
    return 4 * cells * (features + cells + 1)


@pytest.mark.parametrize(("length", "classes", "cells"), [(150, 2, 8), (60, 6, 64), (1460, 10, 128)])
def test_parameter_count_by_hand(length: int, classes: int, cells: int) -> None:
    first = 8 * 1 * 128 + 128
    linear = (cells + 128) * classes + classes
    network = LSTMFCN(length, classes, hidden_size=cells)
    assert count(network) == lstm(length, cells) + first + CONVOLUTIONS + NORMS + linear


@pytest.mark.parametrize("shuffle", [True, False])
def test_parameter_count_for_several_variables_by_hand(shuffle: bool) -> None:
    """MLSTM-FCN: the LSTM sees a step of T values for each variable; the two squeezing blocks have no biases."""
    length, variables, classes = 30, 9, 5
    first = 8 * variables * 128 + 128
    squeeze = 2 * 128 * 128 // 16 + 2 * 256 * 256 // 16
    linear = (8 + 128) * classes + classes
    network = LSTMFCN(length, classes, num_variables=variables, dimension_shuffle=shuffle, squeeze_excite=True)
    recurrent = lstm(length if shuffle else variables, 8)
    assert count(network) == recurrent + first + CONVOLUTIONS + NORMS + squeeze + linear


@pytest.mark.parametrize(("variables", "shuffle"), [(1, True), (1, False), (9, True), (9, False)])
def test_parameter_counts_of_the_recurrent_blocks_by_hand(variables: int, shuffle: bool) -> None:
    length, cells = 30, 8
    steps, features = (variables, length) if shuffle else (length, variables)
    # What two layers have; the second one reads the cells of the first.
    expected = {
        "lstm": lstm(features, cells) + lstm(cells, cells),
        "gru": 3 * cells * (features + cells + 1) + 3 * cells * (2 * cells + 1),
        "rnn": cells * (features + cells + 1) + cells * (2 * cells + 1),
        "dense": cells * (features * steps + 1) + cells * (cells + 1),
        "alstm": sum(
            4 * cells * (2 * size + cells + 1) + size * cells + cells * cells + 2 * cells for size in (features, cells)
        ),
        "none": 0,
    }
    for kind, parameters in expected.items():
        network = LSTMFCN(length, 3, variables, kind, num_layers=2, dimension_shuffle=shuffle)
        assert count(network.recurrent) == parameters, kind
        assert network.linear.in_features == 128 + (0 if kind == "none" else cells)


def test_parameter_count_of_several_lstm_layers() -> None:
    assert count(LSTMFCN(50, 3, num_layers=3).recurrent) == lstm(50, 8) + 2 * lstm(8, 8)


@pytest.mark.parametrize("variables", [1, 3])
def test_shapes_along_the_way(variables: int) -> None:
    network = LSTMFCN(150, 5, variables).eval()
    series = torch.randn(7, variables, 150)
    assert network.recurrent(series).shape == (7, 8)
    image = series.unsqueeze(2)
    for block, filters in zip(network.fcn, (128, 256, 128), strict=True):
        image = block(image)
        assert image.shape == (7, filters, 1, 150)
    assert network(series).shape == (7, 5)


def test_batch_norm_constants_are_those_of_keras() -> None:
    norms = [module for module in LSTMFCN(20, 2).modules() if isinstance(module, nn.BatchNorm2d)]
    assert [(norm.eps, norm.momentum, norm.num_features) for norm in norms] == [
        (1e-3, 0.01, 128),
        (1e-3, 0.01, 256),
        (1e-3, 0.01, 128),
    ]


def test_dropout_follows_every_recurrent_layer() -> None:
    kinds = [type(module) for module in LSTMFCN(20, 2, recurrent="gru", num_layers=2, dropout=0.5).recurrent]
    assert kinds == [GRU, nn.Dropout, GRU, nn.Dropout]
    dropout = LSTMFCN(20, 2).recurrent[1]
    assert isinstance(dropout, nn.Dropout)
    assert dropout.p == 0.8


def test_what_multiplies_zeros_is_not_trained() -> None:
    frozen = [name for name, parameter in LSTMFCN(20, 2).named_parameters() if not parameter.requires_grad]
    assert frozen == ["recurrent.0.weight_hh_l0", "recurrent.0.bias_hh_l0"]


def test_convolutions_are_he_uniform() -> None:
    torch.manual_seed(0)
    for block in LSTMFCN(20, 2).fcn:
        assert isinstance(block, ConvBlock)
        (conv,) = block.convs
        limit = math.sqrt(6 / (conv.in_channels * conv.kernel_size[1]))
        assert 0.95 * limit < conv.weight.abs().max() <= limit
        assert conv.bias is not None
        assert not conv.bias.any()


def keras_same_convolution(series: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """`Conv1D(padding="same")` by its definition: `[T]` and `[filters, width]` to `[filters, T]`."""
    width = weight.shape[1]
    left = (width - 1) // 2
    padded = np.pad(series, (left, width - 1 - left))
    return np.array([[row @ padded[t : t + width] for t in range(len(series))] for row in weight])


@pytest.mark.parametrize("width", [1, 2, 3, 5, 8, 25])
def test_same_padding_is_that_of_keras(width: int) -> None:
    block = ConvBlock(1, 3, width).eval()
    series = torch.randn(1, 1, 1, 12)
    expected = keras_same_convolution(series.numpy().ravel(), block.convs[0].weight.detach().numpy()[:, 0, 0])
    with torch.no_grad():
        found = block(series)[0, :, 0]
    # A new block's statistics are mean 0 and variance 1, so that normalising divides by sqrt(1 + eps).
    np.testing.assert_allclose(found, np.maximum(expected, 0) / math.sqrt(1.001), atol=1e-5)


def plain_forward(network: LSTMFCN, series: Tensor) -> Tensor:
    """The papers' figures, written down with torch's ordinary layers and one-dimensional functions."""
    features = series
    for block in network.fcn:
        assert isinstance(block, ConvBlock)
        (conv,) = block.convs
        width = conv.kernel_size[1]
        padded = nn.functional.pad(features, ((width - 1) // 2, width // 2))
        features = nn.functional.conv1d(padded, conv.weight[:, :, 0], conv.bias)
        norm = block.norm
        features = nn.functional.batch_norm(
            features, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
        ).relu()
        if block.squeeze is not None:
            squeezed = (features.mean(dim=2) @ block.squeeze.down.weight.T).relu()
            features = features * (squeezed @ block.squeeze.up.weight.T).sigmoid()[:, :, None]
    hidden = series
    for layer in network.recurrent:
        if isinstance(layer, LSTM):
            reference = nn.LSTM(layer.input_size, layer.hidden_size, batch_first=True)
            reference.load_state_dict(layer.state_dict())
            hidden, _ = reference(hidden)
    logits: Tensor = network.linear(torch.cat([hidden[:, -1], features.mean(dim=2)], dim=1))
    return logits


def make_trained(length: int, classes: int, variables: int = 1, **settings: Any) -> LSTMFCN:
    """A network whose batch normalisation has statistics and weights as after some training."""
    torch.manual_seed(0)
    network = LSTMFCN(length, classes, variables, **settings).eval()
    for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    return network


def test_the_whole_network_is_that_of_the_paper() -> None:
    network = make_trained(40, 3, kernel_sizes=(8, 5, 2))
    series = torch.randn(6, 1, 40)
    torch.testing.assert_close(network(series), plain_forward(network, series), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_the_network_for_several_variables_is_that_of_the_paper(num_layers: int) -> None:
    """MLSTM-FCN (Karim et al. 2018)."""
    network = make_trained(20, 3, 4, num_layers=num_layers, squeeze_excite=True, filters=(32, 48, 32))
    assert [block.squeeze is not None for block in network.fcn] == [True, True, False]
    series = torch.randn(6, 4, 20)
    torch.testing.assert_close(network(series), plain_forward(network, series), atol=1e-4, rtol=1e-4)


def test_squeeze_and_excite_starts_as_in_keras() -> None:
    torch.manual_seed(0)
    block = SqueezeExcite(256)
    assert (block.down.weight.shape, block.up.weight.shape) == ((16, 256), (256, 16))
    assert block.down.bias is block.up.bias is None
    assert block.down.weight.std().item() == pytest.approx(math.sqrt(2 / 256), rel=0.05)  # He
    assert block.up.weight.std().item() == pytest.approx(math.sqrt(2 / 16), rel=0.05)
    assert SqueezeExcite(4).down.weight.shape == (1, 4)  # fewer filters than one cell is for


@pytest.mark.parametrize("recurrent", ["lstm", "alstm", "gru", "rnn", "dense"])
def test_the_dimension_shuffle_swaps_variables_and_time(recurrent: str) -> None:
    """To the recurrent block, M variables at T steps with the shuffle are T variables at M steps without it."""
    shuffled = LSTMFCN(12, 3, 4, recurrent, convolutions=False, dropout=0.0)
    plain = LSTMFCN(4, 3, 12, recurrent, convolutions=False, dropout=0.0, dimension_shuffle=False)
    for parameter in plain.parameters():
        nn.init.normal_(parameter)
    shuffled.load_state_dict(plain.state_dict())
    series = torch.randn(5, 4, 12)
    torch.testing.assert_close(shuffled(series), plain(series.transpose(1, 2)))
    assert (plain(series.transpose(1, 2)) - plain(series.reshape(5, 12, 4))).abs().max() > 1e-3


@pytest.mark.parametrize("variables", [1, 3])
def test_either_part_can_stand_alone(variables: int) -> None:
    """The logits of both together are the sum of what each alone says with its share of the linear layer."""
    both = make_trained(20, 3, variables, filters=(8, 8, 8))
    alone = [
        LSTMFCN(20, 3, variables, convolutions=False).eval(),
        LSTMFCN(20, 3, variables, recurrent="none", filters=(8, 8, 8)).eval(),
    ]
    shares = (slice(0, 8), slice(8, 16))
    for network, share in zip(alone, shares, strict=True):
        weights = {name: tensor for name, tensor in both.state_dict().items() if name in network.state_dict()}
        network.load_state_dict(weights | {"linear.weight": both.linear.weight[:, share]})
    series = torch.randn(5, variables, 20)
    recurrent, convolutions = (network(series) - network.linear.bias for network in alone)
    torch.testing.assert_close(recurrent + convolutions + both.linear.bias, both(series))
    assert min(recurrent.abs().max(), convolutions.abs().max()) > 0.01
    assert alone[0].extract(series)[1] is None
    assert alone[1].extract(series)[0] is None


class TestScaler:
    """Scaling happens in float64: a large offset must do no harm."""

    series = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 1, 30)))

    def test_dataset(self) -> None:
        scaler = Scaler(Scaling(method="dataset", mean=(1e7,), std=(2.0,)))
        scaled = scaler(self.series * 2 + 1e7)
        assert scaled.dtype == torch.float32
        torch.testing.assert_close(scaled, self.series.float(), atol=1e-6, rtol=0)

    @pytest.mark.parametrize(("factor", "offset"), [(1.0, 0.0), (1.0, 1e7), (1e-12, 0.0), (1e12, 1.0)])
    def test_series(self, factor: float, offset: float) -> None:
        scaled = Scaler(Scaling(method="series"))(self.series * factor + offset)
        expected = (self.series - self.series.mean(-1, keepdim=True)) / self.series.std(-1, correction=0, keepdim=True)
        torch.testing.assert_close(scaled, expected.float(), atol=1e-6, rtol=0)

    @pytest.mark.parametrize("value", [0.0, 0.1, 1e7 / 3, -1e300])
    def test_a_constant_series_becomes_zeros(self, value: float) -> None:
        scaled = Scaler(Scaling(method="series"))(torch.full((1, 1, 30), value, dtype=torch.float64))
        assert scaled.abs().max() < 1e-6
        assert torch.isfinite(scaled).all()

    def test_none(self) -> None:
        torch.testing.assert_close(Scaler(Scaling(method="none"))(self.series), self.series.float())

    @pytest.mark.parametrize("method", ["dataset", "series"])
    def test_each_variable_is_scaled_for_itself(self, method: Literal["dataset", "series"]) -> None:
        scaler = Scaler(Scaling(method=method, mean=(1e7, 0.0, -3.0), std=(2.0, 1e-6, 5.0)))
        raw = self.series * torch.tensor([2.0, 1e-6, 5.0])[:, None] + torch.tensor([1e7, 0.0, -3.0])[:, None]
        expected = self.series.expand(-1, 3, -1)
        if method == "series":
            expected = (expected - expected.mean(-1, keepdim=True)) / expected.std(-1, correction=0, keepdim=True)
        torch.testing.assert_close(scaler(raw), expected.float(), atol=1e-6, rtol=0)

    def test_a_constant_variable_leaves_the_others_alone(self) -> None:
        raw = torch.cat([torch.full_like(self.series, 1e7 / 3), self.series], dim=1)
        scaler = Scaler(Scaling(method="series"))
        assert scaler(raw)[:, 0].abs().max() < 1e-6
        torch.testing.assert_close(scaler(raw)[:, 1:], scaler(self.series))


def test_classifier_gives_probabilities_of_raw_series() -> None:
    classifier = Classifier(Scaler(Scaling(method="series")), LSTMFCN(30, 4)).eval()
    probabilities, _ = classifier(torch.randn(5, 1, 30, dtype=torch.float64))
    assert probabilities.dtype == torch.float32
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(5))


def test_independent_classes_have_a_probability_each() -> None:
    torch.manual_seed(0)
    network, series = LSTMFCN(30, 4), torch.randn(5, 1, 30, dtype=torch.float64)
    probabilities, _ = Classifier(Scaler(Scaling(method="none")), network, independent=True).eval()(series)
    torch.testing.assert_close(probabilities, network(series.float()).sigmoid())


def test_the_mean_of_the_activation_map_is_the_convolutions_part_of_the_logit() -> None:
    torch.manual_seed(0)
    network, series = LSTMFCN(30, 4).eval(), torch.randn(6, 1, 30, dtype=torch.float64)
    torch.nn.init.normal_(network.linear.weight[:, :8], std=3.0)  # other classes for other series
    _, explanation = Classifier(Scaler(Scaling(method="none")), network).eval()(series)
    logits = network(series.float())
    hidden, _ = network.extract(series.float())
    assert hidden is not None
    most_probable = logits.argmax(dim=1)
    assert len(set(most_probable.tolist())) > 1
    of_lstm = torch.nn.functional.linear(hidden, network.linear.weight[:, : hidden.shape[1]], network.linear.bias)
    expected = (logits - of_lstm)[torch.arange(6), most_probable]
    assert explanation.shape == (6, 30)
    assert explanation.std(dim=1).min() > 0
    torch.testing.assert_close(explanation.mean(dim=1), expected)


def test_without_convolutions_there_is_no_explanation() -> None:
    series = torch.randn(5, 1, 30, dtype=torch.float64)
    with_map = Classifier(Scaler(Scaling(method="none")), LSTMFCN(30, 4, recurrent="none")).eval()
    without = Classifier(Scaler(Scaling(method="none")), LSTMFCN(30, 4, convolutions=False)).eval()
    assert (with_map.explains, len(with_map(series))) == (True, 2)
    assert (without.explains, len(without(series))) == (False, 1)
    torch.testing.assert_close(without(series)[0].sum(dim=1), torch.ones(5))


class TestEnsemble:
    """Several networks that speak as one."""

    @staticmethod
    def make(size: int = 3) -> list[LSTMFCN]:
        torch.manual_seed(0)
        members = [LSTMFCN(20, 4, 2, filters=(6, 6, 6), squeeze_excite=True).eval() for _ in range(size)]
        for member in members:
            nn.init.normal_(member.linear.weight, std=2.0)  # so that they disagree
        return members

    series = torch.randn(9, 2, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    @pytest.mark.parametrize("independent", [False, True])
    def test_probabilities_are_the_average_of_those_of_the_members(self, independent: bool) -> None:
        members, scaler = self.make(), Scaler(Scaling(method="none"))
        found = Classifier(scaler, Ensemble(members), independent).eval()(self.series)[0]
        alone = torch.stack([Classifier(scaler, member, independent).eval()(self.series)[0] for member in members])
        torch.testing.assert_close(found, alone.mean(dim=0))
        assert alone.std(dim=0).max() > 0.1
        if not independent:
            torch.testing.assert_close(found.sum(dim=1), torch.ones(9))

    def test_logits_are_those_of_each_member(self) -> None:
        members = self.make()
        logits = Ensemble(members)(self.series.float())
        assert logits.shape == (9, 3, 4)
        for k, member in enumerate(members):
            torch.testing.assert_close(logits[:, k], member(self.series.float()))

    @pytest.mark.parametrize("independent", [False, True])
    def test_joined_logits_give_the_same_probabilities(self, independent: bool) -> None:
        ensemble = Ensemble(self.make())
        joined = join_logits(ensemble(self.series.float()), independent)
        expected, _ = Classifier(Scaler(Scaling(method="none")), ensemble, independent).eval()(self.series)
        torch.testing.assert_close(joined.sigmoid() if independent else joined.softmax(dim=1), expected)

    def test_the_explanation_is_the_average_of_maps_of_the_class_that_all_chose_together(self) -> None:
        members = self.make()
        scaler = Scaler(Scaling(method="none"))
        probabilities, explanation = Classifier(scaler, Ensemble(members)).eval()(self.series)
        chosen = probabilities.argmax(dim=1)
        assert any(bool((member(self.series.float()).argmax(dim=1) != chosen).any()) for member in members)
        expected = torch.zeros(9, 20)
        for member in members:
            _, features = member.extract(self.series.float())
            assert features is not None
            expected += torch.einsum("btf,bf->bt", features, member.linear.weight[chosen, 8:]) / len(members)
        torch.testing.assert_close(explanation, expected)


class TestJoiningLogits:
    def test_those_of_a_single_network_stay_as_they_are(self) -> None:
        logits = torch.randn(5, 3)
        assert join_logits(logits, independent=False) is logits
        assert join_logits(logits, independent=True) is logits

    def test_by_hand(self) -> None:
        logits = torch.tensor([[[0.0, math.log(3.0)], [0.0, 0.0]]])
        torch.testing.assert_close(
            join_logits(logits, independent=False), torch.tensor([[math.log(0.375), math.log(0.625)]])
        )
        torch.testing.assert_close(join_logits(logits, independent=True), torch.tensor([[0.0, math.log(5 / 3)]]))

    @pytest.mark.parametrize("independent", [False, True])
    def test_certainty_is_no_infinity(self, independent: bool) -> None:
        certain = torch.tensor([200.0, -200.0]).expand(1, 4, 2)
        joined = join_logits(certain, independent)
        assert joined.isfinite().all()
        assert joined[0, 0] - joined[0, 1] > 15

    @pytest.mark.parametrize("independent", [False, True])
    def test_a_network_that_diverged_stays_visible(self, independent: bool) -> None:
        logits = torch.zeros(2, 3, 2)
        logits[0, 1] = math.nan
        joined = join_logits(logits, independent)
        assert joined[0].isnan().all()
        assert joined[1].isfinite().all()


class TestNetworkOfAJob:
    """What the hyperparameters make of it."""

    SMALL: ClassVar = {"filters-1": 4, "filters-2": 6, "filters-3": 5, "views": "values", "dilations": "1"}

    @classmethod
    def make(cls, num_variables: int = 1, **settings: object) -> LSTMFCN | Ensemble:
        names = {name.replace("_", "-"): value for name, value in settings.items()}
        return make_network(parse_hyperparameters(cls.SMALL | names), num_variables, length=20, num_classes=3)

    @classmethod
    def make_one(cls, num_variables: int = 1, **settings: object) -> LSTMFCN:
        network = cls.make(num_variables, **settings)
        assert isinstance(network, LSTMFCN)
        return network

    def test_with_the_preset_paper_it_is_that_of_the_paper(self) -> None:
        settings = parse_hyperparameters({"seed": 7, "preset": "paper"})
        network = make_network(settings, num_variables=1, length=20, num_classes=3)
        torch.manual_seed(7)
        expected = LSTMFCN(20, 3)
        assert repr(network) == repr(expected)
        torch.testing.assert_close(network.state_dict(), expected.state_dict(), rtol=0, atol=0)

    @pytest.mark.parametrize(
        ("kind", "layer"), [("lstm", LSTM), ("alstm", AttentionLSTM), ("gru", GRU), ("rnn", RNN), ("dense", Dense)]
    )
    def test_recurrent_layers(self, kind: str, layer: type[nn.Module]) -> None:
        network = self.make_one(3, recurrent=kind, num_layers=2, hidden_size=4, dropout=0.25)
        assert [type(module) for module in network.recurrent] == [layer, nn.Dropout] * 2
        assert {module.p for module in network.recurrent if isinstance(module, nn.Dropout)} == {0.25}
        assert network.linear.in_features == 4 + 5

    def test_parts_that_are_left_out(self) -> None:
        assert len(self.make_one(recurrent="none").recurrent) == 0
        assert len(self.make_one(convolutions="false").fcn) == 0

    def test_convolutions(self) -> None:
        network = self.make_one(3, kernel_size_1=7, kernel_size_2=2, kernel_size_3=1)
        blocks = [cast(ConvBlock, block) for block in network.fcn]
        shapes = [tuple(conv.weight.shape) for block in blocks for conv in block.convs]
        assert shapes == [(4, 3, 1, 7), (6, 4, 1, 2), (5, 6, 1, 1)]

    def test_dilations_divide_the_filters_of_the_first_convolution(self) -> None:
        first, *others = [cast(ConvBlock, block) for block in self.make_one(filters_1=6, dilations="1+2+4+8").fcn]
        assert [conv.dilation for conv in first.convs] == [(1, 1), (1, 2), (1, 4), (1, 8)]
        assert [conv.out_channels for conv in first.convs] == [1, 1, 2, 2]
        assert [[conv.dilation for conv in block.convs] for block in others] == [[(1, 1)], [(1, 1)]]

    def test_members_of_an_ensemble_differ_unless_they_are_set(self) -> None:
        def seen(**settings: str) -> list[tuple[str, int]]:
            network = self.make(1, ensemble_size=5, **settings)
            members = [cast(LSTMFCN, member) for member in cast(Ensemble, network).members]
            return [("+".join(one.views.names), len(cast(ConvBlock, one.fcn[0]).convs)) for one in members]

        expected = [(views, len(dilations.split("+"))) for views, dilations in MEMBERS]
        assert seen(views="auto", dilations="auto") == [*expected, expected[0]]
        assert seen(views="values", dilations="1") == [("values", 1)] * 5

    @pytest.mark.parametrize(("shuffle", "features"), [("true", 20), ("false", 3)])
    def test_dimension_shuffle(self, shuffle: str, features: int) -> None:
        layer = self.make_one(3, dimension_shuffle=shuffle).recurrent[0]
        assert isinstance(layer, LSTM)
        assert layer.input_size == features

    @pytest.mark.parametrize(
        ("variables", "squeeze_excite", "blocks"),
        [(1, "auto", 0), (2, "auto", 2), (1, "true", 2), (2, "true", 2), (2, "false", 0)],
    )
    def test_squeeze_and_excite(self, variables: int, squeeze_excite: str, blocks: int) -> None:
        network = self.make_one(variables, squeeze_excite=squeeze_excite)
        assert sum(isinstance(module, SqueezeExcite) for module in network.modules()) == blocks

    def test_the_members_of_an_ensemble_are_the_networks_of_the_next_seeds(self) -> None:
        ensemble = self.make(2, seed=5, ensemble_size=3, recurrent="alstm")
        assert isinstance(ensemble, Ensemble)
        assert len(ensemble.members) == 3
        for k, member in enumerate(ensemble.members):
            alone = self.make_one(2, seed=5 + k, recurrent="alstm")
            torch.testing.assert_close(member.state_dict(), alone.state_dict(), rtol=0, atol=0)
