import copy
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits, load_iris
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import StandardScaler
from torch import nn

from helpers.cases import CASES
from helpers.laws import PairLaws, assert_same_rows
from helpers.networks import mlp, moved, normal
from helpers.oracles import dense_fisher, dense_jacobian, output_metric, spectrum
from skgeo import (
    FisherRankEstimator,
    GeometryWarning,
    RankAmbiguityWarning,
    SkgeoError,
    WrappedModel,
    fisher_trace,
)

# Small networks on few samples rarely have a clear gap, and these tests ask other things of them.
no_gap = pytest.mark.filterwarnings("ignore::skgeo.RankAmbiguityWarning")

LIKELIHOODS = {
    "categorical": 3,
    "bernoulli": 3,
    "gaussian": 3,
    "poisson": 3,
    "gaussian_scale": 4,
}


class TestFisherRankLaws(PairLaws):
    def estimator(self, model=None, **parameters):
        return FisherRankEstimator(model, **{"likelihood": "categorical", **parameters})

    def pairs(self):
        # Smooth networks with more rows than parameters: the rank is that of the network.
        return [(mlp(4, 5, 3, seed=seed), normal(40, 4, seed=10 + seed)) for seed in range(2)] + [
            (mlp(4, 6, 3, seed=5), normal(40, 4, seed=3))
        ]


class TestFisherRankLawsWithTargets(PairLaws):
    def estimator(self, model=None, **parameters):
        model = FrozenEstimator(model) if isinstance(model, MLPClassifier) else model
        return FisherRankEstimator(model, **parameters)

    def pairs(self):
        X, y = load_iris(return_X_y=True)
        X, y = X[::3] / 4, y[::3]
        return [(mlp(4, 5, 3, seed=seed), X, y) for seed in range(3)]

    test_modules_that_cannot_be_copied_are_measured_and_cloned = None
    test_a_changed_weight_is_not_read_from_the_cache = None
    test_a_model_changed_after_fit_is_refused = None


