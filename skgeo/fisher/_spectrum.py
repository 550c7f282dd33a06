r"""Spectrum and rank of the Fisher information matrix on parameters.

.. math::
    G(\theta) = \frac1N \sum_n J_n^T F(z_n) J_n = \frac1N \sum_n A_n^T A_n,
    \qquad A_n = R(z_n)^T J_n .

This is the *true* Fisher information, with the expectation over the model's own outputs. Its
spectrum is taken from whichever is smaller, the Gram side :math:`A A^T` or the parameter side
:math:`A^T A`; both have the same non-zero eigenvalues.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from skgeo._arguments import check_integer, check_tolerance
from skgeo._results import Result
from skgeo.exceptions import GeometryWarning, SkgeoError, warn
from skgeo.fisher._directions import row_space, unsquared_eigenvalues
from skgeo.fisher._lanczos import leading_eigenpairs
from skgeo.fisher._plan import OFFERS, FisherPlan, plan_fisher
from skgeo.fisher._rows import FisherRows
from skgeo.fisher._sides import Progress, fisher_metric
from skgeo.fisher._unit_diagonal import UnitDiagonal
from skgeo.likelihood import Gaussian, Likelihood
from skgeo.linalg._rank import NumericalRank, decide_rank, resolution
from skgeo.linalg._spectra import effective_rank, eigenvalues_descending, participation_ratio
from skgeo.linalg._subspaces import orient_rows
from skgeo.linalg._threads import single_blas_thread
from skgeo.network._bound import bind

Solver = Literal["auto", "gram", "parameter", "lanczos"]


@dataclass(frozen=True, repr=False)
class FisherSpectrum(Result):
    """Spectrum of a Fisher information matrix, with the evidence for its rank.

    Attributes
    ----------
    eigenvalues : Tensor of shape (min(n_rows, n_parameters),)
        Descending, float64; only the leading ones under ``solver="lanczos"``.
    tangent_eigenvalues : Tensor or None
        Of ``(1/N) sum J^T J``, the metric without the weight of the likelihood (the tangent
        kernel). None if they were not requested.
    trace : float
        Trace of the matrix.
    decision : NumericalRank or None
        Rank, tolerance, gap and path, and whether the samples limit the rank; None if only leading
        eigenvalues are known.
    row_space : Tensor of shape (k, n_parameters) or None
        Leading eigenvectors as orthonormal rows; None if they were not requested.
    plan : FisherPlan
        Sides, memory and passes.
    n_samples : int
        Number of samples N.
    likelihood : Likelihood
        The output family.
    trace_stderr : float
        Standard error of the trace; 0 unless it was estimated, which only "lanczos" does.
    """

    eigenvalues: Tensor
    tangent_eigenvalues: Tensor | None
    trace: float
    decision: NumericalRank | None
    row_space: Tensor | None
    plan: FisherPlan
    n_samples: int
    likelihood: Likelihood
    trace_stderr: float = 0.0

    def _line(self) -> str:
        if self.decision is None:
            return (
                f"{len(self.eigenvalues)} leading eigenvalues of {self.n_parameters} parameters, "
                f"{self.n_samples} samples"
            )
        return (
            f"rank {self.rank} of {self.n_parameters}, {self.decision.evidence}, "
            f"{self.n_samples} samples"
        )

    @property
    def side(self) -> str:
        """The product that was formed: "gram", "parameter", or "lanczos" for none."""
        return self.plan.side

    @property
    def n_parameters(self) -> int:
        """Number of parameters P."""
        return self.plan.n_parameters

    @property
    def rank(self) -> int | float:
        """Number of eigenvalues above the threshold; NaN if not all are known."""
        return float("nan") if self.decision is None else self.decision.rank

    @property
    def sample_limited(self) -> bool:
        """Whether the rank is the number of rows, below P; False if the rank is not known."""
        return self.decision is not None and self.decision.sample_limited

    @property
    def nullity(self) -> int | float:
        """Number of parameters minus rank; NaN if not all eigenvalues are known."""
        return self.n_parameters - self.rank

    @property
    def effective_rank(self) -> float:
        """Exponential entropy of the eigenvalues; NaN if all are zero or not all known."""
        return float("nan") if self.decision is None else effective_rank(self.eigenvalues)

    @property
    def participation_ratio(self) -> float:
        """``(sum lambda)^2 / sum lambda^2``; NaN if all are zero or not all known."""
        return float("nan") if self.decision is None else participation_ratio(self.eigenvalues)

    @property
    def tangent_effective_rank(self) -> float:
        """Exponential entropy of the eigenvalues of the tangent kernel; NaN if not known."""
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
        The network. It is not changed: a replica is measured, in eval mode.
    X : array, Tensor, dict, Dataset or DataLoader
        N samples.
    y : array-like, default=None
        Targets. ``likelihood="auto"`` reads their dtype, and a scikit-learn or skorch model that is
        not fitted yet is fitted on them.
    likelihood : str or Likelihood, default="auto"
        Output family: "categorical", "bernoulli", "gaussian", "gaussian_scale" or "poisson".
        "auto" follows the model, or else the dtype of y; without either it assumes "gaussian" of
        unit variance and warns.
    parameters : {"trainable", "all"} or list of str, default="trainable"
        The parameters of the matrix, in ``named_parameters()`` order, tied ones once.
    solver : {"auto", "gram", "parameter", "lanczos"}, default="auto"
        Which side to form: rows x rows or P x P. "auto" forms the smaller. "lanczos" forms none and
        computes ``n_components`` leading eigenpairs; "auto" never chooses it.
    tol : float or "auto", default="auto"
        Tolerance relative to the largest eigenvalue. "auto" is the resolution of the arithmetic,
        ``max(n_rows, P) * max(eps(float64), eps(dtype)^2)``, or more where the network amplifies
        rounding, as a normalisation over two numbers does. One pass of at most 32 samples with
        errors in every result measures by how much; a copy of the network in float64 would cost
        every fit twice the time and memory. Below
        ``max(n_rows, P) * eps(float64)`` the rank is decided from an unsquared factorisation of A.
        eps(dtype) is that of the coarsest arithmetic in the forward pass. A model whose weights are
        all in half precision is measured with these weights in float32; where other weights meet
        half precision (autocast, a cast in forward) a warning says what it hides.
    n_components : int or None, default=0
        Number of eigenvectors to compute; None for as many as the rank.
    tangent : bool, default=False
        Whether to compute the spectrum without the weight of the likelihood as well.
    batch_size : int, default=None
        Samples per forward pass; None for a size that fits. The result does not depend on it.
    device : str or torch.device, default=None
        Device of the computation, None for that of the module. Results are on the CPU.
    memory_budget : int or str, default=None
        Memory limit in bytes, or such as "4 GiB"; None for 0.7 of the available memory.

    Returns
    -------
    FisherSpectrum

    Raises
    ------
    SkgeoError
        If data, parameters or outputs are NaN or infinite, if the outputs do not depend on the
        parameters or do not fit the likelihood, or if the matrices do not fit in memory.

    Warns
    -----
    RankAmbiguityWarning
        If the rank is the number of rows and less than P, so that more samples may have a larger
        one. Once per process (:class:`~skgeo.exceptions.NoGapWarning`) if it has no clear gap.

    See Also
    --------
    skgeo.fisher.fisher_rank : The rank alone, faster if it is low.
    skgeo.fisher.rank_curve : The rank against the number of samples.
    skgeo.fisher.fisher_trace : The trace, without a matrix.
    skgeo.fisher.FisherRankEstimator : The same measurement as an estimator.

    Notes
    -----
    Let there be n rows, P parameters, K outputs per sample and layers of width w. If the structure
    of all layers is known, the Gram side takes ``n^2 (w + K)`` operations per layer, and the
    parameter side ``2 N P^2``. The spectrum takes 4/3 of the cube of the smaller side, and memory
    for about three times its square in float64. Gradients that do not fit in memory are computed
    again for each pair of blocks.

    Examples
    --------
    Linear regression with n inputs and K outputs has rank K (n + 1):

    >>> import torch
    >>> from skgeo import fisher_spectrum
    >>> X = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    >>> spectrum = fisher_spectrum(torch.nn.Linear(3, 2), X, likelihood="gaussian")
    >>> spectrum
    FisherSpectrum(rank 8 of 8, gap inf, 50 samples)
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
    n_components: int | Literal["auto"] | None = 0,
    tangent: bool = True,
    progress: Progress = iter,
    offers: Collection[str] = OFFERS,
) -> FisherSpectrum:
    """Spectrum and rank of the Fisher information matrix of a :class:`FisherRows`.

    progress: wraps the sequence of passes over the data, to report progress.
    offers: options that the caller gives its users, for messages about memory.
    """
    check_tolerance(tol)
    silent = n_components == "auto"
    if n_components == "auto":
        n_components = None if solver == "lanczos" else _affordable_components(fisher)
    elif n_components is not None:
        check_integer("n_components", n_components, least=0, also="None")
    plan = plan_fisher(
        fisher,
        solver=solver,
        n_components=n_components,
        tangent=tangent,
        dense=isinstance(fisher, UnitDiagonal),
        offers=offers,
    )
    if plan.side == "lanczos":
        if isinstance(fisher, UnitDiagonal):
            raise SkgeoError(f"scale='diagonal' needs a matrix, and solver={solver!r} forms none.")
        return _leading(fisher, plan, n_components)
    n, p = fisher.n_rows, fisher.n_parameters
    squared = tol == "auto" or tol >= resolution(n, p)
    resolved = fisher.network.resolution(n, p, squared=squared)
    metric: Tensor | None
    metric, kernel = fisher_metric(fisher, plan, tangent=tangent, progress=progress)
    trace = float(metric.diagonal().sum())
    # Values always come from the values-only routine: computing vectors too must not move an
    # eigenvalue across the threshold.
    values = eigenvalues_descending(metric)[: min(n, p)]
    tangent_values = _tangent_eigenvalues(fisher, values, kernel) if tangent else None
    del kernel
    if not squared and trace > 0.0:
        metric, values = None, unsquared_eigenvalues(fisher, plan.side)
    decision = decide_rank(
        values,
        tol=tol,
        resolution=resolved,
        error=fisher.error,
        shape=(fisher.network.counted_rows(), p),
        name="Fisher rank",
    )
    if not float(values[0]) > 0.0:
        warn(
            "The Fisher metric is zero, or within rounding of zero: to first order the outputs do "
            "not depend on the parameters. The rank is 0; effective rank and participation ratio "
            "are undefined (NaN)."
        )
    count = decision.rank if n_components is None else min(n_components, decision.rank)
    if n_components is not None and count < n_components and not silent:
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


def _affordable_components(fisher: FisherRows) -> int:
    """Number of directions that a tenth of the memory budget holds; at least one."""
    return int(max(1, fisher.network.budget // (10 * 8 * max(fisher.n_parameters, 1))))


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
        trace=trace.value,
        decision=None,
        row_space=orient_rows(vectors),
        plan=plan,
        n_samples=fisher.network.n_samples,
        likelihood=fisher.network.likelihood,
        trace_stderr=trace.standard_error,
    )
