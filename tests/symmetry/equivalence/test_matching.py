import itertools

import pytest
import torch
from torch import nn

from helpers.networks import mlp, normal
from helpers.oracles import assert_untouched
from skgeo.exceptions import SkgeoError
from skgeo.symmetry import apply_symmetry, match_networks


def disguised(net, seed=0):
    generator = torch.Generator().manual_seed(seed)
    permutation, scales = [], []
    for layer in list(net)[:-1:2]:
        drawn = torch.rand(len(layer.weight), generator=generator, dtype=torch.float64)
        permutation.append(torch.randperm(len(drawn), generator=generator))
        smooth = isinstance(net[1], nn.Tanh)
        scales.append((drawn - 0.5).sign() if smooth else 10 ** (6 * drawn - 3))
    return apply_symmetry(net, permutation=permutation, scales=scales), permutation, scales


def disturbed(net, size, seed=0):
    other = apply_symmetry(net)
    with torch.no_grad():
        for index, parameter in enumerate(other.parameters()):
            parameter.mul_(1 + size * normal(*parameter.shape, seed=seed + index))
    return other


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_a_disturbed_copy_is_found_under_its_disguise(activation):
    net = mlp(6, 20, 16, 12, 4, activation=activation)
    for seed in range(5):
        other, permutation, scales = disguised(disturbed(net, 0.2, seed), seed)
        with assert_untouched(net, other):
            match = match_networks(net, other)
        assert all(
            torch.equal(ours, theirs)
            for ours, theirs in zip(match.permutation, permutation, strict=True)
        )
        assert 0.1 < match.distance < 0.3 < match.before
        for found, turned, planted in zip(match.scales, match.flips, scales, strict=True):
            assert ((found * turned / planted).log().abs() < 1).all()
        x = normal(10, 6)
        torch.testing.assert_close(match.apply(net)(x), net(x))


def test_an_exact_copy_has_distance_zero():
    net = mlp(6, 20, 16, 4, activation=nn.LeakyReLU)
    other, _, _ = disguised(net)
    match = match_networks(net, other)
    assert match.distance < 1e-13
    assert max(match.layer_distances) < 1e-13
    for ours, theirs in zip(match.apply(net).parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-14)


def test_one_hidden_layer_is_matched_best_of_all_orders():
    a, b = (mlp(3, 4, 2, activation=nn.ReLU, seed=seed) for seed in (0, 1))

    def rows(net):
        size = torch.hypot(net[0].weight.norm(dim=1), net[0].bias)
        incoming = torch.cat([net[0].weight, net[0].bias[:, None]], dim=1) / size[:, None]
        return incoming.detach(), (net[2].weight * size).detach(), net[2].bias.detach()

    (w, q, c), (v, r, d) = rows(a), rows(b)
    weight = 2 / (r.square().sum() + d.square().sum())
    size = v.square().sum() + 2
    best = min(
        (w[list(p)] - v).square().sum()
        + weight * ((q[:, list(p)] - r).square().sum() + (c - d).square().sum())
        for p in itertools.permutations(range(4))
    )
    match = match_networks(a, b)
    assert match.distance == pytest.approx((best / size).sqrt().item())
    assert match.distance <= match.before


def test_unrelated_networks_stay_apart():
    a, b = (mlp(6, 20, 16, 4, activation=nn.ReLU, seed=seed) for seed in (0, 1))
    match = match_networks(a, b)
    assert 0.7 < match.distance < match.before


def test_channels_are_matched():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.ReLU(), nn.Flatten()]
        net = nn.Sequential(*layers, nn.Linear(20, 3)).double()
    order = [[5, 3, 1, 0, 2, 4], [4, 3, 2, 0, 1]]
    match = match_networks(net, apply_symmetry(net, permutation=order))
    assert [found.tolist() for found in match.permutation] == order


def test_networks_that_cannot_be_matched():
    net = mlp(3, 5, 2)
    with pytest.raises(SkgeoError, match=r"widths \[3, 5, 2\] and \[3, 4, 2\]"):
        match_networks(net, mlp(3, 4, 2))
    with pytest.raises(SkgeoError, match=r"tanh.*relu"):
        match_networks(net, mlp(3, 5, 2, activation=nn.ReLU))
    with pytest.raises(SkgeoError, match="different interfaces"):
        match_networks(net, mlp(3, 5, 1))
    with pytest.raises(SkgeoError, match="prelu"):
        match_networks(*(mlp(3, 5, 2, activation=lambda: nn.PReLU(5)) for _ in range(2)))
