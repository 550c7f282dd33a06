"""Dimensions of fibers and components of strata, from bars and widths alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

from skgeo.exceptions import SkgeoError
from skgeo.fiber._barcode import Barcode
from skgeo.fiber._learning_coefficient import check_widths, linear_network_coefficient


def differential_rank(barcode: Barcode, input_ranks: Sequence[int] | None = None) -> int:
    r"""Rank of the differential of the product map at a point with these bars.

    .. math::

        \operatorname{rank} d\mu = \sum_{l=1}^{L} r_{L,l}\, r_{l-1,0}
                                 - \sum_{l=1}^{L-1} r_{L,l}\, r_{l,0}

    It is the rank of the Fisher metric with Gaussian outputs of fixed noise, if the inputs span
    their space. If they only span a subspace, with a basis Q, the ranks of
    :math:`W_{l\sim 0} Q` take the place of :math:`r_{l,0}`.

    Parameters
    ----------
    barcode : Barcode
    input_ranks : sequence of int, length L or L + 1, default=None
        Entry l is the rank of W_l ... W_1 Q, entry 0 the dimension of the span. The entry l = L is
        not used. None for inputs that span their space: the first column of the rank list.

    Returns
    -------
    int

    Raises
    ------
    SkgeoError
        If `input_ranks` has another length, or exceeds the ranks of the barcode.

    See Also
    --------
    skgeo.fiber.input_ranks : The ranks for given inputs.

    Examples
    --------
    >>> differential_rank(Barcode(2, [(0, 0, 2), (0, 2, 1), (1, 1, 1), (2, 2, 2)]))
    5
    """
    depth = barcode.depth
    ranks = barcode.rank_list()
    to_output = [int(r) for r in ranks[depth]]
    from_input = [int(r) for r in (ranks[:, 0] if input_ranks is None else np.asarray(input_ranks))]
    if len(from_input) not in (depth, depth + 1):
        raise SkgeoError(
            f"input_ranks has {len(from_input)} entries; expected one for each layer from 0 to "
            f"{depth - 1}, as the network has depth {depth}."
        )
    if any(
        not 0 <= given <= int(full) for given, full in zip(from_input, ranks[:, 0], strict=False)
    ):
        raise SkgeoError(
            f"The input_ranks {from_input} exceed the ranks {ranks[:, 0].tolist()} that the layers "
            "reach with all inputs, or are negative. Compute them with skgeo.fiber.input_ranks."
        )
    return sum(
        to_output[layer] * (from_input[layer - 1] - (from_input[layer] if layer < depth else 0))
        for layer in range(1, depth + 1)
    )


def closed_stratum(widths: Iterable[int], rank: int) -> Barcode:
    """The closed stratum of a fiber: r bars [0, L], all others of a single layer.

    It is contained in the closure of every other stratum. The whole fiber is a manifold exactly if
    its points are smooth.

    Parameters
    ----------
    widths : iterable of int
        d_0, ..., d_L.
    rank : int
        Rank of W.

    Returns
    -------
    Barcode

    Raises
    ------
    SkgeoError
        If the widths or the rank cannot occur.

    Examples
    --------
    >>> code = closed_stratum([3, 2, 3], 1)
    >>> code.bars, code.dimension, code.is_smooth
    (((0, 0, 2), (0, 2, 1), (1, 1, 1), (2, 2, 2)), 3, False)
    """
    dims, rank = check_widths(widths, rank)
    depth = len(dims) - 1
    single = [(layer, layer, width - rank) for layer, width in enumerate(dims)]
    return Barcode(depth, ((0, depth, rank), *single))


def fiber_codimension(widths: Iterable[int], rank: int) -> int:
    """Codimension of the fiber of a W of this rank: twice the learning coefficient.

    Parameters
    ----------
    widths : iterable of int
        d_0, ..., d_L.
    rank : int
        Rank of W.

    Returns
    -------
    int

    Notes
    -----
    No stratum is enumerated. The formula is Aoyagi's, see
    :func:`skgeo.fiber.linear_network_coefficient`.

    Examples
    --------
    >>> fiber_codimension([5, 4, 6, 4], 2)
    18
    """
    dims, rank = check_widths(widths, rank)
    codimension = 2 * linear_network_coefficient(dims, rank).value
    assert codimension.denominator == 1
    return int(codimension)


def fiber_dimension(widths: Iterable[int], rank: int) -> int:
    """Dimension of the fiber, that of its largest strata.

    Parameters
    ----------
    widths : iterable of int
        d_0, ..., d_L.
    rank : int
        Rank of W.

    Returns
    -------
    int

    Examples
    --------
    >>> fiber_dimension([5, 4, 6, 4], 2)
    50
    """
    dims, rank = check_widths(widths, rank)
    return sum(a * b for a, b in pairwise(dims)) - fiber_codimension(dims, rank)


def n_components(barcode: Barcode) -> int:
    r"""Number of connected components of the stratum, over the real numbers.

    The stratum is one orbit of the group H of base changes that keep the product: hidden ones,
    and pairs at the two ends with :math:`g_L W = W g_0`. Its components are counted by
    :math:`\pi_0(H)` modulo the image of :math:`\pi_0` of the stabiliser. Both are powers of Z/2,
    as GL(n, R) has two components. H has one sign for each hidden layer, and one for each of
    GL(r), GL(d_0 - r) and GL(d_L - r) that is not trivial. The stabiliser has one sign for each
    bar present, which flips the signs of the layers that contain it.

    Parameters
    ----------
    barcode : Barcode

    Returns
    -------
    int
        A power of two.

    Examples
    --------
    The axis of the cross w_2 w_1 = 0, without its origin, is two half-lines:

    >>> n_components(Barcode(2, [(0, 1, 1), (2, 2, 1)]))
    2
    """
    depth, rank = barcode.depth, barcode.rank
    # Bit 0: GL(r); bit 1: GL(d_0 - r); bit 2: GL(d_L - r); bit 2 + l: hidden layer l.
    n_signs = (depth - 1) + (rank > 0)
    n_signs += (barcode.widths[0] > rank) + (barcode.widths[-1] > rank)
    vectors = []
    for birth, death, _ in barcode.bars:
        flips = sum(1 << (2 + layer) for layer in range(max(birth, 1), min(death, depth - 1) + 1))
        if (birth, death) == (0, depth):
            flips |= 1
        elif birth == 0:
            flips |= 2
        elif death == depth:
            flips |= 4
        vectors.append(flips)
    return int(2 ** (n_signs - _rank_mod_2(vectors)))


def _rank_mod_2(vectors: list[int]) -> int:
    basis: list[int] = []
    for vector in vectors:
        for pivot in basis:
            vector = min(vector, vector ^ pivot)
        if vector:
            basis.append(vector)
    return len(basis)
