"""Ranks of the layers on inputs that do not span their space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy.linalg import svd

from skgeo.data._arrays import as_tensor
from skgeo.exceptions import SkgeoError
from skgeo.fiber._chain import as_chain
from skgeo.fiber._staircase import rank_tolerance, staircase


def input_ranks(
    weights: Sequence[object], inputs: np.ndarray, *, tol: float | Literal["auto"] = "auto"
) -> tuple[int, ...]:
    r"""Ranks of :math:`W_{l\sim 0} Q`, with Q a basis of the span of the inputs.

    Parameters
    ----------
    weights : sequence of arrays or tensors
        W_1, ..., W_L.
    inputs : ndarray, shape (n_samples, d_0)
        One sample per row.
    tol : float or "auto", default="auto"
        Relative tolerance of the ranks, for the inputs and the weights.

    Returns
    -------
    tuple of int, length L + 1
        Entry 0 is the dimension of the span. Passed to
        :func:`~skgeo.fiber.differential_rank`, they give the Gaussian Fisher rank on these inputs.

    Raises
    ------
    SkgeoError
        If the weights do not form a linear network, or the inputs do not fit.

    Examples
    --------
    >>> input_ranks([np.eye(3), np.eye(3)], np.array([[1.0, 1.0, 0.0], [2.0, 2.0, 0.0]]))
    (1, 1, 1)
    """
    chain = as_chain(weights)
    threshold = rank_tolerance(weights, tol)
    rows = as_tensor(inputs, "inputs").cpu().double().numpy()
    if rows.ndim != 2 or rows.shape[0] == 0 or rows.shape[1] != chain[0].shape[1]:
        raise SkgeoError(
            f"The inputs have shape {rows.shape}; expected one row per sample and "
            f"{chain[0].shape[1]} columns, the inputs of W_1."
        )
    if not np.isfinite(rows).all():
        raise SkgeoError("The inputs contain NaN or infinite entries. Remove these samples.")
    _, values, right = svd(rows, full_matrices=False)
    span = int(np.count_nonzero(values > threshold * values[0]))
    everything = staircase(chain, tol=threshold).barcode.rank_list()[:, 0]
    if span == 0:
        return (0,) * (len(chain) + 1)
    if span == rows.shape[1]:
        return tuple(int(rank) for rank in everything)
    reached = staircase([right[:span].T, *chain], tol=threshold).barcode.rank_list()[1:, 0]
    # Two sweeps may decide an ambiguous rank differently, but some inputs reach no more than all.
    return tuple(int(rank) for rank in np.minimum(reached, everything))
