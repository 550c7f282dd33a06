"""Pictures of fitted estimators. Matplotlib is imported when one is drawn."""

from skgeo.display.fiber import BarcodeDisplay, HasseDisplay
from skgeo.display.fisher import SpectrumDisplay
from skgeo.display.quotient import RankProfileDisplay

__all__ = ["BarcodeDisplay", "HasseDisplay", "RankProfileDisplay", "SpectrumDisplay"]
