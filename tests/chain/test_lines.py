"""Results of the chain print as one line each."""

import pytest
import torch
from torch import nn

from skgeo.chain import (
    cauchy_green,
    chain_profile,
    curvature,
    kink_density,
    mean_field,
    mean_field_theory,
    stability,
)


@pytest.fixture
def diagonal():
    net = nn.Linear(2, 2, bias=False).double()
    with torch.no_grad():
        net.weight.copy_(torch.diag(torch.tensor([3.0, 2.0])))
    return net


def test_deformation(diagonal):
    shown = repr(cauchy_green(diagonal, torch.zeros(4, 2)))
    assert shown == "CauchyGreen('output', rank 2 of 2, 4 samples)"


def test_deformation_of_several_ranks():
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU()).double()
    with torch.no_grad():
        net[0].weight.fill_(1.0)
    shown = repr(cauchy_green(net, [[-1.0], [1.0]]))
    assert shown == "CauchyGreen('output', ranks 0 to 1 of 1, 2 samples)"


def test_curve(diagonal):
    with torch.no_grad():
        diagonal.weight.copy_(3 * torch.eye(2))
    found = curvature(
        diagonal, lambda t: 2 * torch.stack([t.cos(), t.sin()], dim=1), t=torch.zeros(1)
    )
    assert repr(found) == (
        "CurveCurvature('output', mean curvature 0.167, mean stretch 3, 1 samples)"
    )


def test_slices():
    class Paraboloid(nn.Module):
        def forward(self, x):
            return torch.cat([x, 0.5 * x.square().sum(1, keepdim=True)], dim=1)

    found = curvature(Paraboloid(), torch.zeros(1, 2).double(), "sectional")
    assert repr(found) == (
        "SectionalCurvature('output', 2 directions, mean curvature 1, smallest gap inf, 1 samples)"
    )


def test_kinks():
    net = nn.Sequential(nn.Linear(1, 1), nn.ReLU()).double()
    with torch.no_grad():
        net[0].weight.fill_(1.0)
        net[0].bias.fill_(-0.25)
    shown = repr(kink_density(net, [[0.0], [1.0]]))
    assert shown == "KinkDensity('output', 1 kinks on 1 segments, density 1)"


def test_theory():
    shown = repr(mean_field_theory("relu", 2**0.5))
    assert shown == "MeanFieldTheory(relu, sigma_w 1.41, sigma_b 0, q_star 1, chi_1 1)"


def test_network_and_theory():
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.ReLU())
    with torch.no_grad():
        for layer in net[::2]:
            layer.weight.copy_(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
            layer.bias.zero_()
    assert repr(mean_field(net)) == "MeanField(2 layers, relu, sigma_w 1.41, sigma_b 0, chi_1 1)"


def test_noise(diagonal):
    shown = repr(stability(diagonal, torch.eye(2)))
    assert shown.startswith(
        "StabilityEstimate('output', input noise, metric distance 0, subspace angle 0, output "
    )


def test_profile(diagonal):
    found = chain_profile(nn.Sequential(diagonal, nn.Identity()), torch.ones(5, 2), layers=["0"])
    assert repr(found) == "ChainProfile(chain='input', 1 layers, 5 samples)"
    assert repr(found["0"]) == (
        "LayerStretches('0', mean rank 2 of 2, mean log-volume 1.79, 5 samples)"
    )
    assert "log_volume" in found._repr_html_()
