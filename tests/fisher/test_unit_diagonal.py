import copy

import numpy as np
import pytest
import torch
from torch import nn

from helpers.networks import mlp, normal
from helpers.oracles import dense_fisher
from skgeo import FisherRankEstimator, SkgeoError

pytestmark = pytest.mark.filterwarnings("ignore::skgeo.RankAmbiguityWarning")


def scaled(net, X, **options):
    options = {"likelihood": "categorical", "scale": "diagonal", **options}
    return FisherRankEstimator(net, **options).fit(X)


def unit_diagonal(dense):
    kept = np.diag(dense) > 0
    root = np.where(kept, 1.0 / np.sqrt(np.where(kept, np.diag(dense), 1.0)), 0.0)
    return dense * root * root[:, None]


def rescaled(net, factors):
    """The same function: incoming weights of each hidden unit times c, outgoing ones by c."""
    other = copy.deepcopy(net)
    with torch.no_grad():
        other[0].weight *= factors.unsqueeze(1)
        other[0].bias *= factors
        other[2].weight /= factors
    return other


@pytest.mark.parametrize("n", [8, 60])  # either side
def test_spectrum_directions_and_null_space_against_the_dense_matrix(n):
    net, X = mlp(4, 7, 3, activation=nn.ReLU), normal(n, 4)
    dense = dense_fisher(net, X, "categorical")
    C = unit_diagonal(dense)
    found = scaled(net, X, tol=1e-10, n_components=None)
    assert found.plan_.side == ("gram" if n == 8 else "parameter")
    expected = np.linalg.eigvalsh(C)[::-1][: len(found.eigenvalues_)]
    np.testing.assert_allclose(found.eigenvalues_, expected, rtol=1e-10, atol=1e-12)
    values = found.eigenvalues_[: found.fisher_rank_]
    d = found.components_
    np.testing.assert_allclose(d @ dense @ d.T, np.diag(values), atol=1e-10 * values[0])
    np.testing.assert_allclose(d @ np.diag(np.diag(dense)) @ d.T, np.eye(len(d)), atol=1e-8)
    null = found.null_space()
    assert len(null) == found.nullity_
    np.testing.assert_allclose(null @ null.T, np.eye(len(null)), atol=1e-10)
    assert np.abs(null @ dense).max() < 1e-10 * np.diag(dense).max()
    assert np.abs(dense @ found.null_projector(np.ones(len(dense)))).max() < 1e-9
    np.testing.assert_allclose(found.transform(X).mean(0), 1.0, rtol=1e-6)
    tangent = np.linalg.eigvalsh(unit_diagonal(dense_fisher(net, X, "gaussian"))).clip(1e-300)
    share = tangent / tangent.sum()
    entropy = np.exp(-(share * np.log(share)).sum())
    assert found.tangent_effective_rank_ == pytest.approx(entropy, rel=1e-9)


@pytest.mark.parametrize("n", [8, 60])
def test_nothing_changes_when_relu_units_are_rescaled(n):
    net, X = mlp(4, 7, 3, activation=nn.ReLU), normal(n, 4)
    first = scaled(net, X, n_components=0)
    plain = FisherRankEstimator(net, likelihood="categorical", n_components=0).fit(X)
    moved = []  # effective ranks without the scaling
    for seed in range(100):
        # Factors from 1e-3 to 1e3.
        factors = 10 ** (6 * torch.rand(7, generator=torch.Generator().manual_seed(seed)) - 3)
        other = rescaled(net, factors.double())
        found = scaled(other, X, n_components=0)
        assert found.fisher_rank_ == first.fisher_rank_
        assert found.effective_rank_ == pytest.approx(first.effective_rank_, rel=1e-9)
        if seed < 10:
            other = FisherRankEstimator(other, likelihood="categorical", n_components=0).fit(X)
            moved.append(other.effective_rank_ / plain.effective_rank_)
    assert max(moved) / min(moved) > 2


def test_parameters_without_effect_are_null_directions():
    net, X = mlp(4, 7, 3, activation=nn.ReLU), normal(60, 4)
    with torch.no_grad():
        net[0].bias[2] = -100.0  # never on
    found = scaled(net, X)
    dead = [*range(8, 12), 30, *(35 + 7 * k + 2 for k in range(3))]
    assert not found.components_[:, dead].any()
    expected = np.linalg.matrix_rank(unit_diagonal(dense_fisher(net, X, "categorical")))
    assert found.fisher_rank_ == expected
    # An entry that is rounding of zero is not blown up to one.
    single = copy.deepcopy(net).float()
    assert scaled(single, X.float()).fisher_rank_ == expected


@pytest.mark.parametrize("solver", ["lanczos", "stochastic"])
def test_what_needs_a_matrix(solver):
    with pytest.raises(SkgeoError, match=f"needs a matrix, and solver='{solver}' forms none"):
        scaled(mlp(4, 7, 3), normal(8, 4), solver=solver, n_components=2)
    with pytest.raises(SkgeoError, match="scale='unit'; expected None or 'diagonal'"):
        scaled(mlp(4, 7, 3), normal(8, 4), scale="unit")
