"""Four small networks whose symmetries are known in full."""

import pytest
import torch

from helpers.planted import Planter, as_module, evaluate, flip, seed_case_31
from skgeo.symmetry import (
    annihilating_sets,
    apply_symmetry,
    classify_units,
    compress,
    equivalent,
    nullity_account,
)


def double(*values):
    return tuple(torch.tensor(v, dtype=torch.float64) for v in values)


def wide_normal(n, count=4000):
    return 3 * Planter(0).normal(count, n)


def fisher(network, x, parts):
    """Dense Fisher matrix of Gaussian outputs in some of (w, b, q, c), by central differences."""
    sizes = [network[i].numel() for i in parts]
    rows = []
    for i, size in zip(parts, sizes, strict=True):
        for j in range(size):
            ends = []
            for step in (1e-6, -1e-6):
                moved = [t.clone() for t in network]
                moved[i].view(-1)[j] += step
                ends.append(evaluate(moved, x))
            rows.append(((ends[0] - ends[1]) / 2e-6).flatten())
    jacobian = torch.stack(rows)
    return jacobian @ jacobian.T / len(x)


def test_case_1_rank_null_space_and_annihilating_sets():
    network = seed_case_31()
    account = nullity_account(as_module(network), wide_normal(2), likelihood="gaussian")
    assert (account.fisher_rank, account.n_parameters) == (13, 17)
    assert account.generators.dimensions == {"scaling": 4}
    assert account.unexplained == 0
    span = torch.from_numpy(account.generators.matrix.toarray())
    for i in range(4):  # (w_i, b_i, -q_i) is in the span
        w, b, q, c = (torch.zeros_like(t) for t in network)
        w[i], b[i], q[:, i] = network[0][i], network[1][i], -network[2][:, i]
        vector = torch.cat([t.flatten() for t in (w, b, q, c)])
        fitted = span @ torch.linalg.lstsq(span, vector[:, None]).solution
        assert float((fitted[:, 0] - vector).norm()) < 1e-12
    sets = annihilating_sets(network[0], network[2])
    assert sets.unions() == ((0, 2), (1, 3), (0, 1, 2, 3))
    for units, shift in zip(sets.unions(), (-2.0, -2.0, -4.0), strict=True):
        turned = flip(network, units)
        assert turned[3].tolist() == [shift]
        x = wide_normal(2, 300)
        torch.testing.assert_close(evaluate(turned, x), evaluate(network, x))
        assert equivalent(as_module(network), as_module(turned)).verdict == "equivalent"


def test_case_2_the_scaling_orbit():
    network = double([[2.0]], [0.0], [[-1.5]], [0.0])
    matrix = fisher(network, wide_normal(1), (0, 2))
    w, q = 2.0, -1.5
    assert float((matrix @ torch.tensor([w, -q]).double()).abs().max()) < 1e-8
    assert float(torch.linalg.eigvalsh(matrix)[-1]) > 1
    module = as_module(network)
    for a in (1e-3, 0.5, 7.0, 1e3):
        report = equivalent(module, as_module(double([[a * w]], [0.0], [[q / a]], [0.0])))
        assert report.verdict == "equivalent"
        assert report.scales[0].tolist() == pytest.approx([a])
    moved = equivalent(module, as_module(double([[2 * w]], [0.0], [[q]], [0.0])))
    assert moved.verdict == "different"


@pytest.mark.parametrize(
    "network",
    [
        double([[1.0], [-1.0]], [-1.0, -1.0], [[1.0, 1.0]], [2.0]),
        double([[-1.0], [1.0]], [1.0, 1.0], [[1.0, 1.0]], [0.0]),
    ],
)
def test_case_3_has_rank_5_of_7_at_both_ends(network):
    account = nullity_account(as_module(network), wide_normal(1), likelihood="gaussian")
    assert (account.fisher_rank, account.n_parameters, account.unexplained) == (5, 7, 0)


def test_case_3_reversal_as_a_move():
    outwards = as_module(double([[1.0], [-1.0]], [-1.0, -1.0], [[1.0, 1.0]], [2.0]))
    inwards = as_module(double([[-1.0], [1.0]], [1.0, 1.0], [[1.0, 1.0]], [0.0]))
    report = equivalent(outwards, inwards)
    assert (report.verdict, report.bias_shift.tolist()) == ("equivalent", [-2.0])
    moved = apply_symmetry(
        outwards, permutation=report.permutation, scales=report.scales, flips=report.flips
    )
    for a, b in zip(moved.parameters(), inwards.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("weights", "matrix"),
    [
        ((0.3, 0.7), [[1.0, 1.0], [1.0, 1.0]]),
        ((1.0, 1e-4), [[1.0, 1.0], [1.0, 1.0]]),
        ((1.2, -0.2), [[1.0, 0.0], [0.0, 1.0]]),
    ],
)
def test_case_4_fisher_matrices(weights, matrix):
    edge = 6**0.5
    x = torch.linspace(-edge, edge, 200_001, dtype=torch.float64)[:, None]
    network = double([[weights[0]], [weights[1]]], [0.0, 0.0], [[1.0, 1.0]], [0.0])
    found = fisher(network, x, (0,))
    torch.testing.assert_close(found, torch.tensor(matrix).double(), rtol=0, atol=2e-4)


def test_case_4_at_the_end_of_the_segment():
    # relu'(0) = 0: the second unit has no derivative at all.
    edge = 6**0.5
    x = torch.linspace(-edge, edge, 200_001, dtype=torch.float64)[:, None]
    module = as_module(double([[1.0], [0.0]], [0.0, 0.0], [[1.0, 1.0]], [0.0]))
    hidden = module[0](x)
    (slope,) = torch.autograd.grad(torch.relu(hidden).sum(), hidden)
    jacobian = (slope * x).T
    torch.testing.assert_close(
        jacobian @ jacobian.T / len(x), torch.diag(*double([1.0, 0.0])), rtol=0, atol=2e-4
    )


def test_case_4_a_unit_that_is_dead_on_its_domain():
    network = double([[-1.0]], [-3.0], [[5.0]], [0.0])
    module = as_module(network)
    X = torch.linspace(-2, 2, 41, dtype=torch.float64)[1:-1, None]
    assert float(evaluate(network, X).abs().max()) == 0
    account = nullity_account(module, X, likelihood="gaussian")
    assert (account.fisher_rank, account.n_parameters) == (1, 4)
    assert classify_units(*network[:3]).labels == ("generic",)
    assert compress(module, domain="data", X=X).widths == (0,)
