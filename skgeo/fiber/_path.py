"""The bars of a network over a range of tolerances: nearby strata and their distances."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from skgeo.exceptions import SkgeoError
from skgeo.fiber._chain import as_chain
from skgeo.fiber._staircase import Staircase, rank_tolerance, staircase

_COARSEST = 0.5
_STEPS_PER_DECADE = 4


def tolerance_path(
    weights: Sequence[object], *, tols: Sequence[float] | None = None
) -> tuple[Staircase, ...]:
    """Staircases of one network over a range of tolerances, coarse to fine.

    A trained network lies near strata rather than on them. A coarse tolerance gives the small
    stratum that it is close to, a fine one its own, often in the fiber of another product.

    Parameters
    ----------
    weights : sequence of arrays or tensors
        W_1, ..., W_L.
    tols : sequence of float, default=None
        Tolerances relative to the spectral norm of each matrix. None for four per decade, from 0.5
        down to the tolerance "auto" of :func:`~skgeo.fiber.rank_tolerance`.

    Returns
    -------
    tuple of Staircase
        By decreasing tolerance, one for each set of decisions. Each holds for all tolerances from
        its ``largest_dropped`` to below its ``smallest_kept``. Neighbours may have the same
        barcode.

    Raises
    ------
    SkgeoError
        If the weights do not form a linear network, or a tolerance is not between 0 and 1.

    Notes
    -----
    At most one staircase is computed per tolerance, and none where an earlier one holds.

    Examples
    --------
    >>> for step in tolerance_path([[[1.0, 0.0], [0.0, 1e-3]]]):
    ...     print(f"{step.smallest_kept:.0e} {step.largest_dropped:.0e} {step.barcode.bars}")
    1e+00 1e-03 ((0, 0, 1), (0, 1, 1), (1, 1, 1))
    1e-03 0e+00 ((0, 1, 2),)
    """
    chain = as_chain(weights)
    if tols is None:
        finest = rank_tolerance(weights)
        count = 1 + int(np.ceil(_STEPS_PER_DECADE * np.log10(_COARSEST / finest)))
        grid = [float(tol) for tol in np.geomspace(_COARSEST, finest, count)]
    else:
        if isinstance(tols, str) or not len(tols):
            raise SkgeoError(f"Got tols={tols!r}; expected a list of at least one tolerance.")
        grid = sorted((rank_tolerance(weights, tol) for tol in tols), reverse=True)
    steps: list[Staircase] = []
    for tol in grid:
        if not steps or tol < steps[-1].largest_dropped:
            steps.append(staircase(chain, tol=tol))
    return tuple(steps)
