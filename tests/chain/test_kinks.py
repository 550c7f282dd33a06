import itertools

import numpy as np
import pytest
import torch
from torch import nn

from helpers.cases import BY_NAME
from helpers.networks import mlp, normal
from helpers.oracles import assert_untouched
from skgeo import SkgeoError
from skgeo.chain import _kinks as kinks_module
from skgeo.chain import kink_density
from skgeo.quotient import rank_jumps


def scanned(net, x0, x1, steps=20001):
    """Units that change sides, by brute force on a fine grid."""
    h = torch.lerp(x0, x1, torch.linspace(0, 1, steps).double().unsqueeze(1))
    total = 0
    for layer in net:
        if isinstance(layer, nn.ReLU):
            total += int(((h[1:] > 0) != (h[:-1] > 0)).sum())
        h = layer(h)
    return total


def test_every_kink_of_a_relu_network_counts():
    net, X = mlp(3, 24, 20, 4, activation=nn.ReLU), 2 * normal(5, 3)
    with assert_untouched(net):
        found = kink_density(net, X)
    expected = [scanned(net, a, b) for a, b in itertools.pairwise(X)]
    assert found.counts.tolist() == expected
    assert sum(expected) > 20
    np.testing.assert_allclose(found.lengths, (X[1:] - X[:-1]).norm(dim=1))
    assert found.density == pytest.approx(sum(expected) / found.lengths.sum())
    assert 0 < found.density_se < found.density
    separate = kink_density(net, X[:-1], X[1:])
    assert separate.counts.tolist() == expected
    np.testing.assert_allclose(separate.metric_variation, found.metric_variation)


def test_only_kinks_on_the_way_to_the_layer():
    net, X = mlp(3, 24, 20, 4, activation=nn.ReLU), 2 * normal(4, 3)
    whole, before = kink_density(net, X), kink_density(net, X, layer="2")
    first = kink_density(nn.Sequential(*net[:3]), X)
    assert before.layer == "2"
    assert before.counts.tolist() == first.counts.tolist()
    assert (before.counts <= whole.counts).all()
    behind = kink_density(net, X, source="2")
    inner = kink_density(nn.Sequential(*net[3:]), net[:3](X).detach())
    assert behind.counts.tolist() == inner.counts.tolist()


@pytest.mark.parametrize("name", ["residual", "prelu", "reused"])
def test_branches_and_functions_agree_with_the_jumps_of_a_segment(name):
    case = BY_NAME[name]
    module, X = case.module(), 2 * case.inputs(2)
    jumps = rank_jumps(
        module, X[0], X[1], layers=["stem"] if name == "residual" else None, likelihood="gaussian"
    )
    expected = sum(abs(j.after - j.before) for j in jumps if j.what == "pattern")
    assert kink_density(module, X).counts.tolist() == [expected]
    assert expected


def test_metric_variation_against_dense_metrics():
    net, X = mlp(4, 7, 5, 3), normal(4, 4)
    found = kink_density(net, X)
    jacobians = [torch.autograd.functional.jacobian(net, x) for x in X]
    metrics = [j.T @ j for j in jacobians]
    for k in range(3):
        expected = (metrics[k + 1] - metrics[k]).norm() / (X[k + 1] - X[k]).norm()
        assert found.metric_variation[k] == pytest.approx(expected.item(), rel=1e-10)
    # Small moves keep their digits: the derivative of the metric.
    step = 1e-7 * normal(1, 4, seed=1)
    small = kink_density(net, X[:1], X[:1] + step).metric_variation[0]
    twice = kink_density(net, X[:1], X[:1] + 2 * step).metric_variation[0]
    assert small == pytest.approx(twice, rel=1e-5)
    assert found.counts.tolist() == [0, 0, 0]
    assert found.density == 0.0


def test_linear_networks_do_not_vary():
    found = kink_density(nn.Linear(3, 2).double(), normal(3, 3))
    assert not found.metric_variation.any()
    assert np.isnan(kink_density(nn.Linear(3, 2).double(), normal(2, 3)).density_se)


def test_single_precision():
    net, X = mlp(3, 24, 20, 4, activation=nn.ReLU), 2 * normal(5, 3)
    expected = kink_density(net, X).counts.tolist()
    assert kink_density(net.float(), X).counts.tolist() == expected


def test_tokens_and_masks():
    case = BY_NAME["dict"]
    module, inputs = case.module(), case.inputs(2)
    with pytest.raises(SkgeoError, match="after the embedding"):
        kink_density(module, inputs)


def test_segments_that_are_none(monkeypatch):
    net, X = mlp(3, 24, 20, 4, activation=nn.ReLU), 2 * normal(5, 3)
    with pytest.raises(SkgeoError, match="two points"):
        kink_density(net, X[:1])
    with pytest.raises(SkgeoError, match="Segment 1 has zero length"):
        kink_density(net, X[[0, 1, 1]])
    with pytest.raises(SkgeoError, match="one end for each start"):
        kink_density(net, X, X[:3])
    with pytest.raises(SkgeoError, match="No layer named"):
        kink_density(net, X, layer="nine")
    with pytest.raises(SkgeoError, match="NaN"):
        kink_density(net, X * torch.nan)
    monkeypatch.setattr(kinks_module, "_MOST_KINKS", 3)
    with pytest.raises(SkgeoError, match="more than 3 kinks"):
        kink_density(net, X)
