"""Signature of the Fisher metric of a network: its positive, negative and zero eigenvalues."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from skgeo.exceptions import SkgeoError, warn
from skgeo.fisher import fisher_rank
from skgeo.fisher._rows import FisherRows
from skgeo.models import ResolvedModel
from skgeo.network._bound import bind
from skgeo.symmetry._generators.nullity import NULLITY_LIMIT

SIGNATURE = ("rank", "negative", "nullity")
# Features of estimators that add up to the nullity.
_NULLITIES = (
    ("fisher_nullity",),
    tuple(f"symmetry_{kind}_nullity" for kind in ("explained", "unexplained", "sample_limited")),
)


def known_signature(
    features: list[Mapping[str, float]], model: ResolvedModel
) -> list[float] | None:
    """The signature by the features of the first estimator that has it; None if none has."""
    for found in features:
        for names in _NULLITIES:
            if all(name in found for name in names):
                nullity = sum(found[name] for name in names)
                return _signature(found.get("n_parameters", _n_parameters(model)), nullity)
    return None


def signature(model: ResolvedModel, X: Any, y: Any, options: dict[str, Any]) -> list[float]:
    """The signature on the trainable parameters; NaN with a warning where there is no rank."""
    try:
        fisher = FisherRows(bind(model, X, y, **options))
        side = min(fisher.n_rows, fisher.n_parameters)
        if side > NULLITY_LIMIT:
            raise SkgeoError(
                f"the Fisher matrix has {side} rows on its smaller side, above the limit of "
                f"{NULLITY_LIMIT} up to which its rank is computed without being asked for. Add "
                "FisherRankEstimator to the estimators, or use fewer samples."
            )
        rank = fisher_rank(model, X, y, **options).rank
    except SkgeoError as error:
        warn(f"NaN for the signature, which no estimator measures: {error}")
        return _signature(math.nan, math.nan)
    return _signature(fisher.n_parameters, fisher.n_parameters - rank)


def _n_parameters(model: ResolvedModel) -> int:
    return sum(p.numel() for p in model.module.parameters() if p.requires_grad)


def _signature(n_parameters: float, nullity: float) -> list[float]:
    return [n_parameters - nullity, math.nan if math.isnan(nullity) else 0.0, float(nullity)]
