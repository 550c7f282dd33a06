"""Which units respond and how far the nearest kink is, against closed forms."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from helpers.networks import mlp, normal
from skgeo.network import bind
from skgeo.symmetry._network import SymmetryNetwork
from skgeo.symmetry._responses import unit_responses


def responses(module, X, **options):
    return unit_responses(SymmetryNetwork(bind(module, X, **options)))


class Through(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.first, self.second = nn.Linear(3, 6), nn.Linear(6, 2)
        self.function = function

    def forward(self, x):
        return self.second(self.function(self.first(x)))


def within(low, high):
    return lambda z: (z > low) & (z < high)


KINKED = {
    "relu": (nn.ReLU(), (0.0,), lambda z: z > 0),
    "leaky_relu": (nn.LeakyReLU(0.3), (0.0,), lambda z: z == z),
    "relu6": (nn.ReLU6(), (0.0, 6.0), within(0, 6)),
    "hardtanh": (nn.Hardtanh(), (-1.0, 1.0), within(-1, 1)),
    "hardtanh_wide": (nn.Hardtanh(-2, 2), (-2.0, 2.0), within(-2, 2)),
    "hardtanh_skew": (nn.Hardtanh(-3, 2), (-3.0, 2.0), within(-3, 2)),
    "hardtanh_call": (lambda z: F.hardtanh(z, -2, 2), (-2.0, 2.0), within(-2, 2)),
    "clamp": (lambda z: z.clamp(-2, 2), (-2.0, 2.0), within(-2, 2)),
    "clamp_above": (lambda z: z.clamp(max=1.5), (1.5,), lambda z: z < 1.5),
    "hardshrink": (nn.Hardshrink(0.7), (-0.7, 0.7), lambda z: z.abs() > 0.7),
    "softshrink": (nn.Softshrink(0.7), (-0.7, 0.7), lambda z: z.abs() > 0.7),
    "threshold": (nn.Threshold(0.5, -1.0), (0.5,), lambda z: z > 0.5),
    # exp(z) alpha above a thousandth.
    "elu": (nn.ELU(2.0), (0.0,), lambda z: (z > 0) | (2 * z.exp() > 1e-3)),
    "celu": (nn.CELU(0.5), (), lambda z: (z > 0) | ((2 * z).exp() > 1e-3)),
}


@pytest.mark.parametrize("name", KINKED)
def test_kinks_and_responses_are_those_of_the_function(name):
    function, kinks, active = KINKED[name]
    torch.manual_seed(0)
    module, X = Through(function).double(), 4 * normal(200, 3)
    found, distance = responses(module, X)
    z, lengths = module.first(X).detach(), module.first.weight.detach().norm(dim=1)
    assert torch.equal(found, active(z))
    if not kinks:
        assert bool(distance.isnan().all())
        return
    expected = torch.stack([(z - kink).abs() / lengths for kink in kinks]).amin(0).amin(1)
    torch.testing.assert_close(distance, expected)


def test_slopes_of_single_units():
    module = nn.Sequential(nn.Linear(3, 4), nn.PReLU(4), nn.Linear(4, 1)).double()
    with torch.no_grad():
        module[1].weight.copy_(torch.tensor([0.0, 0.5, 0.0, -1.0]))
    X = normal(20, 3)
    found, _ = responses(module, X)
    expected = (module[0](X) > 0) | torch.tensor([False, True, False, True])
    assert torch.equal(found, expected)


@pytest.mark.parametrize("batch_size", [1, 4, None])
def test_responses_in_batches(batch_size):
    module, X = mlp(3, 5, 2, activation=nn.ReLU), normal(9, 3)
    found, distance = responses(module, X, batch_size=batch_size)
    arguments = module[0](X)
    assert torch.equal(found, arguments > 0)
    norms = torch.linalg.vector_norm(module[0].weight, dim=1)
    torch.testing.assert_close(distance, (arguments.abs() / norms).amin(1).detach())


def test_deep_units_by_the_gradient_of_their_argument():
    module = mlp(2, 5, 4, 1, activation=lambda: nn.Hardtanh(-0.3, 0.6), seed=3)
    X = normal(12, 2)
    _, distance = responses(module, X)
    for x, found in zip(X, distance, strict=True):
        values = torch.cat([module[0](x), module[:3](x)]).detach()
        rows = torch.cat([module[0].weight, torch.func.jacrev(module[:3])(x)]).detach()
        gaps = torch.stack([values + 0.3, values - 0.6]).abs().amin(0) / rows.norm(dim=1)
        torch.testing.assert_close(found, gaps.min())


def test_activations_in_place_do_not_hide_arguments():
    module = nn.Sequential(nn.Linear(3, 5), nn.ReLU(inplace=True), nn.Linear(5, 2)).double()
    X = normal(9, 3)
    found, distance = responses(module, X)
    assert torch.equal(found, module[0](X) > 0)
    assert bool((distance > 0).all())
