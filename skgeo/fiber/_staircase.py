"""Numerical ranks of all partial products at once, by a staircase of small SVDs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot
from numbers import Real
from typing import Literal

import numpy as np
from scipy.linalg import eigh, svd

from skgeo._results import Result
from skgeo.exceptions import RankAmbiguityWarning, SkgeoError, warn
from skgeo.fiber._barcode import Bar, Barcode
from skgeo.fiber._chain import as_chain, precision
from skgeo.linalg._rank import AMBIGUOUS_GAP


@dataclass(frozen=True, repr=False)
class Staircase(Result):
    r"""Orthonormal bases adapted to the images of all earlier layers, and the ranks they show.

    Attributes
    ----------
    barcode : Barcode
        A possible one, whatever the rounding.
    tol : float
        Singular values below ``tol`` times the spectral norm of their matrix were dropped.
    smallest_kept, largest_dropped : float
        Over the singular values of all layers, each relative to the spectral norm of its matrix; 1
        and 0 if there is none. Every tolerance from the second to below the first makes the same
        decisions.
    dropped_norms : tuple of float
        Frobenius norm of what was dropped from each W_l, absolute.
    bases : tuple of ndarray, or None
        For each layer l an orthonormal basis of R^{d_l} in columns, sorted by birth: those born
        at i or before span :math:`\operatorname{Im} W_{l\sim i}`. Within a birth, those that
        survive the next layer come first. None if only the ranks were requested.
    births : tuple of tuple of int
        ``births[l][i]`` is the number of columns of the basis of layer l that were born at i.
    """

    barcode: Barcode
    tol: float
    smallest_kept: float
    largest_dropped: float
    dropped_norms: tuple[float, ...]
    bases: tuple[np.ndarray, ...] | None
    births: tuple[tuple[int, ...], ...]

    def _line(self) -> str:
        return f"{self.barcode._in_short()}, tol {self.tol:.1e}, gap {self.gap:.1e}"

    @property
    def gap(self) -> float:
        """Smallest kept over largest dropped singular value; infinite if none was dropped."""
        if self.largest_dropped == 0.0:
            return float("inf")
        return self.smallest_kept / self.largest_dropped


def rank_tolerance(weights: Sequence[object], tol: float | Literal["auto"] = "auto") -> float:
    """Tolerance of the ranks, relative to the spectral norm of each matrix.

    Parameters
    ----------
    weights : sequence of arrays or tensors
        W_1, ..., W_L.
    tol : float or "auto", default="auto"
        "auto" is eps^0.6 of the least precise dtype among the weights: 4e-10 in float64, 7e-5 in
        float32. With tolerances closer to the rounding, the decisions of a deep chain fail.

    Returns
    -------
    float

    Raises
    ------
    SkgeoError
        If it is not between 0 and 1.

    Examples
    --------
    >>> f"{rank_tolerance([np.eye(2)]):.1e}"
    '4.1e-10'
    """
    if isinstance(tol, str):
        if tol != "auto":
            raise SkgeoError(f"Got tol={tol!r}; expected 'auto' or a number between 0 and 1.")
        return float(precision(weights) ** 0.6)
    if isinstance(tol, bool) or not isinstance(tol, Real) or not 0.0 < float(tol) < 1.0:
        raise SkgeoError(
            f"Got tol={tol!r}; expected a number between 0 and 1, relative to the spectral norm of "
            "each matrix."
        )
    return float(tol)


def _spectral_norm(matrix: np.ndarray) -> float:
    # From the smaller Gram matrix: squaring costs the largest singular value no accuracy, and an
    # extreme eigenvalue is several times cheaper than an SVD. Scaling prevents overflow.
    scale = float(np.abs(matrix).max())
    if scale == 0.0:
        return 0.0
    scaled = matrix / scale
    gram = scaled @ scaled.T if scaled.shape[0] <= scaled.shape[1] else scaled.T @ scaled
    last = gram.shape[0] - 1
    largest = eigh(gram, eigvals_only=True, subset_by_index=(last, last))[0]
    return scale * float(np.sqrt(max(largest, 0.0)))


def staircase(
    weights: Sequence[object], *, tol: float | Literal["auto"] = "auto", bases: bool = False
) -> Staircase:
    r"""Ranks of all partial products by one sweep from the input to the output.

    At each layer an orthonormal basis of R^{d_l} is kept, adapted to the chain of images
    :math:`\operatorname{Im} W_{l\sim 0} \subset \dots \subset \operatorname{Im} W_{l\sim l}`. W_l
    is applied to it birth by birth. The part of each block outside the span of older births is
    decomposed, and its singular values are kept or dropped. No product of matrices is formed, so
    widely different scales of the layers do not matter, and the ranks always belong to some
    network.

    Parameters
    ----------
    weights : sequence of arrays or tensors
        W_1, ..., W_L.
    tol : float or "auto", default="auto"
        See :func:`~skgeo.fiber.rank_tolerance`.
    bases : bool, default=False
        Whether to keep the bases, which flow bases and distances need.

    Returns
    -------
    Staircase

    Raises
    ------
    SkgeoError
        If the weights do not form a linear network.

    Notes
    -----
    About one SVD of each matrix, :math:`O(\sum_l d_l^3)`, linear in depth. The ranks are exactly
    those of the network from whose matrices the dropped parts are removed; their norms are
    ``dropped_norms``.

    Examples
    --------
    >>> staircase([[[1.0, 2.0], [2.0, 4.0]], [[2.0, -1.0], [0.0, 0.0]]]).barcode.bars
    ((0, 0, 1), (0, 1, 1), (1, 2, 1), (2, 2, 1))
    """
    chain = as_chain(weights)
    threshold = rank_tolerance(weights, tol)
    depth = len(chain)
    width = chain[0].shape[1]
    basis = np.eye(width)
    alive = [width]
    counts: dict[Bar, int] = {}
    kept_bases = [basis]
    births = [(width,)]
    smallest, largest = 1.0, 0.0
    dropped_norms = []
    for layer, weight in enumerate(chain, start=1):
        image = weight if layer == 1 else weight @ basis
        scale = _spectral_norm(weight)
        # Columns of `free` span what no birth has reached yet. Rotating them, not the survivors,
        # keeps even survivors with tiny singular values orthogonal to rounding.
        free = np.eye(weight.shape[0])
        reached, rotations, survivors = [], [], []
        start, dropped = 0, 0.0
        for birth, size in enumerate(alive):
            block = image[:, start : start + size]
            start += size
            if birth > 0:
                block = free.T @ block
            left, values, right = _decompose(block, complete=bases)
            relative = values / scale if scale > 0.0 else values
            keep = int(np.count_nonzero(relative > threshold))
            if keep:
                smallest = min(smallest, float(relative[keep - 1]))
            if keep < len(values):
                largest = max(largest, float(relative[keep]))
                dropped = hypot(dropped, *values[keep:])
            rotated = free @ left if birth > 0 else left
            reached.append(rotated[:, :keep])
            free = rotated[:, keep:]
            rotations.append(right)
            survivors.append(keep)
            if size > keep:
                counts[birth, layer - 1] = size - keep
        if bases:
            # Survivors first within each birth: the right singular vectors are in that order.
            kept_bases[-1] = _rotate(basis, alive, rotations)
        basis = np.hstack([*reached, free])
        alive = [*survivors, free.shape[1]]
        dropped_norms.append(dropped)
        kept_bases.append(basis)
        births.append(tuple(alive))
    for birth, size in enumerate(alive):
        if size:
            counts[birth, depth] = size
    return Staircase(
        Barcode._of(depth, counts),
        threshold,
        smallest,
        largest,
        tuple(dropped_norms),
        tuple(kept_bases) if bases else None,
        tuple(births),
    )


def _decompose(
    block: np.ndarray, *, complete: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """SVD with all left singular vectors, and all right ones where they will be used."""
    rows, columns = block.shape
    if rows == 0 or columns == 0:
        return np.eye(rows), np.zeros(0), np.eye(columns)
    full = complete or rows > columns
    left, values, right = svd(block, full_matrices=full, check_finite=False)
    return left, values, right.T if complete else None


def _rotate(
    basis: np.ndarray, sizes: Sequence[int], rotations: Sequence[np.ndarray | None]
) -> np.ndarray:
    rotated, start = np.empty_like(basis), 0
    for size, rotation in zip(sizes, rotations, strict=True):
        if rotation is not None:
            rotated[:, start : start + size] = basis[:, start : start + size] @ rotation
        start += size
    return rotated


@dataclass(frozen=True, repr=False)
class NumericalBarcode(Result):
    """The bars of a network in floating point, with the evidence for them.

    Attributes
    ----------
    barcode : Barcode
        From the sweep from the input to the output.
    backward_barcode : Barcode
        From the sweep of the transposed network, transposed. Equal unless the ranks are ambiguous.
    tol : float
        Tolerance relative to the spectral norm of each matrix.
    smallest_kept, largest_dropped : float
        Relative singular values, over both sweeps.
    dropped_norms : tuple of float
        Frobenius norm of what the first sweep dropped from each W_l, absolute.
    """

    barcode: Barcode
    backward_barcode: Barcode
    tol: float
    smallest_kept: float
    largest_dropped: float
    dropped_norms: tuple[float, ...]

    def _line(self) -> str:
        ambiguous = ", ambiguous" if self.is_ambiguous else ""
        return f"{self.barcode._in_short()}, tol {self.tol:.1e}, gap {self.gap:.1e}{ambiguous}"

    @property
    def gap(self) -> float:
        """Smallest kept over largest dropped singular value; infinite if none was dropped."""
        if self.largest_dropped == 0.0:
            return float("inf")
        return self.smallest_kept / self.largest_dropped

    @property
    def is_ambiguous(self) -> bool:
        """Whether the two sweeps disagree, or the gap is under one order of magnitude."""
        return self.barcode != self.backward_barcode or self.gap < AMBIGUOUS_GAP


def numerical_barcode(
    weights: Sequence[object], *, tol: float | Literal["auto"] = "auto"
) -> NumericalBarcode:
    """The bars of a network in floating point, from two independent sweeps.

    Parameters
    ----------
    weights : sequence of arrays or tensors
        W_1, ..., W_L.
    tol : float or "auto", default="auto"
        See :func:`~skgeo.fiber.rank_tolerance`.

    Returns
    -------
    NumericalBarcode

    Raises
    ------
    SkgeoError
        If the weights do not form a linear network.

    Warns
    -----
    RankAmbiguityWarning
        If the sweep of the transposed network finds other bars, or the singular values show no
        gap of an order of magnitude at the tolerance.

    Notes
    -----
    Twice the cost of :func:`~skgeo.fiber.staircase`.

    Examples
    --------
    >>> numerical_barcode([np.diag([1.0, 1e-14]), np.eye(2)])
    NumericalBarcode(widths 2-2-2, rank 1, 3 bars, tol 4.1e-10, gap 1.0e+14)
    """
    chain = as_chain(weights)
    threshold = rank_tolerance(weights, tol)
    forward = staircase(chain, tol=threshold)
    backward = staircase([weight.T for weight in reversed(chain)], tol=threshold)
    found = NumericalBarcode(
        forward.barcode,
        backward.barcode.transpose(),
        threshold,
        min(forward.smallest_kept, backward.smallest_kept),
        max(forward.largest_dropped, backward.largest_dropped),
        forward.dropped_norms,
    )
    if found.is_ambiguous:
        agree = "agree" if found.barcode == found.backward_barcode else "disagree"
        warn(
            f"The ranks of this network are ambiguous at tol={threshold:.1e}: the smallest "
            f"relative singular value kept is {found.smallest_kept:.1e}, the largest dropped "
            f"{found.largest_dropped:.1e} (gap {found.gap:.1f}), and the sweeps of the network "
            f"and of its transpose {agree}. Compare the ranks over a range of tolerances with "
            "`tolerance_path`.",
            RankAmbiguityWarning,
        )
    return found
