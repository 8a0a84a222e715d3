"""The recurrent blocks against Keras' definitions, the layers of torch, and their formulas written down in NumPy."""

import math
from typing import cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lstm_fcn.training.network.recurrent import GRU, LSTM, RNN, AttentionLSTM, Dense, make_layer

KINDS = ["lstm", "alstm", "gru", "rnn", "dense"]
OF_TORCH: dict[str, type[LSTM | GRU | RNN]] = {"lstm": LSTM, "gru": GRU, "rnn": RNN}
RECURRENT_ONLY = {  # what matters only where there is a step before, or another one to look at
    "lstm": {"weight_hh_l0"},
    "gru": {"weight_hh_l0"},
    "rnn": {"weight_hh_l0"},
    "alstm": {"weight_hh", "attention_input", "attention_hidden", "attention_bias", "attention_score"},
}


def count(module: nn.Module) -> int:
    """Parameters as Keras counts them: it has one bias where the layers of torch have two."""
    return sum(parameter.numel() for name, parameter in module.named_parameters() if "bias_hh" not in name)


def randomise(layer: nn.Module) -> None:
    """Parameters of no particular value, so that none is without influence; torch's second bias stays zero."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if "bias_hh" not in name:
                parameter.normal_(std=0.7)


def make(kind: str, features: int, hidden_size: int, steps: int, last: bool = True) -> nn.Module:
    layer = make_layer(kind, features, hidden_size, steps, last)
    randomise(layer)
    return layer


def make_sequence(batch: int, steps: int, features: int) -> Tensor:
    return torch.randn(batch, steps, features, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("features", "cells", "steps"), [(150, 8, 1), (24, 64, 3), (2, 5, 30)])
def test_parameter_counts_by_hand(features: int, cells: int, steps: int) -> None:
    # The attention LSTM of the paper's code: kernel, recurrent_kernel, attention_kernel, bias; W, U, b, v.
    of_gates = 4 * cells * features + 4 * cells * cells + 4 * cells * features + 4 * cells
    of_attention = features * cells + cells * cells + cells + cells
    assert {kind: count(make_layer(kind, features, cells, steps, last=True)) for kind in KINDS} == {
        "lstm": 4 * cells * (features + cells + 1),
        "alstm": of_gates + of_attention,
        "gru": 3 * cells * (features + cells + 1),
        "rnn": cells * (features + cells + 1),
        "dense": cells * (steps * features + 1),
    }


@pytest.mark.parametrize("kind", ["lstm", "alstm", "gru", "rnn"])
@pytest.mark.parametrize("steps", [1, 4])
def test_a_layer_gives_all_of_its_outputs_or_the_last_one(kind: str, steps: int) -> None:
    sequence = make_sequence(5, steps, 6)
    every, last = make(kind, 6, 3, steps, last=False)(sequence), make(kind, 6, 3, steps, last=True)(sequence)
    assert every.shape == (5, steps, 3)
    assert last.shape == (5, 3)
    torch.testing.assert_close(last, every[:, -1])


def gradients(layer: nn.Module, outputs: Tensor) -> dict[str, Tensor]:
    """Those of a sum in which each output counts differently; zero where there is none."""
    layer.zero_grad()
    weights = torch.linspace(1, 2, outputs.numel()).reshape(outputs.shape)
    torch.autograd.backward((outputs * weights).sum())
    return {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in layer.named_parameters()
    }


def run_as_sequence(kind: str, layer: nn.Module, sequence: Tensor) -> tuple[nn.Module, Tensor]:
    """What a layer computes step by step, with all of its parameters trained: torch's own layer, or `_run`."""
    features = sequence.shape[2]
    twin: nn.Module
    if kind == "alstm":
        twin = AttentionLSTM(features, 3, sequence.shape[1]).requires_grad_(True)
    else:
        twin = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[kind](features, 3, batch_first=True)
    twin.load_state_dict(layer.state_dict())
    return twin, twin._run(sequence)[0] if isinstance(twin, AttentionLSTM) else twin(sequence)[0]


