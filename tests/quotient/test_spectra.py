import warnings

import numpy as np
import pytest
import torch
from torch import nn

from helpers.cases import BY_NAME, CASES
from helpers.layer_oracles import dense_layer_metric, dense_tail_jacobian
from helpers.networks import mlp, normal
from helpers.oracles import assert_untouched, spectrum
from skgeo import GeometryWarning, RankAmbiguityWarning, SkgeoError, WrappedModel
from skgeo.exceptions import NoGapWarning
from skgeo.network import bind
from skgeo.quotient import _metric as metric_module
from skgeo.quotient import _spectra as spectra_module
from skgeo.quotient import layer_spectra
from skgeo.quotient._rows import LayerRows
from skgeo.quotient._spectra import measure_layers

no_gap = pytest.mark.filterwarnings("ignore::skgeo.RankAmbiguityWarning")
LIKELIHOODS = {"categorical": 4, "bernoulli": 4, "gaussian": 4, "gaussian_scale": 4, "poisson": 4}


@no_gap
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_spectra_at_every_kind_of_layer_match_brute_force(case):
    module, inputs = case.module(), case.inputs()
    with assert_untouched(module):
        found = layer_spectra(
            WrappedModel(module, forward=case.forward), inputs, likelihood="categorical"
        )
    for each in found:
        metrics = dense_layer_metric(module, inputs, each.layer.name, "categorical", case.forward)
        top = float(each.mean_eigenvalues[0])
        for values, metric in zip(each.eigenvalues, metrics, strict=True):
            expected = spectrum(metric)[: len(values)]
            np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-14 * max(1, top))
        expected = spectrum(metrics.mean(0))[: len(each.mean_eigenvalues)]
        np.testing.assert_allclose(each.mean_eigenvalues, expected, rtol=1e-9, atol=1e-14 * top)


@no_gap
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_spectra_of_every_likelihood_match_brute_force(likelihood):
    net, X = mlp(3, 6, 5, LIKELIHOODS[likelihood]), normal(7, 3)
    for each in layer_spectra(net, X, likelihood=likelihood):
        metrics = dense_layer_metric(net, X, each.layer.name, likelihood)
        found = np.stack([spectrum(m)[: each.eigenvalues.shape[1]] for m in metrics])
        np.testing.assert_allclose(each.eigenvalues, found, rtol=1e-9, atol=1e-13)


def test_pointwise_ranks_of_softmax_heads_and_bottlenecks_are_exact():
    net, X = mlp(4, 9, 3, 8, 6, 5), normal(11, 4)
    found = {s.layer.name: s for s in layer_spectra(net, X, likelihood="categorical")}
    # Widths 9, 3, 8, 6 and 5 logits, which see four directions: the bottleneck cuts to three.
    for name, rank in {"0": 3, "1": 3, "2": 3, "3": 3, "4": 4, "6": 4, "8": 4}.items():
        assert found[name].ranks.tolist() == [rank] * 11
        assert found[name].nullity == found[name].layer.dim - rank
    ranks = [s.rank_median for s in found.values()]
    assert ranks == sorted(ranks)
    # The intersection of null spaces: all of a layer is seen from somewhere, but behind a
    # linear bottleneck no more than it lets through.
    assert [found[name].common.rank for name in ("0", "1", "7", "8")] == [9, 3, 4, 4]


def test_pseudo_determinant_of_a_linear_softmax_layer():
    net, X = nn.Linear(3, 4).double(), normal(5, 3)
    (found,) = layer_spectra(net, X, likelihood="categorical")
    p = net(X).detach().softmax(1)
    np.testing.assert_allclose(found.eigenvalues.prod(1), 4 * p.prod(1), rtol=1e-11)
    np.testing.assert_allclose(found.eigenvalues.sum(1), 1 - p.square().sum(1), rtol=1e-12)
    # Behind weights of orthonormal columns the spectrum is that of the logits.
    wide = nn.Sequential(nn.Linear(3, 7), nn.Linear(7, 4)).double()
    nn.init.orthogonal_(wide[1].weight)
    first, last = layer_spectra(wide, X, likelihood="categorical")
    np.testing.assert_allclose(first.eigenvalues, last.eigenvalues, rtol=1e-10)


