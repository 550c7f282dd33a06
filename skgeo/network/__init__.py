"""What a network is, read once: its activations, its graph, its likelihood, and a model on data."""

from skgeo.network.activation import IDENTITY, Activation, activation
from skgeo.network.activation_reading import (
    activation_call,
    activation_operation,
    read_activation,
)

__all__ = [
    "IDENTITY",
    "Activation",
    "activation",
    "activation_call",
    "activation_operation",
    "read_activation",
]
