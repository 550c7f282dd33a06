"""Networks with known answers, and seeded training runs as pairs of a model and its data."""

from skgeo.datasets.linear import linear_network
from skgeo.datasets.networks import (
    KnownNetwork,
    known_networks,
    linear_regression,
    one_hidden_relu,
    planted_relu,
    scaling_pair,
    smooth_network,
    softmax_regression,
    softmax_relu,
    switched_off,
    symmetric_hinges,
    two_hinges,
    two_layer_linear,
)
from skgeo.datasets.training import TrainingRun, digits_run, training_run

__all__ = [
    "KnownNetwork",
    "TrainingRun",
    "digits_run",
    "known_networks",
    "linear_network",
    "linear_regression",
    "one_hidden_relu",
    "planted_relu",
    "scaling_pair",
    "smooth_network",
    "softmax_regression",
    "softmax_relu",
    "switched_off",
    "symmetric_hinges",
    "training_run",
    "two_hinges",
    "two_layer_linear",
]
