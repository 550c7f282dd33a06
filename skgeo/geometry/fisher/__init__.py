"""The Fisher information matrix on parameters: spectrum, rank, diagonal, trace and kernel."""

from skgeo.geometry.fisher.diagonal import fisher_diagonal, fisher_trace
from skgeo.geometry.fisher.directions import direction_leverage
from skgeo.geometry.fisher.ntk import ntk
from skgeo.geometry.fisher.plan import FisherPlan, plan_fisher
from skgeo.geometry.fisher.rank import fisher_rank
from skgeo.geometry.fisher.spectrum import FisherSpectrum, fisher_spectrum, measure_fisher

__all__ = [
    "FisherPlan",
    "FisherSpectrum",
    "direction_leverage",
    "fisher_diagonal",
    "fisher_rank",
    "fisher_spectrum",
    "fisher_trace",
    "measure_fisher",
    "ntk",
    "plan_fisher",
]
