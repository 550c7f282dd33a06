"""Derivatives of a network on a private copy of it.

:class:`Layers` finds the places of a network, :class:`Recording` is a forward pass with the
Jacobians between them, :class:`Segment` the map restarted from elsewhere, and
:class:`ParameterJacobian` the Jacobian with respect to the parameters.
"""

from __future__ import annotations

from skgeo.autodiff.layer import Layer
from skgeo.autodiff.layer_jacobian import LayerJacobian
from skgeo.autodiff.layers import Layers
from skgeo.autodiff.parameter_jacobian import ParameterJacobian
from skgeo.autodiff.recording import Recording
from skgeo.autodiff.replica import Replica, replica
from skgeo.autodiff.segment import Segment

__all__ = [
    "Layer",
    "LayerJacobian",
    "Layers",
    "ParameterJacobian",
    "Recording",
    "Replica",
    "Segment",
    "replica",
]
