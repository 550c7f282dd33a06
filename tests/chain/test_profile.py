import numpy as np
import pytest
import torch
from torch import nn

from helpers.architectures import build
from helpers.chain_oracles import dense_between, exact_log_singular_values, quantities
from helpers.networks import mlp, normal
from helpers.oracles import assert_untouched
from skgeo import GeometryWarning, SkgeoError
from skgeo.chain import chain_profile
from skgeo.chain._summaries import QUANTITIES, spectral_quantities


@pytest.mark.parametrize("shape", [(5, 5), (4, 7), (7, 4), (1, 3), (3, 1)])
def test_quantities_are_those_of_the_definitions(shape):
    A = normal(3, *shape)
    logs = torch.linalg.svdvals(A).log()
    found = spectral_quantities(logs, shape[1])
    assert tuple(found) == QUANTITIES
    for sample in range(3):
        expected = quantities(A[sample].numpy())
        for name in QUANTITIES:
            assert float(found[name][sample]) == pytest.approx(expected[name], rel=1e-12, abs=1e-13)


def test_quantities_do_not_depend_on_a_range_that_floats_have_not():
    logs = torch.tensor([[2.0, 0.0, -3.0, -np.inf]], dtype=torch.float64)
    near, far = spectral_quantities(logs, 5), spectral_quantities(logs - 1e4, 5)
    for name in ("rank", "condition", "effective_rank", "stable_rank", "isometry_deviation"):
        torch.testing.assert_close(far[name], near[name], rtol=1e-11, atol=0.0)
    assert far["log_volume"] == pytest.approx(-1.0 - 3e4)
    zero = spectral_quantities(torch.full((1, 3), -np.inf, dtype=torch.float64), 3)
    values = [float(value) for value in zero.values()]
    assert values[:4] == [0.0] * 4
    assert np.isnan(values[4:]).all()


def linear_chain(weights):
    layers = []
    for weight in weights:
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(weight)
        layers.append(layer)
    return nn.Sequential(*layers)


@pytest.mark.parametrize("chain", ["input", "output"])
def test_gaussian_chains_of_depth_80_keep_their_smallest_values(chain):
    weights = normal(80, 8, 8, seed=7)
    found = chain_profile(linear_chain(weights), normal(2, 8), chain=chain)
    layer, whole = (
        (found.layers[-1], weights) if chain == "input" else (found.layers[0], weights[1:])
    )
    expected = exact_log_singular_values(list(whole))
    assert expected[0] - expected[-1] > 80
    for sample in range(2):
        error = np.expm1(layer.log_singular_values[sample].numpy() - expected)
        np.testing.assert_allclose(error, 0.0, atol=1e-9)
    depth = len(whole)
    torch.testing.assert_close(
        found.lyapunov_exponents[0], torch.from_numpy(expected) / depth, rtol=1e-9, atol=0.0
    )


def test_haar_chains_of_depth_50_are_isometries():
    q, r = torch.linalg.qr(normal(50, 24, 24))
    net = linear_chain(q * r.diagonal(dim1=1, dim2=2).sign().unsqueeze(1))
    for chain in ("input", "output", "layer"):
        found = chain_profile(net, normal(2, 24), chain=chain)
        for layer in found.layers:
            np.testing.assert_allclose(layer.singular_values.numpy(), 1.0, atol=1e-11)


def test_products_agree_with_what_the_network_does():
    net, X = mlp(5, 8, 6, 7, 3, activation=nn.ReLU), normal(6, 5)
    with assert_untouched(net):
        found = chain_profile(net, X, chain="input")
    for layer in found.layers:
        jacobians = dense_between(net, X, layer.layer.name)
        for sample in range(6):
            expected = np.linalg.svd(jacobians[sample], compute_uv=False)
            values = layer.singular_values[sample].numpy()
            np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-14)
            assert values.shape == expected.shape
            assert int(layer.rank[sample]) == (expected > 1e-12 * expected[0]).sum()


def test_ranks_only_fall_along_a_chain():
    net, X = mlp(9, 8, 8, 8, 8, 8, activation=nn.ReLU, seed=3), normal(10, 9)
    found = chain_profile(net, X)
    ranks = torch.stack([layer.rank for layer in found.layers])
    assert (ranks.diff(dim=0) <= 0).all()
    assert ranks[-1].min() < ranks[0].min()


