"""Which axis of a representation is that of the samples, where others are as long."""

import pytest
import torch
from torch import nn

from helpers.networks import normal, seeded
from skgeo import fisher_trace
from skgeo.chain import chain_profile
from skgeo.jacobian import Layers
from skgeo.network import replica

T = 5


class TimeFirst(nn.Module):
    """Layers that read (time, samples, features) on data (samples, time, features)."""

    def __init__(self, kind, chosen):
        super().__init__()
        if kind == "lstm":
            self.body = nn.LSTM(3, 4)
        elif kind == "transformer":
            self.body = nn.TransformerEncoderLayer(3, 1, 4, dropout=0.0)
        else:
            self.body = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
        self.head = nn.Linear(3 if kind == "transformer" else 4, 2)
        self.chosen = chosen

    def forward(self, x):
        h = self.body(x.transpose(0, 1))
        h = h[0] if isinstance(h, tuple) else h
        z = self.head(h)
        return z.transpose(0, 1) if self.chosen is None else z[self.chosen]


@pytest.mark.parametrize("kind", ["lstm", "transformer", "linear"])
@pytest.mark.parametrize("chosen", [0, -1, 2, None])
def test_the_second_of_two_axes_of_one_length(kind, chosen):
    net, X = seeded(lambda: TimeFirst(kind, chosen)), normal(T, T, 3)
    found = Layers(replica(net, parameters=None), X, ["body", "head"])
    assert [layer.axis for layer in found.layers] == [1, 1]


@pytest.mark.parametrize("kind", ["lstm", "transformer", "linear"])
def test_what_is_measured_does_not_depend_on_the_number_of_samples(kind):
    """With T = N as with two samples more, of which the first T are compared."""
    net, X = seeded(lambda: TimeFirst(kind, 0)), normal(T + 2, T, 3)
    few, more = (chain_profile(net, x, chain="output", layers=["body"]) for x in (X[:T], X))
    torch.testing.assert_close(
        few.layers[0].singular_values, more.layers[0].singular_values[:T], atol=1e-12, rtol=1e-9
    )
    alone = sum(fisher_trace(net, x[None], likelihood="gaussian") for x in X[:T]) / T
    assert fisher_trace(net, X[:T], likelihood="gaussian") == pytest.approx(alone, rel=1e-9)