@pytest.mark.parametrize("kind", RECURRENT_ONLY)
def test_one_step_in_closed_form_is_the_sequence_of_one(kind: str) -> None:
    layer, sequence = make(kind, 6, 3, steps=1, last=False), make_sequence(5, 1, 6)
    twin, expected = run_as_sequence(kind, layer, sequence)
    outputs = layer(sequence)
    torch.testing.assert_close(outputs, expected)
    found, wanted = gradients(layer, outputs), gradients(twin, expected)
    trained = [name for name, parameter in layer.named_parameters() if parameter.requires_grad]
    assert trained
    for name in trained:
        assert wanted[name].any()
        torch.testing.assert_close(found[name], wanted[name])


@pytest.mark.parametrize("kind", RECURRENT_ONLY)
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_what_has_no_gradient_is_not_trained_and_all_else_is(kind: str, steps: int) -> None:
    layer = make(kind, 6, 3, steps)
    frozen = {name for name, parameter in layer.named_parameters() if not parameter.requires_grad}
    second_bias = set() if kind == "alstm" else {"bias_hh_l0"}  # which Keras does not have
    twin, outputs = run_as_sequence(kind, layer, make_sequence(5, steps, 6))
    without = {name for name, gradient in gradients(twin, outputs[:, -1]).items() if not gradient.any()}
    assert without == (RECURRENT_ONLY[kind] if steps == 1 else set())
    assert frozen == without | second_bias


def sigmoid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-values))


