"""Numerical rank of a positive semi-definite matrix, and how certain it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from skgeo._results import Result
from skgeo.exceptions import NoGapWarning, RankAmbiguityWarning, SkgeoError, warn

# With a gap below one order of magnitude, a tolerance half an order away may give another rank.
AMBIGUOUS_GAP = 10.0
# Eigenvalues above this share of the largest count whatever rounding was measured.
REACH = 1e-3
# The error of a few samples is measured by one draw; that of others may be larger.
_MARGIN = 3.0
_EPS = float(torch.finfo(torch.float64).eps)


@dataclass(frozen=True, repr=False)
class NumericalRank(Result):
    """A numerical rank, its tolerance, and the ranks for other tolerances.

    Attributes
    ----------
    rank : int
        Number of eigenvalues above ``threshold``.
    tol : float
        Tolerance relative to the largest eigenvalue.
    threshold : float
        ``tol`` times the largest eigenvalue.
    gap : float
        ``lambda_r / lambda_{r+1}``; infinite if all eigenvalues below the threshold are zero, NaN
        if ``sample_limited``.
    path_tol, path_rank : ndarray of shape (n_steps,)
        Ranks by relative tolerance, from the resolution of the arithmetic up to 1.
    sample_limited : bool
        Whether the rank is the number of rows that the samples give, below the number of columns.
        It is then a property of the sample: more samples may have a larger rank.
    """

    rank: int
    tol: float
    threshold: float
    gap: float
    path_tol: np.ndarray
    path_rank: np.ndarray
    sample_limited: bool = False

    def _line(self) -> str:
        return f"rank {self.rank}, {self.evidence}, tolerance {self.tol:.2g}"

    @property
    def evidence(self) -> str:
        """The gap in words, or that the samples limit the rank."""
        if self.sample_limited:
            return "limited by the samples"
        return f"{'no clear ' if self.is_ambiguous else ''}gap {self.gap:.2g}"

    @property
    def is_ambiguous(self) -> bool:
        """Whether the gap is less than one order of magnitude."""
        return self.gap < AMBIGUOUS_GAP


def resolution(
    n_rows: int, n_columns: int, dtype: torch.dtype = torch.float64, *, squared: bool = True
) -> float:
    """Smallest relative eigenvalue of ``A^T A`` that is not rounding.

    Let A have relative errors ``eps(dtype)``, from the arithmetic in which it was computed. Its
    singular values are uncertain by about ``eps(dtype) sqrt(d) s_1`` with d the larger side, its
    squared singular values near zero by ``eps(dtype)^2 d s_1^2``. Forming ``A^T A`` in float64 adds
    ``eps(float64) d s_1^2``, which an unsquared factorisation of A does not.

    n_rows, n_columns: shape of A.
    dtype: in which A was computed.
    squared: whether ``A^T A`` or ``A A^T`` was formed, in float64.

    >>> resolution(10, 1000) == 1000 * torch.finfo(torch.float64).eps
    True
    """
    larger = max(n_rows, n_columns)
    unsquared = larger * float(torch.finfo(dtype).eps) ** 2
    return max(unsquared, larger * _EPS) if squared else unsquared


def amplified(error: float, effective: float) -> float:
    """Relative eigenvalue of ``A^T A`` that errors of A may give.

    error: relative to the Frobenius norm of A, which is ``effective s_1^2``, squared.

    >>> amplified(0.01, 1.0)
    0.0009
    """
    return (_MARGIN * error) ** 2 * effective


def decide_rank(
    eigenvalues: Tensor,
    *,
    tol: float | Literal["auto"] = "auto",
    resolution: float,
    error: Callable[[], float] | None = None,
    shape: tuple[int, int] | None = None,
    name: str = "rank",
) -> NumericalRank:
    """Count the eigenvalues above a tolerance; warn if the count is uncertain.

    eigenvalues: (n,), non-negative, descending.
    tol: relative to the largest eigenvalue; "auto" is ``resolution``.
    resolution: relative size below which eigenvalues are rounding.
    error: measures the relative error of A in ``A^T A``, which a network may amplify far beyond
        that of its arithmetic; asked for only where it may change the rank.
    shape: rows that the samples give and columns, of the A in ``A^T A``; None if no number of rows
        limits the rank.
    name: of the quantity, for the warning.

    >>> decide_rank(torch.tensor([4.0, 1.0, 1e-20]).double(), resolution=1e-12).rank
    2
    """
    values = eigenvalues.detach().cpu().double().numpy()
    largest = float(values[0]) if len(values) else 0.0
    resolved = resolution
    uncertain = (values > resolution * largest) & (values < REACH * largest)
    if error is not None and bool(uncertain.any()):
        measured = amplified(error(), float(values.sum()) / largest)
        resolved = max(resolution, min(measured, REACH))
    if tol == "auto":
        relative = resolved
    else:
        relative = float(tol)
        if not 0.0 <= relative < 1.0:
            raise SkgeoError(
                f"Got tol={tol!r}; expected 'auto' or a number in [0, 1), relative to the largest "
                "eigenvalue of the metric (not to a singular value, which would be its root)."
            )
    threshold = relative * largest
    rank = int(np.count_nonzero(values > threshold))
    below = float(values[rank]) if rank < len(values) else 0.0
    gap = float(values[rank - 1]) / below if rank and below > 0.0 else float("inf")
    sample_limited = shape is not None and rank == shape[0] < shape[1]
    if sample_limited:  # what lies below the threshold is rounding: no eigenvalue follows
        gap = float("nan")
    path_tol = np.logspace(np.log10(max(resolution, np.finfo(float).tiny)), 0.0, 65)[:-1]
    path_rank = np.array([np.count_nonzero(values > step * largest) for step in path_tol])
    decided = NumericalRank(rank, relative, threshold, gap, path_tol, path_rank, sample_limited)
    if largest > 0.0 and relative < resolved:
        warn(
            f"{name} {rank} was decided at a relative tolerance of {relative:.1e}, below the "
            f"{resolved:.1e} that the arithmetic resolves: it may count rounding.",
            RankAmbiguityWarning,
        )
    elif decided.is_ambiguous:
        warn(
            f"{name} {rank} has no clear gap: the eigenvalues on either side of the relative "
            f"tolerance {relative:.1e} differ by a factor of {gap:.2g} only. Read the rank "
            "against the tolerance, not alone. This is usual for trained networks and is said once "
            "per process; the gap stands beside each rank.",
            NoGapWarning,
        )
    if sample_limited:
        assert shape is not None
        warn(
            f"{name} {rank} is the number of rows that the samples give, fewer than the {shape[1]} "
            "dimensions: it is a property of the sample, and no gap can be given (NaN). Measure "
            "more samples until it no longer grows; skgeo.fisher.rank_curve shows the Fisher rank "
            "against their number.",
            RankAmbiguityWarning,
        )
    return decided
