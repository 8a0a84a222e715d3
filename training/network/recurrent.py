"""The recurrent blocks of the family: LSTM, attention LSTM, GRU, plain RNN, and a dense layer in their place.

Each layer maps a sequence `[B, S, F]` to its outputs `[B, S, hidden_size]`, or to the last output `[B, hidden_size]`,
starting from a zero state. With dimension shuffle and one variable there is a single step (S = 1). The recurrent
weights then multiply zeros, and the layer is one matrix product with the input weights: same parameters and result as
the layers of torch, but faster.

As in Keras: Glorot-uniform input weights, orthogonal recurrent weights, one bias vector (the second bias vector of
torch's layers stays zero and is not trained), forget bias 1.
"""

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def make_layer(kind: str, features: int, hidden_size: int, steps: int, last: bool) -> nn.Module:
    """Create a recurrent layer.

    Args:
        kind: `lstm`, `alstm`, `gru`, `rnn` or `dense`, as in the hyperparameter `recurrent`.
        features: F.
        hidden_size: cells.
        steps: S.
        last: no other recurrent layer follows, so only the last output is needed.
    """
    if kind == "dense":
        return Dense(features, hidden_size, steps)
    return LAYERS[kind](features, hidden_size, steps, last)


class _Layer:
    """Initialisation and forward pass of LSTM, GRU and RNN, as a mixin before the layer of torch."""

    weight_ih_l0: nn.Parameter
    weight_hh_l0: nn.Parameter
    bias_ih_l0: nn.Parameter
    bias_hh_l0: nn.Parameter
    hidden_size: int

    def __init__(self, features: int, hidden_size: int, steps: int, last: bool) -> None:
        super().__init__(features, hidden_size, batch_first=True)  # type: ignore[call-arg]  # nn.RNNBase follows
        self.steps = steps
        self.last = last
        nn.init.xavier_uniform_(self.weight_ih_l0)
        nn.init.orthogonal_(self.weight_hh_l0)
        nn.init.zeros_(self.bias_ih_l0)
        nn.init.zeros_(self.bias_hh_l0).requires_grad_(False)
        if steps == 1:
            self.weight_hh_l0.requires_grad_(False)  # multiplies zeros

    def forward(self, sequence: Tensor) -> Tensor:
        if self.steps == 1:
            gates = F.linear(sequence[:, 0], self.weight_ih_l0, self.bias_ih_l0 + self.bias_hh_l0)
            output = self.first_output(gates)
            return output if self.last else output.unsqueeze(1)
        outputs: Tensor = super().forward(sequence)[0]  # type: ignore[misc]
        return outputs[:, -1] if self.last else outputs

    def first_output(self, gates: Tensor) -> Tensor:
        """Output of the first step from a zero state: `[B, gates * hidden_size]` to `[B, hidden_size]`."""
        raise NotImplementedError


class LSTM(_Layer, nn.LSTM):  # type: ignore[misc]
    """An LSTM layer."""

    def __init__(self, features: int, hidden_size: int, steps: int = 1, last: bool = True) -> None:
        super().__init__(features, hidden_size, steps, last)
        with torch.no_grad():
            self.bias_ih_l0[hidden_size : 2 * hidden_size] = 1.0

    def first_output(self, gates: Tensor) -> Tensor:
        return _lstm_cell(gates, None)[0]


class GRU(_Layer, nn.GRU):  # type: ignore[misc]
    """A GRU layer, in the variant of torch and cuDNN, where the reset gate is applied after the product."""

    def __init__(self, features: int, hidden_size: int, steps: int = 1, last: bool = True) -> None:
        super().__init__(features, hidden_size, steps, last)

    def first_output(self, gates: Tensor) -> Tensor:
        _, update, new = gates.chunk(3, dim=-1)
        return (1 - update.sigmoid()) * new.tanh()


class RNN(_Layer, nn.RNN):  # type: ignore[misc]
    """A plain recurrent layer with tanh."""

    def __init__(self, features: int, hidden_size: int, steps: int = 1, last: bool = True) -> None:
        super().__init__(features, hidden_size, steps, last)

    def first_output(self, gates: Tensor) -> Tensor:
        return gates.tanh()


class Attention(NamedTuple):
    """Attention of an attention LSTM in each of its S steps.

    weights: shares of the S steps of the input, `[B, S, S]`; the shares in one step add up to 1.
    contexts: context vectors, the input averaged with these weights, `[B, S, F]`.
    """

    weights: Tensor
    contexts: Tensor


