from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given

from helpers.fiber_oracles import (
    all_widths,
    barcodes,
    brute_force_order,
    brute_force_strata,
    some_widths,
)
from skgeo import fiber
from skgeo.fiber import Barcode


def check_fiber(widths, rank):
    strata = brute_force_strata(widths, rank)
    below = brute_force_order(strata)
    codimensions = np.array([code.codimension for code in strata])
    for k, code in enumerate(strata):
        least = codimensions[below[k]].min()
        differential = fiber.differential_rank(code)
        lower, upper = fiber.coefficient_bounds(code)
        assert (2 * lower, 2 * upper) == (max(codimensions.min(), differential), least)
        assert code.is_smooth is bool(differential == least)
        assert code.is_maximal is bool(below[k].sum() == 1)
        assert code.is_closed is bool(below[k].all())


@pytest.mark.parametrize(("depth", "most"), [(1, 3), (2, 3), (3, 2)])
def test_against_all_strata_above(depth, most):
    for widths in all_widths(depth, most):
        for rank in range(min(widths) + 1):
            check_fiber(widths, rank)


def test_against_all_strata_above_in_uneven_fibers():
    check_fiber((5, 4, 6, 4), 1)
    check_fiber((2, 4, 1, 5, 3), 0)
    check_fiber((3, 2, 4, 2, 2, 3), 1)


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "most", "count"), [(2, 5, 70), (3, 4, 35), (4, 3, 20)])
def test_against_all_strata_above_in_larger_fibers(depth, most, count):
    for widths in some_widths(depth, most, count):
        for rank in range(min(widths) + 1):
            check_fiber(widths, rank)


@pytest.mark.parametrize(
    ("widths", "rank"), [([256] * 9, 3), ([40, 7, 300, 12, 12, 90], 5), ([1] * 30, 0)]
)
def test_closed_stratum_sees_the_whole_fiber(widths, rank):
    """The minimum over differences of ranks and Aoyagi's formula are found independently."""
    closed = fiber.closed_stratum(widths, rank)
    assert fiber.local_codimension(closed) == fiber.fiber_codimension(widths, rank)


@given(barcodes())
def test_bracket_and_symmetry(code):
    local = fiber.local_codimension(code)
    assert fiber.differential_rank(code) <= local <= code.codimension
    assert fiber.fiber_codimension(code.widths, code.rank) <= local
    assert fiber.local_codimension(code.transpose()) == local
    assert code.transpose().is_smooth is code.is_smooth
    if code.is_maximal:
        assert code.is_smooth


@given(barcodes(max_depth=6))
def test_moving_up_cannot_lower_the_local_codimension(code):
    for upper in fiber.up_covers(code):
        assert fiber.local_codimension(upper) >= fiber.local_codimension(code)
        if code.is_smooth:
            assert upper.is_smooth


def test_smooth_without_being_maximal():
    code = Barcode(2, [(0, 0, 3), (1, 1, 1), (1, 2, 2)])
    assert code.is_smooth
    assert not code.is_maximal


def test_bounds_meet_at_smooth_points():
    assert fiber.coefficient_bounds(Barcode(2, [(0, 1, 1), (2, 2, 1)])) == (Fraction(1, 2),) * 2
