import pytest
import torch
from torch import nn
from torch.nn import functional as F

from helpers.cases import BY_NAME
from helpers.networks import normal
from helpers.oracles import assert_untouched
from skgeo import SkgeoError
from skgeo.jacobian._patterns import activation_pattern
from skgeo.jacobian._segment import Segment
from skgeo.network import replica


class Call(nn.Module):
    """A function of its input, with a parameter that it ignores."""

    def __init__(self, function):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.function = function

    def forward(self, x):
        return self.function(x)


X = torch.tensor([[-7.0, -1.5, -0.2, 0.3, 2.0, 8.0]])
SIGN = [False, False, False, True, True, True]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (torch.relu, SIGN),
        (F.relu, SIGN),
        (lambda x: F.relu_(x.clone()), SIGN),
        (nn.ReLU(inplace=True), SIGN),
        (nn.LeakyReLU(), SIGN),
        (nn.PReLU(), SIGN),
        (nn.SELU(), SIGN),
        (torch.abs, SIGN),
        (lambda x: x.clamp(min=0), [0, 0, 0, 1, 1, 1]),
        (lambda x: x.clamp(-1, 1), [0, 0, 1, 1, 2, 2]),
        (lambda x: torch.clamp_max(x, 1.0), [0, 0, 0, 0, 1, 1]),
        (nn.ReLU6(), [0, 0, 0, 1, 1, 2]),
        (nn.Hardtanh(), [0, 0, 1, 1, 2, 2]),
        (nn.Hardsigmoid(), [0, 1, 1, 1, 1, 2]),
        (nn.Hardswish(), [0, 1, 1, 1, 1, 2]),
        (nn.Threshold(1.0, 0.0), [0, 0, 0, 0, 1, 1]),
        (nn.Hardshrink(), [0, 0, 1, 1, 2, 2]),
        (nn.Softshrink(), [0, 0, 1, 1, 2, 2]),
        (lambda x: torch.maximum(x, torch.zeros_like(x)), SIGN),
        (lambda x: x.max(1).values, [5]),
        (lambda x: F.max_pool1d(x, 2), [1, 3, 5]),
        (lambda x: F.max_pool2d(x[:, None], (1, 3)), [2, 5]),
    ],
)
def test_kinks_are_seen_however_they_are_called(function, expected):
    module = Call(function)
    (code,) = activation_pattern(replica(module), X.clone()).values()
    assert code.tolist() == [expected]


@pytest.mark.parametrize("function", [torch.tanh, F.gelu, F.elu, F.silu, F.softplus])
def test_smooth_functions_have_no_pattern(function):
    assert activation_pattern(replica(Call(function)), X) == {}


def test_kinks_are_named_by_the_module_around_them():
    case = BY_NAME["residual"]
    module, inputs = case.module(), case.inputs()
    with assert_untouched(module):
        found = activation_pattern(replica(module), inputs)
    assert list(found) == ["block.relu", "block.relu#1"]
    with torch.no_grad():
        h = module.block.bn1(module.block.conv1(module.stem(inputs)))
    assert torch.equal(found["block.relu"], (h > 0).flatten(1))


def test_samples_must_come_first():
    with pytest.raises(SkgeoError, match="not on its first axis"):
        activation_pattern(replica(Call(lambda x: torch.relu(x.T).T)), torch.ones(4, 3))


SHAPES = [(4, 4, 3), (2, 4, 3), (3, 6, 2)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.relu(x.transpose(0, 1)).transpose(0, 1),
        lambda x: (
            torch.relu(x.transpose(0, 1).flatten(0, 1))
            .unflatten(0, (x.shape[1], len(x)))
            .transpose(0, 1)
        ),
    ],
    ids=["time first", "folded, time first"],
)
def test_another_axis_is_not_taken_for_that_of_the_samples(function, shape):
    """Times T of samples N, where N divides T."""
    x = normal(*shape, seed=3)
    with pytest.raises(SkgeoError, match="not on its first axis"):
        activation_pattern(replica(Call(function)), x)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fold", [False, True])
def test_axes_as_long_as_the_batch_are_no_reason_to_refuse(fold, shape):
    x = normal(*shape, seed=3)
    net = Call(lambda x: torch.relu(x.flatten(0, 1)).reshape(x.shape) if fold else torch.relu(x))
    (code,) = activation_pattern(replica(net), x).values()
    assert torch.equal(code, (x > 0).flatten(1))


def test_indices_and_segments_are_read_alike():
    net = nn.Sequential(nn.Embedding(7, 4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    tokens = torch.arange(16).reshape(4, 4) % 7
    found = activation_pattern(replica(net), tokens)["1"]
    assert torch.equal(found, (net[0](tokens) > 0).flatten(1))
    x = normal(4, 4, 3, seed=1)
    segment = Segment(replica(Call(torch.relu), parameters=None), x, None)
    (code,) = activation_pattern(segment, x.flatten(1)).values()
    assert torch.equal(code, (x > 0).flatten(1))
    turned = Call(lambda x: torch.relu(x.transpose(0, 1)).transpose(0, 1))
    segment = Segment(replica(turned, parameters=None), x, None)
    with pytest.raises(SkgeoError, match="not on its first axis"):
        activation_pattern(segment, x.flatten(1))
