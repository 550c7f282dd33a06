import itertools

import numpy as np
import pytest
import torch
from torch import nn

from helpers.chain_oracles import quantities
from helpers.networks import mlp, normal
from skgeo.chain import chain_profile
from skgeo.chain._moments import ElementwiseGram


def assert_matches(weight, slopes, exact_volume=True):
    found = ElementwiseGram(weight).quantities(slopes)
    for sample, d in enumerate(slopes.double()):
        jacobian = (d.unsqueeze(1) * weight.double()).numpy()
        expected = quantities(jacobian)
        assert float(found["square_sum"][sample]) == pytest.approx((jacobian**2).sum(), rel=1e-12)
        assert float(found["isometry_deviation"][sample]) == pytest.approx(
            expected["isometry_deviation"], rel=1e-9, abs=1e-13
        )
        if exact_volume:
            assert float(found["rank"][sample]) == expected["rank"]
            assert float(found["log_volume"][sample]) == pytest.approx(
                expected["log_volume"], rel=1e-11, abs=1e-12
            )


@pytest.mark.parametrize("shape", [(7, 7), (5, 9), (1, 4)])
def test_smooth_activations_match_the_formed_jacobians(shape):
    assert_matches(normal(*shape), 0.1 + normal(6, shape[0], seed=1).abs())
    assert_matches(normal(*shape), -0.1 - normal(6, shape[0], seed=1).abs())


def test_units_that_are_off_drop_out():
    slopes = (normal(8, 6, seed=2) > 0).double() * (0.5 + normal(8, 6, seed=3).abs())
    slopes[3] = 1.0
    assert_matches(normal(6, 9), slopes)
    slopes[0] = 0.0
    dead = ElementwiseGram(normal(6, 9)).quantities(slopes)
    assert dead["rank"][0] == dead["log_volume"][0] == dead["square_sum"][0] == 0.0
    assert dead["isometry_deviation"][0].isnan()


def test_what_needs_a_decomposition_is_not_guessed():
    slopes = 0.5 + normal(4, 9, seed=1).abs()
    tall = ElementwiseGram(normal(9, 5)).quantities(slopes)
    assert tall["rank"].isnan().all()
    assert_matches(normal(9, 5), slopes, exact_volume=False)
    singular = normal(9, 12)
    singular[3] = singular[4]
    assert ElementwiseGram(singular).quantities(slopes)["rank"].isnan().all()
    slopes[2, 0] = 1e-16
    mixed = ElementwiseGram(normal(9, 12)).quantities(slopes)["rank"]
    assert mixed.isnan().tolist() == [False, False, True, False]


def test_near_isometries_keep_their_digits():
    q = torch.linalg.qr(normal(8, 8))[0]
    for size in (0.0, 1e-12, 1e-6, 1e-3):
        slopes = 1.0 + size * normal(3, 8, seed=5)
        found = ElementwiseGram(q).quantities(slopes)["isometry_deviation"].numpy()
        squares = (slopes.square()).numpy()
        mean = squares.mean(1, keepdims=True)
        expected = np.sqrt(((squares / mean - 1) ** 2).mean(1))
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-14)


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU, nn.GELU])
def test_one_answer_whatever_the_path(activation, monkeypatch):
    """Leading values with the structure, against all values of the Jacobians."""
    net, X = mlp(20, 16, 16, 12, activation=activation), normal(5, 20)
    layers = ["1", "3"]
    every = chain_profile(net, X, chain="layer", layers=layers, n_singular_values="all")
    monkeypatch.setattr("skgeo.chain._plan._SMALL_SIDE", 4)
    with pytest.warns(UserWarning, match="leading"):
        some = chain_profile(net, X, chain="layer", layers=layers, n_singular_values=3)
    names = ("log_volume", "rank", "sigma_max", "stable_rank", "isometry_deviation")
    for (one, other), name in itertools.product(zip(some.layers, every.layers, strict=True), names):
        torch.testing.assert_close(
            getattr(one, name), getattr(other, name), rtol=1e-7, atol=1e-10, msg=name
        )


def test_single_precision_weights_are_taken_as_they_are():
    weight = normal(6, 8, dtype=torch.float32)
    found = ElementwiseGram(weight).quantities(torch.ones(1, 6))
    assert found["square_sum"].dtype == torch.float64
    assert float(found["square_sum"]) == pytest.approx(float(weight.double().square().sum()), 1e-14)
