"""Moves of a network to a larger stratum of its fiber that change one matrix."""

from __future__ import annotations

import numpy as np

from skgeo.exceptions import SkgeoError
from skgeo.fiber._flow import FlowBases
from skgeo.fiber._order import Move, apply_move


def move_up(
    flow: FlowBases,
    move: Move,
    t: float = 1.0,
    *,
    layer: int | None = None,
    copies: tuple[int, int] = (0, 0),
) -> list[np.ndarray]:
    r"""Weights after a move up, with the same product.

    .. math:: W_l \leftarrow W_l + t\, v_l(J)\, u_{l-1}(I)^T

    for a copy I of the move's first bar and J of its second, at one layer l of the move.

    Parameters
    ----------
    flow : FlowBases
        Flow bases of the network.
    move : Move
        One of ``up_moves(flow.barcode)``.
    t : float, default=1.0
        Step length. Every t other than 0 leads to the same stratum; a small one stays near the
        point.
    layer : int, default=None
        The l of the W_l that changes, one of ``move.layers``. None for the first of them.
    copies : (int, int), default=(0, 0)
        Which copies of the two bars to move.

    Returns
    -------
    list of ndarray
        W_1, ..., W_L: ``flow.weights`` with one of them changed.

    Raises
    ------
    SkgeoError
        If the network lacks the bars, the move leaves the fiber, the layer is not one of the
        move's, or t is 0 or not finite.

    Examples
    --------
    >>> from skgeo.fiber import flow_bases
    >>> move_up(flow_bases([[[0.0]], [[0.0]]]), Move((0, 0), (1, 1)), t=0.5)
    [array([[0.5]]), array([[0.]])]
    """
    apply_move(flow.barcode, move)
    if layer is None:
        layer = move.layers[0]
    if layer not in move.layers:
        raise SkgeoError(
            f"The move of {list(move.first)} and {list(move.second)} changes one matrix W_l with "
            f"l in {list(move.layers)}; got layer={layer}."
        )
    if t == 0 or not np.isfinite(t):
        raise SkgeoError(f"A move needs a finite step t other than 0; got {t}.")
    sources, targets = flow.slice(layer - 1, move.first), flow.slice(layer, move.second)
    for copy, part, bar in zip(copies, (sources, targets), (move.first, move.second), strict=True):
        if not 0 <= copy < part.stop - part.start:
            raise SkgeoError(
                f"The bar {list(bar)} has {part.stop - part.start} copies, numbered from 0; got "
                f"copies={copies}."
            )
    weights = [weight.copy() for weight in flow.weights]
    weights[layer - 1] += t * np.outer(
        flow.bases[layer][:, targets.start + copies[1]],
        flow.dual_bases[layer - 1][:, sources.start + copies[0]],
    )
    return weights
