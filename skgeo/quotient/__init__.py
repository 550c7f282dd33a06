"""Quotients of representations: which directions of a layer the rest of the network sees.

The Fisher metric on output distributions, pulled back to the representation at a layer, is
degenerate. Its null directions are what the rest of the network cannot see; what is left after
dividing them out is the representation as far as the task is concerned.
"""

from skgeo.quotient._coordinates import collapse, null_projection, quotient_fidelity
from skgeo.quotient._jumps import RankJump, rank_jumps, segment_jumps
from skgeo.quotient._leading import leading_eigenvalues
from skgeo.quotient._length import fisher_rao_length, straightness
from skgeo.quotient._metric import MeanMetric
from skgeo.quotient._rows import LayerRows
from skgeo.quotient._spectra import (
    LayerSpectrum,
    layer_spectra,
    measure_layers,
    pointwise_eigenvalues,
    pointwise_ranks,
)
from skgeo.quotient.display import RankProfileDisplay
from skgeo.quotient.estimator import LayerQuotientEstimator

__all__ = [
    "LayerQuotientEstimator",
    "LayerRows",
    "LayerSpectrum",
    "MeanMetric",
    "RankJump",
    "RankProfileDisplay",
    "collapse",
    "fisher_rao_length",
    "layer_spectra",
    "leading_eigenvalues",
    "measure_layers",
    "null_projection",
    "pointwise_eigenvalues",
    "pointwise_ranks",
    "quotient_fidelity",
    "rank_jumps",
    "segment_jumps",
    "straightness",
]
