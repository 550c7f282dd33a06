"""What does not fit in memory does not take the rest with it."""

import numpy as np
import pytest
import torch
from torch import nn

from helpers.networks import mlp, normal
from skgeo import (
    GeometryWarning,
    JacobianChainProfiler,
    LayerQuotientEstimator,
    SkgeoError,
    SymmetryClassifier,
    WrappedModel,
    fisher_rank,
)
from skgeo.chain import chain_profile
from skgeo.quotient import layer_spectra
from skgeo.symmetry import equivalent

WIDE = mlp(3, 200, 4, 2)
X = normal(6, 3)


@pytest.mark.filterwarnings("ignore:.*is the number of rows")
def test_layers_too_large_for_a_quotient_have_a_row_of_nan():
    whole = LayerQuotientEstimator(WIDE, likelihood="gaussian").fit(X)
    with pytest.warns(GeometryWarning, match=r"not measured \(NaN\): '0' \(dimension 200, .*KiB"):
        part = LayerQuotientEstimator(WIDE, likelihood="gaussian", memory_budget=5000).fit(X)
    assert part.layers_["rank_median"].isna().tolist() == [True, True, False, False, False]
    assert part.layers_["dim"].tolist() == whole.layers_["dim"].tolist()
    for column in ("rank_median", "common_rank", "effective_rank"):
        np.testing.assert_allclose(part.layers_[column][2:], whole.layers_[column][2:], rtol=1e-12)
    assert part.summary().keys() == whole.summary().keys()
    assert part.layer_ == whole.layer_
    np.testing.assert_allclose(part.transform(X), whole.transform(X), rtol=1e-10)


def test_a_layer_that_is_asked_for_must_fit():
    asked = LayerQuotientEstimator(WIDE, likelihood="gaussian", layer="0", memory_budget=5000)
    with pytest.raises(SkgeoError, match="layer '0'"):
        asked.fit(X)


def test_layers_too_large_for_a_chain_have_a_row_of_nan():
    options = {"chain": "layer", "batch_size": 1}
    whole = JacobianChainProfiler(WIDE, **options).fit(X).profile_
    with pytest.warns(GeometryWarning, match=r"values NaN: '1' \(200 x 200, .* per sample\)"):
        part = JacobianChainProfiler(WIDE, memory_budget=100_000, **options).fit(X)
    assert part.profile_["rank"].isna().tolist() == [False, True, False, False, False]
    others = [0, 2, 3, 4]
    for column in ("rank", "log_volume"):
        np.testing.assert_allclose(part.profile_[column][others], whole[column][others])
    assert len(part.summary()) == 32


@pytest.mark.filterwarnings("ignore:.*is the number of rows")
def test_classes_of_units_do_not_need_the_fisher_rank():
    net, X = mlp(3, 60, 4, activation=nn.ReLU), normal(60, 3)
    with pytest.warns(GeometryWarning, match="Fisher rank is not computed"):
        part = SymmetryClassifier(net, likelihood="gaussian", memory_budget=150_000).fit(X)
    assert len(part.labels_) == 60
    assert np.isnan([part.fisher_rank_, part.unexplained_nullity_]).all()
    whole = SymmetryClassifier(net, likelihood="gaussian").fit(X)
    assert part.labels_.tolist() == whole.labels_.tolist()
    assert part.explained_nullity_ == whole.explained_nullity_


class Sine(nn.Module):
    def forward(self, x):
        return 2 * torch.sin(x)


@pytest.mark.parametrize("net", [nn.Sequential(nn.Tanh(), nn.Softmax(1)), Sine()])
def test_networks_without_parameters_have_chains_and_quotients(net):
    for estimator in (
        JacobianChainProfiler(net),
        LayerQuotientEstimator(net, likelihood="gaussian"),
    ):
        estimator.fit(X)
    last = chain_profile(net, X).layers[-1]
    expected = torch.stack(
        [
            torch.linalg.svdvals(torch.autograd.functional.jacobian(net, x[None]).view(3, 3))
            for x in X
        ]
    )
    torch.testing.assert_close(last.sigma_max, expected[:, 0])
    spectrum = layer_spectra(net, X, likelihood="gaussian")[0]
    assert spectrum.ranks.tolist() == [3 if isinstance(net, Sine) else 2] * 6


def test_integers_stay_integers_in_a_forward_function_of_the_user():
    X = torch.arange(12).reshape(4, 3) % 5
    table = nn.Sequential(nn.Linear(2, 2)).double()
    values = normal(5, 2)
    net = WrappedModel(table, forward=lambda m, x: m(values[x].sum(1)))  # floats are no indices
    assert fisher_rank(net, X, likelihood="gaussian").rank == 6
    assert equivalent(net, net, X).verdict != "different"
