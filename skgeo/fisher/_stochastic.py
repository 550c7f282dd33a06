"""What random probes tell of a Fisher information matrix that is too large to form."""

from __future__ import annotations

from dataclasses import dataclass

from skgeo._arguments import check_integer
from skgeo._results import Result
from skgeo.exceptions import GeometryWarning, SkgeoError, warn
from skgeo.fisher._operator import FisherOperator
from skgeo.fisher._plan import FisherPlan, plan_stochastic
from skgeo.fisher._rows import FisherRows
from skgeo.linalg._estimate import Estimate
from skgeo.linalg._sketches import LEAST_FOR_RATIOS

_UNKNOWN = Estimate(float("nan"), float("nan"))


@dataclass(frozen=True, repr=False)
class FisherSketch(Result):
    """Estimates of sums of the spectrum.

    Attributes
    ----------
    trace, participation_ratio : Estimate
        The ratio is NaN from fewer than 16 probes, or where they do not fit in memory together.
    plan : FisherPlan
    """

    trace: Estimate[float]
    participation_ratio: Estimate[float]
    plan: FisherPlan


def sketch_fisher(fisher: FisherRows, n_probes: int, seed: int) -> FisherSketch:
    """Trace and participation ratio from random probes; one warning says what is not known."""
    if check_integer("n_probes", n_probes) < 2:
        raise SkgeoError(
            f"Got n_probes={n_probes}; a standard error needs at least 2 probes, and the "
            f"participation ratio {LEAST_FOR_RATIOS}."
        )
    seed = check_integer("random_state", seed, least=0)
    plan = plan_stochastic(fisher, n_probes)
    operator = FisherOperator.of(fisher, seed=seed)
    trace, ratio, why = operator.trace(n_probes), _UNKNOWN, ""
    if n_probes < LEAST_FOR_RATIOS:
        why = f" (the last needs {LEAST_FOR_RATIOS} probes)"
    elif plan.total_bytes > plan.budget:
        why = f" (the last needs {n_probes} vectors of {fisher.n_parameters} numbers in memory)"
    else:
        ratio = operator.participation_ratio(n_probes)
    unknown = ["rank", "nullity", "eigenvalues", "effective ranks"]
    warn(
        f"Estimated from {n_probes} random probes: "
        f"{', '.join(unknown)}{' and participation ratio' if why else ''} cannot be known from "
        f"them and are NaN{why}.",
        GeometryWarning,
    )
    return FisherSketch(trace, ratio, plan)
