"""Signature of the Fisher metric of a network: its positive, negative and zero eigenvalues."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from skgeo.exceptions import SkgeoError, warn
from skgeo.fisher import fisher_rank
from skgeo.models import ResolvedModel

SIGNATURE = ("rank", "negative", "nullity")
_FEATURES = ("fisher_rank", "fisher_nullity")


def known_signature(features: list[Mapping[str, float]]) -> list[float] | None:
    """The signature among the features of estimators; None if none of them has the rank."""
    for found in features:
        if all(name in found for name in _FEATURES):
            return _signature(*(found[name] for name in _FEATURES))
    return None


def signature(model: ResolvedModel, X: Any, y: Any, options: dict[str, Any]) -> list[float]:
    """The signature on the trainable parameters; NaN with a warning where there is no rank."""
    try:
        rank = fisher_rank(model, X, y, **options).rank
    except SkgeoError as error:
        warn(f"NaN for the signature, which no estimator measures: {error}")
        return _signature(math.nan, math.nan)
    n_parameters = sum(p.numel() for p in model.module.parameters() if p.requires_grad)
    return _signature(rank, n_parameters - rank)


def _signature(rank: float, nullity: float) -> list[float]:
    return [float(rank), math.nan if math.isnan(rank) else 0.0, float(nullity)]
