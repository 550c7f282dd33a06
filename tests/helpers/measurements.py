"""One table of everything that measures a model on data, for laws that hold for all of them.

A measurement is a function of a network, inputs and options (such as ``device=``) that returns its
result; :func:`numbers` are the numbers in it.
"""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import skgeo
from helpers.networks import mlp, normal
from skgeo import chain, fisher, quotient, symmetry

Measurement = Callable[..., Any]
_SMALL = 1e-3
_SOFTMAX = {"likelihood": "categorical"}


def _fitted(estimator: type, **parameters: Any) -> Measurement:
    """Summary of a fit, and features of the same samples."""

    def measure(net: Any, X: Any, **options: Any) -> Any:
        fitted = estimator(net, **parameters, **options).fit(X)
        return fitted.summary(), fitted.transform(X)

    return measure


def _called(function: Callable[..., Any], **parameters: Any) -> Measurement:
    return lambda net, X, **options: function(net, X, **parameters, **options)


def _curve(net: Any, X: Any, **options: Any) -> Any:
    return chain.curvature(net, X, velocity=torch.ones_like(X), **options)


def _jumps(net: Any, X: Any, **options: Any) -> Any:
    return quotient.rank_jumps(net, X[:1], X[1:2], **_SOFTMAX, **options)


def _collapse(net: Any, X: Any, **options: Any) -> Any:
    return quotient.neural_collapse(net, X, np.arange(len(X)) % 2, **_SOFTMAX, **options)


def _operator(net: Any, X: Any, **options: Any) -> Any:
    G = fisher.FisherOperator(net, X, **_SOFTMAX, **options)
    ones = torch.ones(G.shape[0], 2, dtype=G.dtype, device=G.device)
    return [G @ ones, G.quadratic_form(ones[:, 0]), G.trace(2), G.diagonal(2), G.probe()]


def _stochastic(net: Any, X: Any, **options: Any) -> Any:
    options = {"solver": "stochastic", "n_probes": 16, **_SOFTMAX, **options}
    return skgeo.FisherRankEstimator(net, **options).fit(X).summary()


def _kinks(net: Any, X: Any, **options: Any) -> Any:
    return chain.kink_density(net, X, **options)


ESTIMATORS: dict[str, Measurement] = {
    "FisherRankEstimator": _fitted(skgeo.FisherRankEstimator, **_SOFTMAX),
    "FisherRankEstimator diagonal": _fitted(
        skgeo.FisherRankEstimator, scale="diagonal", **_SOFTMAX
    ),
    "LayerQuotientEstimator": _fitted(skgeo.LayerQuotientEstimator, **_SOFTMAX),
    "JacobianChainProfiler": _fitted(skgeo.JacobianChainProfiler),
    "JacobianChainProfiler to the output": _fitted(skgeo.JacobianChainProfiler, chain="output"),
    "SymmetryClassifier": _fitted(skgeo.SymmetryClassifier, **_SOFTMAX),
}
# What runs on a network of any architecture.
FUNCTIONS: dict[str, Measurement] = {
    "fisher_rank": _called(fisher.fisher_rank, **_SOFTMAX),
    "fisher_spectrum": _called(fisher.fisher_spectrum, **_SOFTMAX),
    "fisher_spectrum parameter": _called(fisher.fisher_spectrum, solver="parameter", **_SOFTMAX),
    "fisher_spectrum gram": _called(fisher.fisher_spectrum, solver="gram", **_SOFTMAX),
    "fisher_spectrum lanczos": _called(
        fisher.fisher_spectrum, solver="lanczos", n_components=2, **_SOFTMAX
    ),
    "FisherOperator": _operator,
    "FisherRankEstimator stochastic": _stochastic,
    "FisherOperator mc": functools.partial(_operator, kind="mc"),
    "rank_curve": _called(fisher.rank_curve, **_SOFTMAX),
    "fisher_trace": _called(fisher.fisher_trace, **_SOFTMAX),
    "fisher_diagonal": _called(fisher.fisher_diagonal, **_SOFTMAX),
    "ntk": _called(fisher.ntk),
    "ntk summed": _called(fisher.ntk, summed=True),
    "layer_spectra": _called(quotient.layer_spectra, **_SOFTMAX),
    "chain_profile": _called(chain.chain_profile, strict=False),
    "generators": _called(symmetry.generators, **_SOFTMAX),
    "neural_collapse": _collapse,
    "nullity_account": _called(symmetry.nullity_account, **_SOFTMAX),
}
# What needs vectors as inputs, smoothness, or a plain chain of layers.
OF_PLAIN_NETWORKS: dict[str, Measurement] = {
    "leading_eigenvalues": _called(
        quotient.leading_eigenvalues, layer="1", n_values=2, likelihood="gaussian"
    ),
    "rank_jumps": _jumps,
    "fisher_rao_length": _called(quotient.fisher_rao_length, **_SOFTMAX),
    "fisher_rao_length at a layer": _called(quotient.fisher_rao_length, layer="1", **_SOFTMAX),
    "straightness": _called(quotient.straightness, **_SOFTMAX),
    "cauchy_green": _called(chain.cauchy_green),
    "curvature": _curve,
    "curvature of slices": _called(chain.curvature, kind="sectional"),
    "mean_field": _called(chain.mean_field),
    "stability": _called(chain.stability, n_repeats=2),
    "stability of weights": _called(chain.stability, noise="weights", n_repeats=2),
}
OF_HINGES: dict[str, Measurement] = {"kink_density": _kinks}
MEASUREMENTS = {**ESTIMATORS, **FUNCTIONS, **OF_PLAIN_NETWORKS, **OF_HINGES}


