"""A measurement copies the tree of modules once; one in float64 copies that of float32 again."""

import pytest
import torch
from torch import nn

from helpers.networks import mlp, normal
from skgeo import (
    FisherRankEstimator,
    JacobianChainProfiler,
    LayerQuotientEstimator,
    LinearFiberStratifier,
    SymmetryClassifier,
)


def relu(dtype):
    return mlp(3, 5, 4, 2, activation=nn.ReLU, dtype=dtype)


def tanh(dtype):
    return mlp(3, 5, 4, 2, dtype=dtype)


def linear_network(dtype):
    return nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 2, bias=False)).to(dtype)


CASES = {
    "fisher": (lambda net: FisherRankEstimator(net, likelihood="gaussian"), relu, 1),
    "symmetry": (lambda net: SymmetryClassifier(net, likelihood="gaussian"), relu, 1),
    "symmetry_on_a_box": (
        lambda net: SymmetryClassifier(net, likelihood="gaussian", domain="box"), relu, 1,
    ),
    "symmetry_on_data": (
        lambda net: SymmetryClassifier(net, likelihood="gaussian", domain="data"), relu, 1,
    ),
    "quotient": (lambda net: LayerQuotientEstimator(net, likelihood="gaussian"), relu, 1),
    "chain": (JacobianChainProfiler, tanh, 1),
    "chain_to_the_output": (lambda net: JacobianChainProfiler(net, chain="output"), tanh, 1),
    "fiber": (
        LinearFiberStratifier, linear_network, 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CASES)
def test_fit_and_transform_copy_the_modules_once(name, dtype, copies):
    estimator, network, expected = CASES[name]
    X = 3 * normal(80, 3, dtype=dtype)
    fitted = estimator(network(dtype)).fit(X)
    assert len(copies) <= expected
    copies.clear()
    fitted.transform(X[:5])
    assert len(copies) <= 1
