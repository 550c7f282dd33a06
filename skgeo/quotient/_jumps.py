"""Changes of the activation pattern, or of the rank at a layer, along a segment of inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from skgeo._arguments import check_tolerance, described
from skgeo._results import Result
from skgeo.data._arrays import as_tensor
from skgeo.exceptions import SkgeoError
from skgeo.jacobian._patterns import activation_pattern
from skgeo.likelihood import Likelihood
from skgeo.linalg._threads import single_blas_thread
from skgeo.network._batch import Inputs
from skgeo.network._bound import bind
from skgeo.quotient._length import between
from skgeo.quotient._rows import LayerRows
from skgeo.quotient._spectra import (
    Tolerance,
    pointwise_eigenvalues,
    pointwise_ranks,
)

_MOST_JUMPS = 10_000


@dataclass(frozen=True, repr=False)
class RankJump(Result):
    """One change of an activation pattern or a rank along a segment.

    Attributes
    ----------
    t : float
        Position in [0, 1] on the segment.
    layer : str
        The layer whose rank changes, or the module in which units cross a kink.
    what : {"pattern", "rank"}
        What changes.
    before, after : int
        Ranks on either side. For a pattern, the number of units of the module above their lowest
        kink, for a rectifier the active ones; for maxima, 0 and the number of maxima that move.
    """

    t: float
    layer: str
    what: str
    before: int
    after: int

    def _line(self) -> str:
        return f"t={self.t:.6g}, {self.what} of {self.layer!r}, {self.before} to {self.after}"


def rank_jumps(
    model: Any,
    x0: Any,
    x1: Any,
    *,
    likelihood: str | Likelihood = "auto",
    layers: Sequence[str] | None = None,
    tol: Tolerance = "auto",
    device: str | torch.device | None = None,
) -> tuple[RankJump, ...]:
    r"""Positions on the segment between two inputs at which a pattern or a rank changes.

    Parameters
    ----------
    model : Module, WrappedModel, Checkpoint, scikit-learn or skorch model
        Not modified.
    x0, x1 : array or Tensor
        One sample each, without an axis of samples, as ``X[0]`` is.
    likelihood : str or Likelihood, default="auto"
        Distribution that the outputs parametrise, as in :func:`~skgeo.quotient.layer_spectra`.
    layers : list of str, optional
        Layers whose ranks are followed, as in :func:`~skgeo.quotient.layer_spectra`.
    tol : float or "auto", default="auto"
        Tolerance of the ranks, relative to the largest eigenvalue of each sample.
    device : str or torch.device, optional
        Where to compute; by default where the module is.

    Returns
    -------
    tuple of RankJump
        All changes found, in the order of their positions.

    Raises
    ------
    SkgeoError
        If there is no straight line between the inputs, or there are more than 10,000 changes.

    Notes
    -----
    Changes are found by bisection: an interval is split while its ends differ, down to about 1e-12
    of the segment in float64 and 1e-6 in float32. In a piecewise linear network no change is
    missed, since the regions of constant pattern are convex and no rank changes within one. A
    smooth network has no pattern, and a rank that changes and changes back between two equal ends
    is missed. Each change takes about forty forward passes, each with rank(F) backward passes.

    Examples
    --------
    The outputs depend on the unit max(0, x) from zero on:

    >>> import torch
    >>> from torch import nn
    >>> from skgeo.quotient import rank_jumps
    >>> net = nn.Sequential(nn.Identity(), nn.ReLU(), nn.Linear(1, 1)).double()
    >>> for jump in rank_jumps(net, [-1.0], [3.0], layers=["0"], likelihood="gaussian"):
    ...     print(f"{jump.t:.6f} {jump.layer} {jump.what} {jump.before} {jump.after}")
    0.250000 1 pattern 0 1
    0.250000 0 rank 0 1
    """
    with single_blas_thread():
        ends = ends_of(x0, x1)
        network = bind(model, ends, likelihood=likelihood, parameters=None, device=device)
        return segment_jumps(LayerRows(network, layers), tol=tol)


def ends_of(x0: Any, x1: Any) -> Inputs:
    """Two samples, without an axis of samples, as a batch of two."""
    if isinstance(x0, Mapping) or isinstance(x1, Mapping):
        if not isinstance(x0, Mapping) or not isinstance(x1, Mapping) or set(x0) != set(x1):
            raise SkgeoError(
                f"Got x0, {described(x0)}, and x1, {described(x1)}; expected two samples with the "
                "same keys."
            )
        return {str(key): join_ends(x0[key], x1[key]) for key in x0}
    return join_ends(x0, x1)


def join_ends(x0: Any, x1: Any) -> Tensor:
    """Two arrays of one shape as one tensor."""
    ends = [as_tensor(x0, "x0"), as_tensor(x1, "x1")]
    if ends[0].shape != ends[1].shape:
        raise SkgeoError(
            f"Got x0 of shape {tuple(ends[0].shape)} and x1 of shape {tuple(ends[1].shape)}; "
            "expected two samples of one shape, without an axis of samples."
        )
    return torch.stack([end.to(torch.promote_types(*(e.dtype for e in ends))) for end in ends])


@dataclass
class _State:
    """Patterns and ranks at one position."""

    pattern: dict[str, Tensor]
    ranks: dict[str, int]

    def equals(self, other: _State) -> bool:
        return self.ranks == other.ranks and all(
            torch.equal(code, other.pattern[name]) for name, code in self.pattern.items()
        )


def segment_jumps(rows: LayerRows, *, tol: Tolerance = "auto") -> tuple[RankJump, ...]:
    """Changes between the two samples of a network on data, the ends of a segment."""
    check_tolerance(tol)
    network = rows.network
    if network.n_samples != 2:
        raise SkgeoError(
            f"There are {network.n_samples} samples; expected the two ends of a segment."
        )
    finest = 2.0**-40 if network.dtype == torch.float64 else 2.0**-20
    first, last = _states(rows, torch.tensor([0.0, 1.0], dtype=torch.float64), tol)
    open_ = [] if first.equals(last) else [(0.0, 1.0, first, last)]
    while open_ and open_[0][1] - open_[0][0] > finest:
        if len(open_) > _MOST_JUMPS:
            raise SkgeoError(
                f"There are more than {_MOST_JUMPS} changes on the segment. Shorten it, or raise "
                "tol: a rank that is determined by rounding changes everywhere."
            )
        middles = torch.tensor([(a + b) / 2 for a, b, _, _ in open_], dtype=torch.float64)
        states = _states(rows, middles, tol)
        halves = []
        for (a, b, left, right), middle, state in zip(open_, middles.tolist(), states, strict=True):
            if not left.equals(state):
                halves.append((a, middle, left, state))
            if not state.equals(right):
                halves.append((middle, b, state, right))
        open_ = halves
    return tuple(jump for interval in open_ for jump in _changes(*interval))


def _states(rows: LayerRows, t: Tensor, tol: Tolerance) -> list[_State]:
    network, names = rows.network, rows.names
    ends = network.inputs()
    size = network.batch_size or max(1, network.batch_bytes // rows.sample_bytes(names))
    states = []
    for part in torch.split(t, size):
        inputs = between(ends, part.to(network.device))
        pattern = activation_pattern(network.replica, inputs)
        found = rows.rows(inputs)
        ranks = {
            name: pointwise_ranks(pointwise_eigenvalues(found[name]), tol, rows, name).tolist()
            for name in names
        }
        for k in range(len(part)):
            states.append(
                _State(
                    {name: code[k] for name, code in pattern.items()},
                    {name: ranks[name][k] for name in names},
                )
            )
    return states


def _changes(a: float, b: float, left: _State, right: _State) -> list[RankJump]:
    t = (a + b) / 2
    found = []
    for name, code in left.pattern.items():
        then = right.pattern[name]
        if torch.equal(code, then):
            continue
        if code.dtype == torch.int64:  # positions of maxima, which have no order
            counts = 0, int((code != then).sum())
        else:
            counts = int((code > 0).sum()), int((then > 0).sum())
        found.append(RankJump(t, name, "pattern", *counts))
    for name, rank in left.ranks.items():
        if right.ranks[name] != rank:
            found.append(RankJump(t, name, "rank", rank, right.ranks[name]))
    return found
