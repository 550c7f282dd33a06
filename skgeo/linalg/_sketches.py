"""Spectral sums of a positive semidefinite matrix from independent vectors g with E[g g^T] = G."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from skgeo.exceptions import SkgeoError
from skgeo.linalg._estimate import Estimate, jackknifed

# Below this the jackknife does not correct the bias of a ratio: -16 per cent at 8.
LEAST_FOR_RATIOS = 16


def squared_norm(products: Tensor) -> Estimate[float]:
    r""":math:`\|G\|_F^2`, the mean of squared products of different vectors.

    products: (m, m), ``g_i . g_j``.

    The distribution is skewed. The error is half of the longer arm of an interval of two errors of
    the logarithm, which are those of the jackknife: each vector takes part in m - 1 products.
    """
    whole, without = _pairs(products), _left_out(products, _pairs)
    if not bool((without > 0).all()):
        return jackknifed(whole, without)
    error = jackknifed(0.0, without.log()).standard_error
    return Estimate(whole, whole * math.expm1(2 * error) / 2)


def participation_ratio(products: Tensor) -> Estimate[float]:
    r""":math:`(\mathrm{tr}\, G)^2 / \|G\|_F^2`, a ratio of unbiased estimates.

    products: (m, m), ``g_i . g_j``, m at least 16.
    """
    m = len(products)
    if m < LEAST_FOR_RATIOS:
        raise SkgeoError(
            f"A participation ratio from {m} probes would be biased by more than a tenth; use at "
            f"least {LEAST_FOR_RATIOS}."
        )
    if not bool(products.diagonal().any()):
        return Estimate(float("nan"), float("nan"))
    return jackknifed(_ratio(products), _left_out(products, _ratio))


def _pairs(products: Tensor) -> float:
    m = len(products)
    square = products.square()
    return float(square.sum() - square.diagonal().sum()) / (m * (m - 1))


def _ratio(products: Tensor) -> float:
    m, sizes = len(products), products.diagonal()
    squared_trace = float(sizes.sum() ** 2 - sizes.square().sum()) / (m * (m - 1))
    return squared_trace / _pairs(products)


def _left_out(products: Tensor, statistic: Callable[[Tensor], float]) -> Tensor:
    m = len(products)
    found = []
    for index in range(m):
        kept = torch.arange(m) != index
        found.append(statistic(products[kept][:, kept]))
    return torch.tensor(found, dtype=torch.float64)
