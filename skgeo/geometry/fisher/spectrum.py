r"""The Fisher information matrix on parameters: spectrum, rank, row space and null space.

.. math::
    G(\theta) = \frac1N \sum_n J_n^T F(z_n) J_n = \frac1N \sum_n A_n^T A_n,
    \qquad A_n = R(z_n)^T J_n .

This is the *true* Fisher information, with the expectation over the model's own outputs. Its
spectrum is taken from whichever is smaller, the Gram side :math:`A A^T` or the parameter side
:math:`A^T A`; both have the same non-zero eigenvalues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from skgeo.exceptions import SkgeoError, warn
from skgeo.geometry.likelihood import Gaussian, Likelihood
from skgeo.geometry.pullback import Pullback
from skgeo.linalg.memory import require_memory
from skgeo.linalg.rank import NumericalRank, decide_rank, resolution
from skgeo.linalg.spectra import (
    RowFactor,
    effective_rank,
    eigenvalues_descending,
    eigenvectors_descending,
    participation_ratio,
)
from skgeo.linalg.subspaces import orient_rows, orthonormalise_rows
from skgeo.linalg.threads import single_blas_thread

__all__ = ["SIDES", "FisherSpectrum", "direction_leverage", "fisher_spectrum", "measure_fisher"]

SIDES = ("gram", "parameter")
Progress = Callable[[Sequence[Any]], Iterable[Any]]


@dataclass(frozen=True)
class FisherSpectrum:
    """Spectrum of a Fisher information matrix, with the certificate of its rank.

    Attributes
    ----------
    eigenvalues : Tensor of shape (min(n_rows, n_parameters),)
        Descending, float64.
    tangent_eigenvalues : Tensor
        Of ``(1/N) sum J^T J``, the metric without the likelihood's weight (the tangent kernel).
    trace : float
    decision : NumericalRank
        Rank, tolerance, gap and path.
    row_space : Tensor of shape (k, n_parameters) or None
        Leading eigenvectors as orthonormal rows, where they were asked for.
    n_samples, n_rows, n_parameters : int
    side : {"gram", "parameter"}
        Which product was formed.
    likelihood : Likelihood
    """

    eigenvalues: Tensor
    tangent_eigenvalues: Tensor
    trace: float
    decision: NumericalRank
    row_space: Tensor | None
    n_samples: int
    n_rows: int
    n_parameters: int
    side: str
    likelihood: Likelihood

    @property
    def rank(self) -> int:
        """Number of eigenvalues above the tolerance."""
        return self.decision.rank

    @property
    def nullity(self) -> int:
        """Parameters minus rank."""
        return self.n_parameters - self.rank

    @property
    def effective_rank(self) -> float:
        """Exponential entropy of the eigenvalues; NaN where all are zero."""
        return effective_rank(self.eigenvalues)

    @property
    def participation_ratio(self) -> float:
        """``(sum lambda)^2 / sum lambda^2``; NaN where all are zero."""
        return participation_ratio(self.eigenvalues)

    @property
    def tangent_effective_rank(self) -> float:
        """Exponential entropy of the tangent kernel's eigenvalues; NaN where all are zero."""
        return effective_rank(self.tangent_eigenvalues)


