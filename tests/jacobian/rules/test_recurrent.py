"""Recurrent layers of torch, which run step by step on the replica."""

import pytest
import torch
from torch import nn

from helpers.networks import linear, normal
from helpers.rule_oracles import assert_matches_dense

B, T, D, H = 3, 4, 2, 3
KINDS = {
    "rnn": nn.RNN,
    "relu": lambda *shape, **options: nn.RNN(*shape, nonlinearity="relu", **options),
    "gru": nn.GRU,
    "lstm": nn.LSTM,
}


class Recurrent(nn.Module):
    def __init__(self, kind, call, width=H, **options):
        super().__init__()
        torch.manual_seed(0)
        self.rnn = KINDS[kind](D, H, **{"batch_first": True, **options}).double()
        self.out = linear(width, 3)
        self.call = call

    def forward(self, x):
        return self.out(self.call(self.rnn, x))


def last_output(rnn, x):
    return rnn(x)[0][:, -1]


def names_of(found):
    return {name for call in found.calls for name in call.names.values()}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_last_output(kind, bias):
    module = Recurrent(kind, last_output, bias=bias)
    found = assert_matches_dense(module, normal(B, T, D))
    assert len(names_of(found)) == (4 if bias else 2) + 2


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_last_state_of_layers_in_both_directions(kind):
    def call(rnn, x):
        state = rnn(x)[1]
        state = torch.cat(state) if isinstance(state, tuple) else state
        return state.transpose(0, 1).flatten(1)

    width = 4 * H * (2 if kind == "lstm" else 1)
    module = Recurrent(kind, call, width, num_layers=2, bidirectional=True)
    assert_matches_dense(module, normal(B, T, D))


@pytest.mark.parametrize("kind", KINDS)
def test_steps_first(kind):
    module = Recurrent(kind, lambda rnn, x: rnn(x.transpose(0, 1))[0].sum(0), batch_first=False)
    assert_matches_dense(module, normal(B, T, D))


@pytest.mark.parametrize("kind", ["rnn", "lstm"])
def test_a_state_to_start_from(kind):
    def call(rnn, x):
        start = x.sum(1)[None, :, :1].expand(1, len(x), H).contiguous()
        given = (start, start.cos()) if kind == "lstm" else start
        return rnn(x, given)[0].mean(1)

    assert_matches_dense(Recurrent(kind, call), normal(B, T, D))


def test_one_step_and_one_sample():
    assert_matches_dense(Recurrent("lstm", last_output), normal(B, 1, D))
    assert_matches_dense(Recurrent("lstm", last_output), normal(1, T, D))


def test_two_calls():
    def call(rnn, x):
        return rnn(torch.tanh(rnn(x)[0][..., :D]))[0][:, -1]

    assert_matches_dense(Recurrent("gru", call), normal(B, T, D))


def test_what_is_measured_by_dense_rows():
    projected = Recurrent("lstm", last_output, width=2, proj_size=2)
    rest = [name for name, _ in projected.named_parameters() if name.startswith("rnn.")]
    assert_matches_dense(projected, normal(B, T, D), rest=rest)

    def packed(rnn, x):
        lengths = torch.full((len(x),), T)
        rows = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        return nn.utils.rnn.pad_packed_sequence(rnn(rows)[0], batch_first=True)[0][:, -1]

    module = Recurrent("gru", packed)
    rest = [name for name, _ in module.named_parameters() if name.startswith("rnn.")]
    assert_matches_dense(module, normal(B, T, D), rest=rest)
