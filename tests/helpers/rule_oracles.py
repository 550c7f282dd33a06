"""Gradients by layer rules, compared with a dense Jacobian, product by product."""

import torch
from torch import nn

from helpers.networks import linear, normal
from helpers.oracles import assert_untouched, dense_jacobian
from skgeo.jacobian._rules.gradients import structured_gradients
from skgeo.network import replica

X = torch.linspace(-1, 1, 20, dtype=torch.float64).reshape(5, 4).sin()


def assert_near(found, expected, rtol=1e-11):
    assert found.shape == expected.shape
    scale = max(float(expected.abs().max()), 1e-300)
    assert float((found - expected).abs().max()) <= rtol * scale


def assert_agrees(found, jacobian, rtol=1e-11):
    """Compare every product with those of a dense Jacobian."""
    flat = jacobian.flatten(0, 1).double()
    assert_near(found.rows().double(), jacobian.double(), rtol)
    assert_near(found.gram(), flat @ flat.T, rtol)
    assert_near(found.metric(), flat.T @ flat, rtol)
    assert_near(found.diagonal(), flat.square().sum(0), rtol)
    assert_near(found.trace(), flat.square().sum(), rtol)
    vectors = normal(2, flat.shape[1])
    moved = flat @ vectors.T
    assert_near(found.push(vectors).double().flatten(0, 1), moved, rtol)
    assert_near(found.pull(found.push(vectors)).double(), moved.T @ flat, rtol)


def assert_matches_dense(module, inputs=X, forward=None, rest=(), **options):
    """Gradients of a module by its layer rules, which must match plain backward passes."""
    _, jacobian = dense_jacobian(module, inputs, forward)
    with assert_untouched(module):
        found = structured_gradients(replica(module, forward=forward), inputs, **options)
    assert found.rest == tuple(rest)
    assert_agrees(found, torch.as_tensor(jacobian))
    return found


class Net(nn.Module):
    """Two layers put together by a function of them and the input."""

    def __init__(self, function, first=None, second=None):
        super().__init__()
        self.first = linear(4, 4) if first is None else first
        self.second = linear(4, 3) if second is None else second
        self.function = function

    def forward(self, x):
        return self.function(self, x)