def test_gaussian_metric_of_a_linear_layer_is_its_gram_matrix():
    net = nn.Sequential(nn.Linear(2, 5), nn.Linear(5, 3)).double()
    first, last = layer_spectra(net, normal(4, 2), likelihood="gaussian")
    weight = net[1].weight.detach().numpy()
    np.testing.assert_allclose(
        first.mean_eigenvalues, spectrum(weight.T @ weight), rtol=1e-12, atol=1e-15
    )
    np.testing.assert_allclose(last.mean_eigenvalues, np.ones(3), rtol=1e-14)
    assert (first.common.rank, last.common.rank) == (3, 3)
    assert last.effective_rank == pytest.approx(3.0, rel=1e-14)


def test_positions_of_a_sample_are_summed():
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 4)).double()
    X = normal(6, 5, 2)  # five positions, with four logits each
    first, *_, last = layer_spectra(net, X, likelihood="categorical")
    assert (first.layer.dim, last.layer.dim) == (15, 20)
    assert first.ranks.tolist() == [15] * 6
    assert last.ranks.tolist() == [15] * 6
    alone = layer_spectra(net, X.reshape(-1, 2), likelihood="categorical")[-1]
    np.testing.assert_allclose(
        np.sort(alone.eigenvalues.reshape(6, -1)), np.sort(last.eigenvalues), rtol=1e-10
    )


@no_gap
@pytest.mark.parametrize("n", [3, 40])  # the mean metric on the side of the rows, and of the layer
def test_both_sides_and_unsquared_factors_agree(n):
    net, X = mlp(4, 20, 12, 5), normal(n, 4)
    expected = layer_spectra(net, X, likelihood="categorical")
    fine = layer_spectra(net, X, likelihood="categorical", tol=1e-30)
    for a, b in zip(expected, fine, strict=True):
        np.testing.assert_allclose(a.eigenvalues, b.eigenvalues, rtol=1e-9, atol=1e-15)
        np.testing.assert_allclose(a.mean_eigenvalues, b.mean_eigenvalues, rtol=1e-7, atol=1e-15)


def test_unsquared_factors_see_what_squares_lose():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).double()
    with torch.no_grad():
        net[1].weight.copy_(torch.diag(torch.tensor([1.0, 1e-9])))
    X = normal(5, 2)
    assert layer_spectra(net, X, likelihood="gaussian")[0].common.rank == 1
    found = layer_spectra(net, X, tol=1e-20, likelihood="gaussian")[0]
    assert found.common.rank == 2
    assert found.ranks.tolist() == [2] * 5
    assert float(found.mean_eigenvalues[1]) == pytest.approx(1e-18, rel=1e-12)


@no_gap
@pytest.mark.parametrize("tol", ["auto", 1e-30])
@pytest.mark.parametrize("n", [3, 40])
def test_directions_are_eigenvectors(n, tol):
    net, X = mlp(4, 20, 5), normal(n, 4)
    rows = LayerRows(bind(net, X, likelihood="categorical", parameters=None))
    _, found, _ = measure_layers(rows, tol=tol, layer="1", n_directions=None)
    vectors = found.directions.numpy()
    mean = dense_layer_metric(net, X, "1", "categorical").mean(0)
    count = min(3 * n, 4)
    assert found.common.rank >= count
    assert vectors.shape == (found.common.rank, 20)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(len(vectors)), atol=1e-12)
    values = found.mean_eigenvalues[:count].numpy()
    np.testing.assert_allclose(
        vectors[:count] @ mean, values[:, None] * vectors[:count], atol=1e-12 * values[0]
    )
    assert (vectors[range(len(vectors)), np.abs(vectors).argmax(1)] > 0).all()


