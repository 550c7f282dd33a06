"""The Fisher information matrix on parameters."""

from skgeo.geometry.fisher.spectrum import (
    FisherSpectrum,
    direction_leverage,
    fisher_spectrum,
    measure_fisher,
)

__all__ = ["FisherSpectrum", "direction_leverage", "fisher_spectrum", "measure_fisher"]