@pytest.mark.parametrize("name", ["resnet", "transformer"])
@pytest.mark.parametrize("chain", ["input", "output", "layer"])
def test_ways_agree(name, chain, monkeypatch):
    """Link by link, the one Jacobian, and its leading values only."""
    module, inputs = build(name, n=2)
    links = chain_profile(module, inputs, chain=chain, n_singular_values="all")
    monkeypatch.setattr("skgeo.chain._plan.path_between", lambda *_: [_Huge()])
    if chain != "layer":
        single = chain_profile(module, inputs, chain=chain)
        assert_close(single, links)
    monkeypatch.setattr("skgeo.chain._plan._SMALL_SIDE", 0)
    known = {
        "formed": ("sigma_max", "stable_rank", "isometry_deviation"),
        "leading": ("sigma_max",),
    }
    for way, names in known.items():
        with pytest.warns(GeometryWarning, match="Only leading singular values"):
            some = chain_profile(module, inputs, chain=chain, n_singular_values=2)
        for one, other in zip(some.layers, links.layers, strict=True):
            assert one.log_singular_values.shape == (2, 2)
            torch.testing.assert_close(
                one.singular_values, other.singular_values[:, :2], rtol=1e-5, atol=0.0
            )
            for quantity in names:
                torch.testing.assert_close(
                    getattr(one, quantity), getattr(other, quantity), rtol=2e-5, atol=0.0
                )
            # An activation's own values are known anyhow.
            assert one.rank.isnan().all() or (chain == "layer" and one.layer.name == "relu")
            assert one.stable_rank.isnan().all() == (way == "leading" and one.rank.isnan().all())
        monkeypatch.setattr("skgeo.chain._plan._FORMED_SIZE", 0)


class _Huge(tuple):
    """A link that is never small."""

    def __new__(cls):
        class Wide:
            dim = 10**6

        return super().__new__(cls, (Wide, Wide))


def assert_close(one, other):
    for a, b in zip(one.layers, other.layers, strict=True):
        scale = b.singular_values[:, :1]
        torch.testing.assert_close(
            a.singular_values / scale, b.singular_values / scale, rtol=0.0, atol=1e-11
        )


@pytest.mark.parametrize("chain", ["layer", "input", "output"])
def test_batches_do_not_change_answers(chain):
    net, X = mlp(5, 7, 6, 4, activation=nn.ReLU), normal(7, 5)
    whole = chain_profile(net, X, chain=chain)
    for batch_size in (1, 3):
        parts = chain_profile(net, X, chain=chain, batch_size=batch_size)
        for one, other in zip(parts.layers, whole.layers, strict=True):
            for name in QUANTITIES:
                torch.testing.assert_close(
                    getattr(one, name), getattr(other, name), rtol=1e-12, atol=1e-13, equal_nan=True
                )


def test_layers_are_found_by_name():
    found = chain_profile(mlp(4, 5, 3), normal(3, 4))
    assert found["1"] is found.layers[1]
    assert found["1"].side == 4
    with pytest.raises(SkgeoError, match="there are: 0, 1, 2"):
        found["7"]


def test_a_final_activation_that_is_idle_on_the_probe_is_not_taken_for_nothing():
    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
            with torch.no_grad():
                self.a.weight.copy_(torch.eye(2))
                self.b.weight.copy_(torch.eye(2))

        def forward(self, x):
            return torch.relu(self.b(self.a(x)))

    X = torch.ones(20, 2, dtype=torch.float64)
    X[15, 0] = -1.0
    found = chain_profile(Late().double(), X, chain="output")["a"]
    assert found.rank.tolist() == [2.0] * 15 + [1.0] + [2.0] * 4


def test_a_chain_needs_a_layer_after_its_root():
    module, inputs = build("transformer", n=3)
    with pytest.raises(SkgeoError, match=r"The only layer, 'blocks\.0', is where the graph starts"):
        chain_profile(module, inputs, layers=["blocks.0"])


def test_values_that_have_not_settled_are_said_so(monkeypatch):
    monkeypatch.setattr("skgeo.chain._plan._SMALL_SIDE", 0)
    monkeypatch.setattr("skgeo.chain._plan._FORMED_SIZE", 0)
    monkeypatch.setattr("skgeo.chain._topk.default_steps", lambda n, side: n + 1)
    net = linear_chain(normal(2, 60, 60))
    with pytest.warns(GeometryWarning) as caught:
        chain_profile(net, normal(2, 60), n_singular_values=4)
    assert "have converged only to" in str(caught[-1].message)


@pytest.mark.filterwarnings("ignore::skgeo.GeometryWarning")  # a layer that is not a cut
def test_cuts_are_judged_on_samples_from_all_over():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.head = mlp(3, 3), mlp(3, 3, seed=1), mlp(3, 3, seed=2)

        def forward(self, x):
            h = torch.tanh(self.a(x))
            far = (x[:, :1] > 50).to(x)
            return self.head(torch.relu(h + torch.tanh(self.b(h)) + 1 - 4 * far))

    # The first samples see no unit, so everything passes every layer there.
    X = torch.cat([torch.full((6, 3), 100.0, dtype=torch.float64), normal(6, 3)])
    profile = chain_profile(Residual(), X, layers=["a", "b", "head"])
    assert [each.layer.is_cut for each in profile.layers] == [True, False, True]
