"""Scikit-learn estimators for the singular information geometry of neural networks."""

from skgeo import chain, fiber, fisher, likelihood, quotient, symmetry, training
from skgeo._show_versions import show_versions
from skgeo._version import __version__
from skgeo.chain import JacobianChainProfiler
from skgeo.exceptions import (
    GeometryWarning,
    NonSmoothWarning,
    NotAModelError,
    RankAmbiguityWarning,
    SkgeoError,
)
from skgeo.fiber import LinearFiberStratifier
from skgeo.fisher import (
    FisherRankEstimator,
    fisher_diagonal,
    fisher_rank,
    fisher_spectrum,
    fisher_trace,
    ntk,
)
from skgeo.models import Checkpoint, WrappedModel
from skgeo.quotient import LayerQuotientEstimator
from skgeo.symmetry import SymmetryClassifier
from skgeo.training import track

__all__ = [
    "Checkpoint",
    "FisherRankEstimator",
    "GeometryWarning",
    "JacobianChainProfiler",
    "LayerQuotientEstimator",
    "LinearFiberStratifier",
    "NonSmoothWarning",
    "NotAModelError",
    "RankAmbiguityWarning",
    "SkgeoError",
    "SymmetryClassifier",
    "WrappedModel",
    "__version__",
    "chain",
    "fiber",
    "fisher",
    "fisher_diagonal",
    "fisher_rank",
    "fisher_spectrum",
    "fisher_trace",
    "likelihood",
    "ntk",
    "quotient",
    "show_versions",
    "symmetry",
    "track",
    "training",
]
