import pytest
import torch
from torch import nn

from helpers.networks import mlp, moved, normal
from helpers.oracles import assert_untouched
from skgeo.exceptions import SkgeoError
from skgeo.models import bare_model
from skgeo.network._stack import read_stack
from skgeo.symmetry._equivalence.witness import (
    ROUNDING_FACTOR,
    find_witness,
    probe_inputs,
    probe_outputs,
)


def inputs_of(net, *args):
    return probe_inputs(bare_model(net), *args)


def outputs_of(net, groups, **options):
    return probe_outputs(bare_model(net), groups, **options)


def seek(a, b, X=None):
    groups = inputs_of(a, [read_stack(net, convolutions=True) for net in (a, b)], X)
    return find_witness(groups, outputs_of(a, groups), outputs_of(b, groups))


def test_a_witness_is_an_input_with_its_two_outputs():
    a = mlp(3, 5, 4, 2, activation=nn.ReLU)
    b = moved(a, 1e-9 * normal(sum(p.numel() for p in a.parameters())))
    with assert_untouched(a, b):
        witness = seek(a, b)
    assert witness.input.shape == (3,)
    assert witness.excess > 1
    for net, output in zip((a, b), witness.outputs, strict=True):
        torch.testing.assert_close(net(witness.input[None])[0].detach(), output)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_network_and_its_rounded_weights_have_none(dtype):
    a = mlp(3, 8, 8, 2, activation=nn.ReLU, dtype=dtype)
    generator = torch.Generator().manual_seed(0)
    b = mlp(3, 8, 8, 2, activation=nn.ReLU, dtype=dtype)
    with torch.no_grad():
        for parameter in b.parameters():
            drawn = torch.rand(parameter.shape, generator=generator, dtype=dtype) - 0.5
            parameter.mul_(1 + torch.finfo(dtype).eps * drawn)
    assert seek(a, b) is None
    assert seek(a, a) is None


def test_noise_is_what_rounding_changes():
    net = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        net.weight.fill_(3.0)
    groups = [torch.tensor([[1.0], [-10.0]], dtype=torch.float64)]
    outputs = outputs_of(net, groups, level=1e-6)
    assert outputs.values[0].flatten().tolist() == [3.0, -30.0]
    assert 1e-8 < outputs.noise[0] <= 30e-6 * (1 + 1e-9)
    assert ROUNDING_FACTOR * outputs_of(net, groups).noise[0] < 1e-13


def test_a_unit_that_is_hardly_ever_on_is_found():
    # The second layer's unit is on where both inputs are about 6 or more.
    a = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1), nn.ReLU(), nn.Linear(1, 1))
    a = a.double()
    with torch.no_grad():
        for parameter in a.parameters():
            parameter.zero_()
        a[0].weight.copy_(-torch.eye(2))
        a[0].bias.fill_(6.0)
        a[2].weight.fill_(-1.0)
        a[2].bias.fill_(0.5)
        a[4].weight.fill_(1.0)
    b = moved(a, 0.0)
    with torch.no_grad():
        b[4].weight.fill_(1.0 + 1e-6)
    witness = seek(a, b)
    assert a[:3](witness.input[None]).item() > 0
    assert witness.input.min() > 5


def test_points_of_the_user_are_searched():
    a, b = mlp(3, 4, 2), mlp(3, 4, 2, seed=1)
    X = 100 + normal(10, 3)
    groups = inputs_of(a, [], X)
    assert len(groups) == 1
    torch.testing.assert_close(groups[0], X)
    assert inputs_of(a, []) == []
    assert seek(a, b, X) is not None


def test_inputs_of_a_convolution_are_of_a_size_that_fits():
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 25, 2))
    groups = inputs_of(net, [read_stack(net, convolutions=True)])
    assert {group.shape[1:] for group in groups} == {(2, 7, 7)}


def test_outputs_that_overflow_say_nothing():
    net = mlp(2, 3, 1, activation=nn.ReLU, dtype=torch.float32)
    huge = moved(net, 0.0)
    with torch.no_grad():
        for parameter in huge.parameters():
            parameter.copy_(torch.full_like(parameter, 1e30))
    groups = [torch.ones(3, 2)]
    assert find_witness(groups, outputs_of(net, groups), outputs_of(huge, groups)) is None


def test_networks_that_cannot_be_run():
    groups = [normal(4, 3)]
    with pytest.raises(SkgeoError, match="cannot be run on"):
        outputs_of(mlp(2, 3, 1), groups)
    a, b = (outputs_of(mlp(3, 4, k), groups) for k in (1, 2))
    with pytest.raises(SkgeoError, match="1 and 2 outputs"):
        find_witness(groups, a, b)
