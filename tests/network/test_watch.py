"""Nothing of the user's is written to, whatever the forward pass writes to."""

import collections
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from helpers.networks import mlp, normal, seeded
from skgeo import (
    FisherRankEstimator,
    JacobianChainProfiler,
    LayerQuotientEstimator,
    SkgeoError,
    SymmetryClassifier,
    fisher_diagonal,
    fisher_spectrum,
    fisher_trace,
    ntk,
)
from skgeo.chain import cauchy_green, curvature
from skgeo.network import bind
from skgeo.quotient import fisher_rao_length, layer_spectra


class Shifted(nn.Module):
    def __init__(self, in_place):
        super().__init__()
        self.net, self.in_place = mlp(3, 4, 2), in_place

    def forward(self, x):
        if not self.in_place:
            return self.net((x - 2.0) / 3.0)
        x -= 2.0
        x /= 3.0
        return self.net(x)


def masked(in_place):
    net = mlp(3, 4, 2)

    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            low = x < 0.1
            return self.net(x.masked_fill_(low, 0.5) if in_place else x.masked_fill(low, 0.5))

    return Masked()


def rectified(in_place):
    return nn.Sequential(nn.ReLU(inplace=in_place), *mlp(3, 4, 2))


def numbers(found):
    return np.concatenate([np.ravel(np.asarray(value, dtype=float)) for value in found])


MEASUREMENTS = {
    "fisher": lambda net, X: (
        FisherRankEstimator(net, likelihood="gaussian").fit(X).summary().values()
    ),
    "quotient": lambda net, X: (
        LayerQuotientEstimator(net, likelihood="gaussian").fit(X).summary().values()
    ),
    "chain": lambda net, X: JacobianChainProfiler(net).fit(X).summary().values(),
    "symmetry": lambda net, X: (
        SymmetryClassifier(net, likelihood="gaussian").fit(X).summary().values()
    ),
    "diagonal": lambda net, X: fisher_diagonal(net, X, likelihood="gaussian"),
    "ntk": lambda net, X: [ntk(net, X)],
    "spectra": lambda net, X: [s.eigenvalues for s in layer_spectra(net, X, likelihood="gaussian")],
    "curvature": lambda net, X: [curvature(net, X, velocity=np.ones_like(X)).curvature],
    "stretches": lambda net, X: [cauchy_green(net, X).stretches],
    "length": lambda net, X: [fisher_rao_length(net, X, likelihood="gaussian")],
}


@pytest.mark.filterwarnings("ignore::skgeo.GeometryWarning")
@pytest.mark.parametrize("measure", MEASUREMENTS.values(), ids=MEASUREMENTS)
@pytest.mark.parametrize("make", [Shifted, masked, rectified])
def test_inputs_that_a_network_writes_to(make, measure):
    X = normal(7, 3).numpy()
    before = X.copy()
    in_place, plain = make(True), make(False)
    plain.load_state_dict(in_place.state_dict())
    found = numbers(measure(in_place, X))
    np.testing.assert_array_equal(X, before)
    np.testing.assert_allclose(found, numbers(measure(plain, X)), rtol=1e-9, atol=1e-12)


