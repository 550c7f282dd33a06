import copy

import numpy as np
import pytest
import torch
from scipy.linalg import logm, subspace_angles
from torch import nn

from helpers.cases import BY_NAME
from helpers.networks import mlp, normal
from helpers.oracles import assert_untouched
from skgeo import SkgeoError
from skgeo.chain import stability
from skgeo.chain._stability import log_euclidean_distance, subspace_angle

NAMES = ("metric_distance", "subspace_angle", "output_change")


def shifted(x, generator):
    return x + 0.1


def by_hand(net, other, X, moved, k, floor):
    rows = []
    for x, y in zip(X, moved, strict=True):
        J = torch.autograd.functional.jacobian(net, x).numpy()
        K = torch.autograd.functional.jacobian(other, y).numpy()
        epsilon = floor * np.linalg.norm(J, 2) ** 2 * np.eye(J.shape[1])
        metric = np.linalg.norm(logm(J.T @ J + epsilon) - logm(K.T @ K + epsilon))
        leading = [np.linalg.svd(A)[2][:k].T for A in (J, K)]
        change = (other(y) - net(x)).norm().item()
        rows.append((metric, subspace_angles(*leading).max(), change))
    size = net(X).square().sum(1).mean().sqrt().item()
    return np.array(rows) / (1.0, 1.0, size)


def test_a_function_against_dense_metrics():
    net, X = mlp(5, 8, 3), normal(4, 5)
    with assert_untouched(net):
        found = stability(net, X, shifted, n_repeats=2, floor=1e-3)
    expected = by_hand(net, net, X, X + 0.1, 2, 1e-3)
    for column, name in enumerate(NAMES):
        np.testing.assert_allclose(found.values[name][1], expected[:, column], rtol=1e-7)
        assert getattr(found, name) == pytest.approx(expected[:, column].mean(), rel=1e-7)
        assert getattr(found, f"{name}_se") == pytest.approx(0.0, abs=1e-12)
    assert found.noise == "shifted"


def test_noise_on_inputs_is_drawn_as_said():
    net, X = mlp(5, 8, 3), normal(4, 5)
    found = stability(net, X, scale=0.2, n_repeats=3, random_state=7, floor=1e-3)
    generator = torch.Generator().manual_seed(7)
    size = 0.2 * X.square().mean().sqrt()
    for repeat in range(3):
        moved = X + size * torch.randn(X.shape, generator=generator, dtype=torch.float64)
        expected = by_hand(net, net, X, moved, 2, 1e-3)
        for column, name in enumerate(NAMES):
            np.testing.assert_allclose(found.values[name][repeat], expected[:, column], rtol=1e-7)
    means = found.values["metric_distance"].mean(1)
    assert found.metric_distance_se == pytest.approx(means.std(ddof=1) / 3**0.5)


def test_noise_on_weights_goes_to_a_copy():
    net, X = mlp(5, 8, 3), normal(4, 5)
    with assert_untouched(net):
        found = stability(net, X, "weights", scale=0.1, n_repeats=2, random_state=3, floor=1e-3)
    generator = torch.Generator().manual_seed(3)
    for repeat in range(2):
        other = copy.deepcopy(net)
        with torch.no_grad():
            for p in other.parameters():
                drawn = torch.randn(p.shape, generator=generator, dtype=torch.float64)
                p.add_(0.1 * p.square().mean().sqrt() * drawn)
        expected = by_hand(net, other, X, X, 2, 1e-3)
        for column, name in enumerate(NAMES):
            np.testing.assert_allclose(found.values[name][repeat], expected[:, column], rtol=1e-7)
    assert found.subspace_angle > 0


@pytest.mark.parametrize("noise", ["input", "weights"])
def test_small_noise_is_linear_in_its_scale(noise):
    net, X = mlp(5, 8, 3), normal(4, 5)
    small = stability(net, X, noise, scale=1e-7, n_repeats=2)
    double = stability(net, X, noise, scale=2e-7, n_repeats=2)
    for name in NAMES:
        assert getattr(double, name) == pytest.approx(2 * getattr(small, name), rel=1e-4)


def test_seeds_decide():
    net, X = mlp(5, 8, 3), normal(4, 5)
    first, again, other = (stability(net, X, random_state=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.values["metric_distance"], again.values["metric_distance"])
    assert first.metric_distance != other.metric_distance
    # Two seeds agree within their errors.
    spread = np.hypot(first.metric_distance_se, other.metric_distance_se)
    assert abs(first.metric_distance - other.metric_distance) < 5 * spread


@pytest.mark.parametrize("name", ["lstm", "weight_norm", "tied", "residual", "batchnorm"])
@pytest.mark.parametrize("noise", ["input", "weights"])
def test_other_networks(name, noise):
    case = BY_NAME[name]
    module, X = case.module(), case.inputs(3)
    with assert_untouched(module):
        found = stability(module, X, noise, n_repeats=2, n_directions=1)
    for value in found.values.values():
        assert np.isfinite(value).all()
    assert found.output_change > 0


def test_tokens_behind_their_embedding():
    case = BY_NAME["embedding"]
    for noise in ("input", "weights", shifted):
        found = stability(case.module(), case.inputs(), noise, source="0", n_repeats=2)
        assert found.output_change > 0
    # Everything behind the embedding is linear.
    assert stability(case.module(), case.inputs(), source="0").metric_distance == 0.0


def test_distances_of_equal_and_of_lost_metrics():
    v = torch.eye(3).double()[None, :2]
    s = torch.tensor([[2.0, 1.0]]).double()
    epsilon = torch.tensor([0.01], dtype=torch.float64)
    assert log_euclidean_distance(s, v, s, v, epsilon).item() < 1e-14
    lost = torch.tensor([[2.0, 0.0]]).double()
    found = log_euclidean_distance(s, v, lost, v, epsilon).item()
    assert found == pytest.approx(np.log1p(1 / 0.01), rel=1e-12)


def test_tiny_and_right_angles():
    angle = 1e-9
    v = torch.tensor([[[1.0, 0.0, 0.0]]]).double()
    w = torch.tensor([[[np.cos(angle), np.sin(angle), 0.0]]]).double()
    assert subspace_angle(v, w).item() == pytest.approx(angle, rel=1e-6)
    assert subspace_angle(v, v.roll(1, 2)).item() == pytest.approx(np.pi / 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": "outputs"}, "noise='outputs'"),
        ({"noise": lambda x, g: x[:1]}, r"of shape \(3, 4\) into Tensor of shape \(1, 4\)"),
        ({"noise": lambda x, g: x / 0}, "NaN or infinite inputs"),
        ({"scale": 0.0}, "scale=0.0"),
        ({"n_repeats": 1}, "at least 2"),
        ({"n_directions": 0}, "a positive integer"),
        ({"n_directions": 4}, "has 3 singular vectors"),
        ({"floor": 0.0}, "floor=0.0"),
        ({"layer": "nine"}, "No layer named"),
    ],
)
def test_noise_that_is_none(options, message):
    with pytest.raises(SkgeoError, match=message):
        stability(mlp(4, 6, 3), normal(3, 4), **options)


def test_nothing_to_be_relative_to():
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU()).double()
    with torch.no_grad():
        net[0].bias.fill_(-100.0)
    with pytest.raises(SkgeoError, match="zero for all samples"):
        stability(net, normal(3, 2))
    with torch.no_grad():
        net[0].bias[0] = 100.0
        net[0].weight.fill_(0.0)
    with pytest.raises(SkgeoError, match="zero for sample 0"):
        stability(net, normal(3, 2))
