"""Scikit-learn estimators for the singular information geometry of neural networks."""

from skgeo._show_versions import show_versions
from skgeo.display import BarcodeDisplay, HasseDisplay, SpectrumDisplay
from skgeo.estimators import FisherRankEstimator, LinearFiberStratifier
from skgeo.exceptions import (
    GeometryWarning,
    NonSmoothWarning,
    NotAModelError,
    RankAmbiguityWarning,
    SkgeoError,
)
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
    "LinearFiberStratifier",
    "NonSmoothWarning",
    "NotAModelError",
    "RankAmbiguityWarning",
    "SkgeoError",
    "SpectrumDisplay",
    "WrappedModel",
    "__version__",
    "fisher_diagonal",
    "fisher_rank",
    "fisher_spectrum",
    "fisher_trace",
    "ntk",
    "show_versions",
]