class Clamped(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = mlp(3, 2)[0]

    def forward(self, x):
        self.layer.weight.data.clamp_(-0.1, 0.1)
        return self.layer(x)


def renormalised():
    table = nn.Embedding(5, 4, max_norm=1.0)
    table.weight.data.mul_(10)
    return nn.Sequential(table, nn.Flatten(), nn.Linear(8, 2)).double()


@pytest.mark.parametrize(
    ("make", "X"),
    [(Clamped, normal(6, 3)), (renormalised, torch.arange(10).reshape(5, 2) % 5)],
)
def test_weights_that_a_network_writes_to(make, X):
    net = make()
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    network = bind(net, X, likelihood="gaussian")
    outputs = network.outputs()
    for name, parameter in net.named_parameters():
        assert torch.equal(parameter, before[name])
    torch.testing.assert_close(outputs.flatten(1), net(X).detach().flatten(1))


def test_memory_is_shared_where_nothing_writes():
    net = mlp(3, 4, 2)
    network = bind(net, normal(5, 3))
    _ = network.first_run
    for name, parameter in net.named_parameters():
        assert network.replica.parameters[name].data_ptr() == parameter.data_ptr()
    assert not network.replica.writes_inputs


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = mlp(3, 2)[0]
        self.calls, self.seen, self.log = np.zeros(1), collections.Counter(), []

    def forward(self, x):
        self.calls += 1
        self.seen["n"] += 1
        self.log.append(len(x))
        return self.layer(x)


def test_counters_and_lists_stay_as_they_were():
    net = Counting()
    FisherRankEstimator(net, likelihood="gaussian").fit(normal(5, 3))
    assert (net.calls[0], dict(net.seen), net.log) == (0, {}, [])


class Kept(nn.Module):
    """A function of a parameter, computed once: derivatives do not pass through a copy of it."""

    def __init__(self, keep):
        super().__init__()
        self.w = nn.Parameter(normal(4, 3))
        self.kept = keep(self.w)

    def forward(self, x):
        kept = self.kept[0] if isinstance(self.kept, (list, tuple)) else self.kept
        return x @ (kept() if callable(kept) else kept)[:3]


@pytest.mark.parametrize(
    "keep",
    [
        lambda w: w.t()[:, :3],
        lambda w: [w.t()[:, :3] * 1.0],
        lambda w: w.chunk(2, dim=1),
        lambda w: w.data[:3],
        lambda w: {"w": w}["w"].T.clone(),
    ],
)
def test_kept_functions_of_parameters_are_refused(keep):
    net = Kept(keep)
    for ask in (fisher_diagonal, ntk):
        options = {} if ask is ntk else {"likelihood": "gaussian"}
        with pytest.raises(SkgeoError, match="uses 'kept', which was computed from the parameters"):
            ask(net, normal(5, 3), **options)
    JacobianChainProfiler(net).fit(normal(5, 3))  # which takes no derivative by parameters


def test_what_an_earlier_pass_left_behind_is_not_used():
    class Remembers(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.last = mlp(3, 2), None

        def forward(self, x):
            self.last = self.net(x)
            return self.last

    net = Remembers()
    net(normal(4, 3))  # keeps a result with its graph
    assert fisher_diagonal(net, normal(5, 3), likelihood="gaussian").shape == (8,)


def test_old_weight_norm_computes_its_weight_in_every_pass():
    with pytest.warns(FutureWarning):
        net = nn.utils.weight_norm(mlp(3, 2)[0])
    found = fisher_diagonal(net, normal(5, 3), likelihood="gaussian")
    assert float(found.sum()) > 0


def test_kept_tensors_without_memory_are_told_from_others():
    class Empty(nn.Module):
        """Keeps an empty function of its weight, and uses an empty tensor of another origin."""

        def __init__(self):
            super().__init__()
            self.layer = mlp(3, 2)[0]
            self.none, self.sparse = self.layer.weight[:0] * 1.0, self.layer.weight.to_sparse()

        def forward(self, x):
            return torch.cat([self.layer(x), x[:, :0]], dim=1)

    assert fisher_diagonal(Empty(), normal(5, 3), likelihood="gaussian").shape == (8,)


class Residual(nn.Module):
    def __init__(self, in_place):
        super().__init__()
        self.one, self.two = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))
        self.head, self.act, self.in_place = nn.Linear(3, 3), nn.ReLU(inplace=in_place), in_place

    def forward(self, x):
        h = self.two(self.act(self.one(x)))
        if self.in_place:
            h += x
            h.mul_(1.5)
        else:
            h = (h + x) * 1.5
        return self.head(self.act(h).mean((2, 3)))


@pytest.mark.filterwarnings("ignore::skgeo.GeometryWarning")
@pytest.mark.parametrize("measure", ["fisher", "quotient", "chain", "diagonal", "ntk"])
def test_what_is_written_to_further_in_changes_nothing(measure):
    in_place, plain = seeded(lambda: Residual(True)), seeded(lambda: Residual(False))
    plain.load_state_dict(in_place.state_dict())
    X = normal(6, 3, 5, 5)
    found = numbers(MEASUREMENTS[measure](in_place, X.clone()))
    expected = numbers(MEASUREMENTS[measure](plain, X.clone()))
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)


class Normalised(nn.Module):
    def forward(self, x):
        return x.sub_(0.5).div_(0.25)


@pytest.mark.parametrize("options", [{}, {"solver": "lanczos", "n_components": 2}])
def test_a_normalisation_in_place_in_closed_form(options):
    net, X = nn.Sequential(Normalised(), nn.Linear(4, 2).double()), normal(20, 4)
    expected = float(2 * ((((X - 0.5) / 0.25) ** 2).sum(1) + 1).mean())
    before = X.clone()
    gaussian = {"likelihood": "gaussian"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two pairs are no rank
        assert FisherRankEstimator(net, **gaussian, **options).fit(X).trace_ == pytest.approx(
            expected
        )
    assert fisher_spectrum(net, X, **gaussian).trace == pytest.approx(expected)
    assert fisher_trace(net, X, **gaussian) == pytest.approx(expected)
    assert float(fisher_diagonal(net, X, **gaussian).sum()) == pytest.approx(expected)
    assert torch.equal(X, before)


class Heads(nn.Module):
    """Views of one stacked parameter, made once: plain torch trains through them."""

    def __init__(self, kept):
        super().__init__()
        self.stacked, self.out = nn.Parameter(normal(3, 4, 4)), nn.Linear(12, 2)
        self.heads = [self.stacked[i] for i in range(3)] if kept else None

    def forward(self, x):
        heads = self.heads or self.stacked.unbind(0)
        return self.out(torch.cat([torch.tanh(x @ w) for w in heads], 1))


def test_kept_views_of_a_stacked_parameter_are_refused():
    kept, plain = (Heads(flag).double() for flag in (True, False))
    assert fisher_trace(plain, normal(9, 4), likelihood="gaussian") > 0
    for ask in (fisher_trace, fisher_diagonal, fisher_spectrum):
        with pytest.raises(SkgeoError, match="uses 'heads', which was computed from the"):
            ask(kept, normal(9, 4), likelihood="gaussian")
    with pytest.raises(SkgeoError, match="uses 'heads', which was computed from the"):
        FisherRankEstimator(kept, likelihood="gaussian").fit(normal(9, 4))
