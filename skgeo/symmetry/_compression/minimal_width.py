r"""Least width of a one-hidden-layer network of ReLU or leaky ReLU for a given function.

Every live boundary H needs a unit. With :math:`s = \langle u_H, x\rangle + t_H`, a unit of slope a
gives :math:`\phi(s) = (1 - a)\,\mathrm{relu}(s) + a s` on the positive side of H, and
:math:`\phi(-s) = (1 - a)\,\mathrm{relu}(s) - s` on the negative side. One unit on each boundary, on
the negative side for those in a set E, leaves the linear part

.. math:: R_E = A - \frac{a}{1 - a} \sum_H J_H u_H^T
                + \frac{1 + a}{1 - a} \sum_{H \in E} J_H u_H^T .

If it vanishes for some E, the width is M, the number of live boundaries. Otherwise :math:`R_E x`
needs more units: a second unit on a boundary H gives :math:`v u_H^T`, and two units on a new
boundary give any matrix of rank one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from skgeo._arguments import check_number, described
from skgeo._results import Result
from skgeo.exceptions import SkgeoError
from skgeo.symmetry._compression.binary import binary_blocks
from skgeo.symmetry._equivalence.hinges import HingeForm, hinge_form
from skgeo.symmetry._hidden_layer import HiddenLayer, as_relu, rectifier_layer, unit_arrays

# Most passes over the boundaries in the greedy search, and multiplications in it.
_PASSES = 8
_WORK = 2**30
# Most boundaries that are tried with two units, and entries of a subset-sum problem.
_SHARED = 128
_ENTRIES = 2**27


@dataclass(frozen=True, eq=False, repr=False)
class MinimalWidth(Result):
    """The narrowest network that was found, and whether it is proved to be minimal.

    Attributes
    ----------
    width : int
        Number of units of `network`.
    n_boundaries : int
        Number M of live boundaries, a lower bound of the width.
    optimal : bool
        Whether `width` is proved to be the minimum, up to the tolerance.
    network : HiddenLayer
        The narrowest network that was found.
    units : Tensor of shape (d,)
        int64; for each unit of the given network the first unit of `network` on its boundary, -1
        where there is none.

    See Also
    --------
    skgeo.symmetry.minimal_width : Makes it.
    """

    width: int
    n_boundaries: int
    optimal: bool
    network: HiddenLayer
    units: Tensor

    def _line(self) -> str:
        proof = "optimal" if self.optimal else "not proved optimal"
        return (
            f"{self.width} of {len(self.units)} units, {self.n_boundaries} live boundaries, {proof}"
        )


def minimal_width(
    model: Any, *, tol: Any = "auto", ball: tuple[Tensor, float] | None = None
) -> MinimalWidth:
    r"""Least width of a network of one hidden layer that computes the same function.

    Parameters
    ----------
    model : Module, WrappedModel, Checkpoint, scikit-learn model or HiddenLayer
        Network of d units of ReLU, or of leaky ReLU of a slope other than -1. The units of the
        result have the same activation. A linear part in parallel with the hidden layer is computed
        by units in the result.
    tol : "auto" or float, default="auto"
        Relative tolerance, as in :func:`~skgeo.symmetry.hinge_form`.
    ball : tuple of a Tensor of shape (n,) and a float, default=None
        Centre and radius of a ball that contains all inputs of interest. On it a unit that is
        always active is affine, so one unit replaces two on :math:`\mathbb{R}^n`. Boundaries that
        miss the ball are not dropped.

    Returns
    -------
    MinimalWidth
        The width, a network of this width, and whether it is proved to be minimal.

    Raises
    ------
    SkgeoError
        If the activation is neither ReLU nor leaky ReLU, or its slope is -1, or products of weights
        overflow.

    See Also
    --------
    skgeo.symmetry.compress : The same for a module, also with several hidden layers.
    skgeo.symmetry.hinge_form : The boundaries of a network.

    Notes
    -----
    With one output the width is M, M+1 or M+2 (M or M+1 on a ball), with k outputs at most M + 2
    rank(R), where M is the number of live boundaries,

    .. math:: R_E = A - \frac{a}{1 - a} \sum_H J_H u_H^T
                    + \frac{1 + a}{1 - a} \sum_{H \in E} J_H u_H^T

    is the linear part that is left if the units of the boundaries in E are on their negative side,
    R is one of these, and a is the slope of the activation for negative arguments (0 for ReLU).
    Whether some :math:`R_E = 0` is a vector subset-sum problem. The orientations of the given
    network are tried first, then a greedy search, then an exact search, which succeeds for up to
    about 30 boundaries in any position and for hundreds in general position. M+1 units are searched
    in the same way after projecting out one :math:`u_H` at a time, for up to 128 boundaries.

    Examples
    --------
    Four units compute the absolute value, for which two suffice:

    >>> from skgeo.symmetry import one_hidden
    >>> net = one_hidden([[1.0], [2.0], [-1.0], [-1.0]], None, [[0.5, 0.25, 0.5, 0.5]])
    >>> found = minimal_width(net)
    >>> found.width, found.n_boundaries, found.optimal
    (2, 1, True)
    """
    network = rectifier_layer(model)
    slope = network.activation.slope
    form = hinge_form(network, tol=tol)
    if ball is not None:
        ball = _read_ball(ball, network.weights.shape[1])
    live = form.live.nonzero()[:, 0]
    u, t, jumps = form.directions[live], form.offsets[live], form.jumps[live]
    linear = form.linear if form.linear_size > form.tol else torch.zeros_like(form.linear)
    linear = linear - slope / (1 - slope) * jumps.T @ u
    turned = (1 + slope) / (1 - slope) * jumps
    search = _Search(linear, u, turned, form.tol, _span(as_relu(network), form, slope))
    choice, optimal = _choose(search, _own_orientation(form, live), ball is not None)
    built, carriers = _build(network, form, u, t, jumps, choice, ball, search.span)
    position = torch.full((len(form.live) + 1,), -1, dtype=torch.int64)
    position[live] = carriers
    return MinimalWidth(built.n_units, len(live), optimal, built, position[form.boundary])


@dataclass(frozen=True, eq=False)
class _Choice:
    """Boundaries with a unit on the negative side, on both sides, and the remaining linear part."""

    negative: Tensor
    shared: tuple[int, ...]
    rest: Tensor


@dataclass(frozen=True, eq=False)
class _Search:
    """The linear part with all units on the positive side, and what turning each adds to it."""

    linear: Tensor
    u: Tensor
    jumps: Tensor  # change of the slope from one side to the other
    tol: float
    span: float

    def rest(self, negative: Tensor) -> Tensor:
        """R_E."""
        return self.linear + self.jumps[negative].T @ self.u[negative]

    def vanishes(self, rest: Tensor) -> bool:
        return float(torch.linalg.matrix_norm(rest)) <= self.tol * self.span

    def rank(self, rest: Tensor) -> int:
        return int((torch.linalg.svdvals(rest) > self.tol * self.span).sum())

    def shared(self, rest: Tensor, most: int) -> tuple[int, ...] | None:
        """At most `most` boundaries whose normals span the rows of the rest, chosen greedily."""
        if len(self.u) * rest.numel() * most > 4 * _WORK:
            return None
        chosen: list[int] = []
        basis = self.u.new_zeros((0, self.u.shape[1]))
        while len(chosen) < min(most, len(self.u)):
            left = rest - rest @ basis.T @ basis
            normals = self.u - self.u @ basis.T @ basis
            sizes = torch.linalg.vector_norm(normals, dim=1)
            fit = torch.linalg.vector_norm(left @ normals.T, dim=0) / sizes.clamp(min=1e-8)
            fit[chosen] = -1.0
            chosen.append(int(fit.argmax()))
            basis = torch.linalg.qr(self.u[chosen].T).Q.T
            if self.vanishes(rest - rest @ basis.T @ basis):
                return tuple(chosen)
        return None

    def solve(self, among: Tensor, without: Tensor | None) -> tuple[Tensor | None, bool]:
        """A set E among some boundaries with R_E = 0, up to multiples of the normal `without`.

        Returns the set, and whether the search was exhaustive.
        """
        u, linear = self.u[among], self.linear
        if without is not None:
            u = u - torch.outer(u @ without, without)
            linear = linear - torch.outer(linear @ without, without)
        if self.vanishes(linear):
            return among[:0], True
        if linear.numel() * len(among) > _ENTRIES:
            return None, False
        vectors = (self.jumps[among].T[:, None] * u.T[None]).reshape(linear.numel(), len(among))
        sizes = torch.linalg.vector_norm(vectors, dim=0)
        some = sizes > self.tol * self.span
        blocks = binary_blocks(vectors[:, some], -linear.flatten(), self.tol)
        if blocks is None:
            return None, False
        if not blocks:
            return None, True
        block = blocks[0]
        for row in block.solutions:
            found = among[some][block.columns[row]]
            rest = linear + self.jumps[found].T @ (u[some][block.columns[row]])
            if self.vanishes(rest):
                return found, True
        return None, block.complete


def _choose(search: _Search, own: Tensor, bounded: bool) -> tuple[_Choice, bool]:
    """The cheapest arrangement found, and whether it is proved to be the cheapest."""
    everything = torch.arange(len(search.u))
    none = torch.zeros_like(search.linear)
    starts: list[Tensor] = []
    for start in (own, everything[:0]):
        for negative in (start, _greedy(search, start)):
            if search.vanishes(search.rest(negative)):
                return _Choice(negative, (), none), True
            if not any(torch.equal(negative, other) for other in starts):
                starts.append(negative)
    found, exhausted = search.solve(everything, None)
    if found is not None:
        return _Choice(found, (), none), True
    best, extra = None, 0
    for negative in starts:
        rest = search.rest(negative)
        rank = search.rank(rest)
        cost = rank if bounded else 2 * rank
        shared = search.shared(rest, cost - 1) or ()
        cost = len(shared) or cost
        if best is None or cost < extra:
            best, extra = _Choice(negative, shared, rest), cost
    assert best is not None
    if extra == 1:
        return best, exhausted
    all_searched = exhausted and len(everything) <= _SHARED
    for h in everything[:_SHARED].tolist():
        found, complete = search.solve(everything[everything != h], search.u[h])
        if found is not None:
            return _Choice(found, (h,), search.rest(found)), exhausted
        all_searched = all_searched and complete
        if not complete:
            break
    # On a ball any rest of rank one costs one unit, with or without a shared boundary.
    return best, all_searched and extra == 2 and not bounded


def _greedy(search: _Search, negative: Tensor) -> Tensor:
    """Change the side of one boundary at a time as long as this reduces the linear rest."""
    m = len(search.u)
    flipped = torch.zeros(m, dtype=torch.bool)
    flipped[negative] = True
    rest = search.rest(negative)
    squares = search.jumps.square().sum(1)  # |J u^T|^2, since |u| = 1
    work = m * rest.numel()
    for _ in range(min(_PASSES * m, _WORK // max(work, 1))):
        sign = torch.where(flipped, -1.0, 1.0).double()
        inner = ((search.jumps @ rest) * search.u).sum(1)
        gain = -2 * sign * inner - squares
        best = int(gain.argmax())
        if float(gain[best]) <= 1e-12 * float(squares.sum()):
            break
        rest = rest + sign[best] * torch.outer(search.jumps[best], search.u[best])
        flipped[best] = ~flipped[best]
    return flipped.nonzero()[:, 0]


def _own_orientation(form: HingeForm, live: Tensor) -> Tensor:
    """Indices of the live boundaries whose first unit is on the negative side."""
    side = torch.ones(len(form.live), dtype=torch.int64)
    for_units = form.boundary >= 0
    side[form.boundary[for_units].flip(0)] = form.side[for_units].flip(0)
    return (side[live] < 0).nonzero()[:, 0]


def _span(network: HiddenLayer, form: HingeForm, slope: float) -> float:
    """Root of the sum of the squares of the terms of R."""
    masses = torch.linalg.vector_norm(network.outputs, dim=0) * form.norms
    total = (1 + (slope / (1 - slope)) ** 2) * masses.square().sum()
    if network.skip is not None:
        total = total + network.skip.square().sum()
    return float(total.sqrt())


def _read_ball(ball: Any, dim: int) -> tuple[Tensor, float]:
    """Centre, in float64, and radius of a ball of inputs."""
    if not isinstance(ball, (tuple, list)) or len(ball) != 2:
        raise SkgeoError(f"Got ball={described(ball)}; expected a pair (centre, radius).")
    (centre,) = unit_arrays(centre=ball[0])
    if centre.shape != (dim,):
        raise SkgeoError(
            f"The centre of the ball has shape {tuple(centre.shape)}; expected ({dim},), one "
            "number per input."
        )
    return centre.cpu(), check_number("radius", ball[1], above=0)


def _build(
    network: HiddenLayer,
    form: HingeForm,
    u: Tensor,
    t: Tensor,
    jumps: Tensor,
    choice: _Choice,
    ball: tuple[Tensor, float] | None,
    span: float,
) -> tuple[HiddenLayer, Tensor]:
    """The network of a choice, and for each boundary the first unit on it."""
    slope = network.activation.slope
    pair = 1 + slope  # slope of phi(s) - phi(-s)
    sign = torch.ones(len(u), dtype=torch.float64)
    sign[choice.negative] = -1
    outputs = jumps / (1 - slope)
    shift = form.constant + outputs.T @ torch.where(sign < 0, t, -slope * t)
    rows, offsets, extra = [], [], []

    def add(row: Tensor, offset: Tensor, output: Tensor) -> None:
        rows.append(row)
        offsets.append(offset)
        extra.append(output)

    if choice.shared:
        # (1 + a) v u.x = v phi(s) - v phi(-s) - (1 + a) v t with s = u.x + t: the first term joins
        # the unit on this boundary, the second is a unit on its other side.
        normals = u[list(choice.shared)]
        values = choice.rest @ torch.linalg.pinv(normals) / pair
        for h, v in zip(choice.shared, values.T, strict=True):
            shift = shift - pair * v * t[h]
            outputs[h] = outputs[h] + sign[h] * v
            add(-sign[h] * u[h], -sign[h] * t[h], -sign[h] * v)
    elif bool((choice.rest != 0).any()):
        left, values, right = torch.linalg.svd(choice.rest, full_matrices=False)
        span = max(float(values[0]), span)
        for column, value, row in zip(left.T, values, right, strict=True):
            if float(value) <= form.tol * span:
                continue
            if ball is None:
                add(row, row.new_zeros(()), value * column / pair)
                add(-row, row.new_zeros(()), -value * column / pair)
            else:
                offset = 1.1 * ball[1] - row @ ball[0]
                add(row, offset, value * column)
                shift = shift - value * column * offset
    w = torch.cat([sign[:, None] * u, *(row[None] for row in rows)])
    b = torch.cat([sign * t, *(offset[None] for offset in offsets)])
    q = torch.cat([outputs, *(output[None] for output in extra)]).T
    # Incoming and outgoing weights of equal norms.
    scale = torch.linalg.vector_norm(q, dim=0).clamp(min=1e-300).sqrt()
    built = HiddenLayer(
        w * scale[:, None], b * scale, q / scale, shift, activation=network.activation
    )
    return built, torch.arange(len(u))