def lstm_step(gates: NDArray[np.float64], cell: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Hidden and cell state from the sums `[B, 4H]` that the gates take: input, forget, new, output."""
    into, forget, new, out = np.split(gates, 4, axis=1)
    cell = sigmoid(forget) * cell + sigmoid(into) * np.tanh(new)
    return sigmoid(out) * np.tanh(cell), cell


def plain_recurrence(kind: str, weights: dict[str, NDArray[np.float64]], sequence: Tensor) -> NDArray[np.float64]:
    """The recurrences as textbooks have them, float64 `[B, S, H]`."""
    read, back, bias = weights["weight_ih_l0"].T, weights["weight_hh_l0"].T, weights["bias_ih_l0"]
    hidden = cell = np.zeros((len(sequence), len(back)))
    outputs = []
    for values in sequence.double().numpy().transpose(1, 0, 2):
        if kind == "rnn":
            hidden = np.tanh(values @ read + bias + hidden @ back)
        elif kind == "lstm":
            hidden, cell = lstm_step(values @ read + bias + hidden @ back, cell)
        else:
            new, old = np.split(values @ read + bias, 3, axis=1), np.split(hidden @ back, 3, axis=1)
            reset, update = sigmoid(new[0] + old[0]), sigmoid(new[1] + old[1])
            hidden = (1 - update) * np.tanh(new[2] + reset * old[2]) + update * hidden
        outputs.append(hidden)
    return np.stack(outputs, axis=1)


def values_of(layer: nn.Module) -> dict[str, NDArray[np.float64]]:
    return {name: parameter.detach().double().numpy() for name, parameter in layer.named_parameters()}


@pytest.mark.parametrize("kind", OF_TORCH)
def test_a_sequence_is_that_of_the_textbook(kind: str) -> None:
    layer, sequence = make(kind, 6, 3, steps=7, last=False), make_sequence(5, 7, 6)
    expected = plain_recurrence(kind, values_of(layer), sequence)
    np.testing.assert_allclose(layer(sequence).detach(), expected, atol=1e-5)


class TestAttention:
    """The attention LSTM against the paper's code, its formulas step by step."""

    @staticmethod
    def plain(
        weights: dict[str, NDArray[np.float64]], inputs: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Outputs `[S, H]`, attention weights `[S, S]` and contexts `[S, F]` of one sequence, float64 `[S, F]`."""
        hidden = cell = np.zeros((1, len(weights["attention_score"])))
        outputs, shares, contexts = [], [], []
        for step in inputs:
            matches = [
                np.tanh(
                    hidden[0] @ weights["attention_hidden"].T
                    + other @ weights["attention_input"].T
                    + weights["attention_bias"]
                )
                for other in inputs
            ]
            share = np.exp([match @ weights["attention_score"] for match in matches])
            share /= share.sum()
            context = sum(part * other for part, other in zip(share, inputs, strict=True))
            gates = step @ weights["weight_ih"].T + weights["bias"] + hidden @ weights["weight_hh"].T
            hidden, cell = lstm_step(gates + context @ weights["weight_context"].T, cell)
            outputs.append(hidden[0])
            shares.append(share)
            contexts.append(context)
        return np.stack(outputs), np.stack(shares), np.stack(contexts)

    @pytest.mark.parametrize("steps", [1, 2, 6])
    def test_outputs_weights_and_contexts_are_those_of_the_paper(self, steps: int) -> None:
        layer, sequence = make("alstm", 4, 3, steps, last=False), make_sequence(5, steps, 4)
        outputs, attention = layer(sequence).detach(), cast(AttentionLSTM, layer).attend(sequence)
        for k, inputs in enumerate(sequence.double().numpy()):
            expected = self.plain(values_of(layer), inputs)
            found = (outputs[k], attention.weights[k].detach(), attention.contexts[k].detach())
            for ours, theirs in zip(found, expected, strict=True):
                np.testing.assert_allclose(ours, theirs, atol=1e-5)

    def test_the_shares_of_each_step_add_up_to_1_and_differ(self) -> None:
        layer, sequence = cast(AttentionLSTM, make("alstm", 4, 3, steps=6)), make_sequence(5, 6, 4)
        attention = layer.attend(sequence)
        assert attention.weights.shape == (5, 6, 6)
        assert attention.weights.min() > 0
        torch.testing.assert_close(attention.weights.sum(dim=2), torch.ones(5, 6))
        assert attention.weights.std(dim=2).min() > 0.01  # among the steps of the input
        assert attention.weights.std(dim=1).max() > 0.01  # from one step to the next
        torch.testing.assert_close(attention.contexts, attention.weights @ sequence)

    def test_before_training_it_looks_at_all_steps_alike(self) -> None:
        attention = AttentionLSTM(4, 3, steps=6).attend(make_sequence(5, 6, 4))
        torch.testing.assert_close(attention.weights, torch.full((5, 6, 6), 1 / 6))


def test_dense_reads_all_steps_at_once() -> None:
    layer, sequence = cast(Dense, make("dense", 6, 3, steps=4)), make_sequence(5, 4, 6)
    weights = values_of(layer)
    expected = sigmoid(sequence.double().numpy().reshape(5, 24) @ weights["weight"].T + weights["bias"])
    np.testing.assert_allclose(layer(sequence).detach(), expected, atol=1e-6)


class TestInitialisation:
    """As Keras does it."""

    @staticmethod
    def assert_glorot(weight: Tensor) -> None:
        limit = math.sqrt(6 / sum(weight.shape))  # over all gates at once
        assert 0.95 * limit < weight.abs().max() <= limit

    @staticmethod
    def assert_orthogonal(weight: Tensor) -> None:
        small = weight.T @ weight if weight.shape[0] >= weight.shape[1] else weight @ weight.T
        torch.testing.assert_close(small, torch.eye(len(small)), atol=1e-5, rtol=0)

    @pytest.mark.parametrize("steps", [1, 3])
    @pytest.mark.parametrize("kind", OF_TORCH)
    def test_of_layers_of_torch(self, kind: str, steps: int) -> None:
        torch.manual_seed(0)
        layer = OF_TORCH[kind](100, 16, steps)
        self.assert_glorot(layer.weight_ih_l0)
        self.assert_orthogonal(layer.weight_hh_l0)
        forget = [1.0] * 16 if kind == "lstm" else [0.0] * 16
        gates = {"lstm": 4, "gru": 3, "rnn": 1}[kind]
        assert layer.bias_ih_l0.tolist() == ([0.0] * 16 + forget + [0.0] * 32)[: 16 * gates]
        assert not layer.bias_hh_l0.any()

    @pytest.mark.parametrize("features", [100, 5])
    def test_of_the_attention_lstm(self, features: int) -> None:
        torch.manual_seed(0)
        layer = AttentionLSTM(features, 16, steps=3)
        self.assert_glorot(layer.weight_ih)
        for weight in (layer.weight_hh, layer.weight_context, layer.attention_input, layer.attention_hidden):
            self.assert_orthogonal(weight)
        for vector in (layer.bias, layer.attention_bias, layer.attention_score):
            assert not vector.any()

    def test_of_the_dense_layer(self) -> None:
        torch.manual_seed(0)
        layer = Dense(50, 16, steps=2)
        self.assert_glorot(layer.weight)
        assert not layer.bias.any()
