"""Derivatives of a network, on a private copy of it.

:class:`Layers` finds the places of a network. :class:`Recording` is a forward pass with the
Jacobians between places, :class:`Segment` is the map from one place to another, and
:class:`ParameterJacobian` is the Jacobian with respect to the parameters. A :class:`StructureRule`
computes the per-sample gradients of one type of layer.
"""

from skgeo.jacobian._layer import Layer
from skgeo.jacobian._layer_jacobian import LayerJacobian
from skgeo.jacobian._layers import Layers
from skgeo.jacobian._parameter_jacobian import ParameterJacobian
from skgeo.jacobian._recording import Recording
from skgeo.jacobian._rules.rule import LayerGradients, StructureRule
from skgeo.jacobian._rules.rule_table import register_structure, structure_rule
from skgeo.jacobian._rules.selfcheck import check_structure
from skgeo.jacobian._segment import Segment

__all__ = [
    "Layer",
    "LayerGradients",
    "LayerJacobian",
    "Layers",
    "ParameterJacobian",
    "Recording",
    "Segment",
    "StructureRule",
    "check_structure",
    "register_structure",
    "structure_rule",
]
