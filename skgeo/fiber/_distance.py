"""The distance from a network to the strata of lower rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from scipy.linalg import qr, svd, svdvals
from scipy.optimize import brentq

from skgeo._results import Result
from skgeo.fiber._flow import FlowBases


@dataclass(frozen=True, repr=False)
class RankDrop(Result):
    """Distance to the networks in which one partial product has a lower rank.

    Distances are Frobenius norms over all weights.

    Attributes
    ----------
    start, stop : int
        The partial product W_stop ... W_{start+1}.
    rank : int
        Its rank at the network, at least 1.
    lower : float
        Lower bound: at smaller distances no network has a lower rank of this product.
    estimate : float
        First-order estimate: the least singular value over the norm of its gradient. Not a bound.
    upper : float
        Upper bound: the least change of a single matrix that lowers the rank.
    layer : int
        That matrix is W_layer.
    """

    start: int
    stop: int
    rank: int
    lower: float
    estimate: float
    upper: float
    layer: int

    def _line(self) -> str:
        first, last = self.start + 1, self.stop
        product = f"W_{last} ... W_{first}" if last > first else f"W_{first}"
        return (
            f"{product} of rank {self.rank}, lower {self.lower:.3g}, "
            f"estimate {self.estimate:.3g}, upper {self.upper:.3g} by W_{self.layer}"
        )


def rank_drops(flow: FlowBases) -> tuple[RankDrop, ...]:
    r"""Distances from a network to lower ranks, for each partial product.

    With r the rank of :math:`W_{j\sim i}`:

    - upper bound: :math:`\min_l \sigma_r(Q_A^T W_l Q_C)` with orthonormal bases Q_A of the row
      space of :math:`W_{j\sim l}` and Q_C of the column space of :math:`W_{l-1\sim i}`;
    - lower bound: the :math:`\varepsilon` with
      :math:`\prod_l (\|W_l\| + \varepsilon) - \prod_l \|W_l\| = \sigma_r(W_{j\sim i})`;
    - estimate: :math:`\sigma_r / (\sum_l \|W_{j\sim l}^T u\|^2 \|W_{l-1\sim i} v\|^2)^{1/2}` with
      u, v the singular vectors of :math:`\sigma_r(W_{j\sim i})`.

    Parameters
    ----------
    flow : FlowBases
        Flow bases of the network. Distances are measured from ``flow.weights``.

    Returns
    -------
    tuple of RankDrop
        One for each product of rank at least 1. Some ranks can only fall together.

    Notes
    -----
    About L^3 / 6 SVDs. For one matrix the three numbers agree: they are the Eckart-Young distance.
    The estimate exceeds the distance if the smallest singular value decreases faster than to first
    order.

    Examples
    --------
    >>> from skgeo.fiber import flow_bases
    >>> for drop in rank_drops(flow_bases([[[3.0]], [[4.0]]])):
    ...     print(drop.start, drop.stop, round(drop.lower, 2), drop.estimate, drop.upper)
    0 1 3.0 3.0 3.0
    0 2 1.42 2.4 3.0
    1 2 4.0 4.0 4.0
    """
    depth = flow.barcode.depth
    images, rows = _nested_bases(flow)
    ranks = flow.barcode.rank_list()
    norms = [float(svdvals(weight)[0]) for weight in flow.weights]
    drops = []
    for start in range(depth):
        for stop in range(start + 1, depth + 1):
            rank = int(ranks[stop, start])
            if rank == 0:
                continue
            cores = [
                _core(flow, images, rows, start, stop, layer)
                for layer in range(start + 1, stop + 1)
            ]
            least = [float(svdvals(core)[rank - 1]) for core in cores]
            best = int(np.argmin(least))
            lower, estimate = _lower_and_estimate(flow.weights[start:stop], norms[start:stop], rank)
            drops.append(
                RankDrop(
                    start,
                    stop,
                    rank,
                    min(lower, least[best]),
                    estimate,
                    least[best],
                    start + 1 + best,
                )
            )
    return tuple(drops)


def _nested_bases(flow: FlowBases) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Per layer, orthonormal bases whose first columns span each image, and each row space."""
    images, rows = [], []
    for layer, columns in enumerate(flow.columns):
        births = np.array([copy[0] for copy in columns])
        deaths = np.array([copy[1] for copy in columns])
        images.append(qr(flow.bases[layer][:, np.argsort(births, kind="stable")])[0])
        rows.append(qr(flow.dual_bases[layer][:, np.argsort(-deaths, kind="stable")])[0])
    return images, rows


def _core(
    flow: FlowBases,
    images: Sequence[np.ndarray],
    rows: Sequence[np.ndarray],
    start: int,
    stop: int,
    layer: int,
) -> np.ndarray:
    """W_layer, restricted to the image of layer `start` and to what reaches layer `stop`."""
    ranks = flow.barcode.rank_list()
    source = images[layer - 1][:, : ranks[layer - 1, start]]
    target = rows[layer][:, : ranks[stop, layer]]
    core: np.ndarray = target.T @ flow.weights[layer - 1] @ source
    return core


def _lower_and_estimate(
    weights: Sequence[np.ndarray], norms: Sequence[float], rank: int
) -> tuple[float, float]:
    # With all matrices scaled to norm 1 the products neither overflow nor underflow.
    unit = [weight / norm for weight, norm in zip(weights, norms, strict=True)]
    ahead = list(accumulate(unit, lambda product, weight: weight @ product))
    left, values, right = svd(ahead[-1], full_matrices=False)
    sigma, u, v = float(values[rank - 1]), left[:, rank - 1], right[rank - 1]
    forward, backward = [1.0], [1.0]
    for weight in unit[:-1]:
        v = weight @ v
        forward.append(float(np.linalg.norm(v)))
    for weight in unit[:0:-1]:
        u = weight.T @ u
        backward.append(float(np.linalg.norm(u)))
    slopes = np.array(forward) * np.array(backward[::-1]) / np.array(norms)
    slope = float(np.linalg.norm(slopes))
    estimate = sigma / slope if slope > 0.0 else float("inf")
    # A product of k matrices of norm 1 is exact to about k d eps. Less that, the bound is certain.
    certain = sigma - len(unit) * max(ahead[-1].shape) * float(np.finfo(float).eps)
    if certain <= 0.0:
        return 0.0, estimate
    goal = float(np.log1p(certain))

    def excess(step: float) -> float:
        return float(np.log1p(step / np.array(norms)).sum()) - goal

    most = certain * min(norms)
    if excess(most) <= 0.0:
        return most, estimate
    return float(brentq(excess, 0.0, most, xtol=float(np.finfo(float).tiny), rtol=1e-12)), estimate
