"""Networks whose graph lacks something that measurements like to use."""

import pytest
import torch
from torch import nn

from helpers.chain_oracles import dense_between
from helpers.networks import normal, seeded
from helpers.oracles import dense_jacobian
from skgeo import SkgeoError, fisher_trace
from skgeo.chain import chain_profile
from skgeo.fisher._rows import FisherRows
from skgeo.network._bound import bind
from skgeo.symmetry import equivalent, generators


class Branches(nn.Module):
    """What is read, and a linear layer with an activation beside it."""

    def __init__(self, width):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(width, 2), nn.CELU())

    def forward(self, x):
        return torch.cat([x, self.inner(x)], 1)


class Largest(nn.Module):
    def forward(self, x):
        return x.amax(1)


@pytest.mark.parametrize("width", [2, 3])
def test_a_linear_layer_beside_the_input_is_not_the_whole_link(width):
    net = seeded(
        lambda: nn.Sequential(nn.Linear(3, width), Branches(width), nn.Linear(width + 2, 4))
    )
    x = normal(4, 3)
    found = chain_profile(net, x, chain="output")["0"].singular_values
    right = torch.linalg.svdvals(torch.from_numpy(dense_between(net, x, None, source="0")))
    torch.testing.assert_close(found, right)


def test_an_overwritten_tensor_of_the_backward_pass_is_named():
    net = seeded(
        lambda: nn.Sequential(nn.Linear(4, 4), Largest(), nn.SiLU(inplace=True), nn.Linear(4, 2))
    )
    with pytest.raises(SkgeoError, match="overwrites a tensor that the backward pass"):
        fisher_trace(net, normal(5, 3, 4), likelihood="gaussian")


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_products_without_forward_mode_and_second_derivatives():
    """weight_norm has no forward mode, Hardsigmoid no second derivative."""
    net = seeded(
        lambda: nn.Sequential(
            nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)),
            nn.Hardsigmoid(),
            nn.Linear(4, 2),
        )
    )
    x = normal(9, 3)
    fisher = FisherRows(bind(net, x, likelihood="gaussian"))
    _, jacobians = dense_jacobian(net, x)
    vector = normal(jacobians.shape[-1], seed=1)
    operator, _ = next(fisher.operators())
    right = torch.from_numpy(jacobians) @ vector
    torch.testing.assert_close(operator.push(vector).reshape(right.shape), right)
    assert generators(net, x, likelihood="gaussian").n_parameters == len(vector)


def test_a_comparison_leaves_the_inputs_of_networks_in_place():
    net = seeded(lambda: nn.Sequential(nn.Hardswish(inplace=True), nn.Flatten(), nn.Linear(6, 2)))
    other = seeded(
        lambda: nn.Sequential(nn.Hardswish(inplace=True), nn.Flatten(), nn.Linear(6, 2)), 1
    )
    x = normal(7, 2, 3)
    kept = x.clone()
    assert equivalent(net, other, x).verdict == "different"
    assert torch.equal(x, kept)
