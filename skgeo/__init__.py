"""Scikit-learn estimators for the singular information geometry of neural networks."""

from skgeo._show_versions import show_versions
from skgeo.display import (
    BarcodeDisplay,
    BoundaryDisplay,
    HasseDisplay,
    NullityDisplay,
    ProfileDisplay,
    RankProfileDisplay,
    SpectrumDisplay,
)
from skgeo.estimators import (
    FisherRankEstimator,
    JacobianChainProfiler,
    LayerQuotientEstimator,
    LinearFiberStratifier,
    SymmetryClassifier,
)
from skgeo.exceptions import (
    GeometryWarning,
    NonSmoothWarning,
    NotAModelError,
    RankAmbiguityWarning,
    SkgeoError,
)
from skgeo.geometry import chain, quotient, symmetry
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
    "BoundaryDisplay",
    "Checkpoint",
    "FisherRankEstimator",
    "FisherSpectrum",
    "GeometryWarning",
    "HasseDisplay",
    "JacobianChainProfiler",
    "LayerQuotientEstimator",
    "LinearFiberStratifier",
    "NonSmoothWarning",
    "NotAModelError",
    "NullityDisplay",
    "ProfileDisplay",
    "RankAmbiguityWarning",
    "RankProfileDisplay",
    "SkgeoError",
    "SpectrumDisplay",
    "SymmetryClassifier",
    "WrappedModel",
    "__version__",
    "chain",
    "fisher_diagonal",
    "fisher_rank",
    "fisher_spectrum",
    "fisher_trace",
    "ntk",
    "quotient",
    "show_versions",
    "symmetry",
]
