r"""Spectrum and rank of the Fisher information matrix on parameters.

.. math::
    G(\theta) = \frac1N \sum_n J_n^T F(z_n) J_n = \frac1N \sum_n A_n^T A_n,
    \qquad A_n = R(z_n)^T J_n .

This is the *true* Fisher information, with the expectation over the model's own outputs. Its
spectrum is taken from whichever is smaller, the Gram side :math:`A A^T` or the parameter side
:math:`A^T A`; both have the same non-zero eigenvalues.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from skgeo._arguments import check_integer
from skgeo._results import Result
from skgeo.exceptions import GeometryWarning, warn
from skgeo.fisher._directions import row_space, unsquared_eigenvalues
from skgeo.fisher._lanczos import leading_eigenpairs
from skgeo.fisher._plan import FisherPlan, plan_fisher
from skgeo.fisher._rows import FisherRows
from skgeo.fisher._sides import Progress, fisher_metric
from skgeo.likelihood import Gaussian, Likelihood
from skgeo.linalg._rank import NumericalRank, decide_rank, resolution
from skgeo.linalg._spectra import effective_rank, eigenvalues_descending, participation_ratio
from skgeo.linalg._subspaces import orient_rows
from skgeo.linalg._threads import single_blas_thread
from skgeo.network._bound import bind

Solver = Literal["auto", "gram", "parameter", "lanczos"]


@dataclass(frozen=True, repr=False)
class FisherSpectrum(Result):
    """Spectrum of a Fisher information matrix, with the certificate of its rank.

    Attributes
    ----------
    eigenvalues : Tensor of shape (min(n_rows, n_parameters),)
        Descending, float64; only the leading ones under ``solver="lanczos"``.
    tangent_eigenvalues : Tensor or None
        Of ``(1/N) sum J^T J``, the metric without the likelihood's weight (the tangent kernel),
        where it was asked for.
    trace : float
    decision : NumericalRank or None
        Rank, tolerance, gap and path; None where only leading eigenvalues are known.
    row_space : Tensor of shape (k, n_parameters) or None
        Leading eigenvectors as orthonormal rows, where they were asked for.
    plan : FisherPlan
        Sides, memory and passes.
    n_samples : int
    likelihood : Likelihood
    """

    eigenvalues: Tensor
    tangent_eigenvalues: Tensor | None
    trace: float
    decision: NumericalRank | None
    row_space: Tensor | None
    plan: FisherPlan
    n_samples: int
    likelihood: Likelihood

    def _line(self) -> str:
        if self.decision is None:
            return (
                f"{len(self.eigenvalues)} leading eigenvalues of {self.n_parameters} parameters, "
                f"{self.n_samples} samples"
            )
        return (
            f"rank {self.rank} of {self.n_parameters}, gap {self.decision.gap:.1g}, "
            f"{self.n_samples} samples"
        )

    @property
    def side(self) -> str:
        """Which product was formed: "gram", "parameter", or "lanczos" for none."""
        return self.plan.side

    @property
    def n_parameters(self) -> int:
        """P."""
        return self.plan.n_parameters

    @property
    def rank(self) -> int | float:
        """Number of eigenvalues above the tolerance; NaN where not all are known."""
        return float("nan") if self.decision is None else self.decision.rank

    @property
    def nullity(self) -> int | float:
        """Parameters minus rank; NaN where not all eigenvalues are known."""
        return self.n_parameters - self.rank

    @property
    def effective_rank(self) -> float:
        """Exponential entropy of the eigenvalues; NaN where all are zero or not all known."""
        return float("nan") if self.decision is None else effective_rank(self.eigenvalues)

    @property
    def participation_ratio(self) -> float:
        """``(sum lambda)^2 / sum lambda^2``; NaN where all are zero or not all known."""
        return float("nan") if self.decision is None else participation_ratio(self.eigenvalues)

    @property
    def tangent_effective_rank(self) -> float:
        """Exponential entropy of the tangent kernel's eigenvalues; NaN where not known."""
        values = self.tangent_eigenvalues
        return float("nan") if values is None else effective_rank(values)


