import math

import numpy as np
import pytest
import torch
from torch import nn

from helpers.networks import normal
from helpers.oracles import assert_untouched, dense_fisher, spectrum
from skgeo import RankAmbiguityWarning, fisher_diagonal, fisher_spectrum, fisher_trace
from skgeo.datasets import known_networks
from skgeo.likelihood import Gaussian

KNOWN = known_networks()


@pytest.mark.parametrize("solver", ["gram", "parameter"])
@pytest.mark.parametrize("name", KNOWN)
def test_known_ranks(name, solver):
    case = KNOWN[name]
    found = fisher_spectrum(
        case.module, case.inputs, likelihood=case.likelihood, solver=solver, tol=1e-10
    )
    assert found.rank == case.fisher_rank, case.why
    assert found.nullity == case.n_parameters - case.fisher_rank
    assert found.decision.gap > 100


def test_auto_takes_the_smaller_side():
    net = nn.Linear(3, 2).double()
    few, many = (normal(n, 3, dtype=torch.float32) for n in (2, 40))
    with pytest.warns(RankAmbiguityWarning, match="Fisher rank 4 is the number of rows"):
        small = fisher_spectrum(net, few, likelihood="gaussian")
    large = fisher_spectrum(net, many, likelihood="gaussian")
    assert (small.side, len(small.eigenvalues), small.sample_limited) == ("gram", 4, True)
    assert (large.side, len(large.eigenvalues), large.sample_limited) == ("parameter", 8, False)


def test_a_gaussian_of_another_scale_divides_the_metric_and_not_the_kernel():
    net = nn.Linear(3, 2).double()
    X = normal(9, 3, dtype=torch.float32)
    unit, tenth = (
        fisher_spectrum(net, X, likelihood=Gaussian(scale=s), tangent=True) for s in (1.0, 0.1)
    )
    torch.testing.assert_close(tenth.eigenvalues, 100 * unit.eigenvalues)
    torch.testing.assert_close(tenth.tangent_eigenvalues, unit.tangent_eigenvalues)
    torch.testing.assert_close(unit.tangent_eigenvalues, unit.eigenvalues)


def test_integer_inputs_of_an_embedding_stay_integers():
    net = nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(6, 2)).double()
    tokens = torch.tensor([[0, 1], [2, 2], [4, 0]])
    with assert_untouched(net), pytest.warns(RankAmbiguityWarning, match="the 29 dimensions"):
        found = fisher_spectrum(net, tokens, likelihood="categorical")
    expected = spectrum(dense_fisher(net, tokens, "categorical"))
    np.testing.assert_allclose(found.eigenvalues, expected[:3], rtol=1e-10)


def test_a_network_in_train_mode_is_measured_in_eval_mode():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)).double()
    X = normal(20, 3)
    net(X)  # moves the running statistics
    with assert_untouched(net), pytest.warns(UserWarning, match="(?i)eval mode"):
        found = fisher_spectrum(net.train(), X, likelihood="gaussian")
    expected = fisher_spectrum(net.eval(), X, likelihood="gaussian")
    torch.testing.assert_close(found.eigenvalues, expected.eigenvalues)


@pytest.mark.parametrize("level", [-190.0, 150.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_metrics_beyond_the_range_of_the_dtype(level, dtype):
    """Rates exp(level), whose roots float32 does not hold: the trace is that of least squares."""
    net = nn.Linear(3, 2).to(dtype)
    nn.init.zeros_(net.weight)
    nn.init.constant_(net.bias, level)
    X = normal(20, 3).to(dtype)
    squares = np.append((X.double() ** 2).mean(0), 1.0) * math.exp(level)
    trace = fisher_trace(net, X, likelihood="poisson")
    assert trace == pytest.approx(2 * squares.sum(), rel=1e-5)
    diagonal = fisher_diagonal(net, X, likelihood="poisson")
    np.testing.assert_allclose(diagonal[-2:], squares[-1], rtol=1e-5)
