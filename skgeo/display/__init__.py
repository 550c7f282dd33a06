"""Pictures of fitted estimators. Matplotlib is imported when one is drawn."""

from skgeo.display.chain import ProfileDisplay
from skgeo.display.fiber import BarcodeDisplay, HasseDisplay
from skgeo.display.fisher import SpectrumDisplay
from skgeo.display.quotient import RankProfileDisplay
from skgeo.display.symmetry import BoundaryDisplay, NullityDisplay

__all__ = [
    "BarcodeDisplay",
    "BoundaryDisplay",
    "HasseDisplay",
    "NullityDisplay",
    "ProfileDisplay",
    "RankProfileDisplay",
    "SpectrumDisplay",
]
