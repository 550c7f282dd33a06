from fractions import Fraction
from itertools import product

import pytest

from skgeo.exceptions import SkgeoError
from skgeo.fiber import fiber_codimension, strata
from skgeo.fiber._learning_coefficient import (
    LearningCoefficient,
    check_widths,
    linear_network_coefficient,
    thin_layers,
)

TABLE = [
    ([1, 1, 1], 0, Fraction(1, 2), 2),
    ([2, 2, 2], 0, Fraction(3, 2), 1),
    ([2, 2, 2], 1, 2, 2),
    ([3, 3, 3], 0, Fraction(7, 2), 2),
    ([3, 3, 3], 1, 4, 1),
    ([5, 3, 5], 1, 8, 1),
    ([10, 5, 10], 3, 32, 1),
    ([10, 10, 10, 10], 5, 46, 3),
]


@pytest.mark.parametrize(("widths", "rank", "value", "multiplicity"), TABLE)
def test_published_values(widths, rank, value, multiplicity):
    expected = LearningCoefficient(Fraction(value), multiplicity)
    assert linear_network_coefficient(widths, rank) == expected


def test_regular_models():
    # One matrix is a linear regression: half of its parameters.
    assert linear_network_coefficient([3, 4], 2) == LearningCoefficient(Fraction(6), 1)
    # At the rank of the narrowest layer the fiber is a manifold: half of its codimension.
    assert linear_network_coefficient([5, 3, 5], 3).value == Fraction(3 * (5 + 5 - 3), 2)


def test_products_of_numbers():
    """w_1 ... w_L = 0 is a normal crossing: lambda = 1/2, and L factors attain it."""
    for depth in range(1, 7):
        assert linear_network_coefficient([1] * (depth + 1), 0) == LearningCoefficient(
            Fraction(1, 2), depth
        )


@pytest.mark.parametrize(("depth", "most"), [(1, 4), (2, 4), (3, 4), (4, 3)])
def test_twice_the_coefficient_is_the_codimension_of_the_fiber(depth, most):
    for widths in product(range(1, most + 1), repeat=depth + 1):
        for rank in range(min(widths) + 1):
            least = min(code.codimension for code in strata(widths, rank))
            assert 2 * linear_network_coefficient(widths, rank).value == least
            assert fiber_codimension(widths, rank) == least


def test_order_of_layers_matters_only_at_the_ends():
    inner = linear_network_coefficient([4, 2, 7, 3, 5], 1)
    assert inner == linear_network_coefficient([4, 7, 3, 2, 5], 1)
    assert inner == linear_network_coefficient([5, 3, 7, 2, 4], 1)


@pytest.mark.parametrize("widths", list(product(range(1, 6), repeat=4)))
def test_one_prefix_satisfies_the_inequalities(widths):
    thin = thin_layers(widths, 0)
    excess = sorted(widths)
    fitting = []
    for ell in range(1, 4):
        total = sum(excess[: ell + 1])
        rest = excess[ell + 1 :]
        if total >= ell * excess[ell] and (not rest or total < ell * rest[0]):
            fitting.append(ell)
    assert fitting == [thin.ell]
    assert 1 <= thin.remainder <= thin.ell
    assert thin.remainder + (thin.ceiling - 1) * thin.ell == sum(thin.excess)


def test_widths_and_ranks_that_cannot_occur():
    with pytest.raises(SkgeoError, match="rank 3"):
        linear_network_coefficient([3, 2, 3], 3)
    with pytest.raises(SkgeoError, match="L >= 1"):
        check_widths([3], 1)
    with pytest.raises(SkgeoError, match="expected integers"):
        check_widths([3.0, 2.0], 1)
