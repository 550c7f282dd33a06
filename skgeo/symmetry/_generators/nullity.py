"""Explained and unexplained dimensions of the Fisher null space, and those that lack data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from skgeo._arguments import check_integer, check_tolerance
from skgeo._results import Result
from skgeo.exceptions import warn
from skgeo.fisher._spectrum import measure_fisher
from skgeo.likelihood import Likelihood
from skgeo.linalg._memory import NotEnoughMemory
from skgeo.linalg._rank import NumericalRank
from skgeo.linalg._threads import single_blas_thread
from skgeo.network._bound import bind
from skgeo.symmetry._generators.operator import Generators, measure_generators
from skgeo.symmetry._network import SymmetryNetwork

NULLITY_LIMIT = 4000
# Each generator is checked against the Jacobian, so networks must not be too large.
_GENERATOR_LIMIT = 1_000_000


@dataclass(frozen=True, eq=False, repr=False)
class NullityAccount(Result):
    """Explained and unexplained dimensions of the Fisher null space, and those that lack data.

    They add up to the nullity.

    Attributes
    ----------
    generators : Generators or None
        Flat directions in closed form; None if there are too many parameters to check them.
    decision : NumericalRank or None
        The Fisher rank with its threshold and gap; None if it was not computed.
    n_parameters : int
        Number P of trainable parameters.

    See Also
    --------
    skgeo.symmetry.nullity_account : Makes it.
    """

    generators: Generators | None
    decision: NumericalRank | None
    n_parameters: int

    def _line(self) -> str:
        lacking = self.sample_limited
        return (
            f"nullity {self.nullity} of {self.n_parameters} parameters: "
            f"{self.explained} explained, {self.unexplained} unexplained"
            + (f", {lacking} for lack of data" if lacking > 0 else "")
        )

    @property
    def fisher_rank(self) -> int | float:
        """Rank of the Fisher metric on the data; NaN if it was not computed."""
        return float("nan") if self.decision is None else self.decision.rank

    @property
    def nullity(self) -> int | float:
        """``n_parameters - fisher_rank``."""
        return self.n_parameters - self.fisher_rank

    @property
    def explained(self) -> int | float:
        """Dimension of the span of all generators; NaN without generators."""
        if self.generators is None:
            return float("nan")
        return self.generators.n_generators

    @property
    def sample_limited(self) -> int | float:
        """Dimensions that may be flat only for lack of data; NaN if the rank was not computed.

        If the Fisher rank is the number of rows of the samples, all of the nullity that is not
        explained: more samples may see these directions. Otherwise zero.
        """
        if self.decision is None:
            return float("nan")
        if not self.decision.sample_limited:
            return 0
        return max(self.nullity - self.explained, 0)

    @property
    def unexplained(self) -> int | float:
        """``nullity - explained - sample_limited``.

        Zero means that known symmetries explain every flat direction that does not lack data. A
        positive number means hidden symmetries, or data that are too few for the network or alike.
        A negative number means that the tolerance of the rank is too small.
        """
        return self.nullity - self.explained - self.sample_limited


def nullity_account(
    model: Any,
    X: Any,
    y: Any = None,
    *,
    likelihood: str | Likelihood = "auto",
    tol: float | Literal["auto"] = "auto",
    limit: int = NULLITY_LIMIT,
    batch_size: int | None = None,
    device: str | None = None,
) -> NullityAccount:
    r"""Account of the null space of the Fisher metric of a network on data.

    .. math:: \mathrm{unexplained} = P - \mathrm{rank}(G) - \dim \mathrm{span}(\text{generators}),

    unless the samples limit the rank: then what is not explained lacks data, and nothing can be
    called unexplained.

    Parameters
    ----------
    model : Module, WrappedModel, Checkpoint, scikit-learn or skorch model
        Only read. All is computed in float64, whatever its dtype.
    X : array, Tensor, dict, Dataset or DataLoader
        N samples.
    y : array-like, optional
        As in :func:`~skgeo.fisher.fisher_spectrum`.
    likelihood : str or Likelihood, default="auto"
        As in :func:`~skgeo.fisher.fisher_spectrum`.
    tol : float or "auto", default="auto"
        Tolerance of the Fisher rank, relative to the largest eigenvalue. "auto" is what the
        arithmetic resolves.
    limit : int, default=4000
        Largest size of the smaller side of the Fisher matrix (rows or parameters) for which its
        rank is computed.
    batch_size : int, optional
        Samples per forward pass. The result does not depend on it.
    device : str, optional
        Device to compute on; by default that of the model.

    Returns
    -------
    NullityAccount
        The rank, the generators, and the explained, unexplained and sample-limited nullity.

    Raises
    ------
    SkgeoError
        For NaN or infinity anywhere, a model that ignores its parameters, or outputs that do not
        fit the likelihood.

    Warns
    -----
    GeometryWarning
        If the Fisher matrix is larger than `limit` or than the memory, or the network has more
        than a million parameters. The unexplained nullity is then NaN. Also if the samples give
        too few rows to see all directions that the generators leave.

    See Also
    --------
    skgeo.fisher.fisher_rank : The Fisher rank.
    skgeo.symmetry.generators : The generators.

    Notes
    -----
    For one hidden layer of ReLU, symmetries explain the whole null space if there are data on both
    sides of each boundary and more samples than parameters. The Fisher rank of N samples is at most
    the number of rows, ``N rank(F)`` for each position, where F is the Fisher information of the
    output distribution. If it equals that, the directions that are not explained lack data and are
    counted as ``sample_limited``. If it is less only since some samples are alike, or switch off
    all units, they are counted as unexplained, with a warning;
    :func:`~skgeo.fisher.rank_curve` tells the two apart.

    Examples
    --------
    A duplicate unit has three flat directions, in addition to one scaling per unit:

    >>> from skgeo.datasets import planted_relu
    >>> from skgeo.symmetry import nullity_account
    >>> case = planted_relu("duplicate")
    >>> account = nullity_account(case.module, case.inputs, likelihood="gaussian")
    >>> account.nullity, account.generators.dimensions, account.unexplained
    (7, {'scaling': 4, 'duplicate': 3}, 0)
    """
    with single_blas_thread():
        bound = bind(
            model,
            X,
            y,
            likelihood=likelihood,
            batch_size=batch_size,
            device=device,
        )
        return measure_nullity(SymmetryNetwork(bound), tol=tol, limit=limit)


def measure_nullity(
    network: SymmetryNetwork,
    *,
    tol: float | Literal["auto"] = "auto",
    limit: int = NULLITY_LIMIT,
    progress: Callable[..., Any] = iter,
) -> NullityAccount:
    """Account for the null space of a network on data, as :func:`nullity_account`."""
    check_tolerance(tol)
    check_integer("limit", limit, least=0)
    generators = None
    side = min(network.fisher.n_rows, network.n_parameters)
    if network.n_parameters <= _GENERATOR_LIMIT:
        try:
            generators = measure_generators(network)
        except NotEnoughMemory as error:
            warn(f"Flat directions are not checked, so their number is NaN. {error}")
    else:
        warn(
            f"The network has {network.n_parameters} parameters, more than the {_GENERATOR_LIMIT} "
            "up to which flat directions are checked, so the explained and the unexplained nullity "
            "are NaN."
        )
    if side > limit:
        if generators is not None:
            warn(
                f"The Fisher matrix has {side} rows on its smaller side, above the limit of "
                f"{limit}, so its rank is not computed and the unexplained nullity is NaN. Raise "
                "the limit, or use fewer samples."
            )
        return NullityAccount(generators, None, network.n_parameters)
    try:
        spectrum = measure_fisher(
            network.fisher, tol=tol, n_components=0, tangent=False, progress=progress, offers=()
        )
    except NotEnoughMemory as error:
        warn(
            "The Fisher rank is not computed, so it and the unexplained nullity are NaN; classes "
            f"of units and flat directions do not depend on it. {error}"
        )
        return NullityAccount(generators, None, network.n_parameters)
    account = NullityAccount(generators, spectrum.decision, network.n_parameters)
    rows, seen = network.fisher.network.counted_rows(), network.n_parameters - account.explained
    if account.unexplained > 0 and rows < seen:
        warn(
            f"The samples give {rows} rows, fewer than the {seen} directions that known symmetries "
            f"leave: some of the {account.unexplained} unexplained directions may only lack data. "
            "Measure more samples; skgeo.fisher.rank_curve shows whether the rank still grows."
        )
    return account
