from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from oracles import assert_untouched
from skgeo.exceptions import GeometryWarning, SkgeoError
from skgeo.geometry.fiber.module import linear_network_of


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
        (nn.Sequential(linear(3, 2), nn.Tanh(), linear(2, 2)), r"at '1' is Tanh, .* not .* linear"),
        (nn.Sequential(linear(3, 2), nn.Sequential(nn.ReLU())), r"at '1\.0' is ReLU"),
        (nn.Bilinear(3, 3, 2), "The model is Bilinear"),
        (Residual(linear(3, 3)), "The model is Residual"),
        (nn.Sequential(nn.BatchNorm1d(3), linear(3, 2)), "at '0' is BatchNorm1d"),
        (nn.Sequential(nn.Flatten(0), linear(3, 2)), r"at '0' is Flatten\(start_dim=0"),
        (nn.Sequential(linear(3, 2), linear(2, 2, bias=True)), r"layers '1' .*constant input"),
        (
            nn.Sequential(linear(3, 2, bias=True), linear(2, 2, bias=True), linear(2, 1, True)),
            r"layers '1', '2' .*bias=False",
        ),
        (nn.Sequential(linear(3, 2), linear(3, 2)), r"breaks between W_1 .* and W_2"),
        (spoilt(float("nan")), "W_2 has 1 entries that are NaN"),
        (spoilt(float("inf")), "W_2 has 1 entries that are NaN or infinite"),
        (tied(), r"layers '0' and '2' share a weight"),
        (tied_weight(), r"layers '0' and '1' share a weight"),
        (with_extra(), r"2 parameters .*\['scale'\]"),
        (parametrizations.weight_norm(linear(3, 2)), "computes its weight from other"),
        (nn.Sequential(parametrizations.orthogonal(linear(3, 3))), "computes its weight"),
        (nn.Sequential(nn.Identity()), "at least one"),
        (nn.Sequential(), "at least one"),
    ],
)
def test_what_is_no_linear_network(module, message):
    with pytest.raises(SkgeoError, match=message):
        linear_network_of(module)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors:UserWarning")
def test_empty_matrices():
    with pytest.raises(SkgeoError, match=r"W_1 has shape \(0, 3\)"):
        linear_network_of(nn.Sequential(linear(3, 0), linear(0, 2)))


def test_hooks_and_forward_functions_must_leave_the_product():
    net = nn.Sequential(linear(3, 2, bias=True), linear(2, 4)).double()
    assert linear_network_of(net, forward=lambda m, x: m(x)).widths == (4, 2, 4)
    with pytest.raises(SkgeoError, match="not those of the product"):
        linear_network_of(net, forward=lambda m, x: m(x).exp())
    with pytest.raises(SkgeoError, match="not those of the product"):
        linear_network_of(net, forward=lambda m, x: m(x)[:, :3])
    net[0].register_forward_hook(lambda _, inputs, output: None)
    assert linear_network_of(net).widths == (4, 2, 4)
    net[1].register_forward_pre_hook(lambda _, inputs: (inputs[0].relu(),))
    with pytest.raises(SkgeoError, match="a hook changes them"):
        linear_network_of(net)


def test_dropout_in_train_mode():
    net = nn.Sequential(linear(3, 2), nn.Dropout(0.3), linear(2, 2))
    with pytest.warns(GeometryWarning, match="train mode"):
        linear_network_of(net)
    linear_network_of(net.eval())