def fisher_spectrum(
    module: nn.Module,
    X: Any,
    *,
    likelihood: str | Likelihood = "gaussian",
    forward: Callable[..., Any] | None = None,
    parameters: str | Sequence[str] = "trainable",
    solver: Literal["auto", "gram", "parameter"] = "auto",
    tol: float | Literal["auto"] = "auto",
    n_components: int | None = 0,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
) -> FisherSpectrum:
    r"""Spectrum and rank of the Fisher information matrix of a network on data.

    Parameters
    ----------
    module : nn.Module
        Left as it is: the work is done on a replica, in eval mode.
    X : array, Tensor, dict, Dataset or DataLoader
        N samples.
    likelihood : str or Likelihood, default="gaussian"
        What the outputs mean: "categorical", "bernoulli", "gaussian", "gaussian_scale",
        "poisson".
    forward : callable, optional
        ``forward(module, inputs) -> outputs``.
    parameters : "trainable", "all" or list of str, default="trainable"
        Which parameters span the matrix, in ``named_parameters()`` order, tied ones once.
    solver : {"auto", "gram", "parameter"}, default="auto"
        Which side to form; "auto" takes the smaller.
    tol : float or "auto", default="auto"
        Relative to the largest eigenvalue. "auto" is what the arithmetic resolves,
        ``max(n_rows, P) * max(eps(float64), eps(dtype)^2)``. A smaller value in float64 is
        decided from an unsquared factorisation of A.
    n_components : int or None, default=0
        Eigenvectors to compute; None for as many as the rank.
    batch_size : int, optional
        Samples a forward pass. The answer does not depend on it.
    device : str or torch.device, optional
        Where to compute; results come back to the CPU.

    Returns
    -------
    FisherSpectrum

    Raises
    ------
    SkgeoError
        For NaN or infinity anywhere, a model that ignores its parameters, outputs that do not fit
        the likelihood, matrices that do not fit in memory.

    Notes
    -----
    With n rows and P parameters: ``min(n^2 P, n P^2)`` operations for the product, 4/3 of the
    cube of the smaller side for the spectrum, and about four times its square in float64 numbers.
    Rows that do not fit in memory are computed again for each pair of blocks.

    Examples
    --------
    Linear regression with n inputs and K outputs has rank K (n + 1):

    >>> import torch
    >>> from skgeo import fisher_spectrum
    >>> X = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    >>> fisher_spectrum(torch.nn.Linear(3, 2), X).rank
    8
    """
    with single_blas_thread():
        pullback = Pullback(
            module,
            X,
            forward=forward,
            likelihood=likelihood,
            parameters=parameters,
            batch_size=batch_size,
            device=device,
        )
        return measure_fisher(pullback, solver=solver, tol=tol, n_components=n_components)


def measure_fisher(
    pullback: Pullback,
    *,
    solver: str = "auto",
    tol: float | Literal["auto"] = "auto",
    n_components: int | None = 0,
    progress: Progress = iter,
) -> FisherSpectrum:
    """Spectrum and rank of the Fisher information matrix of a :class:`Pullback`.

    Parameters
    ----------
    pullback : Pullback
    solver, tol, n_components
        As in :func:`fisher_spectrum`.
    progress : callable, default=iter
        Wraps the sequence of passes over the data, to show how far they are.

    Returns
    -------
    FisherSpectrum
    """
    if solver not in ("auto", *SIDES):
        raise SkgeoError(f"solver={solver!r}: expected 'auto', 'gram' or 'parameter'.")
    n, p = pullback.n_rows, pullback.n_parameters
    side = solver if solver != "auto" else ("gram" if n <= p else "parameter")
    squared = tol == "auto" or tol >= resolution(n, p)
    resolved = resolution(n, p, pullback.dtype, squared=squared)
    try:
        if side == "gram":
            metric, tangent = _gram_side(pullback, progress)
        else:
            metric, tangent = _parameter_side(pullback, progress)
        trace = float(metric.diagonal().sum())
        # Values always from the values-only routine, so that asking for vectors cannot move an
        # eigenvalue across the tolerance.
        values = eigenvalues_descending(metric)[: min(n, p)]
        if isinstance(pullback.likelihood, Gaussian):  # the same matrix, up to its scale
            tangent_values = values * pullback.likelihood.scale**2
        else:
            tangent_values = eigenvalues_descending(tangent)
        del tangent
        if not squared:
            values = _unsquared_eigenvalues(pullback, side)
        decision = decide_rank(values, tol=tol, resolution=resolved, name="Fisher rank")
        if not float(values[0]) > 0.0:
            warn(
                "the Fisher metric is identically zero: the outputs do not change with the "
                "parameters to first order. The rank is 0; effective rank and participation "
                "ratio are undefined (NaN)."
            )
        count = _n_components(n_components, decision.rank)
        row_space = None
        if count or n_components is None:
            row_space = _row_space(pullback, metric, values, count, side, squared).cpu()
    finally:
        pullback.release()
    return FisherSpectrum(
        eigenvalues=values.cpu(),
        tangent_eigenvalues=tangent_values[: min(pullback.n_tangent_rows, p)].cpu(),
        trace=trace,
        decision=decision,
        row_space=row_space,
        n_samples=pullback.n_samples,
        n_rows=n,
        n_parameters=p,
        side=side,
        likelihood=pullback.likelihood,
    )


