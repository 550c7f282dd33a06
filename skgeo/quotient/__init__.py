"""Quotients of representations: the directions of a layer on which the outputs depend.

The Fisher metric on output distributions, pulled back to the representation at a layer, is
degenerate. Along its null directions the outputs do not change to first order. The quotient by them
is the part of the representation that matters for the task.
"""

from skgeo.quotient._collapse import NeuralCollapse, neural_collapse
from skgeo.quotient._jumps import RankJump, rank_jumps
from skgeo.quotient._leading import leading_eigenvalues
from skgeo.quotient._length import fisher_rao_length, straightness
from skgeo.quotient._spectra import (
    LayerSpectrum,
    layer_spectra,
)
from skgeo.quotient.display import RankProfileDisplay
from skgeo.quotient.estimator import LayerQuotientEstimator

__all__ = [
    "LayerQuotientEstimator",
    "LayerSpectrum",
    "NeuralCollapse",
    "RankJump",
    "RankProfileDisplay",
    "fisher_rao_length",
    "layer_spectra",
    "leading_eigenvalues",
    "neural_collapse",
    "rank_jumps",
    "straightness",
]
