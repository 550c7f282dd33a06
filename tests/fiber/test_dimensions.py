from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.fiber_oracles import (
    all_widths,
    barcodes,
    brute_force_strata,
    differential,
    exact_rank,
    orbit_tangents,
)
from skgeo import fiber
from skgeo.exceptions import SkgeoError
from skgeo.fiber import Barcode
from skgeo.fiber._learning_coefficient import thin_layers

# widths, rank, strata, covers, least dimension, dimension, maximal, of that dimension
TABLE = [
    ([1, 1, 1], 0, 3, 2, 0, 1, 2, 2),
    ([2, 2, 2], 0, 6, 6, 0, 5, 3, 1),
    ([2, 2, 2], 1, 3, 2, 3, 4, 2, 2),
    ([3, 2, 3], 1, 3, 2, 3, 5, 2, 2),
    ([2, 2, 2, 2], 0, 27, 49, 0, 9, 6, 3),
    ([5, 4, 6, 4], 0, 272, 726, 0, 54, 8, 3),
    ([5, 4, 6, 4], 1, 115, 277, 18, 52, 5, 1),
    ([5, 4, 6, 4], 2, 39, 80, 32, 50, 3, 2),
    ([5, 4, 6, 4], 3, 9, 13, 42, 49, 2, 1),
    ([4, 4, 4, 4], 2, 27, 49, 24, 33, 6, 3),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row[0]}-{row[1]}")
def test_published_table(row):
    widths, rank, n_strata, covers, least, dimension, maximal, top = row
    diagram = fiber.hasse_diagram(widths, rank)
    assert (len(diagram.nodes), len(diagram.edges)) == (n_strata, covers)
    assert fiber.count_strata(widths, rank) == n_strata
    assert fiber.closed_stratum(widths, rank).dimension == min(diagram.dimensions) == least
    assert fiber.fiber_dimension(widths, rank) == max(diagram.dimensions) == dimension
    assert len(diagram.maximal) == maximal
    assert diagram.dimensions.count(dimension) == top


def hom(first, second):
    (a, b), (c, e) = first, second
    return c <= a <= e <= b


@given(barcodes())
def test_orbit_is_the_group_less_the_automorphisms(code):
    automorphisms = sum(
        m * n * hom((a, b), (c, e)) for a, b, m in code.bars for c, e, n in code.bars
    )
    group = sum(width**2 for width in code.widths)
    assert code.orbit_dimension == group - automorphisms
    turned = code.transpose()
    assert turned.orbit_dimension == code.orbit_dimension
    assert turned.dimension == code.dimension
    assert fiber.differential_rank(turned) == fiber.differential_rank(code)
    assert fiber.n_components(turned) == fiber.n_components(code)


@settings(max_examples=25, deadline=None)
@given(barcodes(max_depth=3, max_bars=4))
def test_dimensions_are_ranks_of_integer_matrices(code):
    weights = fiber.representative(code)
    assert exact_rank(differential(weights)) == fiber.differential_rank(code)
    assert exact_rank(orbit_tangents(weights)) == code.orbit_dimension


@settings(max_examples=40, deadline=None)
@given(barcodes(max_depth=4, max_bars=5), st.integers(0, 2**32 - 1))
def test_differential_rank_on_a_subspace_of_inputs(code, seed):
    rng = np.random.default_rng(seed)
    weights = fiber.representative(code)
    basis = rng.integers(-1, 2, size=(code.widths[0], rng.integers(1, code.widths[0] + 1)))
    reached = [exact_rank(basis)]
    images = basis
    for weight in weights:
        images = weight @ images
        reached.append(exact_rank(images))
    seen = [
        np.kron(ahead, behind.T) for ahead, behind in zip(*_factors(weights, basis), strict=True)
    ]
    assert fiber.differential_rank(code, reached) == exact_rank(np.hstack(seen))
    assert fiber.differential_rank(code, reached[:-1]) == exact_rank(np.hstack(seen))


def _factors(weights, basis):
    behind = [basis]
    for weight in weights[:-1]:
        behind.append(weight @ behind[-1])
    ahead = [np.eye(weights[-1].shape[0], dtype=int)]
    for weight in weights[:0:-1]:
        ahead.append(ahead[-1] @ weight)
    return ahead[::-1], behind


def test_input_ranks_are_checked():
    code = Barcode(2, [(0, 2, 2)])
    with pytest.raises(SkgeoError, match="1 entries"):
        fiber.differential_rank(code, [2])
    with pytest.raises(SkgeoError, match="exceed"):
        fiber.differential_rank(code, [3, 2])


def test_components_of_small_strata_over_the_reals():
    """Sign patterns of nonzero weights are what separates the components of width 1."""
    for depth in range(1, 5):
        for code in brute_force_strata((1,) * (depth + 1), 0):
            zeros = sum(1 for matrix in fiber.representative(code) if matrix[0, 0] == 0)
            assert fiber.n_components(code) == 2 ** (depth - zeros)
        # with a product that is not zero the last sign follows from the others
        assert fiber.n_components(Barcode(depth, [(0, depth, 1)])) == 2 ** (depth - 1)


def test_components_of_invertible_factors():
    assert fiber.n_components(Barcode(3, [(0, 3, 2)])) == 4
    # one spare dimension at the hidden layer and the sign of W_1 can be undone
    assert fiber.n_components(Barcode(2, [(0, 2, 2), (1, 1, 1)])) == 1


def test_depth_one_fiber_is_a_point():
    assert fiber.fiber_dimension([3, 4], 2) == 0
    assert fiber.closed_stratum([3, 4], 2).is_smooth
    assert [code.bars for code in fiber.strata([3, 4], 2)] == [((0, 0, 1), (0, 1, 2), (1, 1, 2))]


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_fiber_codimension_is_the_least_of_its_strata(depth):
    for widths in all_widths(depth, 3):
        for rank in range(min(widths) + 1):
            codimensions = [code.codimension for code in brute_force_strata(widths, rank)]
            assert fiber.fiber_codimension(widths, rank) == min(codimensions)
            thin = thin_layers(widths, rank)
            assert comb(thin.ell, thin.remainder) == codimensions.count(min(codimensions))


def test_closed_stratum_is_below_all_others():
    closed = fiber.closed_stratum([3, 2, 3, 2], 1)
    assert all(fiber.in_closure(closed, code) for code in fiber.strata([3, 2, 3, 2], 1))
