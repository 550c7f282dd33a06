"""Kinks of a network along segments, and the change of its metric over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from skgeo._results import Result
from skgeo.chain._layer_map import LayerMap
from skgeo.exceptions import SkgeoError
from skgeo.jacobian._patterns import activation_pattern
from skgeo.linalg._threads import single_blas_thread
from skgeo.network._bound import bind
from skgeo.network._replica import Replica

_MOST_KINKS = 200_000


@dataclass(frozen=True, repr=False)
class KinkDensity(Result):
    r"""Kinks along segments, and the change of the metric from end to end.

    Attributes
    ----------
    layer : str
        Name of the layer up to which kinks are counted, or ``"output"``.
    counts : ndarray of shape (n_segments,)
        Number of times that a unit crosses a kink, on each segment.
    lengths : ndarray of shape (n_segments,)
        Euclidean lengths of the segments.
    metric_variation : ndarray of shape (n_segments,)
        :math:`\|g(x + d) - g(x)\|_F / \|d\|` with :math:`g = J^T J`, between the two ends.
    """

    layer: str
    counts: np.ndarray
    lengths: np.ndarray
    metric_variation: np.ndarray

    def _line(self) -> str:
        return (
            f"{self.layer!r}, {self.counts.sum()} kinks on {len(self.counts)} segments, "
            f"density {self.density:.3g}"
        )

    @property
    def density(self) -> float:
        """Kinks per unit of length on all segments together."""
        return float(self.counts.sum() / self.lengths.sum())

    @property
    def density_se(self) -> float:
        """Standard error of the density as a ratio of means over independent segments."""
        n = len(self.counts)
        if n < 2:
            return float("nan")
        off = self.counts - self.density * self.lengths
        return float(np.sqrt(off @ off / (n * (n - 1))) / self.lengths.mean())


def kink_density(
    model: Any,
    X: Any,
    end: Any = None,
    *,
    layer: str | None = None,
    source: str | None = None,
    device: str | torch.device | None = None,
) -> KinkDensity:
    r"""Kinks per unit of length along segments of inputs.

    A piecewise linear network has no curvature between its kinks and all of it at them, so
    derivatives do not give it. What can be measured instead is the number of kinks, and the change
    of the metric over a finite distance.

    Parameters
    ----------
    model : Module, WrappedModel, Checkpoint, scikit-learn or skorch model
        Not modified.
    X : array, Tensor, dict, Dataset or DataLoader
        Points of a path, joined in their order; or, with `end`, one end of each segment.
    end : same type as `X`, optional
        The other end of each segment.
    layer : str, optional
        Kinks before this layer, and its own, are counted; by default those of the whole network.
    source : str, optional
        Layer, a cut, in whose representation the segments are straight, instead of in the input;
        or, where X is a dict of several floating tensors, the name of that which moves.
    device : str or torch.device, optional
        Where to compute; by default where the module is.

    Returns
    -------
    KinkDensity
        Counts, lengths and changes of the metric, one per segment.

    Raises
    ------
    SkgeoError
        If a segment has zero length, there are fewer than two points, the ends differ in integers
        or masks, or there are more than 200,000 kinks.

    See Also
    --------
    skgeo.chain.curvature : Curvature of smooth networks.
    skgeo.quotient.rank_jumps : Positions on a segment where the rank at a layer changes.

    Notes
    -----
    Kinks are found by bisection, which is exact in piecewise linear networks: the regions of one
    activation pattern are convex, so two ends with equal patterns have no kink between them. Of
    kinks closer than about 1e-12 of a segment (1e-6 in float32), those are counted whose units
    differ between the ends of the last interval. It takes about forty forward passes per kink, and
    the Jacobians at both ends, ``n_l`` backward passes each.

    Examples
    --------
    The units max(0, x - 0.25) and max(0, x - 0.75) on the segment from 0 to 1:

    >>> import torch
    >>> from torch import nn
    >>> from skgeo.chain import kink_density
    >>> net = nn.Sequential(nn.Linear(1, 2), nn.ReLU()).double()
    >>> with torch.no_grad():
    ...     _ = net[0].weight.fill_(1.0)
    ...     _ = net[0].bias.copy_(torch.tensor([-0.25, -0.75]))
    >>> found = kink_density(net, [[0.0], [0.5], [1.0]])
    >>> found.counts.tolist(), found.density, found.metric_variation.tolist()
    ([1, 1], 2.0, [2.0, 2.0])
    """
    with single_blas_thread():
        network = bind(model, X, parameters=None, device=device)
        data = LayerMap(network, layer=layer, source=source)
        start = data.start()
        if end is None:
            if network.n_samples < 2:
                raise SkgeoError(
                    "X holds one point; a path needs at least two points, or pass end=...."
                )
            first, last = torch.arange(len(start) - 1), torch.arange(1, len(start))
            x0, x1, others = start[:-1], start[1:], data
        else:
            others = LayerMap(network.on(end), layer=layer, source=source)
            x0, x1 = start, others.start()
            if x0.shape != x1.shape:
                raise SkgeoError(
                    f"X starts {len(x0)} segments in {x0.shape[1]} dimensions and end finishes "
                    f"{len(x1)} in {x1.shape[1]}; expected one end for each start."
                )
            first = last = torch.arange(len(start))
        if not data.same_around(first, others, last):
            raise SkgeoError(
                "The ends of a segment differ in integers or in a second tensor, between which "
                "there is no straight line. Keep those equal, or start after the embedding with "
                "source='...'."
            )
        lengths = (x1.double() - x0.double()).norm(dim=1)
        if not bool((lengths > 0).all()):
            bad = int((lengths == 0).nonzero()[0])
            raise SkgeoError(
                f"Segment {bad} has zero length: both its ends are the same point. Remove it."
            )
        return KinkDensity(
            layer=data.name,
            counts=kinks_between(data, first, x0, x1).cpu().numpy(),
            lengths=lengths.cpu().numpy(),
            metric_variation=_variation(data, first, x0, x1, lengths).cpu().numpy(),
        )


def has_kinks(data: LayerMap) -> bool:
    """Whether an operation with kinks precedes the layer."""
    segment = data.at(range(1))
    return bool(_pattern(data, torch.zeros(1, dtype=torch.int64), segment.start()).numel())


def kinks_between(data: LayerMap, index: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
    """Number of kinks that units cross on each segment from x0 to x1.

    index: samples from which every tensor but the moving one is taken.
    Raises SkgeoError for more than 200,000 kinks.
    """
    # index (m,), x0, x1 (m, n_0) -> (m,), int64
    finest = 2.0**-40 if data.network.dtype == torch.float64 else 2.0**-20
    segments = torch.arange(len(x0))
    low, high = torch.zeros(len(x0)).double(), torch.ones(len(x0)).double()

    def codes(which: Tensor, t: Tensor) -> Tensor:
        weights = t.to(x0).unsqueeze(1)
        return _pattern(data, index[which], torch.lerp(x0[which], x1[which], weights))

    def digests(which: Tensor, t: Tensor) -> Tensor:
        parts = zip(torch.split(which, step), torch.split(t, step), strict=True)
        return torch.cat([_digest(codes(*part)) for part in parts])

    width = codes(segments[:1], low[:1]).shape[1]
    step = data.affordable(64 * (width + data.n_source))
    left, right = digests(segments, low), digests(segments, high)
    gap = 1.0
    while True:
        differ = (left != right).any(1)
        segments, low, high = segments[differ], low[differ], high[differ]
        left, right = left[differ], right[differ]
        if not len(segments) or gap <= finest:
            break
        if len(segments) > _MOST_KINKS:
            raise SkgeoError(
                f"There are more than {_MOST_KINKS} kinks. Shorten the segments, or pass fewer."
            )
        middles = (low + high) / 2
        between = digests(segments, middles)
        segments = torch.cat([segments, segments])
        low, high = torch.cat([low, middles]), torch.cat([middles, high])
        left, right = torch.cat([left, between]), torch.cat([between, right])
        gap /= 2
    counts = torch.zeros(len(x0), dtype=torch.int64)
    if not len(segments):
        return counts
    pieces = (torch.split(part, step) for part in (segments, low, high))
    for where, a, b in zip(*pieces, strict=True):
        changed = (codes(where, a) != codes(where, b)).sum(1).cpu()
        # The patterns differed in another batch; rounding here may hide the change.
        counts.index_add_(0, where, changed.clamp(min=1))
    return counts


def _pattern(data: LayerMap, index: Tensor, x: Tensor) -> Tensor:
    """Side of every kink before the layer on which each sample lies."""
    # x (m, n_0) -> (m, units)
    segment = data.spread(index)
    # A segment runs, and names its modules, like a replica up to its layer.
    found = activation_pattern(cast(Replica, segment), x)
    if not found:
        return torch.zeros((len(x), 0), dtype=torch.int64)
    return torch.cat([code.to(torch.int64) for code in found.values()], dim=1)


def _digest(codes: Tensor) -> Tensor:
    """Two 64-bit digests of each row: equal for equal rows, and for others by chance only."""
    # codes (m, units) -> (m, 2)
    generator = torch.Generator().manual_seed(0)
    top = torch.iinfo(torch.int64)
    odd = torch.randint(top.min, top.max, (2, codes.shape[1]), generator=generator) | 1
    return torch.stack([(codes * row.to(codes.device)).sum(1) for row in odd], dim=1).cpu()


def _variation(data: LayerMap, index: Tensor, x0: Tensor, x1: Tensor, lengths: Tensor) -> Tensor:
    """Change of the metric per unit of length, without cancellation.

    From n_l x n_l matrices, as ``g' - g = J'^T D + D^T J`` with ``D = J' - J``.
    """
    found = []
    step = data.affordable(4 * data.n_source * data.n_layer * 8)
    for part in torch.split(torch.arange(len(x0)), step):
        segment = data.spread(index[part])
        before, after = data.jacobian(segment, x0[part]), data.jacobian(segment, x1[part])
        change = after - before
        gram = change @ change.mT
        squared = (gram * (before @ before.mT + after @ after.mT)).sum((1, 2)) + 2 * (
            (after @ change.mT) * (before @ change.mT).mT
        ).sum((1, 2))
        found.append(squared.clamp(min=0).sqrt())
    return torch.cat(found) / lengths
