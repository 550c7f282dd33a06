"""Learning coefficients known in closed form."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from operator import index

from skgeo._results import Result
from skgeo.exceptions import SkgeoError


@dataclass(frozen=True, repr=False)
class LearningCoefficient(Result):
    """A learning coefficient (real log canonical threshold) and its multiplicity.

    Attributes
    ----------
    value : Fraction
        lambda. The volume of {K < eps} decreases like eps^lambda (-log eps)^(m - 1).
    multiplicity : int
        m.
    """

    value: Fraction
    multiplicity: int

    def _line(self) -> str:
        return f"lambda {self.value}, multiplicity {self.multiplicity}"


@dataclass(frozen=True)
class ThinLayers:
    """The layers of a linear network that decide its learning coefficient.

    Attributes
    ----------
    excess : tuple of int
        Width minus rank of the chosen layers, ascending.
    ell : int
        One less than their number.
    ceiling : int
        Their sum over ``ell``, rounded up.
    remainder : int
        Their sum minus ``(ceiling - 1) * ell``, from 1 to ``ell``.
    """

    excess: tuple[int, ...]
    ell: int
    ceiling: int
    remainder: int


def check_widths(widths: Iterable[int], rank: int) -> tuple[tuple[int, ...], int]:
    """Widths and rank as Python integers, if some linear network has them.

    widths: d_0, ..., d_L, at least two, each positive.
    rank: rank of the product of the weights, between 0 and the smallest width.
    Raises SkgeoError if the widths or the rank cannot occur.
    """
    try:
        dims, rank = tuple(index(width) for width in widths), index(rank)
    except TypeError:
        raise SkgeoError(
            f"Got widths={widths!r} and rank={rank!r}; expected integers d_0, ..., d_L and an "
            "integer rank."
        ) from None
    if len(dims) < 2 or min(dims) < 1:
        raise SkgeoError(f"Widths are d_0, ..., d_L with L >= 1, all at least 1; got {dims}.")
    if not 0 <= rank <= min(dims):
        raise SkgeoError(
            f"No network of widths {dims} computes a map of rank {rank}: the rank is between 0 "
            f"and the smallest width, {min(dims)}."
        )
    return dims, rank


def thin_layers(widths: Iterable[int], rank: int) -> ThinLayers:
    """The set of thinnest layers in Aoyagi's formula.

    These are the ell + 1 layers with the smallest widths minus rank. Here ell >= 1 is the unique
    number for which their sum is at least ell times the largest one taken and less than ell times
    the smallest one left.

    widths: d_0, ..., d_L.
    rank: of the true map, at most the smallest width.
    Raises SkgeoError if the widths or the rank cannot occur.
    """
    dims, rank = check_widths(widths, rank)
    excess = sorted(width - rank for width in dims)
    total = excess[0]
    for ell in range(1, len(excess)):
        total += excess[ell]
        fits = total >= ell * excess[ell]
        if fits and (ell + 1 == len(excess) or total < ell * excess[ell + 1]):
            break
    else:
        raise AssertionError("One prefix always satisfies the inequalities.")
    # If all chosen excesses are zero, the ceiling is 0 and the remainder ell, as it should be.
    ceiling = -(-total // ell)
    return ThinLayers(tuple(excess[: ell + 1]), ell, ceiling, total - (ceiling - 1) * ell)


def linear_network_coefficient(widths: Iterable[int], rank: int) -> LearningCoefficient:
    r"""Learning coefficient of a deep linear network, exactly.

    Let r be the rank and :math:`M_s` the width minus r of the layers, sorted. Take the
    :math:`\ell + 1` smallest, where :math:`\ell \ge 1` is the unique number for which their sum S
    is at least :math:`\ell` times the largest one taken and less than :math:`\ell` times the
    smallest one left. With M the ceiling of :math:`S/\ell` and :math:`a = S - (M-1)\ell`,

    .. math::

        \lambda = \frac{r(d_0 + d_L - r)}{2} + \frac{a(\ell - a)}{4\ell}
                - \frac{\ell(\ell-1)}{4}\Big(\frac{S}{\ell}\Big)^2
                + \frac12 \sum_{i<j} M_i M_j, \qquad m = a(\ell - a) + 1.

    Parameters
    ----------
    widths : iterable of int
        d_0, ..., d_L.
    rank : int
        Rank of the true map.

    Returns
    -------
    LearningCoefficient

    Raises
    ------
    SkgeoError
        If the widths or the rank cannot occur.

    See Also
    --------
    skgeo.fiber.coefficient_bounds : Bounds for the coefficient at a point of the fiber.

    Notes
    -----
    The loss is the squared error, with inputs whose second moment is not singular. The coefficient
    is that of the whole fiber; at a single point lambda can be larger.

    References
    ----------
    M. Aoyagi, "Consideration on the learning efficiency of multiple-layered neural networks with
    linear units", Neural Networks 172 (2024).

    Examples
    --------
    >>> linear_network_coefficient([10, 10, 10, 10], 5)
    LearningCoefficient(lambda 46, multiplicity 3)
    """
    dims, rank = check_widths(widths, rank)
    thin = thin_layers(dims, rank)
    ell, a, total = thin.ell, thin.remainder, sum(thin.excess)
    pairs = (total**2 - sum(m**2 for m in thin.excess)) // 2
    value = (  # Aoyagi (2024), lambda and m for the squared error
        Fraction(rank * (dims[0] + dims[-1] - rank), 2)
        + Fraction(a * (ell - a), 4 * ell)
        - Fraction((ell - 1) * total**2, 4 * ell)
        + Fraction(pairs, 2)
    )
    return LearningCoefficient(value, a * (ell - a) + 1)
