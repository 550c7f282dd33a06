"""The Fisher information matrix on parameters: spectrum, rank, products, estimates."""

from skgeo.fisher._diagonal import fisher_diagonal, fisher_trace
from skgeo.fisher._ntk import ntk
from skgeo.fisher._operator import FisherOperator
from skgeo.fisher._plan import FisherPlan
from skgeo.fisher._rank import fisher_rank
from skgeo.fisher._rank_curve import RankCurve, rank_curve
from skgeo.fisher._spectrum import FisherSpectrum, fisher_spectrum
from skgeo.fisher.display import RankCurveDisplay, SpectrumDisplay
from skgeo.fisher.estimator import FisherRankEstimator
from skgeo.linalg import Estimate

__all__ = [
    "Estimate",
    "FisherOperator",
    "FisherPlan",
    "FisherRankEstimator",
    "FisherSpectrum",
    "RankCurve",
    "RankCurveDisplay",
    "SpectrumDisplay",
    "fisher_diagonal",
    "fisher_rank",
    "fisher_spectrum",
    "fisher_trace",
    "ntk",
    "rank_curve",
]
