import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skgeo.exceptions import NoGapWarning, RankAmbiguityWarning, SkgeoError
from skgeo.linalg._rank import decide_rank, resolution

SPECTRUM = torch.tensor([4.0, 1.0, 1e-6, 1e-14], dtype=torch.float64)


@pytest.mark.parametrize(("tol", "rank"), [(0.5, 1), (1e-3, 2), (1e-9, 3)])
def test_rank_counts_values_above_the_relative_tolerance(tol, rank):
    decision = decide_rank(SPECTRUM, tol=tol, resolution=1e-13) if rank > 1 else None
    if decision is None:
        with pytest.warns(RankAmbiguityWarning, match="factor of 4"):
            decision = decide_rank(SPECTRUM, tol=tol, resolution=1e-13)
    assert decision.rank == rank
    assert decision.threshold == tol * 4.0
    assert decision.gap == pytest.approx(float(SPECTRUM[rank - 1] / SPECTRUM[rank]), rel=1e-15)


def test_auto_tolerance_is_the_resolution():
    decision = decide_rank(SPECTRUM, resolution=1e-10)
    assert (decision.rank, decision.tol) == (3, 1e-10)


def test_full_rank_has_an_infinite_gap():
    assert decide_rank(SPECTRUM[:3], resolution=1e-10).gap == float("inf")


@pytest.mark.parametrize(
    ("shape", "limited"), [((3, 9), True), ((4, 9), False), ((3, 3), False), ((9, 3), False)]
)
def test_as_many_as_the_rows_is_a_property_of_the_sample(shape, limited):
    values = SPECTRUM[:3] if min(shape) == 3 else SPECTRUM
    if limited:
        with pytest.warns(RankAmbiguityWarning, match="rank 3 is the number of rows .* 9 dim"):
            decision = decide_rank(values, resolution=1e-10, shape=shape)
        assert np.isnan(decision.gap)
        assert "limited by the samples" in repr(decision)
    else:
        decision = decide_rank(values, resolution=1e-10, shape=shape)
        assert decision.gap == (float("inf") if min(shape) == 3 else pytest.approx(1e8))
    assert (decision.rank, decision.sample_limited) == (3, limited)


def test_no_gap_is_said_once_per_process_and_stands_in_the_result():
    with pytest.warns(NoGapWarning, match="once per process"):
        first = decide_rank(SPECTRUM, tol=0.5, resolution=1e-13)
    again = decide_rank(SPECTRUM, tol=0.5, resolution=1e-13)  # a second warning would fail
    assert first.is_ambiguous
    assert "no clear gap 4" in repr(again)


def test_zero_spectrum_has_rank_zero():
    decision = decide_rank(torch.zeros(3), resolution=1e-10)
    assert (decision.rank, decision.threshold, decision.gap) == (0, 0.0, float("inf"))


def test_path_agrees_with_counting_and_does_not_go_below_the_resolution():
    decision = decide_rank(SPECTRUM, resolution=1e-10)
    assert decision.path_tol[0] == pytest.approx(1e-10)
    assert decision.path_tol[-1] < 1.0
    relative = SPECTRUM.numpy() / 4.0
    assert decision.path_rank.tolist() == [(relative > tol).sum() for tol in decision.path_tol]


def test_tolerance_below_the_resolution_warns():
    with pytest.warns(RankAmbiguityWarning, match="may count rounding"):
        decide_rank(SPECTRUM, tol=1e-15, resolution=1e-10)


@pytest.mark.parametrize("tol", [-1e-3, 1.0, 2.0, float("nan")])
def test_tolerance_out_of_range_is_refused(tol):
    with pytest.raises(SkgeoError, match="relative to the largest"):
        decide_rank(SPECTRUM, tol=tol, resolution=1e-10)


def test_resolution_of_a_float32_matrix_is_its_own_precision_squared():
    eps = torch.finfo(torch.float32).eps
    assert resolution(100, 7, torch.float32) == pytest.approx(100 * eps**2)
    assert resolution(100, 7, torch.float32, squared=False) == pytest.approx(100 * eps**2)
    assert resolution(100, 7, squared=False) < 1e-28 < resolution(100, 7)


@given(
    st.integers(0, 5),
    st.floats(-8, 0),
    st.floats(-3, 3),
)
def test_rank_does_not_depend_on_scale(rank, log_tol, log_scale):
    values = np.r_[np.linspace(1.0, 0.5, 5)[:rank], np.zeros(2)]
    plain = decide_rank(torch.from_numpy(values), tol=10**log_tol / 4, resolution=1e-13)
    scaled = decide_rank(
        torch.from_numpy(values * 10**log_scale), tol=10**log_tol / 4, resolution=1e-13
    )
    assert plain.rank == scaled.rank == rank


def test_what_rounding_may_give_does_not_count():
    """Errors of A of a ten-thousandth give eigenvalues of (3e-4)^2 times the effective rank."""
    decision = decide_rank(SPECTRUM, resolution=1e-15, error=lambda: 1e-4)
    assert decision.tol == pytest.approx(9e-8 * float(SPECTRUM.sum()) / 4.0)
    assert decision.rank == 3
    assert decide_rank(SPECTRUM, resolution=1e-15, error=lambda: 1e-3).rank == 2
    with pytest.warns(RankAmbiguityWarning, match="it may count rounding"):
        decide_rank(SPECTRUM, tol=1e-9, resolution=1e-15, error=lambda: 1e-4)


def test_rounding_is_not_measured_where_it_cannot_change_the_rank():
    def error():
        raise AssertionError("was asked")

    clear = torch.tensor([4.0, 1.0, 1e-20], dtype=torch.float64)
    assert decide_rank(clear, resolution=1e-13, error=error).rank == 2
