"""What is shown on a few samples and what is checked again."""

import pytest
import torch
from torch import nn

from helpers.networks import linear
from helpers.oracles import dense_jacobian
from helpers.rule_oracles import Net, assert_agrees, assert_near
from skgeo import SkgeoError, fisher_diagonal, fisher_trace
from skgeo.jacobian._rules.gradients import certify_structure, structured_gradients
from skgeo.jacobian._rules.rule_check import RuleCheck
from skgeo.network import replica

MANY = torch.linspace(-1, 1, 240, dtype=torch.float64).reshape(60, 4).sin()


@pytest.fixture
def checks(monkeypatch):
    """Names of the layers that are checked against a plain backward pass."""
    seen = []
    admit = RuleCheck.admit

    def spy(self, use, gradients):
        seen.append(use.name)
        return admit(self, use, gradients)

    monkeypatch.setattr(RuleCheck, "admit", spy)
    return seen


def certified(module, few, many, **options):
    copy = replica(module)
    certificate = certify_structure(copy, few, **options)
    return structured_gradients(copy, many, certificate=certificate, **options)


def network():
    return nn.Sequential(linear(4, 5), nn.Tanh(), linear(5, 3))


def test_layers_are_checked_once(checks):
    found = certified(network(), MANY[:8], MANY)
    assert checks == ["0", "2"]
    assert found.rest == ()
    _, jacobian = dense_jacobian(network(), MANY)
    assert_agrees(found, torch.as_tensor(jacobian))


def test_what_was_refused_stays_refused(checks):
    def forward(net, x):
        return net.second(torch.tanh(net.first(x))) @ net.second.weight[:, :3]

    found = certified(Net(forward), MANY[:8], MANY)
    assert found.rest == ("second.weight",)
    _, jacobian = dense_jacobian(Net(forward), MANY)
    assert_near(
        found.gram(),
        torch.as_tensor(jacobian).flatten(0, 1) @ torch.as_tensor(jacobian).flatten(0, 1).T,
    )


def test_positions_in_front_are_told_from_samples_by_the_check():
    """Eight positions and eight samples: the shapes alone do not say which axis is which."""

    def forward(net, x):
        return net.second(torch.tanh(net.first(x.transpose(0, 1)))).transpose(0, 1).sum(1)

    x = MANY.reshape(15, 4, 4)[:, [0, 1, 2, 3, 0, 1, 2, 3]] * torch.arange(1, 9).reshape(1, 8, 1)
    found = certified(Net(forward), x[:8], x)
    _, jacobian = dense_jacobian(Net(forward), x)
    assert_agrees(found, torch.as_tensor(jacobian))


def test_a_batch_that_looks_different_is_checked_itself(checks):
    """Twice as many positions as in the certificate, then a second use of a weight."""

    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = linear(4, 3)

        def forward(self, x):
            return torch.tanh(self.layer(x)).sum(1)

    x = MANY.reshape(15, 4, 4)
    found = certified(Pooled(), x[:8, :2], x)
    assert checks == ["layer", "layer"]
    _, jacobian = dense_jacobian(Pooled(), x)
    assert_agrees(found, torch.as_tensor(jacobian))


def test_second_use_that_only_some_batches_have():
    def forward(net, x):
        h = net.second(torch.tanh(net.first(x)))
        return h + x[:, :3] @ net.second.weight[:, :3].T if len(x) > 8 else h

    net = Net(forward)
    copy = replica(net)
    certificate = certify_structure(copy, MANY[:8])
    with pytest.raises(SkgeoError, match="differ"):  # a sample alone gives another output
        structured_gradients(copy, MANY, certificate=certificate)


def test_derivatives_that_are_not_finite_are_found_later():
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = linear(4, 3, bias=False)

        def forward(self, x):
            return self.layer(x).abs().sqrt()

    x = MANY.clone()
    x[40] = 0
    for measure in (fisher_trace, fisher_diagonal):
        with pytest.raises(SkgeoError, match="not differentiable"):
            measure(Root(), x, likelihood="gaussian")


@pytest.mark.parametrize("width", [5, 700])
def test_one_pass_a_direction_or_all_at_once(width):
    """Narrow layers go by one batched backward pass, wide ones by a pass a direction."""
    net = nn.Sequential(linear(4, width), nn.Tanh(), linear(width, 3))
    found = structured_gradients(replica(net), MANY)
    jacobian = torch.as_tensor(dense_jacobian(net, MANY)[1])
    assert_near(found.trace(), jacobian.square().sum())
    assert_near(found.diagonal(), jacobian.square().sum((0, 1)))
    assert_near(found.rows(), jacobian)


def test_sums_of_squares_of_a_float32_network_are_taken_in_float64():
    net = nn.Sequential(linear(4, 5), nn.Tanh(), linear(5, 3)).float()
    found = structured_gradients(replica(net), MANY.float())
    assert found.diagonal().dtype == found.trace().dtype == torch.float64
    rows = found.rows().double()
    assert_near(found.diagonal(), rows.square().sum((0, 1)), rtol=1e-6)
    assert_near(found.trace(), rows.square().sum(), rtol=1e-6)