def test_layers_that_do_not_fit_together_are_taken_one_by_one(monkeypatch):
    net, X = mlp(4, 30, 30, 5), normal(20, 4)
    # Batches of as many samples as fit below, so sums are taken in the same order.
    expected = layer_spectra(net, X, likelihood="categorical", layers=["1", "3"], batch_size=9)
    room = 1.6 * (2 * 8 * 30**2 + 8 * 3 * 30**2)
    monkeypatch.setattr("skgeo.linalg._memory.available_memory", lambda device="cpu": room)
    rows = LayerRows(bind(net, X, likelihood="categorical", parameters=None), ["1", "3"])
    assert spectra_module._groups(rows, rows.names) == [["1"], ["3"]]
    assert {batch.stop for batch in rows.batches(["1"])} == {9, 18, 20}
    for a, b in zip(expected, measure_layers(rows), strict=True):
        np.testing.assert_array_equal(a.mean_eigenvalues, b.mean_eigenvalues)


def test_what_would_not_fit_is_refused_with_its_size(monkeypatch):
    net, X = mlp(4, 30, 5), normal(20, 4)
    monkeypatch.setattr("skgeo.linalg._memory.available_memory", lambda device="cpu": 20_000)
    with pytest.raises(SkgeoError, match=r"mean metric at layer '0' \(sides 30 and 80\).*fewer"):
        layer_spectra(net, X, likelihood="categorical", layers=["0"])
    monkeypatch.setattr("skgeo.linalg._memory.available_memory", lambda device="cpu": 1000)
    with pytest.raises(SkgeoError, match=r"Jacobians of one sample \(4 rows x 65 coordinates"):
        LayerRows(bind(net, X, likelihood="categorical", parameters=None)).batches()


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_batches_do_not_change_the_answer(batch_size):
    net, X = mlp(4, 8, 5), normal(9, 4)
    expected = layer_spectra(net, X, likelihood="categorical")
    found = layer_spectra(net, X, likelihood="categorical", batch_size=batch_size)
    for a, b in zip(expected, found, strict=True):
        assert torch.equal(a.ranks, b.ranks)
        np.testing.assert_allclose(a.mean_eigenvalues, b.mean_eigenvalues, rtol=1e-10, atol=1e-15)


def test_single_precision_decides_the_same_ranks():
    net, X = mlp(6, 40, 4, 30, 7, dtype=torch.float32), normal(10, 6, dtype=torch.float32)
    found = layer_spectra(net, X, likelihood="categorical")
    assert [s.rank_median for s in found] == [4.0, 4.0, 4.0, 4.0, 6.0, 6.0, 6.0][: len(found)]
    double = layer_spectra(net.double(), X.double(), likelihood="categorical")
    for a, b in zip(found, double, strict=True):
        np.testing.assert_allclose(
            a.mean_eigenvalues, b.mean_eigenvalues, atol=1e-5 * float(b.mean_eigenvalues[0])
        )


def test_saturated_outputs_keep_their_pointwise_rank():
    net = nn.Sequential(nn.Linear(3, 6), nn.Linear(6, 4)).double()
    with torch.no_grad():
        net[1].weight.mul_(4.0)
    found, _ = layer_spectra(net, 8 * normal(8, 3), likelihood="categorical")
    assert float(found.eigenvalues[:, 0].min()) < 1e-2
    assert found.ranks.tolist() == [3] * 8


def test_branches_warn_that_their_quotient_is_partial():
    case = BY_NAME["residual"]
    with pytest.warns(GeometryWarning, match=r"layer 'block\.bn1'.*partial"):
        found = layer_spectra(
            case.module(), case.inputs(), layers=["stem", "block.bn1"], likelihood="gaussian"
        )
    assert [s.layer.is_cut for s in found] == [True, False]


def test_spectra_without_a_gap_warn_once():
    net, X = mlp(8, 12, 12, 6), 0.1 * normal(40, 8)
    with pytest.warns(RankAmbiguityWarning, match=r"common rank at layer '\d'.*no clear gap") as w:
        layer_spectra(net, X, likelihood="categorical", tol=1e-4)
    assert len(w) == 1