def _n_components(asked: int | None, rank: int) -> int:
    if asked is None:
        return rank
    if isinstance(asked, bool) or not isinstance(asked, int) or asked < 0:
        raise SkgeoError(f"n_components={asked!r}: expected a non-negative integer or None.")
    if asked > rank:
        warn(f"n_components={asked} exceeds the Fisher rank {rank}: {rank} directions are kept.")
    return min(asked, rank)


def _alternatives(pullback: Pullback) -> str:
    return (
        "measure fewer samples, name fewer parameters with parameters=[...], or choose the other "
        f"side with solver= (the sides are {pullback.n_rows} and {pullback.n_parameters})."
    )


def _gram_side(pullback: Pullback, progress: Progress) -> tuple[Tensor, Tensor]:
    """``A A^T / N`` and ``J J^T / N``, the first from the second."""
    n = pullback.n_tangent_rows
    reserved = 4 * 8 * n**2
    require_memory(
        reserved,
        f"the Gram matrix of {n} x {n} numbers, its weighted copy and the eigensolver",
        _alternatives(pullback),
        pullback.device,
    )
    tangent = torch.zeros(n, n, dtype=torch.float64, device=pullback.device)
    outputs = torch.empty(
        (pullback.n_samples, pullback.n_positions, pullback.n_outputs),
        dtype=torch.float64,
        device=pullback.device,
    )
    per_sample = pullback.n_positions * pullback.n_outputs
    blocks = pullback.blocks(reserved)
    if len(blocks) == 1:
        pullback.keep(blocks[0])
    pairs = [(i, j) for i in range(len(blocks)) for j in range(i + 1)]
    rows = torch.empty(0)
    for i, j in progress(pairs):
        if j == 0:
            z, jacobian = pullback.jacobian(blocks[i])
            outputs[blocks[i].start : blocks[i].stop] = z
            rows = jacobian.flatten(0, -2)
        here = slice(blocks[i].start * per_sample, blocks[i].stop * per_sample)
        there = slice(blocks[j].start * per_sample, blocks[j].stop * per_sample)
        others = rows if i == j else pullback.jacobian(blocks[j])[1].flatten(0, -2)
        tangent[here, there] = rows @ others.T
        if i != j:
            tangent[there, here] = tangent[here, there].T
    tangent /= pullback.n_samples
    half = pullback.weigh(outputs, tangent.view(*outputs.shape, n)).flatten(0, -2)
    metric = pullback.weigh(outputs, half.T.reshape(*outputs.shape, -1)).flatten(0, -2)
    return metric, tangent


def _parameter_side(pullback: Pullback, progress: Progress) -> tuple[Tensor, Tensor]:
    """``A^T A / N`` and ``J^T J / N``; one matrix serves for both under a Gaussian."""
    p = pullback.n_parameters
    gaussian = isinstance(pullback.likelihood, Gaussian)
    require_memory(
        (3 if gaussian else 4) * 8 * p**2,
        f"the Fisher matrix of {p} x {p} numbers and the eigensolver",
        _alternatives(pullback),
        pullback.device,
    )
    metric = torch.zeros(p, p, dtype=torch.float64, device=pullback.device)
    tangent = metric if gaussian else torch.zeros_like(metric)
    for samples in progress(pullback.batches()):
        outputs, jacobian = pullback.jacobian(samples)
        rows = pullback.weigh(outputs, jacobian).flatten(0, -2)
        metric.addmm_(rows.T, rows)
        if not gaussian:
            jacobian = jacobian.flatten(0, -2)
            tangent.addmm_(jacobian.T, jacobian)
    metric /= pullback.n_samples
    if not gaussian:
        tangent /= pullback.n_samples
    return metric, tangent


