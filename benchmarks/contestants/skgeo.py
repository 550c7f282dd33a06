"""This package, by its public functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from outcomes import NotAvailableYet
from torch import Tensor, nn
from works import N_TOP

import skgeo

LIKELIHOOD = "categorical"
NOT_OFFERED: dict[str, str] = {}


def _public(name: str) -> Callable[..., Any]:
    try:
        return getattr(skgeo, name)
    except AttributeError:
        raise NotAvailableYet(f"skgeo.{name}") from None


def spectrum(model: nn.Module, X: Tensor) -> Tensor:
    return skgeo.fisher_spectrum(model, X, likelihood=LIKELIHOOD).eigenvalues


def spectrum_parameter(model: nn.Module, X: Tensor) -> Tensor:
    result = skgeo.fisher_spectrum(model, X, likelihood=LIKELIHOOD, solver="parameter")
    return result.eigenvalues


def rank(model: nn.Module, X: Tensor) -> float:
    result = _public("fisher_rank")(model, X, likelihood=LIKELIHOOD)
    return float(getattr(result, "rank", result))


def top_eigenvalues(model: nn.Module, X: Tensor) -> Tensor:
    try:
        result = skgeo.fisher_spectrum(
            model, X, likelihood=LIKELIHOOD, solver="lanczos", n_components=N_TOP
        )
    except skgeo.SkgeoError as error:
        if "solver='lanczos'" in str(error):
            raise NotAvailableYet("skgeo.fisher_spectrum(solver='lanczos')") from error
        raise
    return result.eigenvalues[:N_TOP]


def trace(model: nn.Module, X: Tensor) -> float:
    return float(_public("fisher_trace")(model, X, likelihood=LIKELIHOOD))


def diagonal(model: nn.Module, X: Tensor) -> Tensor:
    result = _public("fisher_diagonal")(model, X, likelihood=LIKELIHOOD)
    if isinstance(result, dict):
        return torch.cat([part.flatten() for part in result.values()])
    return result


def gram(model: nn.Module, X: Tensor) -> Tensor:
    return _public("ntk")(model, X)