@no_gap
@pytest.mark.parametrize("solver", ["gram", "parameter"])
@pytest.mark.parametrize("likelihood", ["categorical", "gaussian"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_spectrum_of_every_layer_type_matches_brute_force(case, likelihood, solver):
    module, inputs = case.module(), case.inputs()
    model = module if case.forward is None else WrappedModel(module, case.forward)
    fitted = FisherRankEstimator(model, likelihood=likelihood, solver=solver, n_components=0).fit(
        inputs
    )
    expected = dense_fisher(module, inputs, likelihood, case.forward)
    found = fitted.eigenvalues_
    np.testing.assert_allclose(
        found, spectrum(expected)[: len(found)], rtol=1e-10, atol=1e-10 * found[0] * 1e-3
    )
    assert fitted.trace_ == pytest.approx(np.trace(expected), rel=1e-12)


@no_gap
@pytest.mark.parametrize("solver", ["gram", "parameter"])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_spectrum_of_every_likelihood_matches_brute_force(likelihood, solver):
    net, X = mlp(4, 6, LIKELIHOODS[likelihood]), normal(7, 4)
    fitted = FisherRankEstimator(net, likelihood=likelihood, solver=solver).fit(X)
    expected = dense_fisher(net, X, likelihood)
    found = fitted.eigenvalues_
    np.testing.assert_allclose(
        found, spectrum(expected)[: len(found)], rtol=1e-10, atol=1e-13 * found[0]
    )
    rank = fitted.fisher_rank_
    assert rank == np.linalg.matrix_rank(expected, hermitian=True, tol=fitted.rank_threshold_)
    G = fitted.components_.T * found[:rank] @ fitted.components_
    np.testing.assert_allclose(G, expected, atol=1e-11 * found[0])


@no_gap
def test_outputs_with_positions_count_samples():
    conv = nn.Conv2d(1, 3, 2).double()
    model = WrappedModel(conv, lambda net, x: net(x).movedim(1, -1), likelihood="categorical")
    X = normal(4, 1, 3, 3)
    fitted = FisherRankEstimator(model).fit(X)
    z, J = dense_jacobian(conv, X, lambda net, x: net(x).movedim(1, -1))
    z, J = z.reshape(4, 4, 3), J.reshape(4, 4, 3, -1)
    expected = (
        sum(
            J[n, t].T @ output_metric("categorical", z[n, t]) @ J[n, t]
            for n in range(4)
            for t in range(4)
        )
        / 4
    )
    np.testing.assert_allclose(fitted.eigenvalues_, spectrum(expected), atol=1e-13, rtol=1e-10)


def structural_nulls(net, dead):
    """Null directions of softmax(q relu(W x + b) + c) that need no data to be known."""
    w, b, q, c = (p.detach().double() for p in net.parameters())

    def direction(dw=0.0, db=0.0, dq=0.0, dc=0.0):
        blocks = [
            torch.zeros_like(p) + d for p, d in zip((w, b, q, c), (dw, db, dq, dc), strict=True)
        ]
        return torch.cat([block.reshape(-1) for block in blocks]).numpy()

    for column in torch.eye(w.shape[1], dtype=torch.float64)[dead]:
        for row in torch.eye(len(w), dtype=torch.float64):
            yield direction(dw=torch.outer(row, column))
    yield direction(dc=torch.ones_like(c))
    for unit in torch.eye(len(w), dtype=torch.float64):
        yield direction(dq=torch.outer(torch.ones_like(c), unit))
        yield direction(dw=unit[:, None] * w, db=unit * b, dq=-q * unit)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("solver", ["gram", "parameter"])
@pytest.mark.filterwarnings("ignore::skgeo.RankAmbiguityWarning")
def test_structural_nulls_lie_in_the_null_space(solver, dtype):
    """Dead pixels, the common shift of the logits and ReLU scaling, of a network on digits."""
    X = torch.from_numpy(load_digits().data[:60, :24] / 16)
    dead = (X == 0).all(0)
    assert int(dead.sum()) >= 2
    net = mlp(24, 6, 5, activation=nn.ReLU, dtype=dtype)
    fitted = FisherRankEstimator(net, likelihood="categorical", solver=solver).fit(X)
    null = fitted.null_space()
    assert null.shape == (fitted.nullity_, fitted.n_parameters_)
    np.testing.assert_allclose(null @ null.T, np.eye(len(null)), atol=1e-12)
    slack = 1e-4 if dtype is torch.float32 else 1e-8
    for v in structural_nulls(net, dead):
        outside = v - (v @ null.T) @ null
        assert np.linalg.norm(outside) < slack * np.linalg.norm(v)
        np.testing.assert_allclose(fitted.null_projector(v), v - outside, atol=1e-10)


def test_moving_along_a_null_direction_changes_the_divergence_as_the_fourth_power():
    net, X = mlp(3, 4, 3), normal(5, 3)
    with pytest.warns(RankAmbiguityWarning, match="number of rows"):
        fitted = FisherRankEstimator(net, likelihood="categorical").fit(X)
    row, null = torch.from_numpy(fitted.components_[0]), torch.from_numpy(fitted.null_space()[0])

    def divergence(v, eps):
        p, q = (f(X).log_softmax(-1).detach() for f in (net, moved(net, eps * v)))
        return float((p.exp() * (p - q)).sum(-1).mean())

    sizes = (0.02, 0.04, 0.08)
    fourth = [divergence(null, eps) / eps**4 for eps in sizes]
    np.testing.assert_allclose(fourth, fourth[1], rtol=0.35)
    # Along an eigenvector it is half the eigenvalue, to second order.
    for eps in (1e-3, 1e-4):
        assert divergence(row, eps) / eps**2 == pytest.approx(
            fitted.eigenvalues_[0] / 2, rel=20 * eps
        )


@pytest.mark.parametrize("solver", ["gram", "parameter"])
@pytest.mark.parametrize("widths", [(4, 6, 3), (3, 8, 8, 2)])
def test_float32_gives_the_rank_of_float64_where_there_is_a_gap(widths, solver):
    """ReLU nulls leave a gap of many orders in either precision."""
    net = mlp(*widths, activation=nn.ReLU, dtype=torch.float32)
    X = normal(80, widths[0], dtype=torch.float32)
    double = copy.deepcopy(net).double()
    low, high = (
        FisherRankEstimator(m, likelihood="categorical", solver=solver, n_components=0).fit(X)
        for m in (net, double)
    )
    assert low.fisher_rank_ == high.fisher_rank_ < high.n_parameters_
    assert high.spectral_gap_ > 1e5
    np.testing.assert_allclose(low.eigenvalues_[:5], high.eigenvalues_[:5], rtol=1e-4)


def test_known_rank_of_a_relu_network_with_softmax():
    """3-4-3: 31 parameters, 4 scalings, and n_last + 1 shifts of the logits."""
    net, X = mlp(3, 4, 3, activation=nn.ReLU), 3 * normal(200, 3)
    fitted = FisherRankEstimator(net, likelihood="categorical").fit(X)
    assert (fitted.fisher_rank_, fitted.nullity_, fitted.n_parameters_) == (22, 9, 31)
    assert fitted.spectral_gap_ > 1e6


def test_tolerance_below_the_squared_resolution_uses_unsquared_factors():
    """Two features that differ by 1e-9: eigenvalues eighteen orders apart."""
    net = nn.Linear(2, 1, bias=False).double()
    x = normal(50, 1)
    X = torch.cat([x, x + 1e-9 * normal(50, 1, seed=1)], dim=1)
    for solver in ("gram", "parameter"):
        fitted = FisherRankEstimator(net, likelihood="gaussian", solver=solver)
        assert fitted.fit(X).fisher_rank_ == 1
        fitted.set_params(tol=1e-24).fit(X)
        assert fitted.fisher_rank_ == 2
        expected = np.linalg.svd(X.numpy(), compute_uv=False) ** 2 / 50
        np.testing.assert_allclose(fitted.eigenvalues_[:2], expected, rtol=1e-6)
        np.testing.assert_allclose(fitted.components_ @ fitted.components_.T, np.eye(2), atol=1e-12)


@no_gap
def test_leverage_is_the_information_of_a_sample_in_a_direction():
    net, X = mlp(4, 5, 3), normal(9, 4)
    fitted = FisherRankEstimator(net, likelihood="categorical").fit(X)
    leverage = fitted.transform(X)
    assert leverage.shape == (9, fitted.fisher_rank_)
    np.testing.assert_allclose(leverage.mean(0), 1.0, rtol=1e-9)
    assert leverage.sum(1).mean() == pytest.approx(fitted.fisher_rank_, rel=1e-9)
    z, J = dense_jacobian(net, X[:2])
    for n in range(2):
        G = J[n].T @ output_metric("categorical", z[n]) @ J[n]
        u = fitted.components_
        expected = np.einsum("ip,pq,iq->i", u, G, u) / fitted.eigenvalues_[: len(u)]
        np.testing.assert_allclose(leverage[n], expected, rtol=1e-7, atol=1e-12)


@no_gap
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), batch_size=st.integers(1, 12))
def test_order_of_samples_and_batches_do_not_matter(seed, batch_size):
    net, X = mlp(3, 4, 3), normal(11, 3)
    order = torch.randperm(11, generator=torch.Generator().manual_seed(seed))
    plain, other = (
        FisherRankEstimator(net, likelihood="categorical", n_components=0, batch_size=b).fit(x)
        for b, x in ((None, X), (batch_size, X[order]))
    )
    top = plain.eigenvalues_[0]
    np.testing.assert_allclose(other.eigenvalues_, plain.eigenvalues_, atol=1e-14 * top, rtol=1e-8)


