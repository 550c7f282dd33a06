"""Output families: how a network's outputs become a distribution, and its Fisher metric."""

from skgeo.likelihood._categorical import Categorical
from skgeo.likelihood._choice import resolve_likelihood
from skgeo.likelihood._families import (
    LIKELIHOODS,
    Bernoulli,
    Gaussian,
    GaussianScale,
    Poisson,
    as_likelihood,
)
from skgeo.likelihood._likelihood import Likelihood

__all__ = [
    "LIKELIHOODS",
    "Bernoulli",
    "Categorical",
    "Gaussian",
    "GaussianScale",
    "Likelihood",
    "Poisson",
    "as_likelihood",
    "resolve_likelihood",
]
