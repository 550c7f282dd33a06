import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.fiber_oracles import barcodes, planted
from skgeo.exceptions import RankAmbiguityWarning, SkgeoError
from skgeo.fiber import Barcode, numerical_barcode, rank_tolerance, staircase

seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=200, deadline=None)
@given(barcodes(), seeds)
def test_a_planted_point_has_its_bars(code, seed):
    weights = planted(code, np.random.default_rng(seed))
    found = numerical_barcode(weights)
    assert found.barcode == found.backward_barcode == code
    assert not found.is_ambiguous
    assert found.smallest_kept > 1e3 * found.tol
    assert found.largest_dropped < 1e-3 * found.tol


@settings(max_examples=50, deadline=None)
@given(barcodes(max_bars=5), seeds)
def test_scales_of_the_layers_do_not_matter(code, seed):
    rng = np.random.default_rng(seed)
    weights = [weight * 10.0 ** rng.uniform(-40, 40) for weight in planted(code, rng)]
    assert staircase(weights).barcode == code


@settings(max_examples=50, deadline=None)
@given(barcodes(max_bars=6), seeds)
def test_bases_are_adapted_to_the_images(code, seed):
    weights = planted(code, np.random.default_rng(seed))
    stairs = staircase(weights, bases=True)
    ranks = code.rank_list()
    for layer, (basis, births) in enumerate(zip(stairs.bases, stairs.births, strict=True)):
        assert np.abs(basis.T @ basis - np.eye(len(basis))).max() < 1e-13
        assert sum(births) == code.widths[layer]
        image = np.eye(code.widths[0])
        for start in range(layer + 1):
            image = np.eye(code.widths[start])
            for weight in weights[start:layer]:
                image = weight @ image
            rank = ranks[layer, start]
            assert sum(births[: start + 1]) == rank
            outside = image - basis[:, :rank] @ (basis[:, :rank].T @ image)
            assert np.abs(outside).max() < 1e-10 * max(1.0, np.abs(image).max())


def test_ill_conditioned_deep_chain():
    """Products of eight such layers span 16 orders of magnitude: their own ranks are lost."""
    rng = np.random.default_rng(0)
    rotations = [np.linalg.qr(rng.normal(size=(6, 6)))[0] for _ in range(9)]
    spread = np.diag(10.0 ** -np.arange(6.0)[::-1] / 2)
    weights = [rotations[k + 1] @ spread @ rotations[k].T for k in range(8)]
    assert staircase(weights).barcode.bars == ((0, 8, 6),)
    whole = np.linalg.multi_dot(weights[::-1])
    assert np.linalg.matrix_rank(whole) < 6


def test_survivors_with_tiny_singular_values_stay_orthogonal():
    weights = [np.diag([1.0, 1e-8]), np.array([[1.0, 1.0], [0.0, 1e-8]])]
    stairs = staircase(weights, tol=1e-9, bases=True)
    assert stairs.barcode.bars == ((0, 2, 2),)
    for basis in stairs.bases:
        assert np.abs(basis.T @ basis - np.eye(2)).max() < 1e-15


def test_what_is_dropped_is_reported():
    weights = [np.diag([1.0, 1e-3]), np.diag([4.0, 0.0])]
    stairs = staircase(weights, tol=1e-2)
    assert stairs.barcode.bars == ((0, 0, 1), (0, 2, 1), (1, 1, 1), (2, 2, 1))
    assert stairs.dropped_norms == (pytest.approx(1e-3, rel=1e-12), 0.0)
    assert stairs.largest_dropped == pytest.approx(1e-3, rel=1e-12)
    assert (stairs.smallest_kept, stairs.gap) == (1.0, pytest.approx(1e3, rel=1e-12))
    finer = staircase(weights)
    assert finer.barcode.bars == ((0, 1, 1), (0, 2, 1), (2, 2, 1))
    assert finer.gap == float("inf")


def test_zero_network():
    stairs = staircase([np.zeros((2, 3)), np.zeros((4, 2))])
    assert stairs.barcode.bars == ((0, 0, 3), (1, 1, 2), (2, 2, 4))
    assert (stairs.smallest_kept, stairs.largest_dropped) == (1.0, 0.0)


def test_tolerance_follows_the_precision():
    assert rank_tolerance([np.eye(2)]) == pytest.approx(4.05e-10, rel=1e-2)
    assert rank_tolerance([torch.eye(2)]) == pytest.approx(7.0e-5, rel=1e-2)
    code = Barcode(3, [(0, 3, 2), (0, 1, 1), (2, 3, 1)])
    weights = planted(code, np.random.default_rng(1))
    rounded = [torch.tensor(weight, dtype=torch.float32) for weight in weights]
    assert numerical_barcode(rounded).barcode == code


@pytest.mark.parametrize("tol", [0.0, 1.0, -1e-3, float("nan"), "best"])
def test_tolerances_that_are_none(tol):
    with pytest.raises(SkgeoError, match="tol="):
        staircase([np.eye(2)], tol=tol)


def test_ambiguous_ranks_are_reported_with_their_gap():
    weights = [np.diag([1.0, 2e-3, 5e-4])]
    with pytest.warns(RankAmbiguityWarning, match=r"5.0e-04 \(gap 4.0\).*agree"):
        found = numerical_barcode(weights, tol=1e-3)
    assert found.is_ambiguous
    assert found.barcode.rank == 2
    assert not numerical_barcode(weights).is_ambiguous


def test_disagreeing_sweeps_are_ambiguous():
    weights = [
        np.array([[-0.7, 0.0], [-0.3, 0.0]]),
        np.array([[-0.1, 0.2], [-0.7, 0.1]]),
        np.array([[0.1, -0.1], [-0.9, -0.1]]),
    ]
    with pytest.warns(RankAmbiguityWarning, match="disagree"):
        found = numerical_barcode(weights, tol=0.2)
    assert found.barcode != found.backward_barcode