@settings(max_examples=15, deadline=None)
@given(log_scales=st.lists(st.floats(-2, 2), min_size=4, max_size=4))
def test_rescaled_relu_units_leave_the_rank(log_scales):
    net, X = mlp(3, 4, 2, activation=nn.ReLU), 3 * normal(60, 3)
    scaled = copy.deepcopy(net)
    a = torch.tensor(log_scales, dtype=torch.float64).exp()
    with torch.no_grad():
        scaled[0].weight *= a[:, None]
        scaled[0].bias *= a
        scaled[2].weight /= a
    ranks = [
        FisherRankEstimator(m, likelihood="gaussian", n_components=0).fit(X).fisher_rank_
        for m in (net, scaled)
    ]
    assert ranks == [2 + 4 * (3 + 2)] * 2


@no_gap
@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(4)))
def test_relabelled_classes_leave_the_spectrum(order):
    net, X = mlp(3, 5, 4), normal(6, 3)
    relabelled = copy.deepcopy(net)
    with torch.no_grad():
        for p, q in zip(relabelled[2].parameters(), net[2].parameters(), strict=True):
            p.copy_(q[list(order)])
    plain, other = (
        FisherRankEstimator(m, likelihood="categorical", n_components=0).fit(X)
        for m in (net, relabelled)
    )
    np.testing.assert_allclose(
        other.eigenvalues_, plain.eigenvalues_, rtol=1e-9, atol=1e-14 * plain.eigenvalues_[0]
    )


