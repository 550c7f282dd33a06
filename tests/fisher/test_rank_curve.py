"""Ranks that the samples limit, and the rank against their number."""

import warnings

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from helpers.networks import mlp, normal
from helpers.oracles import assert_untouched, dense_fisher, spectrum
from skgeo import FisherRankEstimator, RankAmbiguityWarning, SkgeoError, WrappedModel
from skgeo.exceptions import NoGapWarning
from skgeo.fisher import RankCurveDisplay, SpectrumDisplay, fisher_rank, fisher_spectrum, rank_curve

# A hidden layer of 20 tanh units under a softmax over 3 classes: P = 283, less 21 shifts.
RANK, P = 262, 283
limited = pytest.warns(RankAmbiguityWarning, match="number of rows")


def tanh_net():
    return mlp(10, 20, 3)


def decaying():
    """Inputs whose scales halve from one to the next: spectra without a gap."""
    scales = 2.0 ** -torch.arange(30, dtype=torch.float64)
    return nn.Linear(30, 1, bias=False).double(), normal(60, 30) * scales


@pytest.mark.parametrize("n_samples", [10, 40, 100])
def test_the_number_of_rows_is_no_rank_of_the_network(n_samples):
    X = normal(n_samples, 10)
    with limited as caught:
        fitted = FisherRankEstimator(tanh_net(), likelihood="categorical", n_components=0).fit(X)
    assert len(caught) == 1
    assert (fitted.fisher_rank_, fitted.sample_limited_) == (2 * n_samples, True)
    assert np.isnan(fitted.spectral_gap_)
    assert fitted.nullity_ == P - 2 * n_samples


def test_enough_samples_give_the_rank_of_the_network_without_a_warning():
    fitted = FisherRankEstimator(tanh_net(), likelihood="categorical", n_components=0)
    fitted.fit(normal(300, 10))
    assert (fitted.fisher_rank_, fitted.sample_limited_) == (RANK, False)
    assert fitted.spectral_gap_ > 1e3
    # Fewer rows than parameters do not limit a rank that is below both.
    spectrum = fisher_spectrum(tanh_net(), normal(140, 10), likelihood="categorical")
    assert (spectrum.plan.n_rows, spectrum.rank, spectrum.sample_limited) == (280, RANK, False)


@pytest.mark.parametrize("solver", ["gram", "parameter"])
def test_both_sides_and_functions_say_it(solver):
    net, X = mlp(4, 5, 3), normal(9, 4)
    for function in (fisher_spectrum, fisher_rank):
        with limited:
            found = function(net, X, likelihood="categorical", solver=solver)
        assert (found.rank, found.sample_limited) == (18, True)
        assert "limited by the samples" in repr(found)
        decision = getattr(found, "decision", found)
        assert np.isnan(decision.gap)
        assert not decision.is_ambiguous


def test_a_full_rank_is_not_limited():
    found = fisher_spectrum(nn.Linear(3, 2).double(), normal(4, 3), likelihood="gaussian")
    assert (found.plan.n_rows, found.rank, found.sample_limited) == (8, 8, False)
    assert found.decision.gap == float("inf")


def test_an_unknown_rank_is_not_limited():
    with pytest.warns(UserWarning, match="leading eigenpairs"):
        fitted = FisherRankEstimator(
            mlp(4, 5, 3), likelihood="gaussian", solver="lanczos", n_components=2
        ).fit(normal(3, 4))
    assert not fitted.sample_limited_


def test_a_table_of_pairs_says_once_which_rows_are_limited():
    pairs = [(mlp(4, 5, 3), normal(n, 4)) for n in (6, 60, 8)]
    with pytest.warns(RankAmbiguityWarning, match=r"In 2 of 3 pairs \(0, 2\)") as caught:
        FisherRankEstimator(likelihood="categorical").fit_transform(pairs)
    assert len(caught) == 1


def test_a_spectrum_without_a_gap_is_said_once_and_seen_in_every_result():
    net, X = decaying()
    estimator = FisherRankEstimator(net, likelihood="gaussian", tol=1e-6)
    with pytest.warns(NoGapWarning, match="no clear gap.*once per process"):
        estimator.fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimator.fit(X)
        found = fisher_spectrum(net, X, likelihood="gaussian", tol=1e-6)
        FisherRankEstimator(likelihood="gaussian", tol=1e-6).fit_transform([(net, X)])
    assert 1 < estimator.spectral_gap_ < 10
    assert "no clear gap" in repr(found)
    for _ in range(2):  # but what the samples limit is said at each fit
        with limited:
            estimator.fit(X[:3])


@pytest.mark.parametrize("solver", ["gram", "parameter"])
@pytest.mark.parametrize("likelihood", ["categorical", "gaussian"])
def test_the_curve_counts_eigenvalues_of_the_sums_over_nested_samples(solver, likelihood):
    net, X = mlp(3, 4, 3), normal(26, 3)
    sizes = [1, 2, 5, 9, 14, 26]
    with assert_untouched(net):
        curve = rank_curve(net, X, sizes=sizes, likelihood=likelihood, solver=solver, batch_size=4)
    order = torch.randperm(26, generator=torch.Generator().manual_seed(0))
    sums = [m * spectrum(dense_fisher(net, X[order[:m]], likelihood)) for m in sizes]
    threshold = curve.decision.tol * sums[-1][0]
    assert curve.ranks.tolist() == [int((values > threshold).sum()) for values in sums]
    assert curve.n_samples.tolist() == sizes
    rows = 2 if likelihood == "categorical" else 3
    assert curve.n_rows.tolist() == [rows * size for size in sizes]
    assert curve.decision.rank == fisher_rank(net, X, likelihood=likelihood).rank


