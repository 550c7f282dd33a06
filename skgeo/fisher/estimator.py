"""The Fisher information matrix of a network as a scikit-learn estimator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import torch

from skgeo._arguments import check_integer, check_option
from skgeo.base import GeometryEstimator
from skgeo.exceptions import GeometryWarning, SkgeoError, warn
from skgeo.fisher._directions import direction_leverage
from skgeo.fisher._plan import SOLVERS, FisherPlan
from skgeo.fisher._rows import FisherRows
from skgeo.fisher._spectrum import measure_fisher
from skgeo.fisher._stochastic import sketch_fisher
from skgeo.fisher._unit_diagonal import UnitDiagonal
from skgeo.likelihood import Likelihood
from skgeo.linalg._memory import NotEnoughMemory, require_memory
from skgeo.linalg._rank import NumericalRank
from skgeo.linalg._subspaces import complement, orthonormalise_rows
from skgeo.network._bound import BoundNetwork

__all__ = ["FisherRankEstimator"]


class FisherRankEstimator(GeometryEstimator):
    r"""Rank, spectrum and null space of the Fisher information on parameters.

    .. math::
        G(\theta) = \frac1N \sum_{n=1}^N J_n^T F(z_n) J_n ,
        \qquad J_n = \frac{\partial z_n}{\partial \theta} ,

    with F the Fisher metric of the output distribution in the natural outputs z. It is the true
    Fisher information, an expectation over the model's own outputs; labels do not enter it. To
    first order, directions in its null space do not change the output distribution on the data.

    Bound to a model, ``fit(X)`` measures it on X and ``transform(X)`` gives the leverage of each
    sample on each direction. Without a model, ``transform(pairs)`` gives one row of features per
    (model, data) pair, the :meth:`summary` of the bound reading.

    Parameters
    ----------
    model : object, default=None
        The model to measure: an ``nn.Module``, a scikit-learn or skorch model or a Pipeline that
        ends in one (fitted in ``fit`` unless frozen), a ``Checkpoint`` or a ``WrappedModel``. None
        for the unbound reading.
    likelihood : str or Likelihood, default="auto"
        Output family: "categorical", "bernoulli", "gaussian", "gaussian_scale" or "poisson".
        "auto" follows the model, or else the dtype of y; without either it assumes "gaussian" of
        unit variance and warns.
    solver : {"auto", "gram", "parameter", "lanczos", "stochastic"}, default="auto"
        Which side to form: rows x rows or P x P. "auto" forms the smaller. "lanczos" forms none and
        computes ``n_components`` leading eigenpairs; what needs the whole spectrum is then NaN.
        "stochastic" estimates trace and participation ratio from random probes, with their standard
        errors, and the rest is NaN; "auto" does so, with a warning, where neither side fits in
        memory.
    tol : float or "auto", default="auto"
        Tolerance relative to the largest eigenvalue. "auto" is the resolution of the arithmetic,
        ``max(n_rows, P) * max(eps(float64), eps(dtype)^2)``, or more where the network amplifies
        rounding: see :func:`~skgeo.fisher.fisher_spectrum`.
    n_components : int, "auto" or None, default="auto"
        Number of directions kept in ``components_``. None for as many as the rank, "auto" for as
        many of them as fit in a tenth of the memory budget, 0 for none; then no eigenvectors are
        computed. Does not enter the features of a pair.
    parameters : {"trainable", "all"} or list of str, default="trainable"
        The parameters of the matrix.
    scale : {None, "diagonal"}, default=None
        "diagonal" measures :math:`D^{-1/2} G D^{-1/2}` with D the diagonal of G. Its rank at a
        tolerance, spectrum and effective rank do not change when ReLU units are rescaled, as those
        of G do.
    n_probes : int, default=32
        Random probes under "stochastic", at least 2; the participation ratio needs 16.
    memory_budget : int or str, default=None
        Memory limit in bytes, or such as "4 GiB"; None for 0.7 of the available memory. ``plan_``
        describes its use.
    batch_size : int, default=None
        Samples per forward pass; None for as many as 256 MiB of gradients hold. The result does not
        depend on it.
    device : str, default=None
        "cpu", "cuda" or "cuda:i"; None for the device of the module.
    memory : str or joblib.Memory, default=None
        Cache of the features of pairs, under a fingerprint of weights and data.
    on_error : {"raise", "nan"}, default="raise"
        Whether a pair that fails raises its error or gives a row of NaN.
    n_jobs : int, default=None
        Number of pairs measured at the same time.
    verbose : int, default=0
        Above 0, shows progress and the time left, through the passes over the data of a ``fit``
        or through a table of pairs.
    random_state : int, default=0
        Seed of the probes under "stochastic".

    Attributes
    ----------
    fisher_rank_ : int
        Number of eigenvalues above ``rank_threshold_``.
    nullity_ : int
        ``n_parameters_ - fisher_rank_``.
    n_parameters_ : int
        Number of parameters P.
    eigenvalues_ : ndarray of shape (min(n_rows, P),)
        Eigenvalues, descending. ``n_rows`` counts rank(F) rows per sample and position, which is
        K - 1 for a softmax. Empty under "stochastic".
    rank_threshold_ : float
        Absolute threshold, ``tol`` times the largest eigenvalue.
    spectral_gap_ : float
        ``lambda_r / lambda_{r+1}``; infinite if nothing is below the threshold, NaN if
        ``sample_limited_``. Below 10 the rank has no clear gap.
    sample_limited_ : bool
        Whether the rank is the number of rows, below P. It is then a property of the sample, and
        more samples may have a larger one. False where the rank is not known.
    rank_path_ : DataFrame with columns ``tol`` and ``rank``
        Rank against relative tolerance, from the resolution of the arithmetic up to 1.
    trace_ : float
        Trace of the matrix.
    trace_stderr_, participation_ratio_stderr_ : float
        Standard errors at fixed data, 0 for what is exact.
    effective_rank_ : float
        Exponential entropy of the eigenvalues (not of their square roots).
    tangent_effective_rank_ : float
        The same for :math:`\frac1N \sum J^T J`, without the weight of the likelihood. The Fisher
        rank decreases when outputs saturate; this one does not.
    participation_ratio_ : float
        :math:`(\sum \lambda)^2 / \sum \lambda^2`.
    components_ : ndarray of shape (n_components, P)
        Leading eigenvectors, orthonormal rows, in ``named_parameters()`` order, the entry of
        largest modulus positive. Under ``scale="diagonal"`` they are mapped back to parameters:
        :math:`d_i = D^{-1/2} u_i` for eigenvectors :math:`u_i` of the scaled matrix, with
        :math:`d_i^T D d_j = \delta_{ij}` and :math:`d_i^T G d_j = \lambda_i \delta_{ij}`; null
        spaces are those of G itself.
    likelihood_ : str
        Name of the output family used.
    plan_ : FisherPlan
        Side, blocks, passes and memory of the measurement.
    model_ : ResolvedModel
        The module measured, and the fitted estimator around it if there is one.

    See Also
    --------
    skgeo.fisher.fisher_spectrum : The same measurement as a function.
    skgeo.fisher.fisher_rank : The rank alone, faster if it is low.
    skgeo.fisher.rank_curve : The rank against the number of samples.
    skgeo.fisher.FisherOperator : Products and estimates for large networks.
    skgeo.fisher.SpectrumDisplay : Plot of the spectrum and of the rank against the tolerance.

    Notes
    -----
    Cost: one backward pass of all samples for each output. Then for layers of known structure
    ``n^2`` times the sum of their widths (Gram side) or ``2 N P^2`` (parameter side) operations,
    and 4/3 of the cube of the smaller side for each spectrum (Fisher and tangent; a single one
    under a Gaussian). The directions take another ``n r P`` operations and ``r P`` numbers.

    The rank on N samples is at most the number of rows, ``N rank(F)`` per position. Where it equals
    that and is less than P, ``sample_limited_`` is True and a
    :class:`~skgeo.exceptions.RankAmbiguityWarning` says so at each fit. A smaller rank can still
    grow with more samples: :func:`~skgeo.fisher.rank_curve` shows whether it does.

    If the spectrum has no gap, which is common in trained networks, the rank depends on the
    tolerance. A :class:`~skgeo.exceptions.NoGapWarning` says this once per process;
    ``spectral_gap_`` says it for each fit, and ``rank_path_`` has the rank at all tolerances.

    References
    ----------
    .. [1] S. Amari, "Natural gradient works efficiently in learning", Neural Computation 10
       (1998), eq. (3.4).
    .. [2] O. Roy and M. Vetterli, "The effective rank: a measure of effective dimensionality",
       EUSIPCO 2007, Definition 1.

    Examples
    --------
    Softmax regression with n inputs and K classes has rank (K - 1)(n + 1):

    >>> import torch
    >>> from skgeo import FisherRankEstimator
    >>> X = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    >>> net = torch.nn.Linear(4, 3)
    >>> fisher = FisherRankEstimator(net, likelihood="categorical").fit(X)
    >>> fisher.fisher_rank_, fisher.nullity_
    (10, 5)
    >>> FisherRankEstimator(likelihood="categorical").fit_transform([(net, X)])[0, :2]
    array([10.,  5.])
    """

    fisher_rank_: int | float
    nullity_: int | float
    n_parameters_: int
    eigenvalues_: np.ndarray
    rank_threshold_: float
    spectral_gap_: float
    sample_limited_: bool
    rank_path_: pd.DataFrame
    trace_: float
    trace_stderr_: float
    participation_ratio_stderr_: float
    effective_rank_: float
    tangent_effective_rank_: float
    participation_ratio_: float
    components_: np.ndarray
    likelihood_: str
    plan_: FisherPlan

    _pair_parameters: ClassVar[Mapping[str, Any]] = {"n_components": 0}

    def __init__(
        self,
        model: Any = None,
        *,
        likelihood: str | Likelihood = "auto",
        solver: Literal["auto", "gram", "parameter", "lanczos", "stochastic"] = "auto",
        tol: float | Literal["auto"] = "auto",
        n_components: int | Literal["auto"] | None = "auto",
        parameters: str | Sequence[str] = "trainable",
        scale: Literal["diagonal"] | None = None,
        n_probes: int = 32,
        memory_budget: int | str | None = None,
        batch_size: int | None = None,
        device: str | None = None,
        memory: Any = None,
        on_error: Literal["raise", "nan"] = "raise",
        n_jobs: int | None = None,
        verbose: int = 0,
        random_state: int = 0,
    ) -> None:
        self.model = model
        self.likelihood = likelihood
        self.solver = solver
        self.tol = tol
        self.n_components = n_components
        self.parameters = parameters
        self.scale = scale
        self.n_probes = n_probes
        self.memory_budget = memory_budget
        self.batch_size = batch_size
        self.device = device
        self.memory = memory
        self.on_error = on_error
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.random_state = random_state

    def _measure(self, network: BoundNetwork) -> None:
        check_option("solver", self.solver, (*SOLVERS, "stochastic"))
        check_option("scale", self.scale, (None, "diagonal"))
        check_integer("n_probes", self.n_probes)
        check_integer("random_state", self.random_state, least=0)
        if self.scale and self.solver in ("lanczos", "stochastic"):
            raise SkgeoError(
                f"scale='diagonal' needs a matrix, and solver={self.solver!r} forms none."
            )
        fisher = UnitDiagonal(network) if self.scale else FisherRows(network)
        self._scaling = fisher.scaling.cpu().numpy() if isinstance(fisher, UnitDiagonal) else None
        if self.solver == "stochastic":
            self._estimate(fisher)
            return
        try:
            spectrum = measure_fisher(
                fisher,
                solver=self.solver,
                tol=self.tol,
                n_components=self.n_components,
                progress=network.progress,
            )
        except NotEnoughMemory as error:
            if self.solver != "auto" or self.n_components not in ("auto", 0) or self.scale:
                raise
            size = str(error).partition(" Instead: ")[0]
            warn(f"solver='auto' goes on as solver='stochastic'. {size}", GeometryWarning)
            self._estimate(fisher)
            return
        self.plan_ = spectrum.plan
        self.fisher_rank_ = spectrum.rank
        self.nullity_ = spectrum.nullity
        self.n_parameters_ = spectrum.n_parameters
        self.eigenvalues_ = spectrum.eigenvalues.numpy()
        self._set_decision(spectrum.decision)
        self.sample_limited_ = spectrum.sample_limited
        self.trace_, self.trace_stderr_ = spectrum.trace, spectrum.trace_stderr
        self.effective_rank_ = spectrum.effective_rank
        self.tangent_effective_rank_ = spectrum.tangent_effective_rank
        self.participation_ratio_ = spectrum.participation_ratio
        known = spectrum.decision is not None
        self.participation_ratio_stderr_ = 0.0 if known else float("nan")
        self.likelihood_ = spectrum.likelihood.name
        self._likelihood = spectrum.likelihood
        rows = spectrum.row_space
        self.components_ = np.empty((0, self.n_parameters_)) if rows is None else rows.numpy()
        if self._scaling is not None:
            self.components_ = self.components_ * self._scaling

    def _estimate(self, fisher: FisherRows) -> None:
        """Random probes, and NaN for what they cannot tell."""
        sketch = sketch_fisher(fisher, self.n_probes, self.random_state)
        self.plan_ = sketch.plan
        self.n_parameters_ = fisher.n_parameters
        self.fisher_rank_ = self.nullity_ = float("nan")
        self.effective_rank_ = self.tangent_effective_rank_ = float("nan")
        self.eigenvalues_ = np.empty(0)
        self.components_ = np.empty((0, self.n_parameters_))
        self.sample_limited_ = False
        self._set_decision(None)
        self.trace_ = sketch.trace.value
        self.trace_stderr_ = sketch.trace.standard_error
        self.participation_ratio_ = sketch.participation_ratio.value
        self.participation_ratio_stderr_ = sketch.participation_ratio.standard_error
        self._likelihood = fisher.network.likelihood
        self.likelihood_ = self._likelihood.name

    def _set_decision(self, decision: NumericalRank | None) -> None:
        if decision is None:  # only leading eigenvalues are known
            self.rank_threshold_ = self.spectral_gap_ = float("nan")
            self.rank_path_ = pd.DataFrame({"tol": [], "rank": []})
            return
        self.rank_threshold_ = decision.threshold
        self.spectral_gap_ = decision.gap
        self.rank_path_ = pd.DataFrame({"tol": decision.path_tol, "rank": decision.path_rank})

    def _features(self, network: BoundNetwork) -> np.ndarray:
        if not len(self.components_):
            raise SkgeoError(
                "transform gives the leverage on each direction, but no direction was kept: the "
                "rank is 0, or the estimator was fitted with n_components=0 or "
                "solver='stochastic'. Fit with n_components=None and another solver."
            )
        leverage = direction_leverage(
            FisherRows(network),
            torch.from_numpy(self.components_),
            torch.from_numpy(self.eigenvalues_[: len(self.components_)]),
        )
        return leverage.numpy()

    def _feature_names(self) -> list[str]:
        return [f"fisher_leverage_{index}" for index in range(len(self.components_))]

    def _summary_names(self) -> list[str]:
        return [
            "fisher_rank",
            "fisher_nullity",
            "fisher_effective_rank",
            "fisher_participation_ratio",
            "fisher_trace",
            "fisher_max_eigenvalue",
            "tangent_effective_rank",
            "n_parameters",
        ]

    def _facts(self) -> dict[str, str]:
        return {"likelihood": self.likelihood_}

    def summary(self) -> dict[str, float]:
        """Eight numbers on the Fisher information, the features of the unbound reading.

        Returns
        -------
        dict of str to float
            ``fisher_rank``, ``fisher_nullity``, ``fisher_effective_rank``,
            ``fisher_participation_ratio``, ``fisher_trace``, ``fisher_max_eigenvalue``,
            ``tangent_effective_rank``, ``n_parameters``. The effective ranks and the participation
            ratio are NaN if the metric is identically zero. The rank is one number among them: see
            ``sample_limited_``, and ``spectral_gap_``, which in trained networks is often below 10,
            so that the rank depends on the tolerance and the effective rank is the steadier
            feature.
        """
        self._check_measured()
        values = (
            self.fisher_rank_,
            self.nullity_,
            self.effective_rank_,
            self.participation_ratio_,
            self.trace_,
            self.eigenvalues_[0] if len(self.eigenvalues_) else float("nan"),
            self.tangent_effective_rank_,
            self.n_parameters_,
        )
        return {
            name: float(value) for name, value in zip(self._summary_names(), values, strict=True)
        }

    def _row_space(self, request: str) -> np.ndarray:
        self._check_measured()
        if np.isnan(self.fisher_rank_):
            raise SkgeoError(
                f"{request} needs the whole row space, which solver={self.plan_.side!r} does not "
                "compute. Fit with solver='gram' or 'parameter'."
            )
        if len(self.components_) < self.fisher_rank_:
            raise SkgeoError(
                f"{request} needs all {self.fisher_rank_} directions of the row space, but only "
                f"{len(self.components_)} were kept. Fit with n_components=None."
            )
        if self._scaling is None:
            return self.components_
        # Directions D^(-1/2) u of eigenvectors u of D^(-1/2) G D^(-1/2); the row space of G is
        # spanned by D^(1/2) u.
        kept = self._scaling > 0
        rows = self.components_ * np.where(kept, 1.0 / np.where(kept, self._scaling, 1.0) ** 2, 0.0)
        return orthonormalise_rows(torch.from_numpy(rows)).numpy()

    def null_space(self) -> np.ndarray:
        """Orthonormal basis of the null space.

        To first order, its directions do not change the output distribution on the data.

        Returns
        -------
        ndarray of shape (nullity, P)

        Raises
        ------
        SkgeoError
            If the basis does not fit in memory; :meth:`null_projector` does not form it. Also if
            ``components_`` does not span the row space.

        Notes
        -----
        A complete QR factorisation of the row space: P^2 numbers, about 4/3 P^3 operations.
        """
        rows = self._row_space("null_space()")
        p = self.n_parameters_
        require_memory(
            3 * 8 * p**2,
            f"the null space of {self.nullity_} x {p} numbers, with its factorisation",
            "project single vectors with null_projector(v), which does not form the basis.",
            budget=self.memory_budget,
        )
        return complement(torch.from_numpy(rows)).numpy()

    def null_projector(self, v: Any) -> np.ndarray:
        """Orthogonal projection onto the null space.

        Parameters
        ----------
        v : array-like of shape (P,) or (..., P)
            Directions in parameter space, in ``named_parameters()`` order.

        Returns
        -------
        ndarray of the shape of v

        Raises
        ------
        SkgeoError
            If v has another length, or ``components_`` does not span the row space.
        """
        rows = self._row_space("null_projector(v)")
        projected: np.ndarray = np.asarray(v, dtype=np.float64)
        if projected.ndim == 0 or projected.shape[-1] != self.n_parameters_:
            raise SkgeoError(
                f"v has shape {projected.shape}; expected (..., {self.n_parameters_}), one entry "
                "per parameter."
            )
        # The second pass removes what rounding leaves of a large component in the row space.
        for _ in range(2):
            projected = projected - (projected @ rows.T) @ rows
        return projected