@no_gap  # and as many rows as rank
def test_both_sides_and_blocks_of_any_size_agree():
    net, X = mlp(4, 6, 3), normal(8, 4)
    whole = FisherRankEstimator(net, likelihood="categorical", solver="gram", n_components=0).fit(X)
    assert (whole.plan_.n_blocks, whole.plan_.n_passes) == (1, 1.0)
    sample = whole.plan_.gradient_bytes // 8
    budget = whole.plan_.matrix_bytes + 5 * sample
    split = FisherRankEstimator(
        net, likelihood="categorical", solver="gram", n_components=0, batch_size=1
    ).set_params(memory_budget=budget)
    assert_same_rows(list(split.fit(X).summary().values()), list(whole.summary().values()))
    assert (split.plan_.n_blocks, split.plan_.n_passes) == (4, 2.5)
    assert split.plan_.total_bytes <= budget


@no_gap
def test_saturated_outputs_lower_the_fisher_but_not_the_tangent_effective_rank():
    net, X = mlp(4, 6, 3), normal(20, 4)
    sharp = copy.deepcopy(net)
    with torch.no_grad():
        sharp[2].weight *= 30
        sharp[2].bias *= 30
    soft, hard = (
        FisherRankEstimator(m, likelihood="categorical", n_components=0, tol=1e-6).fit(X)
        for m in (net, sharp)
    )
    _, J = dense_jacobian(net, X)
    kernel = spectrum(np.einsum("nkp,nkq->pq", J, J) / 20)
    shares = kernel[kernel > 0] / kernel[kernel > 0].sum()
    expected = np.exp(-(shares * np.log(shares)).sum())
    assert soft.tangent_effective_rank_ == pytest.approx(expected, rel=1e-9)
    assert hard.fisher_rank_ < soft.fisher_rank_
    assert hard.tangent_effective_rank_ > 0.5 * soft.tangent_effective_rank_


@no_gap
def test_parameters_can_be_chosen():
    net, X = mlp(3, 4, 2), normal(20, 3)
    net[0].bias.requires_grad_(False)
    size = {"trainable": 12 + 8 + 2, "all": 26}
    for choice, expected in size.items():
        fitted = FisherRankEstimator(net, likelihood="gaussian", parameters=choice).fit(X)
        assert fitted.n_parameters_ == expected == fitted.components_.shape[1]
    some = FisherRankEstimator(net, likelihood="gaussian", parameters=["2.weight", "2.bias"])
    G = dense_fisher(net, X, "gaussian", names=["2.weight", "2.bias"])
    found = some.fit(X).eigenvalues_
    np.testing.assert_allclose(found, spectrum(G), rtol=1e-10)
    with pytest.raises(SkgeoError, match=r"2\.weights"):
        FisherRankEstimator(net, likelihood="gaussian", parameters=["2.weights"]).fit(X)


def test_zero_metric_has_rank_zero_and_no_effective_rank():
    """f = q w x at w = q = 0: the outputs depend on the parameters, to second order only."""
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)).double()
    for p in net.parameters():
        nn.init.zeros_(p)
    with pytest.warns(GeometryWarning, match="within rounding of zero"):
        fitted = FisherRankEstimator(net, likelihood="gaussian").fit(normal(5, 1))
    assert (fitted.fisher_rank_, fitted.nullity_) == (0, 2)
    assert np.isnan(fitted.effective_rank_)
    assert fitted.spectral_gap_ == np.inf
    np.testing.assert_array_equal(fitted.null_space(), np.eye(2))
    with pytest.raises(SkgeoError, match="no direction was kept"):
        fitted.transform(normal(5, 1))


