"""Derivatives of a network on a private copy of it."""

from __future__ import annotations

from skgeo.autodiff.capture import Capture, capture
from skgeo.autodiff.jacobian import output_jacobian
from skgeo.autodiff.recorder import LayerCall
from skgeo.autodiff.replica import Replica, replica

__all__ = ["Capture", "LayerCall", "Replica", "capture", "output_jacobian", "replica"]
