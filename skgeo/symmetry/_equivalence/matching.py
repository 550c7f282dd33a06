"""How close two networks come to each other when their hidden units are permuted and scaled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from skgeo._arguments import check_integer
from skgeo._results import Result
from skgeo.exceptions import SkgeoError
from skgeo.network._stack import Stack, read_stack
from skgeo.symmetry._equivalence.apply import apply_symmetry
from skgeo.symmetry._equivalence.canonical import check_interface
from skgeo.symmetry._equivalence.layerwise import layer_blocks


@dataclass(frozen=True, eq=False, repr=False)
class NetworkMatch(Result):
    """Symmetry that brings network a close to network b, and the remaining distance.

    Attributes
    ----------
    permutation, scales, flips : tuple of Tensor, one per hidden layer
        As in :class:`~skgeo.symmetry.EquivalenceReport`.
    distance : float
        Norm of the difference of all weights relative to the norm of those of b, both with scales
        removed: 0 for copies, about sqrt(2) for unrelated weights.
    before : float
        The same distance before units were permuted.
    layer_distances : tuple of float
        Relative distance of each layer.
    n_sweeps : int
        Number of passes over the layers until nothing changed.
    """

    permutation: tuple[Tensor, ...]
    scales: tuple[Tensor, ...]
    flips: tuple[Tensor, ...]
    distance: float
    before: float
    layer_distances: tuple[float, ...]
    n_sweeps: int

    def _line(self) -> str:
        widths = " ".join(str(len(order)) for order in self.permutation) or "no"
        return (
            f"distance {self.distance:.3g}, {self.before:.3g} before; {widths} hidden units, "
            f"{self.n_sweeps} sweeps"
        )

    def apply(self, net: nn.Module) -> nn.Module:
        """Network a with its units moved next to those of b.

        Parameters
        ----------
        net : torch.nn.Module
            Network a; only read.

        Returns
        -------
        torch.nn.Module
            A network that computes the same function as a.
        """
        return apply_symmetry(
            net, permutation=self.permutation, scales=self.scales, flips=self.flips
        )


def match_networks(a: Any, b: Any, *, max_sweeps: int = 50) -> NetworkMatch:
    r"""Permutations, scales and signs of the units of a that bring it close to b.

    Scales are removed first: rows (w, b) of hidden rectifiers get norm 1 in both networks, and the
    scale moves to the next layer. Then the permutation of one hidden layer at a time is optimised
    given the others,

    .. math::

        \max_{P_l}\ \langle W_l^b,\ P_l W_l^a P_{l-1}^\top\rangle +
        \langle W_{l+1}^b,\ P_{l+1} W_{l+1}^a P_l^\top\rangle ,

    which is a linear assignment problem, until no layer changes [1]_. Under tanh each unit takes
    the better sign.

    Parameters
    ----------
    a, b : Module, WrappedModel, Checkpoint, scikit-learn or skorch model
        Chains of linear layers and convolutions of the same widths and activations; only read.
    max_sweeps : int, default=50
        Largest number of passes over the layers.

    Returns
    -------
    NetworkMatch
        The symmetry and the distances before and after.

    Raises
    ------
    SkgeoError
        If the networks are not such chains, or differ in widths, activations or the settings of
        convolutions.

    See Also
    --------
    skgeo.symmetry.equivalent : Whether two networks compute the same function.

    Notes
    -----
    The result is a local optimum; with more than one hidden layer the problem is hard in general.
    The descent is run twice, from the given order of the units and from a pass over incoming
    weights only, and the better result is returned. Copies of a network under these symmetries are
    found. A sweep costs :math:`O(d^3)` and the products of the weights for layers of d units.

    References
    ----------
    .. [1] S. K. Ainsworth, J. Hayase and S. Srinivasa, "Git Re-Basin: Merging models modulo
       permutation symmetries", ICLR 2023, Algorithm 1.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from skgeo.symmetry import apply_symmetry
    >>> from skgeo.symmetry import match_networks
    >>> net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    >>> match = match_networks(net, apply_symmetry(net, permutation=[2, 3, 0, 1]))
    >>> match.permutation[0].tolist(), match.distance < 1e-12
    ([2, 3, 0, 1], True)
    """
    check_integer("max_sweeps", max_sweeps)
    stacks = read_stack(a, convolutions=True), read_stack(b, convolutions=True)
    _check_alike(*stacks)
    ours, theirs = _Scaled(stacks[0]), _Scaled(stacks[1])
    size = max(float(torch.linalg.matrix_norm(theirs.rows[-1])) ** 2, 1e-300)
    weight = len(theirs.rows[-1]) / size  # the last layer holds all scales: as if rows had norm 1
    weights = [1.0] * (len(ours.rows) - 1) + [weight]
    start = [torch.arange(width) for width in stacks[0].widths[1:-1]]
    signs = [torch.ones(len(order), dtype=torch.float64) for order in start]
    descent = _Descent(ours, theirs, weights)
    before = descent.distances(start, signs)
    ends = [descent.run(start, signs, max_sweeps), descent.run(None, signs, max_sweeps)]
    order, signs, sweeps = max(ends, key=lambda end: descent.likeness(end[0], end[1]))
    after = descent.distances(order, signs)
    return NetworkMatch(
        permutation=tuple(order),
        scales=tuple(
            there / here[chosen]
            for here, there, chosen in zip(ours.scales, theirs.scales, order, strict=True)
        ),
        flips=tuple(sign.to(torch.int64) for sign in signs),
        distance=descent.total(after),
        before=descent.total(before),
        layer_distances=tuple(
            (apart / size) ** 0.5 for apart, size in zip(after, descent.sizes, strict=True)
        ),
        n_sweeps=sweeps,
    )


def _check_alike(a: Stack, b: Stack) -> None:
    check_interface(a, b)
    if a.widths != b.widths or a.activations != b.activations or a.kinds != b.kinds:
        raise SkgeoError(
            f"Networks of widths {list(a.widths)} and {list(b.widths)}, with activations "
            f"{', '.join(map(str, a.activations))} and {', '.join(map(str, b.activations))}, "
            "cannot be matched unit by unit; "
            "expected equal widths and activations. equivalent(a, b) compares the functions."
        )
    unknown = [str(each) for each in a.activations if each.scales == "unknown"]
    if unknown:
        raise SkgeoError(
            f"The activation {unknown[0]} has a slope of its own for each unit, so units cannot be "
            "permuted. Expected the same activation for all units of a layer."
        )
    if a.settings != b.settings:
        raise SkgeoError(
            "The convolutions of the networks differ in stride, padding or dilation, so they "
            "cannot be matched unit by unit. equivalent(a, b) compares the functions."
        )


class _Scaled:
    """Weights with the scales of rectified units removed.

    Attributes
    ----------
    blocks : list of Tensor of shape (out, in, m)
    rows : list of Tensor of shape (out, in * m + 1)
        With the bias last.
    scales : list of Tensor
        Factors that rows were divided by.
    signed : list of bool
        Whether units of the hidden layer may change sign.
    """

    def __init__(self, stack: Stack) -> None:
        self.blocks = layer_blocks(stack.weights)
        self.rows: list[Tensor] = []
        self.scales: list[Tensor] = []
        self.biases: list[Tensor] = []
        self.signed = [each.scales in ("sign", "linear") for each in stack.activations]
        groups = [*(each.scales for each in stack.activations), None]
        for index, group in enumerate(groups):
            block, given = self.blocks[index], stack.biases[index]
            bias = block.new_zeros(len(block)) if given is None else given
            scale = torch.ones_like(bias)
            if group in ("positive", "linear"):
                norm = torch.hypot(torch.linalg.vector_norm(block.flatten(1), dim=1), bias)
                scale = torch.where(norm > 0, norm, scale)
                self.blocks[index + 1] = self.blocks[index + 1] * scale[None, :, None]
            self.blocks[index] = block / scale[:, None, None]
            self.biases.append(bias / scale)
            if index < len(groups) - 1:
                self.scales.append(scale)
        for block, bias in zip(self.blocks, self.biases, strict=True):
            self.rows.append(torch.cat([block.flatten(1), bias[:, None]], dim=1))


class _Descent:
    """Coordinate descent over the hidden layers [Ainsworth et al., 2023, Algorithm 1].

    An order holds, for each unit of b, the unit of a.
    """

    def __init__(self, ours: _Scaled, theirs: _Scaled, weights: Sequence[float]) -> None:
        self.ours, self.theirs, self.weights = ours, theirs, weights
        self.depth = len(ours.scales)
        self.sizes = [
            max(float(torch.linalg.matrix_norm(rows)) ** 2, 1e-300) for rows in theirs.rows
        ]

    def run(
        self, start: Sequence[Tensor] | None, signs: Sequence[Tensor], max_sweeps: int
    ) -> tuple[list[Tensor], list[Tensor], int]:
        """Sweep until nothing changes, from an order or from incoming weights only."""
        sign = list(signs)
        if start is None:
            order = [torch.arange(len(s)) for s in signs]
            for index in range(self.depth):
                order[index], sign[index] = self._assign(self._incoming(index, order, sign), index)
        else:
            order = list(start)
        best = self.likeness(order, sign)
        for sweep in range(max_sweeps):
            # Forwards and backwards, so changes reach the layers on both sides.
            layers = range(self.depth) if sweep % 2 == 0 else reversed(range(self.depth))
            for index in layers:
                score = self._incoming(index, order, sign) + self._outgoing(index, order, sign)
                order[index], sign[index] = self._assign(score, index)
            reached = self.likeness(order, sign)
            if reached <= best + 1e-12 * abs(best):
                return order, sign, sweep + 1
            best = reached
        return order, sign, max_sweeps

    def _columns(self, index: int, order: Sequence[Tensor], sign: Sequence[Tensor]) -> Tensor:
        """Weights of a with the units of the layer before in the order and sign of b."""
        block = self.ours.blocks[index]
        if index == 0:
            return block
        return block[:, order[index - 1]] * sign[index - 1][None, :, None]

    def _incoming(self, index: int, order: Sequence[Tensor], sign: Sequence[Tensor]) -> Tensor:
        moved = self._columns(index, order, sign).flatten(1)
        score = self.theirs.blocks[index].flatten(1) @ moved.T
        score += torch.outer(self.theirs.biases[index], self.ours.biases[index])
        return self.weights[index] * score

    def _outgoing(self, index: int, order: Sequence[Tensor], sign: Sequence[Tensor]) -> Tensor:
        block = self.ours.blocks[index + 1]
        if index + 1 < self.depth:
            block = block[order[index + 1]] * sign[index + 1][:, None, None]
        there = self.theirs.blocks[index + 1].movedim(1, 0).flatten(1)
        return self.weights[index + 1] * (there @ block.movedim(1, 0).flatten(1).T)

    def _assign(self, score: Tensor, index: int) -> tuple[Tensor, Tensor]:
        signed = self.ours.signed[index]
        _, chosen = linear_sum_assignment((score.abs() if signed else score).numpy(), maximize=True)
        order = torch.from_numpy(chosen).to(torch.int64)
        picked = score[torch.arange(len(order)), order]
        sign = torch.where((picked < 0) & signed, -1.0, 1.0).double()
        return order, sign

    def _moved(self, index: int, order: Sequence[Tensor], sign: Sequence[Tensor]) -> Tensor:
        """Rows of a in the order and sign of b."""
        rows = torch.cat(
            [self._columns(index, order, sign).flatten(1), self.ours.biases[index][:, None]], dim=1
        )
        return rows[order[index]] * sign[index][:, None] if index < self.depth else rows

    def likeness(self, order: Sequence[Tensor], sign: Sequence[Tensor]) -> float:
        """Inner product of both networks, which the descent maximises."""
        return sum(
            weight * float((self._moved(index, order, sign) * self.theirs.rows[index]).sum())
            for index, weight in enumerate(self.weights)
        )

    def distances(self, order: Sequence[Tensor], sign: Sequence[Tensor]) -> list[float]:
        """Squared distances, layer by layer."""
        return [
            float((self._moved(index, order, sign) - self.theirs.rows[index]).square().sum())
            for index in range(self.depth + 1)
        ]

    def total(self, distances: Sequence[float]) -> float:
        """Relative distance over all layers."""
        pairs = list(zip(self.weights, distances, self.sizes, strict=True))
        size = sum(weight * size for weight, _, size in pairs)
        total: float = (sum(weight * apart for weight, apart, _ in pairs) / size) ** 0.5
        return total
