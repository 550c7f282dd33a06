"""Outputs must be a fixed function of each sample: neither random nor mixed over the batch."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from helpers.networks import mlp, normal
from skgeo import (
    FisherRankEstimator,
    JacobianChainProfiler,
    LayerQuotientEstimator,
    SkgeoError,
    SymmetryClassifier,
    fisher_rank,
    fisher_trace,
    ntk,
)
from skgeo.chain import curvature, kink_density
from skgeo.fisher import rank_curve
from skgeo.network import bind
from skgeo.quotient import layer_spectra
from skgeo.symmetry import generators


class Net(nn.Module):
    def __init__(self, before=lambda x: x, between=lambda h: h):
        super().__init__()
        inner = mlp(4, 6, 2)
        self.a, self.b = inner[0], inner[2]
        self.before, self.between = before, between

    def forward(self, x):
        return self.b(self.between(torch.tanh(self.a(self.before(x)))))


def noise_in_one_of_twenty(x):
    struck = (torch.arange(len(x)) % 20 == 19).to(x)[:, None]
    return x * (1 + struck * torch.rand(1).to(x))


def stochastic_depth(h):
    return h if torch.rand(()) < 0.9 else 0 * h


class Drawn:
    """Noise of a generator of its own, which leaves the global ones as they are."""

    generator = torch.Generator().manual_seed(0)

    def __call__(self, x):
        return x + torch.rand(x.shape, generator=self.generator, dtype=x.dtype)


RANDOM = {
    "dropout": {"between": lambda h: F.dropout(h, 0.5)},
    "one of twenty": {"before": noise_in_one_of_twenty},
    "stochastic depth": {"between": stochastic_depth},
    "numpy": {"before": lambda x: x + np.random.rand()},  # noqa: NPY002
    "own generator": {"before": Drawn()},
}
COUPLED = {
    "centred": {"before": lambda x: x - x.mean(0)},
    "whitened": {"before": lambda x: (x - x.mean(0)) / (0.1 + x.var(0, unbiased=False))},
    "shifted": {"before": lambda x: x + torch.cat([torch.zeros_like(x[:1]), x[:-1]])},
    "cumulated": {"between": lambda h: h.cumsum(0)},
    "softmax over samples": {"between": lambda h: h.softmax(0) * len(h)},
    "attention over samples": {"between": lambda h: F.softmax(h @ h.T, -1) @ h},
}
MEASUREMENTS = {
    "fisher": lambda net, X: FisherRankEstimator(net, likelihood="gaussian").fit(X),
    "quotient": lambda net, X: LayerQuotientEstimator(net, likelihood="gaussian").fit(X),
    "chain": lambda net, X: JacobianChainProfiler(net).fit(X),
    "symmetry": lambda net, X: SymmetryClassifier(net, likelihood="gaussian").fit(X),
    "fisher_rank": lambda net, X: fisher_rank(net, X, likelihood="gaussian"),
    "rank_curve": lambda net, X: rank_curve(net, X, likelihood="gaussian"),
    "fisher_trace": lambda net, X: fisher_trace(net, X, likelihood="gaussian"),
    "ntk": ntk,
    "layer_spectra": lambda net, X: layer_spectra(net, X, likelihood="gaussian"),
    "curvature": lambda net, X: curvature(net, X, velocity=torch.ones_like(X)),
    "kinks": kink_density,
    "generators": lambda net, X: generators(net, X, likelihood="gaussian"),
}


@pytest.mark.parametrize("measure", MEASUREMENTS.values(), ids=MEASUREMENTS)
@pytest.mark.parametrize("kind", RANDOM)
def test_random_outputs_are_refused(kind, measure):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    with pytest.raises(SkgeoError, match="The outputs are random"):
        measure(Net(**RANDOM[kind]), normal(40, 4))
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("measure", MEASUREMENTS.values(), ids=MEASUREMENTS)
@pytest.mark.parametrize("kind", COUPLED)
def test_coupled_samples_are_refused(kind, measure):
    with pytest.raises(SkgeoError, match="Outputs of one sample depend on others"):
        measure(Net(**COUPLED[kind]), normal(40, 4))


@pytest.mark.parametrize("layer", [nn.LSTM(4, 3), nn.GRU(4, 3), nn.RNN(4, 3)], ids=repr)
def test_recurrent_layers_that_read_time_first(layer):
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer.double()

        def forward(self, x):
            return self.layer(x)[0][:, -1]

    with pytest.raises(SkgeoError, match="batch_first=True"):
        FisherRankEstimator(Last(), likelihood="gaussian").fit(normal(12, 5, 4))


def test_coupling_that_only_later_samples_show():
    net = Net(before=lambda x: x + 1e-2 * torch.relu(x.amax() - 5))
    X = normal(500, 4).clamp(-4, 4)
    X[400:] *= 3
    with pytest.raises(SkgeoError, match="depend on others"):
        fisher_rank(net, X, likelihood="gaussian")


@pytest.mark.parametrize("measure", [fisher_rank, fisher_trace])
def test_coupling_outside_of_the_judged_batches(measure):
    """One sample of many couples its batch, and is in none of those that are judged beforehand."""
    net = Net(before=lambda x: x + 1e-2 * torch.relu(x.amax() - 5))
    X = normal(1000, 4).clamp(-4, 4)
    X[333] = 20.0
    with pytest.raises(SkgeoError, match="depend on others"):
        measure(net, X, likelihood="gaussian", batch_size=100)


def test_draws_without_an_effect_are_not_refused():
    net = Net(between=lambda h: F.dropout(h, 0.0) + 0 * torch.rand(()))
    assert fisher_rank(net, normal(40, 4), likelihood="gaussian").rank > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rounding_of_the_arithmetic_that_ran_is_no_coupling(dtype):
    class Mixed(nn.Module):
        """Half precision inside, float32 weights read out."""

        def __init__(self):
            super().__init__()
            self.base = mlp(16, 64, 8, dtype=dtype).requires_grad_(False)
            self.head = mlp(8, 3, dtype=torch.float32)

        def forward(self, x):
            return self.head(self.base(x.to(dtype)).float())

    network = bind(Mixed(), normal(50, 16, dtype=torch.float32), likelihood="gaussian")
    assert network.first_run.arithmetic == dtype
    assert network.likelihood.name == "gaussian"