def _dense_rows(pullback: Pullback) -> Tensor:
    n, p = pullback.n_rows, pullback.n_parameters
    require_memory(
        3 * 8 * n * p,
        f"an unsquared factorisation of the {n} x {p} rows",
        "raise tol to the resolution of the squared matrix (tol='auto'), or measure fewer samples.",
        pullback.device,
    )
    return torch.cat([pullback.rows(samples) for samples in pullback.batches()])


def _unsquared_eigenvalues(pullback: Pullback, side: str) -> Tensor:
    """Eigenvalues from the singular values of A, which was never multiplied by itself."""
    if side == "gram":
        factor = RowFactor(pullback.n_rows, pullback.device)
        for columns in _dense_rows(pullback).split(pullback.n_rows, dim=1):
            factor.update(columns.T)
    else:
        factor = RowFactor(pullback.n_parameters, pullback.device)
        for samples in pullback.batches():
            factor.update(pullback.rows(samples))
    return factor.singular_values().square() / pullback.n_samples


def _row_space(
    pullback: Pullback, metric: Tensor, values: Tensor, count: int, side: str, squared: bool
) -> Tensor:
    """Leading eigenvectors in parameter space, as oriented orthonormal rows."""
    p = pullback.n_parameters
    require_memory(
        2 * 8 * count * p + 2 * 8 * len(metric) ** 2,
        f"{count} directions of {p} parameters each, with the eigenvectors behind them",
        "ask for fewer with n_components=k, or for none with n_components=0.",
        pullback.device,
    )
    if not squared:
        vectors = torch.linalg.svd(_dense_rows(pullback), full_matrices=False).Vh[:count]
        return orient_rows(vectors)
    vectors = eigenvectors_descending(metric, count)
    if side == "parameter":
        return orient_rows(vectors.contiguous())
    # v_i = A^T u_i / sqrt(N lambda_i): short of orthonormal by eps sqrt(lambda_1 / lambda_i).
    directions = torch.zeros(count, p, dtype=torch.float64, device=pullback.device)
    per_sample = pullback.n_rows // pullback.n_samples
    for samples in pullback.batches():
        columns = slice(samples.start * per_sample, samples.stop * per_sample)
        directions.addmm_(vectors[:, columns], pullback.rows(samples))
    directions /= (pullback.n_samples * values[:count]).sqrt().unsqueeze(1)
    return orient_rows(orthonormalise_rows(directions))


def direction_leverage(pullback: Pullback, directions: Tensor, eigenvalues: Tensor) -> Tensor:
    r"""How much of each direction's information each sample carries.

    .. math:: \ell_{xi} = \| R_x^T J_x u_i \|^2 / \lambda_i

    Over the N samples that defined the metric, each column averages to 1. Summed over all
    directions it is the linearised Laplace variance of the sample, and averages to the rank.

    Parameters
    ----------
    pullback : Pullback
        The network on the samples to measure.
    directions : Tensor of shape (k, P)
        Eigenvectors as rows.
    eigenvalues : Tensor of shape (k,)
        Their eigenvalues, positive.

    Returns
    -------
    Tensor of shape (n_samples, k)
        float64, on the CPU.
    """
    directions, eigenvalues = directions.to(pullback.device), eigenvalues.to(pullback.device)
    parts = []
    for samples in pullback.batches():
        moved = (pullback.rows(samples) @ directions.T).unflatten(0, (len(samples), -1))
        parts.append(moved.square().sum(1) / eigenvalues)
    return torch.cat(parts).cpu()
