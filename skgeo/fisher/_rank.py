"""The Fisher rank without the spectrum, by pivoted Cholesky factorisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from scipy.linalg.lapack import dpstrf
from torch import Tensor

from skgeo._arguments import check_tolerance
from skgeo.fisher._plan import plan_fisher
from skgeo.fisher._rows import FisherRows
from skgeo.fisher._sides import fisher_metric
from skgeo.likelihood import Likelihood
from skgeo.linalg._rank import NumericalRank, decide_rank
from skgeo.linalg._spectra import eigenvalues_descending
from skgeo.linalg._threads import single_blas_thread
from skgeo.network._bound import bind

_EPS = float(torch.finfo(torch.float64).eps)


def fisher_rank(
    model: Any,
    X: Any,
    y: Any = None,
    *,
    likelihood: str | Likelihood = "auto",
    parameters: str | Sequence[str] = "trainable",
    solver: Literal["auto", "gram", "parameter"] = "auto",
    tol: float | Literal["auto"] = "auto",
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    memory_budget: int | str | None = None,
) -> NumericalRank:
    r"""Rank of the Fisher information matrix, without its whole spectrum.

    A pivoted Cholesky factorisation :math:`G \approx L L^T` stops once the trace of the remainder
    is below a tenth of the threshold. By Weyl's inequality the eigenvalues of the small
    :math:`L^T L` then differ from those of G by less than that. Those above the threshold are
    counted.

    Parameters
    ----------
    model, X, y, likelihood, parameters, solver, tol, batch_size, device, memory_budget
        As in :func:`~skgeo.fisher.fisher_spectrum`, without ``solver="lanczos"``. For a ``tol``
        below the resolution of the squared matrix use ``fisher_spectrum``.

    Returns
    -------
    NumericalRank
        ``.rank``, with its tolerance, gap and path, and whether the samples limit it. The path is
        complete above the threshold.

    Warns
    -----
    RankAmbiguityWarning
        If the rank is the number of rows and less than P, or has no clear gap.

    See Also
    --------
    skgeo.fisher.fisher_spectrum : The rank with all eigenvalues.
    skgeo.fisher.rank_curve : The rank against the number of samples.

    Notes
    -----
    ``n r^2 + 4/3 r^3`` operations, with n the smaller side and r the rank, compared with
    ``4/3 n^3`` for the spectrum. This is faster if the rank is well below the side. If every second
    row and column already have full rank, the whole spectrum is computed.

    Examples
    --------
    A product of two matrices through a narrow layer of m units has rank m (n + k - m):

    >>> import torch
    >>> from skgeo import fisher_rank
    >>> make = torch.Generator().manual_seed(0)
    >>> X = torch.randn(60, 6, generator=make, dtype=torch.float64)
    >>> net = torch.nn.Sequential(
    ...     torch.nn.Linear(6, 2, bias=False), torch.nn.Linear(2, 5, bias=False)
    ... ).double()
    >>> fisher_rank(net, X, likelihood="gaussian").rank
    18
    """
    with single_blas_thread():
        network = bind(
            model,
            X,
            y,
            likelihood=likelihood,
            parameters=parameters,
            batch_size=batch_size,
            device=device,
            memory_budget=memory_budget,
        )
        check_tolerance(tol)
        fisher = FisherRows(network)
        n, p = fisher.n_rows, fisher.n_parameters
        plan = plan_fisher(fisher, solver=solver, tangent=False, offers=("parameters", "solver"))
        metric, _ = fisher_metric(fisher, plan)
        resolved = fisher.network.resolution(n, p)
        values = leading_eigenvalues(metric, resolved if tol == "auto" else float(tol))
        return decide_rank(
            values,
            tol=tol,
            resolution=resolved,
            error=fisher.error,
            shape=(fisher.network.counted_rows(), p),
            name="Fisher rank",
        )


def leading_eigenvalues(matrix: Tensor, relative: float) -> Tensor:
    """Eigenvalues of a positive semi-definite matrix above a relative threshold, and some below.

    relative: threshold relative to the largest eigenvalue.
    Returns descending values, each within a tenth of the threshold (or within rounding, if that is
        more) of an eigenvalue of the matrix. The other eigenvalues are below a tenth of the
        threshold.
    """
    # matrix (n, n) -> (k,)
    n = len(matrix)
    if matrix.device.type != "cpu":  # cuSOLVER has no pivoted Cholesky
        return eigenvalues_descending(matrix)
    largest = float(matrix.diagonal().max())  # at most the largest eigenvalue
    if not largest > 0.0:
        return torch.zeros(min(n, 1), dtype=torch.float64)
    pivot = max(0.1 * relative * largest / n, _EPS * largest)
    half = matrix[::2, ::2].clone()  # an eighth of the work decides whether the rank is low
    if len(_pivoted_cholesky(half, pivot).T) == len(half):
        return eigenvalues_descending(matrix)
    lower = _pivoted_cholesky(matrix, pivot)
    return eigenvalues_descending(lower.T @ lower)


def _pivoted_cholesky(matrix: Tensor, pivot: float) -> Tensor:
    """Factor (n, r) of a matrix, which is overwritten, up to the first pivot below a bound."""
    # The transpose of a symmetric matrix is itself, in the order of Fortran: no copy is made.
    factor, _, rank, info = dpstrf(matrix.numpy().T, tol=pivot, lower=1, overwrite_a=1)
    if info < 0:
        raise AssertionError(f"dpstrf refused its argument {-info}.")
    return torch.from_numpy(factor)[:, :rank].tril()
