"""Networks: their activations, their data flow, and models on data."""

from skgeo.network._activation import IDENTITY, Activation, activation
from skgeo.network._activation_reading import (
    activation_call,
    activation_operation,
    read_activation,
)
from skgeo.network._bound import BoundNetwork, bind
from skgeo.network._replica import Replica, replica

__all__ = [
    "IDENTITY",
    "Activation",
    "BoundNetwork",
    "Replica",
    "activation",
    "activation_call",
    "activation_operation",
    "bind",
    "read_activation",
    "replica",
]
