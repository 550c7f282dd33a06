"""The estimators: doorways to the theorems in :mod:`skgeo.geometry`."""

from skgeo.estimators.chain import JacobianChainProfiler
from skgeo.estimators.fiber import LinearFiberStratifier
from skgeo.estimators.fisher import FisherRankEstimator
from skgeo.estimators.quotient import LayerQuotientEstimator
from skgeo.estimators.symmetry import SymmetryClassifier

__all__ = [
    "FisherRankEstimator",
    "JacobianChainProfiler",
    "LayerQuotientEstimator",
    "LinearFiberStratifier",
    "SymmetryClassifier",
]
