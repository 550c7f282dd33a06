import itertools

import numpy as np
import pytest
import torch
from torch import nn

from helpers.cases import BY_NAME
from helpers.networks import mlp, normal
from helpers.oracles import assert_untouched
from skgeo import SkgeoError
from skgeo.quotient import _jumps as jumps_module
from skgeo.quotient import rank_jumps


def scanned(net, x0, x1, steps=20001):
    """Kinks found by brute force: positions at which any sign differs from the one before."""
    t = torch.linspace(0.0, 1.0, steps, dtype=torch.float64)
    h = torch.lerp(x0, x1, t.unsqueeze(1))
    changes = []
    for index, layer in enumerate(net):
        if isinstance(layer, nn.ReLU):
            signs = h > 0
            for step in (signs[1:] != signs[:-1]).any(1).nonzero().flatten():
                crossed = (signs[step + 1] != signs[step]).sum()
                changes.append((float(t[step]), float(t[step + 1]), str(index), int(crossed)))
        h = layer(h)
    return sorted(changes)


@pytest.mark.parametrize("seed", range(3))
def test_every_kink_of_a_relu_network_is_found(seed):
    net, (x0, x1) = mlp(3, 24, 20, 4, seed=seed, activation=nn.ReLU), 3 * normal(2, 3, seed=seed)
    with assert_untouched(net):
        found = rank_jumps(net, x0, x1, layers=["1", "3"], likelihood="gaussian")
    kinks = [jump for jump in found if jump.what == "pattern"]
    expected = scanned(net, x0, x1)
    assert len(expected) > 6
    assert sum(crossed for *_, crossed in expected) == len(kinks)
    for (low, high, layer, _), jump in zip(expected, kinks, strict=True):
        assert low <= jump.t <= high
        assert jump.layer == layer
        assert abs(jump.before - jump.after) == 1


def test_ranks_jump_where_patterns_do_and_are_the_ranks_of_the_regions():
    net, (x0, x1) = mlp(2, 4, 3, 2, seed=1, activation=nn.ReLU), 6 * normal(2, 2, seed=11)
    found = rank_jumps(net, x0, x1, layers=["0", "1"], likelihood="gaussian")
    kinks = {jump.t for jump in found if jump.what == "pattern"}
    ranks = [jump for jump in found if jump.what == "rank"]
    assert ranks
    assert {jump.t for jump in ranks} <= kinks
    edges = [0.0, *sorted(kinks), 1.0]
    for left, right in itertools.pairwise(edges):
        x = torch.lerp(x0, x1, torch.tensor((left + right) / 2, dtype=torch.float64))
        h = net[:1](x).detach()
        tail = torch.autograd.functional.jacobian(net[1:], h)
        rank = np.linalg.matrix_rank(tail.numpy())
        before = [jump.after for jump in ranks if jump.layer == "0" and jump.t <= left]
        after = [jump.before for jump in ranks if jump.layer == "0" and jump.t >= right]
        assert all(value == rank for value in (before[-1:] + after[:1]))


def test_positions_are_exact_to_rounding():
    net = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1)).double()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0], [-2.0]]))
        net[0].bias.copy_(torch.tensor([-0.3, 1.4]))
    found = rank_jumps(net, [0.0], [1.0], layers=["0"], likelihood="gaussian")
    assert [(j.layer, j.what, j.before, j.after) for j in found] == [
        ("1", "pattern", 1, 2),
        ("1", "pattern", 2, 1),
    ]
    np.testing.assert_allclose([j.t for j in found], [0.3, 0.7], atol=1e-12)


def test_smooth_networks_show_where_a_rank_crosses_the_tolerance():
    class Fade(nn.Module):
        def forward(self, x):
            return torch.stack([x[:, 0], (x[:, 1] - 1.0).pow(3)], 1)

    net = nn.Sequential(nn.Identity(), Fade(), nn.Linear(2, 2)).double()
    with torch.no_grad():
        net[2].weight.copy_(torch.eye(2))
    # The second eigenvalue is 9 (t - 1)^4 against 1: below 1e-8 from t = 1 - (1e-8 / 9)^(1/4).
    (found,) = rank_jumps(
        net, [0.0, 0.5], [0.0, 1.0], layers=["0"], tol=1e-8, likelihood="gaussian"
    )
    assert (found.layer, found.what, found.before, found.after) == ("0", "rank", 2, 1)
    assert 0.5 + 0.5 * found.t == pytest.approx(1 - (1e-8 / 9) ** 0.25, rel=1e-9)


def test_maxima_and_branches_are_seen():
    case = BY_NAME["residual"]
    module, X = case.module(), case.inputs(2)
    found = rank_jumps(module, X[0], X[1], likelihood="categorical", layers=["stem"])
    assert {jump.layer for jump in found} == {"block.relu", "block.relu#1"}
    assert list(found) == sorted(found, key=lambda jump: jump.t)
    pool = nn.Sequential(nn.Conv2d(1, 2, 2), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2, 2))
    images = normal(2, 1, 3, 3)
    moves = rank_jumps(pool.double(), *images, layers=["0"], likelihood="gaussian")
    assert moves
    assert all((jump.layer, jump.what) == ("1", "pattern") for jump in moves)


def test_no_change_is_no_row():
    net = mlp(3, 6, 2, activation=nn.ReLU)
    x = normal(3)
    assert rank_jumps(net, x, x, likelihood="gaussian") == ()
    smooth = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    assert rank_jumps(smooth, x, -x, likelihood="gaussian") == ()


def test_endless_changes_are_refused(monkeypatch):
    monkeypatch.setattr(jumps_module, "_MOST_JUMPS", 3)
    with pytest.raises(SkgeoError, match="more than 3 changes"):
        rank_jumps(mlp(3, 12, 10, 4, activation=nn.ReLU), *2 * normal(2, 3), likelihood="gaussian")