def test_pointwise_ranks_without_a_gap_warn():
    class Gate(nn.Module):
        def forward(self, h):
            return h * torch.stack([torch.ones(len(h)), h[:, 0].detach()], 1).double()

    net = nn.Sequential(nn.Linear(1, 2), Gate()).double()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0], [0.0]]))
        net[0].bias.zero_()
    # Eigenvalues 1 and x^2: on average 1 and 0.075, at the first sample 1 and 0.15.
    X = torch.tensor([[0.15], [1e-12]], dtype=torch.float64).sqrt()
    with pytest.warns(NoGapWarning, match="Pointwise ranks at layer '0'"):
        (found,) = layer_spectra(net, X, layers=["0"], tol=0.2, likelihood="gaussian")
    assert found.pointwise_gap == pytest.approx(1 / 0.15)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer_spectra(net, X[1:], layers=["0"], tol=0.2, likelihood="gaussian")


def test_few_samples_limit_the_common_rank_and_not_the_pointwise_one():
    net, X = mlp(4, 8, 9, 3), normal(3, 4)
    with pytest.warns(
        RankAmbiguityWarning, match="'0': 6 is the number of rows.* 3 of 5"
    ) as caught:
        few = layer_spectra(net, X, likelihood="categorical")
    assert len(caught) == 1
    assert [s.layer.dim for s in few] == [8, 8, 9, 9, 3]
    # Before the output, three samples see two directions each; its three logits see two in all.
    assert [s.common.rank for s in few] == [6, 6, 6, 2, 2]
    assert [s.common.sample_limited for s in few] == [True, True, True, False, False]
    assert all(np.isnan(s.common.gap) for s in few[:3])
    assert all(s.ranks.tolist() == [2, 2, 2] and s.pointwise_gap > 1e6 for s in few)
    many = layer_spectra(net, normal(40, 4), likelihood="categorical")
    assert not any(s.common.sample_limited for s in many)
    assert [s.rank_median for s in many] == [s.rank_median for s in few]


def test_a_metric_that_is_zero_has_rank_zero_and_no_effective_rank():
    class Dead(nn.Module):
        def forward(self, h):
            return torch.relu(h - 100.0)

    net = nn.Sequential(nn.Linear(2, 3), Dead(), nn.Linear(3, 2)).double()
    with pytest.warns(GeometryWarning, match="within rounding of zero"):
        first, *_ = layer_spectra(net, normal(4, 2), likelihood="gaussian")
    assert (first.common.rank, first.rank_median) == (0, 0.0)
    assert np.isnan(first.effective_rank)


def test_derivatives_that_are_not_finite_are_refused():
    class Root(nn.Module):
        def forward(self, h):
            return h.square().sum(1, keepdim=True).sqrt()

    net = nn.Sequential(nn.Linear(2, 2, bias=False), Root()).double()
    with pytest.raises(SkgeoError, match="not differentiable"):
        layer_spectra(
            net, torch.zeros(2, 2, dtype=torch.float64), layers=["0"], likelihood="gaussian"
        )


def test_outputs_must_be_finite_and_fit_the_likelihood():
    net = mlp(2, 3, 1)
    with pytest.raises(SkgeoError, match="at least two logits"):
        layer_spectra(net, normal(3, 2), likelihood="categorical")
    with pytest.raises(SkgeoError, match="cannot be run on this data"):
        layer_spectra(net, normal(3, 5), likelihood="gaussian")
    with pytest.raises(SkgeoError, match="batch_size=0"):
        layer_spectra(net, normal(3, 2), batch_size=0, likelihood="gaussian")
    for tol in (-1.0, 1.0, float("nan"), "small"):
        with pytest.raises(SkgeoError, match="tol="):
            layer_spectra(net, normal(3, 2), tol=tol, likelihood="gaussian")


def test_sides_are_counted_in_advance():
    held = metric_module.MeanMetric.held_bytes
    assert held(10, 3, 20, torch.float32) == 2 * 8 * 400
    assert held(2, 3, 20, torch.float32) == 4 * 6 * 20


def test_the_oracle_of_a_linear_tail_is_its_weight():
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4)).double()
    found = dense_tail_jacobian(net, normal(2, 2), "0")
    np.testing.assert_array_equal(found[1], net[1].weight.detach())