def fisher_spectrum(
    model: Any,
    X: Any,
    y: Any = None,
    *,
    likelihood: str | Likelihood = "auto",
    parameters: str | Sequence[str] = "trainable",
    solver: Solver = "auto",
    tol: float | Literal["auto"] = "auto",
    n_components: int | None = 0,
    tangent: bool = False,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    memory_budget: int | str | None = None,
) -> FisherSpectrum:
    r"""Spectrum and rank of the Fisher information matrix of a network on data.

    Parameters
    ----------
    model : Module, WrappedModel, Checkpoint, scikit-learn or skorch model
        Left as it is: the work is done on a replica, in eval mode.
    X : array, Tensor, dict, Dataset or DataLoader
        N samples.
    y : array-like, optional
        Targets: what ``likelihood="auto"`` reads, and what a scikit-learn or skorch model that is
        not fitted yet is fitted on.
    likelihood : str or Likelihood, default="auto"
        What the outputs mean: "categorical", "bernoulli", "gaussian", "gaussian_scale",
        "poisson". "auto" asks the model, then the dtype of y; without either it assumes
        "gaussian" of unit variance and warns.
    parameters : "trainable", "all" or list of str, default="trainable"
        Which parameters span the matrix, in ``named_parameters()`` order, tied ones once.
    solver : {"auto", "gram", "parameter", "lanczos"}, default="auto"
        Which side to form; "auto" takes the smaller. "lanczos" forms none and gives
        `n_components` leading eigenpairs; it is never chosen unasked.
    tol : float or "auto", default="auto"
        Relative to the largest eigenvalue. "auto" is what the arithmetic resolves,
        ``max(n_rows, P) * max(eps(float64), eps(dtype)^2)``. A smaller value in float64 is
        decided from an unsquared factorisation of A.
    n_components : int or None, default=0
        Eigenvectors to compute; None for as many as the rank.
    tangent : bool, default=False
        Whether to compute the spectrum without the likelihood's weight as well.
    batch_size : int, optional
        Samples a forward pass. The answer does not depend on it.
    device : str or torch.device, optional
        Where to compute; results come back to the CPU.
    memory_budget : int or str, optional
        Bytes to stay within, such as "4 GiB"; by default 0.7 of what is available.

    Returns
    -------
    FisherSpectrum

    Raises
    ------
    SkgeoError
        For NaN or infinity anywhere, a model that ignores its parameters, outputs that do not fit
        the likelihood, matrices that do not fit in memory.

    See Also
    --------
    skgeo.fisher_rank : The rank alone.
    skgeo.fisher_trace : The trace, without a matrix.
    skgeo.FisherRankEstimator : The same as an estimator.

    Notes
    -----
    With n rows, P parameters, K outputs a sample and layers of width w: ``n^2 (w + K)`` operations
    a layer for the Gram side and ``2 N P^2`` for the parameter side where the structure of all
    layers is known; 4/3 of the cube of the smaller side for the spectrum, and about three times
    its square in float64 numbers. Gradients that do not fit in memory are computed again for each
    pair of blocks.

    Examples
    --------
    Linear regression with n inputs and K outputs has rank K (n + 1):

    >>> import torch
    >>> from skgeo import fisher_spectrum
    >>> X = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    >>> fisher_spectrum(torch.nn.Linear(3, 2), X, likelihood="gaussian").rank
    8
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
        fisher = FisherRows(network)
        return measure_fisher(
            fisher, solver=solver, tol=tol, n_components=n_components, tangent=tangent
        )


def measure_fisher(
    fisher: FisherRows,
    *,
    solver: str = "auto",
    tol: float | Literal["auto"] = "auto",
    n_components: int | None = 0,
    tangent: bool = True,
    progress: Progress = iter,
) -> FisherSpectrum:
    """Spectrum and rank of the Fisher information matrix of a :class:`FisherRows`.

    progress: wraps the sequence of passes over the data, to show how far they are.
    """
    if n_components is not None:
        check_integer("n_components", n_components, least=0, also="None")
    plan = plan_fisher(fisher, solver=solver, n_components=n_components, tangent=tangent)
    if plan.side == "lanczos":
        return _leading(fisher, plan, n_components)
    n, p = fisher.n_rows, fisher.n_parameters
    squared = tol == "auto" or tol >= resolution(n, p)
    resolved = resolution(n, p, fisher.network.replica.dtype, squared=squared)
    metric: Tensor | None
    metric, kernel = fisher_metric(fisher, plan, tangent=tangent, progress=progress)
    trace = float(metric.diagonal().sum())
    # Values always from the values-only routine, so that asking for vectors cannot move an
    # eigenvalue across the tolerance.
    values = eigenvalues_descending(metric)[: min(n, p)]
    tangent_values = _tangent_eigenvalues(fisher, values, kernel) if tangent else None
    del kernel
    if not squared:
        metric, values = None, unsquared_eigenvalues(fisher, plan.side)
    decision = decide_rank(values, tol=tol, resolution=resolved, name="Fisher rank")
    if not float(values[0]) > 0.0:
        warn(
            "the Fisher metric is identically zero: the outputs do not change with the "
            "parameters to first order. The rank is 0; effective rank and participation "
            "ratio are undefined (NaN)."
        )
    count = decision.rank if n_components is None else min(n_components, decision.rank)
    if n_components is not None and count < n_components:
        warn(
            f"n_components={n_components} exceeds the Fisher rank {count}: {count} directions are "
            "kept."
        )
    rows = None
    if n_components != 0:
        rows = row_space(fisher, metric, values, count, plan.side).cpu()
    return FisherSpectrum(
        eigenvalues=values.cpu(),
        tangent_eigenvalues=tangent_values,
        trace=trace,
        decision=decision,
        row_space=rows,
        plan=plan,
        n_samples=fisher.network.n_samples,
        likelihood=fisher.network.likelihood,
    )


def _tangent_eigenvalues(fisher: FisherRows, values: Tensor, kernel: Tensor | None) -> Tensor:
    if kernel is not None:
        return eigenvalues_descending(kernel)[: fisher.n_parameters].cpu()
    assert isinstance(fisher.network.likelihood, Gaussian)  # the same matrix, up to its scale
    return (values * fisher.network.likelihood.scale**2).cpu()


def _leading(fisher: FisherRows, plan: FisherPlan, n_components: int | None) -> FisherSpectrum:
    values, vectors, trace = leading_eigenpairs(fisher, plan, n_components)
    warn(
        f"solver='lanczos' gives the {len(values)} leading eigenpairs and the trace only: rank, "
        "nullity, effective ranks and participation ratio need the whole spectrum and are NaN.",
        GeometryWarning,
    )
    return FisherSpectrum(
        eigenvalues=values,
        tangent_eigenvalues=None,
        trace=trace,
        decision=None,
        row_space=orient_rows(vectors),
        plan=plan,
        n_samples=fisher.network.n_samples,
        likelihood=fisher.network.likelihood,
    )
