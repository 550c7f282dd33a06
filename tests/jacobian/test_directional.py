import pytest
import torch
from torch import nn

from helpers.cases import BY_NAME, CASES
from helpers.networks import mlp, normal
from skgeo.chain._layer_map import LayerMap
from skgeo.jacobian import Segment
from skgeo.jacobian._directional import plain_normalisation, push
from skgeo.network import bind, replica
from skgeo.network._switches import math_attention, no_fast_path

FLOATING = [case for case in CASES if case.name not in ("embedding", "embedding_tied", "dict")]


@pytest.mark.parametrize("case", FLOATING, ids=lambda case: case.name)
def test_second_derivatives_against_differences(case):
    segment = Segment(
        replica(case.module(), forward=case.forward, parameters=None), case.inputs(), None
    )
    x = segment.start()
    u, v = normal(2, *x.shape)
    found = push(segment, x, u, v)
    torch.testing.assert_close(found[0], segment(x))
    torch.testing.assert_close(found[1], (segment.jacobian(x) @ u.unsqueeze(-1)).squeeze(-1))
    step = 1e-5
    jacobians = [segment.jacobian(x + sign * step * v) @ u.unsqueeze(-1) for sign in (1, -1)]
    expected = (jacobians[0] - jacobians[1]).squeeze(-1) / (2 * step)
    torch.testing.assert_close(found[2], expected, rtol=1e-6, atol=1e-6)


def test_tokens_are_started_behind_their_embedding():
    case = BY_NAME["embedding"]
    network = bind(case.module(), case.inputs(), parameters=None)
    segment = LayerMap(network, source="0").at(range(5))
    x = segment.start()
    value, first, second = push(segment, x, x, x)
    torch.testing.assert_close(value, case.module()(case.inputs()).detach())
    assert first.abs().min() > 0
    assert not second.any()


def test_three_derivatives_of_a_network_against_autograd():
    net = mlp(2, 3, 2)
    x, u, v, w = normal(4, 1, 2)

    def along(t):
        return net(x + t[0] * u + t[1] * v + t[2] * w)[0, 0]

    def third(t):
        hessian = torch.autograd.functional.hessian(along, t, create_graph=True)
        return hessian[0, 1]

    expected = torch.autograd.functional.jacobian(third, torch.zeros(3).double())[2]
    assert push(net, x, u, v, w)[3][0, 0].item() == pytest.approx(expected.item(), rel=1e-10)


def test_functions_whose_derivatives_vanish():
    x, u = normal(2, 3, 4)
    linear = nn.Linear(4, 2).double()
    _, first, second, third = push(linear, x, u, u, u)
    torch.testing.assert_close(first, u @ linear.weight.T)
    assert not second.any()
    assert not third.any()
    constant = push(lambda x: torch.ones(len(x), 2, dtype=x.dtype), x, u, u)
    assert not constant[1].any()


@pytest.mark.parametrize("case", [c for c in FLOATING if c.smooth], ids=lambda case: case.name)
def test_second_derivatives_can_be_differentiated_by_the_weights(case):
    module, inputs = case.module(), case.inputs()
    x = inputs.reshape(len(inputs), -1)
    u, v = normal(2, *x.shape)

    def bend(create_graph=False):
        def run(x):
            inside = x.reshape(inputs.shape)
            z = module(inside) if case.forward is None else case.forward(module, inside)
            return z.reshape(len(z), -1)

        with plain_normalisation(), math_attention(), no_fast_path():
            return push(run, x, u, v, create_graph=create_graph)[2].square().sum()

    parameters = list(module.parameters())
    loss = bend(create_graph=True)
    found = (
        torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        if loss.requires_grad
        else [torch.zeros_like(p) for p in parameters]
    )
    generator = torch.Generator().manual_seed(3)
    steps = [0.1 * torch.randn(p.shape, generator=generator).to(p) for p in parameters]
    h = 1e-4

    def move(by):
        with torch.no_grad():
            for parameter, step in zip(parameters, steps, strict=True):
                parameter.add_(by * step)

    values = []
    for by in (h, -2 * h):
        move(by)
        values.append(bend().item())
    expected = (values[0] - values[1]) / (2 * h)
    directional = sum((g * s).sum() for g, s in zip(found, steps, strict=True)).item()
    assert directional == pytest.approx(expected, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize(
    ("norm", "shape"),
    [
        (nn.LayerNorm((3, 4)), (5, 3, 4)),
        (nn.LayerNorm(4, elementwise_affine=False), (5, 4)),
        (nn.InstanceNorm1d(3, affine=True), (5, 3, 4)),
        (nn.InstanceNorm2d(2, track_running_stats=True).eval(), (5, 2, 3, 3)),
        (nn.InstanceNorm2d(2, track_running_stats=True), (5, 2, 3, 3)),
    ],
    ids=str,
)
def test_plain_normalisation_computes_the_same(norm, shape):
    norm, x = norm.double(), normal(*shape)
    for parameter in norm.parameters():
        nn.init.uniform_(parameter, 0.5, 2.0, generator=torch.Generator().manual_seed(0))
    expected = norm(x).detach()
    with plain_normalisation():
        found = norm(x).detach()
    torch.testing.assert_close(found, expected)
