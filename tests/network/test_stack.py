import pytest
import torch
from torch import nn

from helpers.architectures import build
from helpers.cases import BY_NAME
from helpers.laws import LockedMLP
from helpers.networks import mlp, normal
from helpers.oracles import assert_untouched
from skgeo import NotAModelError, SkgeoError
from skgeo.network import IDENTITY, activation
from skgeo.network._stack import read_stack


def test_a_sequential():
    module = mlp(2, 4, 3, activation=nn.ReLU, dtype=torch.float32)
    with assert_untouched(module):
        stack = read_stack(module)
    assert stack.widths == (2, 4, 3)
    assert stack.names == ("0", "2")
    assert stack.activations == (activation("relu"),)
    assert stack.dtype == torch.float32
    assert all(w.dtype == torch.float64 for w in stack.weights + stack.biases)
    torch.testing.assert_close(stack.weights[1], module[2].weight.detach().double())


def test_what_is_passed_over():
    module = nn.Sequential(
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Sequential(nn.Linear(6, 5, bias=False), nn.Identity(), nn.LeakyReLU(0.3)),
        nn.Linear(5, 4),
        nn.Linear(4, 2),
    ).eval()
    stack = read_stack(module)
    assert stack.activations == (activation("leaky_relu", negative_slope=0.3), IDENTITY)
    assert stack.biases[0] is None
    assert stack.names == ("2.0", "3", "4")


def test_functions_are_read_like_modules():
    module, inputs = build("mlp")
    stack = read_stack(module)
    assert stack.activations == (activation("gelu"), activation("tanh"))
    assert torch.equal(stack.rebuild(stack.weights, stack.biases)(inputs), module(inputs))


def test_rebuilding_with_other_widths():
    module = mlp(2, 4, 3, activation=nn.ReLU, dtype=torch.float32)
    module[2].bias.requires_grad_(False)
    module.train()
    stack = read_stack(module)
    keep = [0, 2, 3]
    with assert_untouched(module):
        smaller = stack.rebuild(
            [stack.weights[0][keep], stack.weights[1][:, keep]],
            [stack.biases[0][keep], stack.biases[1]],
        )
        with torch.no_grad():
            smaller[0].weight += 0.0
    assert isinstance(smaller[0], nn.Linear)
    assert (smaller[0].out_features, smaller[2].in_features) == (3, 3)
    assert smaller.training
    assert [p.requires_grad for p in smaller.parameters()] == [True, True, True, False]
    X = normal(5, 2, dtype=torch.float32)
    hidden = (X @ module[0].weight.T + module[0].bias).relu()[:, keep]
    expected = hidden @ module[2].weight[:, keep].T + module[2].bias
    torch.testing.assert_close(smaller(X), expected)
    shared = {p.data_ptr() for p in module.parameters()}
    assert not shared & {p.data_ptr() for p in smaller.parameters()}


def test_biases_come_and_go():
    stack = read_stack(nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 1)))
    module = stack.rebuild(stack.weights, [torch.ones(3), None])
    assert module[0].bias.tolist() == [1.0, 1.0, 1.0]
    assert module[2].bias is None
    assert [name for name, _ in module.named_parameters()] == ["0.weight", "0.bias", "2.weight"]


class Locked(nn.Module):
    def __init__(self):
        super().__init__()
        self.lock = LockedMLP().lock
        self.body = mlp(2, 3, 1)

    def forward(self, x):
        with self.lock:
            return self.body(x)


def test_modules_that_cannot_be_copied():
    stack = read_stack(Locked())
    X = normal(4, 2)
    assert torch.equal(stack.rebuild(stack.weights, stack.biases)(X), stack.module(X))


def test_a_single_layer_is_a_chain():
    layer = nn.Linear(3, 2)
    stack = read_stack(layer)
    assert (stack.depth, stack.names, stack.activations) == (1, ("",), ())
    new = stack.rebuild([torch.zeros(2, 3)], [torch.ones(2)])
    assert new(torch.ones(1, 3)).tolist() == [[1.0, 1.0]]


def test_convolutions_on_request():
    module = nn.Sequential(
        nn.Conv2d(1, 4, 2), nn.ReLU(), nn.Conv2d(4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)
    )
    with pytest.raises(SkgeoError, match="module at '0', Conv2d, is no part"):
        read_stack(module)
    stack = read_stack(module, convolutions=True)
    assert stack.kinds == ("conv", "conv", "linear")
    assert stack.spreads == (1, 4)
    X = normal(2, 1, 4, 4, dtype=torch.float32)
    assert torch.equal(stack.rebuild(stack.weights, stack.biases)(X), module(X))
    order = [2, 0, 3, 1]
    weights = [stack.weights[0][order], stack.weights[1][:, order], stack.weights[2]]
    moved = stack.rebuild(weights, [stack.biases[0][order], *stack.biases[1:]])
    torch.testing.assert_close(moved(X), module(X))
    grouped = nn.Sequential(nn.Conv2d(2, 2, 1, groups=2), nn.ReLU(), nn.Conv2d(2, 1, 1))
    with pytest.raises(SkgeoError, match="module at '0'"):
        read_stack(grouped, convolutions=True)


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("batchnorm", "module at '1', BatchNorm1d"),
        ("residual", "a step, add"),
        ("positions", "a step, mean"),
        ("lstm", "rnn"),
        ("bare", "outside the layers"),
        ("prelu", None),
        ("weight_norm", "ParametrizedLinear"),
        ("reused", "called twice"),
        ("tied", "outside the layers"),
        ("transformer", "a step, add"),
        ("dict", "getitem"),
    ],
)
def test_other_architectures_are_refused_by_name(name, named):
    module = BY_NAME[name].module()
    if named is None:
        (slopes,) = read_stack(module).activations
        assert slopes.name == "prelu"
        assert slopes.scales == "unknown"
        return
    with pytest.raises(SkgeoError, match=named):
        read_stack(module, convolutions=True)


