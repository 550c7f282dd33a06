import pytest
import torch
from torch import nn

from helpers.networks import mlp, normal
from helpers.oracles import assert_untouched
from skgeo.exceptions import GeometryWarning, SkgeoError
from skgeo.network._stack import Stack, read_stack
from skgeo.symmetry import apply_symmetry, canonical_form
from skgeo.symmetry._equivalence.canonical import one_hidden_of


def linear_between():
    first = mlp(3, 5, 4, 2, activation=nn.ReLU)
    return nn.Sequential(nn.Linear(3, 3).double(), *first[:3], *mlp(4, 3, 2, seed=4)[::2])


def convolution():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.Tanh()]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(12, 2)).double()


NETWORKS = {
    "relu": (lambda: mlp(3, 6, 2, activation=nn.ReLU), "hinges", True),
    "leaky": (lambda: mlp(3, 6, 2, activation=lambda: nn.LeakyReLU(0.3)), "hinges", True),
    "tanh": (lambda: mlp(3, 6, 2), "tanh", True),
    "linear": (lambda: nn.Sequential(*mlp(3, 5, 2)[::2]), "linear", True),
    "one linear": (lambda: nn.Linear(3, 2).double(), "linear", True),
    "deep": (lambda: mlp(3, 6, 5, 2, activation=nn.ReLU), "layers", False),
    "deep tanh": (lambda: mlp(3, 6, 5, 2), "layers", False),
    "gelu": (lambda: mlp(3, 6, 2, activation=nn.GELU), "layers", False),
    "linear between": (linear_between, "hinges", True),
    "linear in a deep one": (
        lambda: nn.Sequential(*mlp(3, 6, 5, 4, activation=nn.ReLU), nn.Linear(4, 2).double()),
        "layers",
        False,
    ),
    "convolution": (convolution, "layers", False),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_canonical_network_computes_the_same(name):
    build, kind, complete = NETWORKS[name]
    net = build()
    inputs = normal(30, 1, 4, 4) if name == "convolution" else normal(30, 3)
    with assert_untouched(net):
        form = canonical_form(net)
        module = form.module()
    assert (form.kind, form.complete) == (kind, complete)
    with torch.no_grad():
        torch.testing.assert_close(module(inputs), net(inputs), rtol=1e-11, atol=1e-13)
    assert type(module) is type(net)
    # The canonical network is its own.
    assert form.distance(canonical_form(module)) < 1e-12


@pytest.mark.parametrize("name", ["relu", "leaky", "tanh", "deep", "deep tanh", "gelu"])
def test_copies_have_one_canonical_network(name):
    net = NETWORKS[name][0]()
    order = [torch.arange(len(layer.weight)).flip(0) for layer in list(net)[:-1:2]]
    signs = torch.tensor([1.0, -1.0, -1.0, 1.0, 1.0, -1.0])
    scales = [signs if "tanh" in name else signs + 1.5, *[None] * (len(order) - 1)]
    other = apply_symmetry(net, permutation=order, scales=None if name == "gelu" else scales)
    forms = canonical_form(net), canonical_form(other)
    assert forms[0].matches(forms[1])
    for ours, theirs in zip(
        forms[0].module().parameters(), forms[1].module().parameters(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    near = apply_symmetry(net)
    with torch.no_grad():
        near[0].weight[0, 0] += 1e-8
    assert not forms[0].matches(canonical_form(near))
    assert forms[0].matches(canonical_form(near, tol=1e-6))


def test_a_boundary_is_one_unit_whatever_stands_on_it():
    net = mlp(2, 5, 3, activation=nn.ReLU)
    with torch.no_grad():
        net[0].weight[1], net[0].bias[1] = -2 * net[0].weight[0], -2 * net[0].bias[0]
        net[0].weight[2], net[0].bias[2] = 3 * net[0].weight[0], 3 * net[0].bias[0]
        net[2].weight[:, 4] = 0
    assert canonical_form(net).widths == (2,)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
@pytest.mark.parametrize("widths", [(2, 3, 2), (2, 3, 3, 2)])
def test_a_network_of_which_nothing_is_left(widths, activation):
    net = mlp(*widths, activation=activation)
    with torch.no_grad():
        net[-1].weight.zero_()
    form = canonical_form(net)
    assert sum(form.widths) == 0
    module = form.module()
    torch.testing.assert_close(module(normal(5, 2)), net(normal(5, 2)))
    assert form.matches(canonical_form(module))


def test_a_tanh_unit_and_its_negative_cancel():
    net = mlp(2, 5, 3)
    with torch.no_grad():
        net[0].weight[1], net[0].bias[1] = -net[0].weight[0], -net[0].bias[0]
        net[2].weight[:, 1] = net[2].weight[:, 0]
        net[0].weight[2] = 0.0
    assert canonical_form(net).widths == (2,)


def test_forms_of_other_kinds_are_far():
    tanh, relu = canonical_form(mlp(3, 6, 2)), canonical_form(mlp(3, 6, 2, activation=nn.ReLU))
    assert tanh.distance(relu) == float("inf")
    assert not tanh.matches(canonical_form(mlp(3, 5, 2)))
    # A linear network is a network of hinges without a boundary.
    assert 0 < relu.distance(canonical_form(nn.Linear(3, 2))) < float("inf")
    with pytest.raises(SkgeoError, match="different interfaces"):
        tanh.distance(canonical_form(mlp(4, 6, 2)))


def test_leaky_units_are_rectified_ones_and_a_linear_part():
    net = mlp(3, 6, 2, activation=lambda: nn.LeakyReLU(0.3))
    network = one_hidden_of(read_stack(net))
    x = normal(20, 3)
    torch.testing.assert_close(network(x), net(x).detach())
    assert one_hidden_of(read_stack(mlp(3, 4, 4, 2, activation=nn.ReLU))) is None
    absolute = mlp(3, 4, 2, activation=lambda: nn.LeakyReLU(-1.0))
    assert canonical_form(absolute).kind == "layers"


def test_input_without_a_form():
    with pytest.raises(SkgeoError, match="LayerNorm"):
        canonical_form(nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.ReLU(), nn.Linear(3, 1)))
    with pytest.raises(SkgeoError, match="prelu"):
        canonical_form(mlp(2, 3, 1, activation=lambda: nn.PReLU(3)))
    broken = mlp(2, 3, 1)
    with torch.no_grad():
        broken[2].bias[0] = float("inf")
    with pytest.raises(SkgeoError, match="NaN or infinite"):
        canonical_form(broken)
    with pytest.warns(GeometryWarning, match="below the precision"):
        canonical_form(mlp(2, 3, 1, dtype=torch.float32), tol=1e-9)


@pytest.mark.parametrize("name", ["relu", "leaky", "tanh", "deep", "gelu", "convolution"])
def test_a_form_that_went_wrong_is_refused(name, monkeypatch):
    net = NETWORKS[name][0]()
    canonical_form(net)
    true = Stack.rebuild

    def wrong(stack, weights, biases):
        return true(stack, [1.001 * weights[0], *weights[1:]], biases)

    monkeypatch.setattr(Stack, "rebuild", wrong)
    with pytest.raises(SkgeoError, match="the form went wrong"):
        canonical_form(net)