def numbers(found: Any) -> list[np.ndarray]:
    """The arrays of numbers in a result, in float64; single numbers are arrays too."""
    if isinstance(found, (bool, int, float, np.ndarray, Tensor)):
        array = np.asarray(found.detach().cpu() if isinstance(found, Tensor) else found)
        return [array.astype(np.float64)] if array.dtype.kind in "bifu" else []
    if dataclasses.is_dataclass(found):
        found = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
    if hasattr(found, "_asdict"):
        found = found._asdict()
    if isinstance(found, Mapping):
        found = [value for name, value in found.items() if not _is_chance(name)]
    if isinstance(found, (list, tuple)):
        return [array for item in found for array in numbers(item)]
    return []


def _is_chance(name: str) -> bool:
    """Whether a number may be a ratio to rounding, rounding itself, or the memory that is free."""
    return "gap" in name or name in ("residual", "plan")


def difference(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """Largest difference, relative to the largest entry of its array; inf for other shapes.

    Arrays of nothing but small numbers (logarithms of one, say) are compared absolutely.
    """
    if [a.shape for a in found] != [b.shape for b in expected]:
        return np.inf
    return max((_difference(a, b) for a, b in zip(found, expected, strict=True)), default=0.0)


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    finite = np.isfinite(expected)
    if not np.isfinite(found[finite]).all() or not np.array_equal(
        found[~finite], expected[~finite], equal_nan=True
    ):
        return np.inf
    away = np.abs(found[finite] - expected[finite]).max(initial=0.0)
    return float(away / np.abs(expected[finite]).max(initial=_SMALL))


def quietly(measure: Callable[[], Any]) -> list[np.ndarray]:
    """Numbers of a measurement, without the warnings about ranks and guesses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", skgeo.GeometryWarning)
        return numbers(measure())


def parity(measure: Measurement, net: Any, X: Any, device: str) -> float:
    """Largest difference between a measurement on the CPU and on another device."""
    here = quietly(lambda: measure(net, X))
    return difference(quietly(lambda: measure(net, X, device=device)), here)


def network_for(name: str, dtype: torch.dtype = torch.float64) -> tuple[Any, Tensor]:
    """A small network and inputs on which the measurement of that name is defined."""
    activation = nn.ReLU if name in OF_HINGES else nn.Tanh
    return mlp(4, 6, 3, activation=activation, dtype=dtype), normal(12, 4, dtype=dtype)