def test_the_curve_of_a_network_levels_at_its_rank():
    curve = rank_curve(tanh_net(), normal(300, 10), likelihood="categorical")
    assert curve.n_samples.tolist() == [1, 2, 3, 5, 10, 19, 38, 75, 150, 300]
    np.testing.assert_array_equal(curve.ranks, np.minimum(curve.n_rows, RANK))
    assert curve.levelled
    assert repr(curve) == f"RankCurve(rank {RANK} of {P} at 300 samples, levelled)"


def test_a_curve_that_still_grows_is_not_levelled_and_warns_of_nothing():
    curve = rank_curve(tanh_net(), normal(40, 10), likelihood="categorical")
    assert curve.decision.sample_limited
    assert not curve.levelled
    assert "not levelled" in repr(curve)
    # Without a size of half the samples nothing tells, unless the rank is full.
    X = normal(40, 3)
    linear = nn.Linear(3, 2).double()
    assert not rank_curve(mlp(3, 4, 3), X, sizes=[30, 40], likelihood="categorical").levelled
    assert rank_curve(linear, X, sizes=[40], likelihood="gaussian").levelled


@pytest.mark.parametrize("solver", ["gram", "parameter"])
@pytest.mark.parametrize("random_state", range(3))
def test_curves_do_not_fall_where_there_is_no_gap(solver, random_state):
    net, X = decaying()
    with pytest.warns(NoGapWarning):
        curve = rank_curve(
            net, X, likelihood="gaussian", sizes=range(1, 61), tol=1e-6, solver=solver,
            random_state=random_state,
        )  # fmt: skip
    assert (np.diff(curve.ranks) >= 0).all()
    assert (curve.ranks <= curve.n_rows).all()


def test_the_order_of_the_samples_is_drawn():
    """Sorted samples: the first half is zero, and shows the bias alone."""
    net = nn.Linear(3, 1).double()
    X = torch.cat([torch.zeros(20, 3), normal(20, 3)])
    curve = rank_curve(net, X, likelihood="gaussian", sizes=[20, 40])
    assert curve.ranks.tolist() == [4, 4]
    again = rank_curve(net, X, likelihood="gaussian", sizes=[40, 20, 20])
    np.testing.assert_array_equal(again.ranks, curve.ranks)


def test_dicts_and_targets_follow_the_order():
    net = WrappedModel(mlp(3, 4, 3), lambda module, inputs: module(inputs["x"]))
    y = np.arange(30) % 3
    curve = rank_curve(net, {"x": normal(30, 3)}, y)
    assert curve.n_rows[-1] == 60  # the labels say categorical


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": [5, 41]}, r"sizes=\[5, 41\] for 40 samples"),
        ({"sizes": 50}, "sizes=50 for 40 samples"),
        ({"sizes": []}, "expected numbers of samples"),
        ({"sizes": [0, 3]}, "positive integer"),
        ({"sizes": [2.5]}, "positive integer"),
        ({"solver": "lanczos"}, "solver='lanczos'"),
        ({"random_state": -1}, "random_state=-1"),
    ],
)
def test_bad_requests_are_refused(options, message):
    with pytest.raises(SkgeoError, match=message):
        rank_curve(mlp(3, 4, 3), normal(40, 3), likelihood="gaussian", **options)


@pytest.fixture
def ax():
    return Figure().subplots()


def test_the_display_draws_the_curve_and_its_bounds(ax):
    curve = rank_curve(tanh_net(), normal(300, 10), likelihood="categorical")
    display = RankCurveDisplay.from_curve(curve, ax=ax)
    line, rows, parameters = display.lines_
    np.testing.assert_array_equal(line.get_xdata(), curve.n_samples)
    np.testing.assert_array_equal(line.get_ydata(), curve.ranks)
    assert rows.get_ydata()[-1] == pytest.approx(P)
    assert parameters.get_ydata()[0] == P
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("number of samples", "Fisher rank")
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["rank 262 of 283, levelled", "number of rows", "number of parameters"]


def test_the_display_of_an_estimator_measures_as_it_does(ax):
    net, X = mlp(3, 4, 3), normal(60, 3)
    fitted = FisherRankEstimator(net, likelihood="categorical", parameters=["0.weight"]).fit(X)
    display = RankCurveDisplay.from_estimator(fitted, X, ax=ax, sizes=[30, 60], label="tanh")
    assert display.curve.n_parameters == 12
    assert display.curve.ranks[-1] == fitted.fisher_rank_
    assert ax.get_legend().get_texts()[0].get_text().startswith("tanh: rank")
    with pytest.raises(SkgeoError, match=r"expected the RankCurve that skgeo.fisher.rank_curve"):
        RankCurveDisplay.from_curve(fitted)


def test_a_spectrum_that_the_samples_limit_is_drawn_as_such():
    with limited:
        fitted = FisherRankEstimator(mlp(4, 5, 3), likelihood="categorical").fit(normal(6, 4))
    display = SpectrumDisplay.from_estimator(fitted, ax=Figure().subplots(1, 2))
    (text, _) = display.axes_[0].get_legend().get_texts()
    assert text.get_text() == "rank 12 of 12, limited by the samples"