def test_bad_input():
    with pytest.raises(NotAModelError):
        read_stack(3)
    with pytest.raises(SkgeoError, match="ends in an activation, relu"):
        read_stack(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    with pytest.raises(SkgeoError, match="no affine layer"):
        read_stack(nn.Sequential(nn.Identity()))
    broken = mlp(2, 3, 1)
    with torch.no_grad():
        broken[0].weight[0, 0] = torch.nan
    with pytest.raises(SkgeoError, match="NaN or infinite"):
        read_stack(broken)
    first = nn.Linear(3, 3)
    with pytest.raises(SkgeoError, match="share a weight"):
        read_stack(nn.Sequential(first, nn.ReLU(), first))
    stack = read_stack(mlp(2, 3, 1))
    with pytest.raises(SkgeoError, match="do not fit together"):
        stack.rebuild([torch.zeros(4, 2), torch.zeros(1, 3)], stack.biases)
    with pytest.raises(SkgeoError, match="one of each per layer"):
        stack.rebuild(stack.weights[:1], stack.biases)


@pytest.mark.parametrize(
    ("options", "padding"),
    [
        ({"padding": 1}, ((1, 1), (1, 1))),
        ({"padding": "same"}, ((1, 1), (1, 1))),
        ({"padding": "valid"}, ((0, 0), (0, 0))),
        ({"padding": "same", "dilation": 2}, ((2, 2), (2, 2))),
    ],
)
def test_what_a_convolution_does_beside_its_weights(options, padding):
    net = nn.Sequential(nn.Conv2d(1, 2, 3, **options), nn.ReLU(), nn.Conv2d(2, 1, 1, stride=2))
    first, last = read_stack(net, convolutions=True).settings
    dilation = (options.get("dilation", 1),) * 2
    assert first == ((3, 3), (1, 1), padding, "zeros", dilation)
    assert last == ((1, 1), (2, 2), ((0, 0), (0, 0)), "zeros", (1, 1))
    assert read_stack(nn.Linear(2, 2)).settings == ((),)


class Clamped(nn.Module):
    """Options in calls, and a slope that is trained."""

    def __init__(self):
        super().__init__()
        self.body, self.bent = mlp(2, 4, 4, 3, 2)[::2], nn.PReLU().double()

    def forward(self, x):
        x = torch.nn.functional.hardtanh(self.body[0](x), -6, 6)
        x = self.bent(self.body[1](x)).clamp(min=-float("inf"))
        return self.body[3](self.body[2](x).clamp(max=0.5))


def test_options_are_read_and_the_chain_computes_what_the_module_does():
    module = Clamped()
    stack = read_stack(module)
    assert stack.activations == (
        activation("hardtanh", min_val=-6, max_val=6),
        activation("leaky_relu", negative_slope=0.25),
        activation("clamp", max=0.5),
    )
    X = 9 * normal(20, 2)
    torch.testing.assert_close(stack.outputs(X), module(X).detach())
    arguments = list(stack.arguments(X))
    assert [z.shape[1] for z in arguments] == [4, 4, 3, 2]
    torch.testing.assert_close(arguments[0], module.body[0](X).detach())
    assert stack.rebuild(stack.weights, stack.biases).bent.weight.requires_grad


def test_networks_without_hidden_units():
    stack = read_stack(mlp(2, 3, 3, 1))
    none = stack.rebuild(
        [torch.zeros(0, 2), torch.zeros(3, 0), stack.weights[2]],
        [torch.zeros(0), *stack.biases[1:]],
    )
    found = read_stack(none)
    assert (found.widths, found.spreads) == ((2, 0, 3, 1), (1, 1))
    X = normal(4, 2)
    torch.testing.assert_close(found.outputs(X), none(X).detach())


def test_a_slope_for_each_unit_keeps_the_width():
    stack = read_stack(nn.Sequential(nn.Linear(2, 3), nn.PReLU(3), nn.Linear(3, 1)))
    with pytest.raises(SkgeoError, match="one slope per unit"):
        stack.rebuild(
            [stack.weights[0][:2], stack.weights[1][:, :2]], [stack.biases[0][:2], stack.biases[1]]
        )
