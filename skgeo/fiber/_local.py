"""The fiber near a point: its codimension and learning coefficient there."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from skgeo.fiber._barcode import Barcode
from skgeo.fiber._dimensions import differential_rank, fiber_codimension


def local_codimension(barcode: Barcode) -> int:
    r"""Codimension of the fiber near the points of a stratum.

    This is the least codimension among the strata whose closure contains the given one.

    Parameters
    ----------
    barcode : Barcode

    Returns
    -------
    int

    Notes
    -----
    No stratum is enumerated. Each maximal stratum is generic among the networks with given ranks
    :math:`k_l` of :math:`W_l \cdots W_1`. These have codimension
    :math:`\sum_l (k_{l-1} - k_l)(d_l - k_l)`, and their generic member has the ranks
    :math:`r_{ji} = k_j + \min_{i \le l \le j} (d_l - k_l)`. So the given stratum, with the ranks
    :math:`r^0_{ji}`, is in the closure exactly when

    .. math:: 0 \le k_l - k_j \le d_l - r^0_{jl}, \qquad l < j, \quad k_0 = d_0, \quad k_L = r.

    Under these constraints the sum is an L-natural-convex function of the integers
    :math:`k_1, \dots, k_{L-1}`. Steepest descent, with a minimum cut in each step, minimises it
    exactly (K. Murota, *Discrete Convex Analysis*, SIAM 2003, section 10.3).

    Examples
    --------
    >>> local_codimension(Barcode(2, [(0, 0, 2), (0, 2, 1), (1, 1, 1), (2, 2, 2)]))
    7
    """
    widths, rank, depth = barcode.widths, barcode.rank, barcode.depth
    known = [[int(r) for r in row] for row in barcode.rank_list()]
    # The stratum's own ranks satisfy the constraints: descent starts there.
    ranks = [row[0] for row in known]

    def cost(k: list[int]) -> int:
        return sum((k[i - 1] - k[i]) * (widths[i] - k[i]) for i in range(1, depth + 1))

    def room(sign: int) -> dict[tuple[int, int], int]:
        """How far layer i can move in direction `sign` while layer j stays, for all (i, j)."""
        slack = {}
        for low in range(depth):
            for high in range(low + 1, depth + 1):
                gap = ranks[low] - ranks[high]
                most = widths[low] - known[high][low]
                wider, narrower = ((low, high), (high, low))[::sign]
                slack[wider], slack[narrower] = most - gap, gap
        return slack

    while True:
        for sign in (1, -1):
            slack = room(sign)
            slope = [
                cost(_moved(ranks, {layer}, sign)) - cost(ranks) - 1 for layer in range(1, depth)
            ]
            chosen = _steepest_set(slope, {pair for pair, free in slack.items() if free == 0})
            gain = cost(ranks) - cost(_moved(ranks, chosen, sign))
            if gain > 0:
                # Along this direction the cost is a parabola of curvature `cuts`.
                cuts = sum((i in chosen) != (i + 1 in chosen) for i in range(depth))
                furthest = min(
                    free for (i, j), free in slack.items() if i in chosen and j not in chosen
                )
                ranks = _moved(ranks, chosen, sign * min(1 + gain // cuts, furthest))
                break
        else:
            return cost(ranks) + rank * (widths[0] + widths[-1] - rank)


def _moved(ranks: list[int], chosen: set[int], step: int) -> list[int]:
    return [k + step * (layer in chosen) for layer, k in enumerate(ranks)]


def _steepest_set(slope: list[int], together: set[tuple[int, int]]) -> set[int]:
    """The set X of hidden layers that minimises 2 sum slope(X) + the number of edges it cuts.

    If i is in X, then so is each j with a pair (i, j) in `together`. X is the source side of a
    minimum cut.
    """
    depth = len(slope) + 1
    source, sink = depth + 1, depth + 2
    forever = 2 * sum(map(abs, slope)) + 2 * depth + 1
    capacity = np.zeros((depth + 3, depth + 3), dtype=np.int32)
    for layer in range(depth):
        capacity[layer, layer + 1] = capacity[layer + 1, layer] = 1
    for i, j in together:
        capacity[i, j] = forever
    capacity[0, sink] = capacity[depth, sink] = forever
    for layer, value in enumerate(slope, start=1):
        capacity[source, layer] = max(-2 * value, 0)
        capacity[layer, sink] = max(2 * value, 0)
    flow = maximum_flow(csr_array(capacity), source, sink).flow
    residual = csr_array(capacity - flow.toarray() > 0)
    reached = breadth_first_order(residual, source, return_predecessors=False)
    return {int(node) for node in reached} - {source}


def coefficient_bounds(barcode: Barcode) -> tuple[Fraction, Fraction]:
    r"""Bounds for the learning coefficient at a point with these bars.

    .. math::

        \max(\operatorname{codim}\,\mathrm{fiber}, \operatorname{rank} d\mu)
        \le 2 \lambda(\theta) \le \text{local codimension}

    Parameters
    ----------
    barcode : Barcode

    Returns
    -------
    lower, upper : Fraction
        Equal at smooth points, and where the fiber has its full dimension.

    Examples
    --------
    >>> coefficient_bounds(Barcode(2, [(0, 0, 1), (1, 1, 1), (2, 2, 1)]))
    (Fraction(1, 2), Fraction(1, 2))
    """
    lower = max(fiber_codimension(barcode.widths, barcode.rank), differential_rank(barcode))
    return Fraction(lower, 2), Fraction(local_codimension(barcode), 2)
