"""Which tensor of a dict is the input of a chain."""

import numpy as np
import pytest
import torch
from torch import nn

from helpers.networks import linear, normal
from skgeo import JacobianChainProfiler, SkgeoError, WrappedModel
from skgeo.chain import cauchy_green, chain_profile, kink_density, stability


class Two(nn.Module):
    """Outputs 2 a + 3 b."""

    def __init__(self):
        super().__init__()
        self.left, self.right = linear(2, 2, bias=False), linear(2, 2, bias=False)
        self.out = nn.Identity()
        nn.init.eye_(self.left.weight).data.mul_(2)
        nn.init.eye_(self.right.weight).data.mul_(3)

    def forward(self, inputs):
        return self.out(self.left(inputs["a"]) + self.right(inputs["b"]))


X = {"a": normal(6, 2), "b": normal(6, 2, seed=1)}
FACTOR = {"a": 2.0, "b": 3.0}


@pytest.mark.parametrize("source", ["a", "b"])
class TestNamed:
    def test_profiles(self, source):
        found = chain_profile(Two(), X, layers=["out"], source=source)
        np.testing.assert_allclose(found.layers[-1].singular_values, FACTOR[source])
        fitted = JacobianChainProfiler(Two(), layers=["out"], source=source)
        with pytest.warns(match="Fewer than two layers"):
            summary = fitted.fit(X).summary()
        assert summary["chain_sigma_max_last"] == pytest.approx(FACTOR[source])
        assert fitted.transform(X).shape[0] == 6

    def test_maps(self, source):
        found = cauchy_green(Two(), X, source=source)
        np.testing.assert_allclose(found.stretches, FACTOR[source])
        other = {**X, source: normal(6, 2, seed=5)}
        assert kink_density(Two(), X, other, source=source).density == 0
        assert stability(Two(), X, "input", source=source).output_change > 0


@pytest.mark.parametrize(
    "ask",
    [
        lambda: chain_profile(Two(), X, layers=["out"]),
        lambda: JacobianChainProfiler(Two(), layers=["out"]).fit(X),
        lambda: cauchy_green(Two(), X),
        lambda: kink_density(Two(), X),
        lambda: stability(Two(), X, "input"),
    ],
)
def test_several_without_a_name(ask):
    with pytest.raises(SkgeoError, match=r"several floating tensors \(a, b\).*source='a'"):
        ask()


def test_tuples_have_no_names():
    model = WrappedModel(Two(), lambda module, x: module({"a": x[0], "b": x[1]}))
    with pytest.raises(SkgeoError, match="pass a dict"):
        cauchy_green(model, (X["a"], X["b"]))


def test_one_floating_tensor_needs_no_name():
    flags = torch.ones(6, 2, dtype=torch.bool)
    model = WrappedModel(linear(2, 2), lambda module, x: module(x["x"]) * x["flags"])
    cauchy_green(model, {"flags": flags, "x": X["a"]})
    cauchy_green(model, {"flags": flags, "x": X["a"]}, source="x")


def test_names_of_nothing():
    with pytest.raises(SkgeoError, match="source='c': the input has no tensor"):
        chain_profile(Two(), X, layers=["out"], source="c")
    with pytest.raises(SkgeoError, match="source='x': the input has no tensor"):
        chain_profile(linear(2, 2), X["a"], source="x")
    ids = {"ids": torch.ones(6, dtype=torch.long), "a": X["a"]}
    model = WrappedModel(linear(2, 2), lambda module, x: module(x["a"]) + x["ids"][:, None])
    with pytest.raises(SkgeoError, match="source='ids', which names an input of integers"):
        cauchy_green(model, ids, source="ids")
