"""Scikit-learn estimators for the singular information geometry of neural networks."""

from skgeo._show_versions import show_versions
from skgeo.display import BarcodeDisplay, HasseDisplay, RankProfileDisplay, SpectrumDisplay
from skgeo.estimators import (
    FisherRankEstimator,
    LayerQuotientEstimator,
    LinearFiberStratifier,
)
from skgeo.exceptions import (
    GeometryWarning,
    NonSmoothWarning,
    NotAModelError,
    RankAmbiguityWarning,
    SkgeoError,
)
from skgeo.geometry import quotient
from skgeo.geometry.fisher import (
    FisherSpectrum,
    fisher_diagonal,
    fisher_rank,
    fisher_spectrum,
    fisher_trace,
    ntk,
)
from skgeo.models import Checkpoint, WrappedModel

__version__ = "0.1.0"

__all__ = [
    "BarcodeDisplay",
    "Checkpoint",
    "FisherRankEstimator",
    "FisherSpectrum",
    "GeometryWarning",
    "HasseDisplay",
    "LayerQuotientEstimator",
    "LinearFiberStratifier",
    "NonSmoothWarning",
    "NotAModelError",
    "RankAmbiguityWarning",
    "RankProfileDisplay",
    "SkgeoError",
    "SpectrumDisplay",
    "WrappedModel",
    "__version__",
    "fisher_diagonal",
    "fisher_rank",
    "fisher_spectrum",
    "fisher_trace",
    "ntk",
    "quotient",
    "show_versions",
]
