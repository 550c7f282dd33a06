import numpy as np
import pytest
import torch
from torch import nn

from helpers.cases import BY_NAME
from helpers.networks import normal
from skgeo import SkgeoError
from skgeo.likelihood import LIKELIHOODS
from skgeo.quotient import fisher_rao_length, straightness


def linear(weight, bias):
    net = nn.Linear(len(weight[0]), len(weight)).double()
    with torch.no_grad():
        net.weight.copy_(torch.tensor(weight))
        net.bias.copy_(torch.tensor(bias))
    return net


def test_one_bernoulli_is_always_straight():
    net = linear([[2.0]], [0.3])
    ends = net(torch.tensor([[-2.0], [1.0]], dtype=torch.float64)).sigmoid().detach().sqrt().asin()
    expected = float(2 * (ends[1] - ends[0]).abs())
    assert fisher_rao_length(net, [[-2.0], [1.0]], likelihood="bernoulli") == pytest.approx(
        expected, rel=1e-9
    )
    assert straightness(net, [[-2.0], [1.0]], likelihood="bernoulli") == pytest.approx(1, rel=1e-9)
    # There and back again: twice the length, and no distance to compare it with.
    there = [[-2.0], [1.0], [-2.0]]
    assert fisher_rao_length(net, there, likelihood="bernoulli") == pytest.approx(
        2 * expected, rel=1e-9
    )
    with pytest.raises(SkgeoError, match="same output distribution"):
        straightness(net, there, likelihood="bernoulli")


def test_poisson_rates_in_a_plane():
    # Two log-rates z = (t, 2t): 2 exp(z/2) is Euclidean, so the length is that of a plane curve.
    net = linear([[1.0], [2.0]], [0.0, 0.0])
    t = np.linspace(0.0, 1.0, 20001)
    curve = np.stack([2 * np.exp(t / 2), 2 * np.exp(t)])
    expected = np.linalg.norm(np.diff(curve), axis=0).sum()
    found = fisher_rao_length(net, [[0.0], [1.0]], likelihood="poisson", rtol=1e-8)
    assert found == pytest.approx(expected, rel=1e-7)
    chord = np.linalg.norm(curve[:, -1] - curve[:, 0])
    assert straightness(net, [[0.0], [1.0]], likelihood="poisson") == pytest.approx(
        expected / chord, rel=1e-5
    )


def test_a_great_circle_of_the_simplex_is_straight_and_a_mixture_is_not():
    class Circle(nn.Module):
        def __init__(self):
            super().__init__()
            self.phase = nn.Parameter(torch.zeros(1, dtype=torch.float64))

        def forward(self, x):
            angle = x[:, :1] + self.phase
            return 2 * torch.cat([angle.cos().log(), angle.sin().log()], 1)

    net, path = Circle(), [[0.2], [1.3]]
    assert fisher_rao_length(net, path, likelihood="categorical") == pytest.approx(2.2, rel=1e-9)
    assert straightness(net, path, likelihood="categorical") == pytest.approx(1.0, rel=1e-9)
    bent = linear([[3.0, 0.0], [0.0, 3.0], [0.0, 0.0]], [0.0, 0.0, -1.0])
    assert straightness(bent, [[1.0, -1.0], [-1.0, 1.0]], likelihood="categorical") > 1.01


def test_a_path_is_straight_where_the_layer_says():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 2))
    net, path = net.double(), 2 * normal(3, 3)
    h = net[:2](path).detach()
    inner = nn.Sequential(net[2:])
    for points in (path, path[:2]):
        found = fisher_rao_length(net, points, layer="1", likelihood="gaussian")
        assert found == pytest.approx(
            fisher_rao_length(inner, h[: len(points)], likelihood="gaussian"), rel=1e-12
        )
    # Behind the last layer everything is Euclidean.
    z = net(path).detach()
    expected = float((z[1:] - z[:-1]).norm(dim=1).sum())
    assert fisher_rao_length(net, path, layer="4", likelihood="gaussian") == pytest.approx(
        expected, rel=1e-12
    )
    assert fisher_rao_length(net, path, layer="3", likelihood="gaussian") == pytest.approx(
        expected, rel=1e-9
    )
    assert fisher_rao_length(net, path, likelihood="gaussian") > expected
    assert straightness(net, path[:2], layer="3", likelihood="gaussian") == pytest.approx(
        1.0, rel=1e-9
    )


@pytest.mark.parametrize("name", ["transformer", "residual", "lstm", "conv2d"])
@pytest.mark.parametrize("likelihood", ["categorical", "bernoulli", "gaussian", "poisson"])
def test_no_path_is_shorter_than_the_distance(name, likelihood):
    case = BY_NAME[name]
    module, path = case.module(), case.inputs(3)
    outputs = module(path).detach()
    distance = float(LIKELIHOODS[likelihood].distance(outputs[:1], outputs[-1:]))
    for rtol in (0.5, 1e-3):
        found = fisher_rao_length(module, path, likelihood=likelihood, rtol=rtol)
        assert found >= distance * (1 - 1e-12)


def test_token_paths_need_a_layer_behind_the_embedding():
    case = BY_NAME["embedding_tied"]
    module, tokens = case.module(), torch.tensor([[0, 1, 2, 0], [1, 1, 2, 2]])
    with pytest.raises(SkgeoError, match="differ in integers"):
        fisher_rao_length(module, tokens, likelihood="gaussian")
    assert fisher_rao_length(module, tokens, layer="embedding", likelihood="gaussian") > 0
    # Two equal samples are a path of no length.
    assert fisher_rao_length(module, tokens[[0, 0]], likelihood="gaussian") == 0.0


def test_paths_that_have_no_length_are_refused():
    case = BY_NAME["residual"]
    module, path = case.module(), case.inputs(2)
    with pytest.raises(SkgeoError, match="not a cut"):
        fisher_rao_length(module, path, layer="block.bn1", likelihood="gaussian")
    with pytest.raises(SkgeoError, match="at least two points"):
        fisher_rao_length(module, path[:1], likelihood="gaussian")
    with pytest.raises(SkgeoError, match="rtol"):
        fisher_rao_length(module, path, rtol=0.0, likelihood="gaussian")
    with pytest.raises(SkgeoError, match="No layer named"):
        fisher_rao_length(module, path, layer="blocks", likelihood="gaussian")


def test_single_precision_stops_at_its_noise():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 4))
    path = normal(2, 3)
    found = fisher_rao_length(net, path.float(), likelihood="categorical")
    expected = fisher_rao_length(net.double(), path, likelihood="categorical")
    assert found == pytest.approx(expected, rel=1e-3)
