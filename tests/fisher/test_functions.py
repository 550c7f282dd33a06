"""Rank, diagonal, trace and kernel as functions."""

import numpy as np
import pytest
import torch
from torch import nn

from helpers.cases import CASES
from helpers.networks import normal
from helpers.oracles import dense_fisher, dense_jacobian
from skgeo import (
    RankAmbiguityWarning,
    WrappedModel,
    fisher_diagonal,
    fisher_rank,
    fisher_spectrum,
    fisher_trace,
    ntk,
)
from skgeo.datasets import known_networks
from skgeo.fisher._rank import leading_eigenvalues

KNOWN = known_networks()


@pytest.mark.parametrize("solver", ["gram", "parameter"])
@pytest.mark.parametrize("name", KNOWN)
def test_rank_alone_is_the_rank_of_the_spectrum(name, solver):
    case = KNOWN[name]
    options = {"likelihood": case.likelihood, "solver": solver, "tol": 1e-9}
    alone = fisher_rank(case.module, case.inputs, **options)
    whole = fisher_spectrum(case.module, case.inputs, **options)
    assert alone.rank == whole.rank == case.fisher_rank
    assert alone.threshold == pytest.approx(whole.decision.threshold, rel=1e-10)


@pytest.mark.parametrize("relative", [1e-3, 1e-6, 1e-9])
@pytest.mark.parametrize("rank", [12, 50])
def test_pivoted_cholesky_keeps_every_eigenvalue_above_the_threshold(rank, relative):
    """Of 60: the low rank stops the factorisation early, the high one takes the whole spectrum."""
    basis = torch.linalg.qr(normal(60, 60)).Q[:, :rank]
    values = torch.logspace(0, -14, rank, dtype=torch.float64)
    matrix = (basis * values) @ basis.T
    found = leading_eigenvalues(matrix.clone(), relative)
    above = values[values > relative]
    if rank == 12:
        assert len(found) <= 12
    else:
        assert len(found) >= len(above)
    assert int((found > relative).sum()) == len(above)
    np.testing.assert_allclose(found[: len(above)], above, atol=0.1 * relative)


def test_rank_of_a_zero_metric():
    assert leading_eigenvalues(torch.zeros(4, 4, dtype=torch.float64), 1e-9).tolist() == [0.0]


@pytest.mark.parametrize("batch_size", [None, 2])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_diagonal_and_trace_of_every_layer_type(case, batch_size):
    module, inputs = case.module(), case.inputs()
    model = WrappedModel(module, forward=case.forward)
    options = {"likelihood": "categorical", "batch_size": batch_size}
    expected = np.diag(dense_fisher(module, inputs, "categorical", case.forward))
    found = fisher_diagonal(model, inputs, **options)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12 * expected.max())
    assert fisher_trace(model, inputs, **options) == pytest.approx(expected.sum(), rel=1e-11)


@pytest.mark.parametrize("batch_size", [None, 2])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_kernel_of_every_layer_type(case, batch_size):
    module, inputs, others = case.module(), case.inputs(), case.inputs(n=3, seed=7)
    model, options = WrappedModel(module, forward=case.forward), {"batch_size": batch_size}
    J, K = (
        dense_jacobian(module, x, case.forward)[1].reshape(
            -1, sum(p.numel() for p in module.parameters() if p.requires_grad)
        )
        for x in (inputs, others)
    )
    scale = np.abs(J @ J.T).max()
    np.testing.assert_allclose(ntk(model, inputs, **options), J @ J.T, atol=1e-11 * scale)
    cross = ntk(model, inputs, others, **options)
    np.testing.assert_allclose(cross, J @ K.T, atol=1e-11 * scale)
    summed = ntk(model, inputs, others, summed=True, **options)
    expected = np.einsum("nkmk->nm", (J @ K.T).reshape(5, 3, 3, 3))
    np.testing.assert_allclose(summed, expected, atol=1e-11 * scale)


def test_float32_diagonal_is_that_of_float64_to_its_precision():
    net = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))
    X = normal(30, 5)
    low = fisher_diagonal(net, X, likelihood="categorical")
    high = fisher_diagonal(net.double(), X, likelihood="categorical")
    np.testing.assert_allclose(low, high, rtol=1e-4)


def test_rank_without_a_gap_warns():
    net = nn.Linear(6, 1, bias=False).double()
    X = normal(40, 6)  # eigenvalues within a factor of a few
    values = fisher_spectrum(net, X, likelihood="gaussian").eigenvalues
    with pytest.warns(RankAmbiguityWarning):
        found = fisher_rank(net, X, tol=float(values[3] / values[0]) * 0.99, likelihood="gaussian")
    assert found.rank == 4
