"""The estimators: doorways to the theorems in :mod:`skgeo.geometry`."""

from skgeo.estimators.fiber import LinearFiberStratifier
from skgeo.estimators.fisher import FisherRankEstimator
from skgeo.estimators.quotient import LayerQuotientEstimator

__all__ = ["FisherRankEstimator", "LayerQuotientEstimator", "LinearFiberStratifier"]