def test_components_are_clipped_to_the_rank_and_oriented():
    net, X = nn.Linear(3, 1).double(), normal(10, 3)
    with pytest.warns(GeometryWarning, match="n_components=9 exceeds the Fisher rank 4"):
        fitted = FisherRankEstimator(net, likelihood="gaussian", n_components=9).fit(X)
    rows = fitted.components_
    assert rows.shape == (4, 4)
    assert (rows[range(4), np.abs(rows).argmax(1)] > 0).all()
    two = FisherRankEstimator(net, likelihood="gaussian", n_components=2).fit(X)
    np.testing.assert_allclose(two.components_, rows[:2], atol=1e-12)
    assert two.transform(X).shape == (10, 2)
    with pytest.raises(SkgeoError, match="Fit with n_components=None"):
        two.null_space()


def test_trained_spectra_without_a_gap_warn():
    net, X = mlp(16, 12, 10), torch.from_numpy(load_digits().data[:60, 16:32] / 16)
    with pytest.warns(RankAmbiguityWarning, match="no clear gap"):
        fitted = FisherRankEstimator(net, likelihood="categorical", tol=1e-5).fit(X)
    path = fitted.rank_path_
    assert list(path.columns) == ["tol", "rank"]
    assert (np.diff(path["rank"]) <= 0).all()
    r = fitted.fisher_rank_
    assert fitted.spectral_gap_ == fitted.eigenvalues_[r - 1] / fitted.eigenvalues_[r]


class TestScikitLearnModels:
    X, y = load_iris(return_X_y=True)

    def test_ridge_has_one_parameter_a_feature_and_one_for_the_mean(self):
        fitted = FisherRankEstimator(Ridge()).fit(self.X, self.X[:, 0] * 2)
        assert (fitted.fisher_rank_, fitted.n_parameters_, fitted.likelihood_) == (5, 5, "gaussian")

    def test_multinomial_regression_has_the_shifts_as_null_directions(self):
        fitted = FisherRankEstimator(LogisticRegression(max_iter=1000)).fit(self.X, self.y)
        assert (fitted.fisher_rank_, fitted.nullity_) == (10, 5)
        assert fitted.likelihood_ == "categorical"

    def test_frozen_models_are_not_fitted_again(self):
        ridge = Ridge().fit(self.X, self.y)
        coefficients = ridge.coef_.copy()
        FisherRankEstimator(FrozenEstimator(ridge)).fit(self.X, np.flip(self.y))
        np.testing.assert_array_equal(ridge.coef_, coefficients)
        unfitted = Ridge()
        FisherRankEstimator(unfitted).fit(self.X, self.y)
        assert not hasattr(unfitted, "coef_")

    @no_gap
    def test_a_pipeline_is_preprocessing_and_a_model(self):
        pipeline = make_pipeline(
            StandardScaler(),
            MLPRegressor(hidden_layer_sizes=(3,), max_iter=2000, solver="lbfgs", random_state=0),
        )
        fitted = FisherRankEstimator(pipeline).fit(self.X, self.y.astype(float))
        scaled = torch.from_numpy(StandardScaler().fit_transform(self.X))
        expected = dense_fisher(fitted.model_.module, scaled, "gaussian")
        np.testing.assert_allclose(fitted.eigenvalues_, spectrum(expected), rtol=1e-9, atol=1e-12)

    @no_gap
    def test_grids_reach_into_the_model_and_into_the_features(self):
        X, y = self.X, self.y.astype(float)
        leverage = FisherRankEstimator(Ridge(), n_components=3)
        search = GridSearchCV(
            make_pipeline(leverage, Ridge()),
            {
                "fisherrankestimator__model__alpha": [0.1, 10.0],
                "fisherrankestimator__n_components": [1, 3],
            },
            error_score="raise",
        ).fit(X, y)
        assert search.best_estimator_[0].model.alpha in (0.1, 10.0)

    def test_features_of_pairs_are_cross_validated(self):
        X = normal(12, 4)
        pairs = [(mlp(4, width, 3, seed=s), X) for width in (2, 4, 6, 8) for s in range(3)]
        widths = [m[0].out_features for m, _ in pairs]
        features = make_union(FisherRankEstimator(likelihood="categorical"))
        search = GridSearchCV(
            make_pipeline(features, Ridge()),
            {"featureunion__fisherrankestimator__tol": [1e-9, 1e-4], "ridge__alpha": [0.1, 1.0]},
            cv=3,
            error_score="raise",
        )
        with pytest.warns(RankAmbiguityWarning):
            search.fit(pairs, widths)
        assert search.best_score_ > 0.5  # the width is one of the eight features, in effect


