"""Gradients by layer rules, compared with a dense Jacobian, product by product."""

import torch
from torch import nn

from helpers.oracles import assert_untouched, dense_jacobian
from skgeo.jacobian._rules.gradients import structured_gradients
from skgeo.network import replica

X = torch.linspace(-1, 1, 20, dtype=torch.float64).reshape(5, 4).sin()


def linear(*shape, **options):
    torch.manual_seed(sum(shape))
    return nn.Linear(*shape, **options).double().eval()


def near(found, expected, rtol=1e-11):
    assert found.shape == expected.shape
    scale = max(float(expected.abs().max()), 1e-300)
    assert float((found - expected).abs().max()) <= rtol * scale


def assert_agrees(found, jacobian, rtol=1e-11):
    """Compare every product with those of a dense Jacobian."""
    flat = jacobian.flatten(0, 1).double()
    near(found.rows().double(), jacobian.double(), rtol)
    near(found.gram(), flat @ flat.T, rtol)
    near(found.metric(), flat.T @ flat, rtol)
    near(found.diagonal(), flat.square().sum(0), rtol)
    near(found.trace(), flat.square().sum(), rtol)
    vectors = torch.randn(2, flat.shape[1], generator=torch.Generator().manual_seed(0)).double()
    moved = flat @ vectors.T
    near(found.push(vectors).double().flatten(0, 1), moved, rtol)
    near(found.pull(found.push(vectors)).double(), moved.T @ flat, rtol)


def measure(module, inputs=X, forward=None, rest=(), **options):
    """Gradients of a module by its layer rules, once they agree with plain backward passes."""
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
