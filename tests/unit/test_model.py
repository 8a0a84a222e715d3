"""The network against the paper (Karim et al. 2017) and its published Keras code."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from container.artifact import Scaling
from training.model import LSTMFCN, Classifier, ConvBlock, OneStepLSTM, Scaler


def count(module: nn.Module) -> int:
    """Parameters as Keras counts them: it has one bias where `nn.LSTM` has two."""
    return sum(parameter.numel() for name, parameter in module.named_parameters() if "bias_hh" not in name)


@pytest.mark.parametrize(("length", "classes", "cells"), [(150, 2, 8), (60, 6, 64), (1460, 10, 128)])
def test_parameter_count_by_hand(length: int, classes: int, cells: int) -> None:
    lstm = 4 * (cells * (length + cells) + cells)
    convolutions = (8 * 1 * 128 + 128) + (5 * 128 * 256 + 256) + (3 * 256 * 128 + 128)
    norms = 2 * (128 + 256 + 128)  # scale and shift; Keras' summary adds as many moving statistics
    linear = (cells + 128) * classes + classes
    network = LSTMFCN(length, classes, hidden_size=cells)
    assert count(network) == lstm + convolutions + norms + linear


def test_parameter_count_of_several_lstm_layers() -> None:
    first, other = 4 * (8 * (50 + 8) + 8), 4 * (8 * (8 + 8) + 8)
    assert count(LSTMFCN(50, 3, num_layers=3).lstm) == first + 2 * other


def test_shapes_along_the_way() -> None:
    network = LSTMFCN(150, 5).eval()
    series = torch.randn(7, 1, 150)
    assert network.lstm(series[:, 0]).shape == (7, 8)
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


def test_dropout_follows_every_lstm_layer() -> None:
    kinds = [type(module) for module in LSTMFCN(20, 2, num_layers=2, dropout=0.5).lstm]
    assert kinds == [OneStepLSTM, nn.Dropout, OneStepLSTM, nn.Dropout]
    assert LSTMFCN(20, 2).lstm[1].p == 0.8


@pytest.mark.parametrize("hidden_size", [1, 8, 64])
def test_one_step_lstm_is_torch_lstm(hidden_size: int) -> None:
    ours = OneStepLSTM(30, hidden_size)
    theirs = nn.LSTM(30, hidden_size, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    features = torch.randn(5, 30)
    expected, _ = theirs(features.unsqueeze(1))
    torch.testing.assert_close(ours(features), expected[:, 0])


def test_gradients_of_one_step_lstm_are_those_of_torch_lstm() -> None:
    ours = OneStepLSTM(30, 4)
    theirs = nn.LSTM(30, 4, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    features = torch.randn(5, 30)
    torch.autograd.backward(ours(features).sum())
    torch.autograd.backward(theirs(features.unsqueeze(1))[0].sum())
    torch.testing.assert_close(ours.weight_ih_l0.grad, theirs.weight_ih_l0.grad)
    torch.testing.assert_close(ours.bias_ih_l0.grad, theirs.bias_ih_l0.grad)


def test_lstm_initialisation_is_that_of_keras() -> None:
    torch.manual_seed(0)
    lstm = OneStepLSTM(100, 16)
    limit = math.sqrt(6 / (100 + 4 * 16))  # Glorot over all gates at once
    assert 0.95 * limit < lstm.weight_ih_l0.abs().max() <= limit
    torch.testing.assert_close(lstm.weight_hh_l0.T @ lstm.weight_hh_l0, torch.eye(16), atol=1e-5, rtol=0)
    assert lstm.bias_ih_l0.tolist() == [0.0] * 16 + [1.0] * 16 + [0.0] * 32
    assert not lstm.bias_hh_l0.any()


def test_what_multiplies_zeros_is_not_trained() -> None:
    frozen = [name for name, parameter in LSTMFCN(20, 2).named_parameters() if not parameter.requires_grad]
    assert frozen == ["lstm.0.weight_hh_l0", "lstm.0.bias_hh_l0"]


def test_convolutions_are_he_uniform() -> None:
    torch.manual_seed(0)
    for block in LSTMFCN(20, 2).fcn:
        assert isinstance(block, ConvBlock)
        limit = math.sqrt(6 / (block.conv.in_channels * block.conv.kernel_size[1]))
        assert 0.95 * limit < block.conv.weight.abs().max() <= limit
        assert block.conv.bias is not None
        assert not block.conv.bias.any()


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
    expected = keras_same_convolution(series.numpy().ravel(), block.conv.weight.detach().numpy()[:, 0, 0])
    with torch.no_grad():
        found = block(series)[0, :, 0]
    # A new block's statistics are mean 0 and variance 1, so that normalising divides by sqrt(1 + eps).
    np.testing.assert_allclose(found, np.maximum(expected, 0) / math.sqrt(1.001), atol=1e-5)


def plain_forward(network: LSTMFCN, series: Tensor) -> Tensor:
    """The paper's figure, written down with torch's ordinary one-dimensional functions."""
    features = series
    for block in network.fcn:
        assert isinstance(block, ConvBlock)
        width = block.conv.kernel_size[1]
        padded = nn.functional.pad(features, ((width - 1) // 2, width // 2))
        features = nn.functional.conv1d(padded, block.conv.weight[:, :, 0], block.conv.bias)
        norm = block.norm
        features = nn.functional.batch_norm(
            features, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
        ).relu()
    lstm = network.lstm[0]
    assert isinstance(lstm, OneStepLSTM)
    reference = nn.LSTM(lstm.input_size, lstm.hidden_size, batch_first=True)
    reference.load_state_dict(lstm.state_dict())
    hidden, _ = reference(series)
    logits: Tensor = network.linear(torch.cat([hidden[:, -1], features.mean(dim=2)], dim=1))
    return logits


def test_the_whole_network_is_that_of_the_paper() -> None:
    torch.manual_seed(0)
    network = LSTMFCN(40, 3, kernel_sizes=(8, 5, 2)).eval()
    for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    series = torch.randn(6, 1, 40)
    torch.testing.assert_close(network(series), plain_forward(network, series), atol=1e-4, rtol=1e-4)


class TestScaler:
    """Scaling happens in float64: a large offset must do no harm."""

    series = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 1, 30)))

    def test_dataset(self) -> None:
        scaler = Scaler(Scaling(method="dataset", mean=1e7, std=2.0))
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
    most_probable = logits.argmax(dim=1)
    assert len(set(most_probable.tolist())) > 1
    of_lstm = torch.nn.functional.linear(hidden, network.linear.weight[:, : hidden.shape[1]], network.linear.bias)
    expected = (logits - of_lstm)[torch.arange(6), most_probable]
    assert explanation.shape == (6, 30)
    assert explanation.std(dim=1).min() > 0
    torch.testing.assert_close(explanation.mean(dim=1), expected)
