import numpy as np
import pytest
import torch
from scipy.linalg import logm
from torch import nn

from helpers.cases import BY_NAME
from helpers.networks import mlp, normal
from helpers.oracles import assert_untouched
from skgeo import SkgeoError
from skgeo.chain import cauchy_green


def jacobians(net, X):
    return np.stack([torch.autograd.functional.jacobian(net, x).numpy() for x in X])


def test_tensors_of_a_network():
    net, X = mlp(3, 8, 5), normal(4, 3)
    with assert_untouched(net):
        found = cauchy_green(net, X)
    J = jacobians(net, X)
    np.testing.assert_allclose(found.right, J.transpose(0, 2, 1) @ J, atol=1e-12)
    np.testing.assert_allclose(found.left, J @ J.transpose(0, 2, 1), atol=1e-12)
    np.testing.assert_allclose(found.stretches, np.linalg.svd(J)[1], rtol=1e-10)
    assert found.rank.tolist() == [3] * 4
    for C, H in zip(J.transpose(0, 2, 1) @ J, found.hencky, strict=True):
        np.testing.assert_allclose(H, logm(C).real / 2, atol=1e-8)
    # The image's strain has the same principal values, and none across the image.
    np.testing.assert_allclose(
        np.trace(found.left_hencky, axis1=1, axis2=2), found.strains.sum(1), rtol=1e-10
    )
    np.testing.assert_allclose(found.hencky.trace(axis1=1, axis2=2), found.strains.sum(1))
    moved = np.einsum("nab,nib->nia", J, found.source_directions)
    np.testing.assert_allclose(
        moved, found.stretches[:, :, None] * found.layer_directions, atol=1e-12
    )


def test_layers_and_sources():
    net, X = mlp(3, 8, 5, 2), normal(4, 3)
    inner = cauchy_green(net, X, "1")
    np.testing.assert_allclose(inner.right, cauchy_green(net[:2], X).right, atol=1e-12)
    assert (inner.layer, inner.left.shape) == ("1", (4, 8, 8))
    behind = cauchy_green(net, X, "3", source="1")
    h = net[:2](X).detach()
    np.testing.assert_allclose(behind.left, cauchy_green(net[2:4], h).left, atol=1e-12)


def test_strains_of_commuting_stretches_add_up():
    net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)).double()
    first, second = torch.tensor([0.5, 2.0, 3.0]), torch.tensor([4.0, 0.1, 1.0])
    with torch.no_grad():
        net[0].weight.copy_(first.diag())
        net[1].weight.copy_(second.diag())
    found = cauchy_green(net, torch.zeros(1, 3))
    expected = (first.double() * second.double()).log().diag()
    np.testing.assert_allclose(found.hencky[0], expected, atol=1e-7)


def test_what_is_lost_has_no_strain():
    net = nn.Linear(3, 2, bias=False).double()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[2.0, 0.0, 0.0], [4.0, 0.0, 0.0]]))
    found = cauchy_green(net, torch.zeros(2, 3))
    assert found.rank.tolist() == [1, 1]
    assert found.strains[0, 1] == -np.inf
    expected = np.diag([np.log(20**0.5), 0.0, 0.0])
    np.testing.assert_allclose(found.hencky[0], expected, atol=1e-12)


@pytest.mark.parametrize("name", ["conv2d", "lstm", "attention", "residual"])
def test_other_networks(name):
    case = BY_NAME[name]
    module, X = case.module(), case.inputs(2)
    found = cauchy_green(module, X)

    def run(x):
        return module(x.unsqueeze(0))[0].flatten()

    J = np.stack([torch.autograd.functional.jacobian(run, x).flatten(1).numpy() for x in X])
    np.testing.assert_allclose(found.left, J @ J.transpose(0, 2, 1), atol=1e-11)
    assert found.right.shape == (2, J.shape[2], J.shape[2])


def test_tensors_without_a_map():
    with pytest.raises(SkgeoError, match="after the embedding"):
        cauchy_green(BY_NAME["embedding"].module(), BY_NAME["embedding"].inputs())
    case = BY_NAME["residual"]
    with pytest.raises(SkgeoError, match="not a cut"):
        cauchy_green(case.module(), case.inputs(2), source="block.bn1")

    class Mixes(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(2, 2)

        def forward(self, x):
            return self.linear(x - x.mean(0))

    with pytest.raises(SkgeoError, match="depend on others"):
        cauchy_green(Mixes(), normal(3, 2))
    constant = nn.Sequential(nn.Linear(2, 2), nn.Threshold(1e9, 0.0)).double()
    found = cauchy_green(constant, normal(2, 2))
    assert found.rank.tolist() == [0, 0]
