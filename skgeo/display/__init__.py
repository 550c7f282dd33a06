"""Pictures of fitted estimators. Matplotlib is imported when one is drawn."""

from skgeo.display.fiber import BarcodeDisplay, HasseDisplay
from skgeo.display.fisher import SpectrumDisplay

__all__ = ["BarcodeDisplay", "HasseDisplay", "SpectrumDisplay"]
