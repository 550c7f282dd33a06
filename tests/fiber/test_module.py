from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from helpers.oracles import assert_untouched
from skgeo import WrappedModel
from skgeo.exceptions import GeometryWarning, SkgeoError
from skgeo.fiber._module import linear_network_of


def linear(inputs, outputs, bias=False):
    return nn.Linear(inputs, outputs, bias=bias)


def outputs_of(network, X):
    rows = network.inputs(X)
    for weight in network.weights:
        rows = rows @ weight.double().numpy().T
    return rows


class Named(nn.Sequential):
    """A subclass that keeps the computation of nn.Sequential."""


class Residual(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


@pytest.mark.parametrize(
    "module",
    [
        linear(4, 3),
        linear(4, 3, bias=True),
        nn.Sequential(linear(4, 3, bias=True), linear(3, 5), linear(5, 2)),
        nn.Sequential(
            nn.Flatten(),
            nn.Sequential(nn.Identity(), linear(4, 3), nn.Sequential()),
            nn.Dropout(),
            nn.Flatten(),
            Named(OrderedDict(head=linear(3, 2))),
        ).eval(),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_product_is_what_the_module_computes(module, dtype):
    module = module.to(dtype)
    X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    with assert_untouched(module):
        network = linear_network_of(module)
    assert all(weight.dtype == dtype for weight in network.weights)
    with torch.no_grad():
        expected = module(X).double().numpy()
    slack = 1e-5 if dtype == torch.float32 else 1e-14
    np.testing.assert_allclose(outputs_of(network, X), expected, atol=slack)


def test_only_a_leading_flatten_reads_maps():
    X = torch.ones(3, 2, 2)
    assert linear_network_of(nn.Sequential(nn.Flatten(), linear(4, 1))).inputs(X).shape == (3, 4)
    late = linear_network_of(nn.Sequential(linear(4, 1), nn.Flatten()))
    with pytest.raises(SkgeoError, match="expecting 4 features"):
        late.inputs(X)


def tied():
    layer = linear(3, 3)
    return nn.Sequential(layer, nn.Identity(), layer)


def tied_weight():
    first, second = linear(3, 3), linear(3, 3)
    second.weight = first.weight
    return nn.Sequential(first, second)


def spoilt(value):
    net = nn.Sequential(linear(2, 2), linear(2, 2))
    with torch.no_grad():
        net[1].weight[0, 1] = value
    return net


def with_extra():
    net = nn.Sequential(linear(2, 2))
    net.scale = nn.Parameter(torch.ones(()))
    return net


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            nn.Sequential(linear(3, 2), nn.Tanh(), linear(2, 2)),
            r"at '1' is tanh, .* not a linear layer",
        ),
        (nn.Sequential(linear(3, 2), nn.Sequential(nn.ReLU()), linear(2, 2)), r"at '1\.0' is relu"),
        (nn.Bilinear(3, 3, 2), r"Bilinear, is not? part of one"),
        (Residual(linear(3, 3)), r"a step, add, is not? part of one"),
        (nn.Sequential(nn.BatchNorm1d(3), linear(3, 2)).eval(), "at '0', BatchNorm1d"),
        (nn.Sequential(nn.Flatten(0), linear(3, 2)), r"at '0', Flatten"),
        (nn.Sequential(linear(3, 2), linear(2, 2, bias=True)), r"layers '1' .*constant input"),
        (
            nn.Sequential(linear(3, 2, bias=True), linear(2, 2, bias=True), linear(2, 1, True)),
            r"layers '1', '2' .*bias=False",
        ),
        (
            nn.Sequential(linear(3, 2), linear(3, 2)),
            r"layer of 2 units is followed by one that reads 3",
        ),
        (spoilt(float("nan")), r"'1\.weight' has 1 entries that are NaN"),
        (spoilt(float("inf")), r"'1\.weight' has 1 entries that are NaN or infinite"),
        (tied(), "one layer is called twice"),
        (tied_weight(), r"layers '0' and '1' of Sequential share a weight"),
        (with_extra(), r"2 parameters .*\['scale'\]"),
        (parametrizations.weight_norm(linear(3, 2)), r"ParametrizedLinear, is not? part of one"),
        (
            nn.Sequential(parametrizations.orthogonal(linear(3, 3))),
            r"ParametrizedLinear, is not? part of one",
        ),
        (nn.Sequential(nn.Identity()), "has no affine layer"),
        (nn.Sequential(), "has no affine layer"),
    ],
)
def test_what_is_no_linear_network(module, message):
    with pytest.raises(SkgeoError, match=message):
        linear_network_of(module)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors:UserWarning")
def test_empty_matrices():
    with pytest.raises(SkgeoError, match=r"W_1 has shape \(0, 3\)"):
        linear_network_of(nn.Sequential(linear(3, 0), linear(0, 2)))


def test_forward_functions_are_followed_and_hooks_are_not():
    net = nn.Sequential(linear(3, 2, bias=True), linear(2, 4)).double()
    assert linear_network_of(WrappedModel(net, forward=lambda m, x: m(x))).widths == (4, 2, 4)
    assert linear_network_of(WrappedModel(net, forward=lambda m, x: m[1](m[0](x)))).widths == (
        4,
        2,
        4,
    )
    for forward in (lambda m, x: m(x).exp(), lambda m, x: m(x)[:, :3], lambda m, x: m(x) + x):
        with pytest.raises(SkgeoError, match=r"is not? part of one"):
            linear_network_of(WrappedModel(net, forward=forward))
    net[1].register_forward_pre_hook(lambda _, inputs: (inputs[0].relu(),))
    with pytest.raises(SkgeoError, match=r"Linear with hooks, is not? part of one"):
        linear_network_of(net)


class Written(nn.Module):
    """A chain that is not a Sequential."""

    def __init__(self):
        super().__init__()
        self.first, self.last = linear(3, 2), linear(2, 4)

    def forward(self, x):
        return self.last(self.first(x.flatten(1)))


def test_a_chain_in_code_is_a_chain():
    network = linear_network_of(Written())
    assert network.widths == (3, 2, 4)
    assert network.inputs(torch.ones(5, 3, 1)).shape == (5, 3)


def test_dropout_in_train_mode():
    net = nn.Sequential(linear(3, 2), nn.Dropout(0.3), linear(2, 2))
    with pytest.warns(GeometryWarning, match="train mode"):
        linear_network_of(net)
    linear_network_of(net.eval())