def test_lanczos_gives_the_leading_pairs_and_no_rank():
    net, X = mlp(6, 7, 4), normal(40, 6)
    whole = FisherRankEstimator(net, likelihood="categorical", n_components=5, tol=1e-9).fit(X)
    with pytest.warns(GeometryWarning, match="5 leading eigenpairs"):
        some = FisherRankEstimator(
            net, likelihood="categorical", n_components=5, solver="lanczos", batch_size=17
        ).fit(X)
    np.testing.assert_allclose(some.eigenvalues_, whole.eigenvalues_[:5], rtol=1e-10)
    np.testing.assert_allclose(some.components_, whole.components_, atol=1e-7)
    np.testing.assert_allclose(some.transform(X), whole.transform(X), rtol=1e-5, atol=1e-9)
    assert some.trace_ == pytest.approx(whole.trace_, rel=1e-12)
    summary = some.summary()
    known = {"fisher_trace", "fisher_max_eigenvalue", "n_parameters"}
    assert {name for name, value in summary.items() if not np.isnan(value)} == known
    with pytest.raises(SkgeoError, match="whole row space"):
        some.null_space()
    with pytest.raises(SkgeoError, match="n_components=None"):
        FisherRankEstimator(net, likelihood="categorical", solver="lanczos").fit(X)


@pytest.mark.parametrize("common", [1.0, 30.0, 1000.0])
@pytest.mark.parametrize("solver", ["auto", "gram"])
def test_a_part_that_all_logits_share_leaves_the_rank_alone(common, solver):
    net, X = mlp(20, 16, 10), normal(10, 20).repeat(2, 1)
    expected = FisherRankEstimator(net, likelihood="categorical", solver=solver).fit(X)
    assert expected.fisher_rank_ == 90  # ten samples, nine differences of logits each
    net[2].weight.data += common * normal(1, 16, seed=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = FisherRankEstimator(net, likelihood="categorical", solver=solver).fit(X)
    assert found.fisher_rank_ == 90


def test_resolution_follows_the_arithmetic_inside_autocast():
    net, X = mlp(4, 6, 3, dtype=torch.float32), normal(50, 4, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.warns(GeometryWarning):
        inside = FisherRankEstimator(net, likelihood="categorical").fit(X)
    outside = FisherRankEstimator(net, likelihood="categorical").fit(X)
    assert inside.rank_threshold_ > 1e3 * outside.rank_threshold_


def test_frozen_half_precision_under_float32_adapters():
    base = mlp(8, 16, 4, dtype=torch.bfloat16).requires_grad_(False)
    head = mlp(4, 3, dtype=torch.float32)

    class Adapted(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.base, self.head = base, head

        def forward(self, x):
            return self.head(self.base(x.bfloat16()).float())

    X = normal(30, 8, dtype=torch.float32)
    found = fisher_trace(Adapted(), X, likelihood="gaussian")
    inputs = base(X.bfloat16()).float()
    expected = fisher_trace(head, inputs, likelihood="gaussian")
    assert found == pytest.approx(expected, rel=1e-5)


class LowRank(nn.Module):
    """A frozen layer in half precision, with trained maps of rank 2 beside it and a head."""

    def __init__(self, d, h, k):
        super().__init__()
        self.base = nn.Linear(d, h).bfloat16().requires_grad_(False)
        self.head = nn.Linear(h, k)
        self.down, self.up = nn.Parameter(torch.randn(2, d)), nn.Parameter(0.1 * torch.randn(h, 2))

    def forward(self, x):
        frozen = self.base(x.to(self.base.weight.dtype)).to(self.head.weight.dtype)
        beside = x.to(self.down.dtype) @ self.down.T @ self.up.T
        return self.head(torch.tanh(frozen + beside))


@pytest.mark.parametrize("sizes", [(8, 16, 4), (64, 128, 10)])
def test_low_rank_adapters_of_a_layer_in_half_precision(sizes):
    # The base rounds a batch and single samples differently, which is no coupling of samples.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, X = LowRank(*sizes), torch.randn(20, sizes[0])
    exact = copy.deepcopy(net).double()
    names = [name for name, parameter in exact.named_parameters() if parameter.requires_grad]
    expected = np.trace(dense_fisher(exact, X.double(), "categorical", names=names))
    assert fisher_trace(net, X, likelihood="categorical") == pytest.approx(expected, rel=0.03)
