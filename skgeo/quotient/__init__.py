"""Quotients of representations: which directions of a layer the rest of the network sees.

The Fisher metric on output distributions, pulled back to the representation at a layer, is
degenerate. Its null directions are what the rest of the network cannot see; what is left after
dividing them out is the representation as far as the task is concerned.
"""

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
    "RankJump",
    "RankProfileDisplay",
    "fisher_rao_length",
    "layer_spectra",
    "leading_eigenvalues",
    "rank_jumps",
    "straightness",
]
