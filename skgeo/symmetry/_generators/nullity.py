"""How much of the Fisher null space the known symmetries explain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from skgeo._results import Result
from skgeo.exceptions import warn
from skgeo.fisher._spectrum import measure_fisher
from skgeo.likelihood import Likelihood
from skgeo.linalg._rank import NumericalRank
from skgeo.linalg._threads import single_blas_thread
from skgeo.network._bound import bind
from skgeo.symmetry._generators.operator import Generators, measure_generators
from skgeo.symmetry._network import SymmetryNetwork

NULLITY_LIMIT = 4000
# Each generator is checked against the Jacobian, which is read row by row.
_GENERATOR_LIMIT = 1_000_000


@dataclass(frozen=True, eq=False, repr=False)
class NullityAccount(Result):
    """Flat directions with a name, and those without.

    Attributes
    ----------
    generators : Generators or None
        None where there are too many parameters to check them.
    decision : NumericalRank or None
        The Fisher rank with its tolerance, gap and path; None where it was not taken.
    n_parameters : int
        P, trainable parameters only.
    """

    generators: Generators | None
    decision: NumericalRank | None
    n_parameters: int

    def _line(self) -> str:
        return (
            f"nullity {self.nullity} of {self.n_parameters} parameters: "
            f"{self.explained} explained, {self.unexplained} unexplained"
        )

    @property
    def fisher_rank(self) -> int | float:
        """Rank of the Fisher metric on the data; NaN where it was not taken."""
        return float("nan") if self.decision is None else self.decision.rank

    @property
    def nullity(self) -> int | float:
        """``n_parameters - fisher_rank``."""
        return self.n_parameters - self.fisher_rank

    @property
    def explained(self) -> int | float:
        """Dimension of the span of all generators; NaN where they were not made."""
        if self.generators is None:
            return float("nan")
        return self.generators.n_generators

    @property
    def unexplained(self) -> int | float:
        """``nullity - explained``.

        Zero means that every flat direction has a name. More are hidden symmetries, or too few
        data. Less than zero cannot be, but for a rank that a tolerance set too high.
        """
        return self.nullity - self.explained


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
    r"""Account for the null space of the Fisher metric of a network on data.

    .. math:: \mathrm{unexplained} = P - \mathrm{rank}(G) - \dim \mathrm{span}(\text{generators}).

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
        Of the Fisher rank, relative to the largest eigenvalue.
    limit : int, default=4000
        Size of the Fisher matrix, on its smaller side, above which its rank is not taken.
    batch_size : int, optional
    device : str, optional

    Returns
    -------
    NullityAccount

    Raises
    ------
    SkgeoError
        As :func:`~skgeo.fisher_rank`.

    Warns
    -----
    GeometryWarning
        Above `limit`, where the unexplained nullity is NaN.

    Notes
    -----
    The rank formulas of one hidden layer hold for data on both sides of each boundary, and more
    samples than parameters. A rank of N samples is at most ``N rank(F)``: with fewer samples than
    that takes, the rest of the nullity is unexplained.

    Examples
    --------
    A duplicate of a unit brings three flat directions, beside one scaling a unit:

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
    generators = None
    side = min(network.fisher.n_rows, network.n_parameters)
    if network.n_parameters <= _GENERATOR_LIMIT:
        generators = measure_generators(network)
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
    spectrum = measure_fisher(
        network.fisher, tol=tol, n_components=0, tangent=False, progress=progress
    )
    return NullityAccount(generators, spectrum.decision, network.n_parameters)