class AttentionLSTM(nn.Module):
    """The attention LSTM of Karim et al. 2017 (after Bahdanau et al. 2014), as in their Keras code.

    In each step, the cells attend to the whole input: its steps, weighted by how well they match the state, are
    averaged to a context vector, which the gates read in addition to the input of the step. With a single step, the
    only weight is 1 and the context vector is the input.

    As in that code: orthogonal attention weights, zero biases, also of the forget gate, and a zero vector
    `attention_score`.
    """

    weight_ih: nn.Parameter
    weight_hh: nn.Parameter
    weight_context: nn.Parameter
    attention_input: nn.Parameter
    attention_hidden: nn.Parameter

    def __init__(self, features: int, hidden_size: int, steps: int = 1, last: bool = True) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.steps = steps
        self.last = last
        shapes = {"weight_ih": (4 * hidden_size, features), "weight_hh": (4 * hidden_size, hidden_size)}
        shapes |= {"weight_context": (4 * hidden_size, features), "attention_input": (hidden_size, features)}
        shapes |= {"attention_hidden": (hidden_size, hidden_size)}
        for name, shape in shapes.items():
            parameter = nn.Parameter(torch.empty(shape))
            (nn.init.xavier_uniform_ if name == "weight_ih" else nn.init.orthogonal_)(parameter)
            self.register_parameter(name, parameter)
        self.bias = nn.Parameter(torch.zeros(4 * hidden_size))
        self.attention_bias = nn.Parameter(torch.zeros(hidden_size))
        self.attention_score = nn.Parameter(torch.zeros(hidden_size))
        if steps == 1:
            for name in ("weight_hh", "attention_input", "attention_hidden", "attention_bias", "attention_score"):
                self.get_parameter(name).requires_grad_(False)  # nothing depends on them

    def forward(self, sequence: Tensor) -> Tensor:
        if self.steps == 1:
            output = _lstm_cell(self._read_input(sequence) + F.linear(sequence, self.weight_context), None)[0]
            return output[:, 0] if self.last else output
        outputs = self._run(sequence)[0]
        return outputs[:, -1] if self.last else outputs

    def attend(self, sequence: Tensor) -> Attention:
        """Attention of the layer to a sequence `[B, S, F]`."""
        return self._run(sequence)[1]

    def _run(self, sequence: Tensor) -> tuple[Tensor, Attention]:
        read = self._read_input(sequence)
        keys = F.linear(sequence, self.attention_input, self.attention_bias)
        hidden = cell = sequence.new_zeros(sequence.shape[0], self.attention_score.shape[0])
        outputs, weights, contexts = [], [], []
        for step in range(self.steps):
            query = F.linear(hidden, self.attention_hidden).unsqueeze(1)
            weight = torch.matmul(torch.tanh(keys + query), self.attention_score).softmax(dim=1)
            context = torch.matmul(weight.unsqueeze(1), sequence).squeeze(1)
            gates = read[:, step] + F.linear(hidden, self.weight_hh) + F.linear(context, self.weight_context)
            hidden, cell = _lstm_cell(gates, cell)
            outputs.append(hidden)
            weights.append(weight)
            contexts.append(context)
        return torch.stack(outputs, dim=1), Attention(torch.stack(weights, dim=1), torch.stack(contexts, dim=1))

    def _read_input(self, sequence: Tensor) -> Tensor:
        return F.linear(sequence, self.weight_ih, self.bias)


class Dense(nn.Linear):
    """A dense layer with sigmoid that reads all steps at once, in place of a recurrent layer (Karim et al. 2019,
    "Insights into LSTM Fully Convolutional Networks").
    """

    def __init__(self, features: int, hidden_size: int, steps: int = 1) -> None:
        super().__init__(features * steps, hidden_size)
        nn.init.xavier_uniform_(self.weight)
        nn.init.zeros_(cast(Tensor, self.bias))

    def forward(self, sequence: Tensor) -> Tensor:
        return super().forward(sequence.flatten(1)).sigmoid()


LAYERS: dict[str, type[LSTM | AttentionLSTM | GRU | RNN]] = {
    "lstm": LSTM,
    "alstm": AttentionLSTM,
    "gru": GRU,
    "rnn": RNN,
}


def _lstm_cell(gates: Tensor, cell: Tensor | None) -> tuple[Tensor, Tensor]:
    """Hidden and cell state after one step; a `cell` state of None is zero."""
    input_gate, forget_gate, new, output_gate = gates.chunk(4, dim=-1)
    kept = input_gate.sigmoid() * new.tanh()
    state = kept if cell is None else forget_gate.sigmoid() * cell + kept
    return output_gate.sigmoid() * state.tanh(), state
