"""How far the distributions of a network move from one step of its training to the next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from skgeo.base import GeometryEstimator
from skgeo.exceptions import warn
from skgeo.likelihood import Likelihood
from skgeo.models import ResolvedModel
from skgeo.network._bound import BoundNetwork
from skgeo.network._finite import check_outputs

JUMP = ("kl", "fisher_rao_length")


def jump(
    before: ResolvedModel, after: ResolvedModel, X: Any, y: Any, options: dict[str, Any]
) -> list[float]:
    r"""Mean divergence and length of the jump between two networks on the same samples.

    :math:`\frac1N \sum_n KL(p_n \| q_n)` and :math:`\sqrt{\frac1N \sum_n d(p_n, q_n)^2}`, the
    Fisher-Rao distance of the two products of distributions in the normalisation of the Fisher
    information, where p is before and q after.
    """
    then, now = (
        BoundNetwork(model, model.read(X, y), parameters=None, **options)
        for model in (before, after)
    )
    family = now.likelihood
    has_kl = family.has_kl
    has_distance = type(family).squared_distance is not Likelihood.squared_distance
    if not (has_kl and has_distance):
        warn(
            f"{type(family).__name__} has no {'distance' if has_kl else 'divergence'} of its own, "
            "so that of the jumps between steps is NaN."
        )
    kl = squares = 0.0
    with torch.no_grad():
        for batch in now.batches(16 * now.first_run.n_activations):
            a, b = (
                network.sized(network.replica(network.inputs(batch))) for network in (then, now)
            )
            check_outputs(a)
            check_outputs(b)
            kl += family.kl(a, b).sum().item() if has_kl else math.nan
            squares += family.squared_distance(a, b).sum().item() if has_distance else math.nan
    return [kl / now.n_samples, math.sqrt(squares / now.n_samples)]


def jump_options(estimators: Sequence[GeometryEstimator]) -> dict[str, Any]:
    """Likelihood, device and size of batches: those of the first estimator that has them."""
    found: dict[str, Any] = {"likelihood": "auto"}
    for estimator in reversed(estimators):
        own = estimator.get_params(deep=False)
        found |= {n: own[n] for n in ("likelihood", "device", "batch_size") if n in own}
    return found
