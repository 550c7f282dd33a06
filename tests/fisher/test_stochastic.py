import warnings

import numpy as np
import pytest
import torch

from helpers.networks import mlp, normal
from skgeo import FisherRankEstimator, GeometryWarning, SkgeoError
from skgeo.fisher import FisherOperator, SpectrumDisplay, fisher_spectrum

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*Estimated from .* random probes"),
    pytest.mark.filterwarnings("ignore:Fisher rank .* is the number of rows"),
]


def network():
    return mlp(30, 40, 10), normal(40, 30)


def stochastic(net, X, **options):
    return FisherRankEstimator(net, likelihood="categorical", solver="stochastic", **options).fit(X)


def test_estimates_lie_beside_the_exact_values():
    net, X = network()
    exact = fisher_spectrum(net, X, likelihood="categorical")
    found = stochastic(net, X)
    assert abs(found.trace_ - exact.trace) < 4 * found.trace_stderr_ < 0.1 * exact.trace
    ratio = exact.participation_ratio
    assert abs(found.participation_ratio_ - ratio) < 4 * found.participation_ratio_stderr_ < ratio
    G = FisherOperator(net, X, likelihood="categorical")
    assert found.trace_ == G.trace(32).value
    assert found.participation_ratio_ == G.participation_ratio(32).value
    assert found.plan_.side == "stochastic"


def test_what_probes_cannot_tell_is_nan_in_one_warning():
    net, X = network()
    with pytest.warns(GeometryWarning, match="rank, nullity, eigenvalues") as caught:
        found = stochastic(net, X)
    assert len(caught) == 1
    known = {"fisher_trace", "fisher_participation_ratio", "n_parameters"}
    assert {name for name, value in found.summary().items() if not np.isnan(value)} == known
    assert np.isnan(found.fisher_rank_)
    assert np.isnan(found.nullity_)
    assert found.eigenvalues_.shape == (0,)
    with pytest.raises(SkgeoError, match="solver='stochastic' does not compute"):
        found.null_space()
    with pytest.raises(SkgeoError, match="no direction was kept"):
        found.transform(X)
    with pytest.raises(SkgeoError, match="no eigenvalues"):
        SpectrumDisplay.from_estimator(found)


def test_few_probes_have_a_trace_only():
    net, X = network()
    with pytest.warns(GeometryWarning, match="the last needs 16 probes"):
        found = stochastic(net, X, n_probes=4)
    assert found.trace_stderr_ > 0
    assert np.isnan(found.participation_ratio_)
    with pytest.raises(SkgeoError, match="n_probes=1; a standard error"):
        stochastic(net, X, n_probes=1)


def test_neither_side_fits():
    net, X = network()
    with pytest.warns(GeometryWarning, match=r"Gram matrices of 400 x 400 .* can be used"):
        found = FisherRankEstimator(net, likelihood="categorical", memory_budget="1 MiB").fit(X)
    assert found.plan_.side == "stochastic"
    assert found.trace_ == pytest.approx(stochastic(net, X).trace_)
    with pytest.warns(GeometryWarning) as caught:
        few = FisherRankEstimator(net, likelihood="categorical", memory_budget="400 KiB").fit(X)
    assert "the last needs 32 vectors of 1650 numbers" in str(caught[-1].message)
    assert few.trace_ == pytest.approx(found.trace_)
    assert np.isnan(few.participation_ratio_)


def test_both_readings_agree_and_seeds_decide():
    net, X = network()
    table = [(net, X), (mlp(30, 5, 10), X)]
    options = {"likelihood": "categorical", "solver": "stochastic"}
    rows = FisherRankEstimator(**options).fit_transform(table)
    for row, (model, data) in zip(rows, table, strict=True):
        fitted = FisherRankEstimator(model, **options).fit(data)
        np.testing.assert_allclose(row, list(fitted.summary().values()), rtol=1e-10)
    np.testing.assert_array_equal(rows, FisherRankEstimator(n_jobs=2, **options).transform(table))
    other = FisherRankEstimator(random_state=1, **options).fit_transform(table)
    assert (rows[:, 4] != other[:, 4]).all()


def test_exact_values_have_no_error():
    net, X = mlp(4, 5, 3), normal(40, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exact = FisherRankEstimator(net, likelihood="categorical").fit(X)
    assert exact.trace_stderr_ == exact.participation_ratio_stderr_ == 0.0


def test_directions_are_kept_as_far_as_a_tenth_of_the_budget_goes():
    net, X = network()
    options = {"likelihood": "categorical", "tol": 1e-9}
    every = FisherRankEstimator(net, n_components=None, **options).fit(X)
    same = FisherRankEstimator(net, **options).fit(X)
    np.testing.assert_array_equal(every.components_, same.components_)
    some = FisherRankEstimator(net, memory_budget="12 MiB", **options).fit(X)
    assert len(some.components_) == 12 * 2**20 // (10 * 8 * 1650) < every.fisher_rank_
    np.testing.assert_allclose(some.components_, every.components_[:95], atol=1e-6)


def test_lanczos_holds_a_basis_and_one_graph():
    # Many outputs: the Jacobian of one sample does not fit, and Lanczos does not need it.
    torch.manual_seed(0)
    net, X = mlp(6, 8, 3000), normal(4, 6)
    with pytest.warns(GeometryWarning, match="3 leading eigenpairs"):
        found = fisher_spectrum(
            net, X, likelihood="categorical", solver="lanczos", n_components=3,
            memory_budget="12 MiB",
        )  # fmt: skip
    assert found.trace_stderr > 0
    G = FisherOperator(net, X, likelihood="categorical")
    v = found.row_space
    torch.testing.assert_close(G @ v.T, v.T * found.eigenvalues, rtol=0, atol=1e-8)
    exact = G.trace(None).value
    assert abs(found.trace - exact) < 4 * found.trace_stderr


def test_leading_eigenvalues_are_drawn():
    pytest.importorskip("matplotlib").use("Agg")
    net, X = network()
    with pytest.warns(GeometryWarning, match="4 leading eigenpairs"):
        some = FisherRankEstimator(
            net, likelihood="categorical", solver="lanczos", n_components=4
        ).fit(X)
    display = SpectrumDisplay.from_estimator(some)
    np.testing.assert_array_equal(display.lines_[0].get_ydata(), some.eigenvalues_)
    assert "4 leading eigenvalues" in display.axes_[0].get_legend().get_texts()[0].get_text()
