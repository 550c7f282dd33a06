"""Quotients of representations: which directions of a layer the rest of the network sees.

The Fisher metric on output distributions, pulled back to the representation at a layer, is
degenerate. Its null directions are what the rest of the network cannot see; what is left after
dividing them out is the representation as far as the task is concerned.
"""

from skgeo.geometry.quotient.coordinates import collapse, null_projection, quotient_fidelity
from skgeo.geometry.quotient.jumps import RankJump, rank_jumps, segment_jumps
from skgeo.geometry.quotient.leading import leading_eigenvalues
from skgeo.geometry.quotient.length import fisher_rao_length, straightness
from skgeo.geometry.quotient.metric import MeanMetric
from skgeo.geometry.quotient.rows import LayerRows
from skgeo.geometry.quotient.spectra import (
    LayerSpectrum,
    layer_spectra,
    measure_layers,
    pointwise_eigenvalues,
    pointwise_ranks,
)

__all__ = [
    "LayerRows",
    "LayerSpectrum",
    "MeanMetric",
    "RankJump",
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
