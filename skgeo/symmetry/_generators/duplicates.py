"""Units that are multiples of each other for all inputs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import torch
from torch import Tensor

from skgeo.network._hidden import HiddenUnits
from skgeo.symmetry._generators.candidate import Candidate, entrywise, rowwise
from skgeo.symmetry._grouping import group_rows
from skgeo.symmetry._network import SymmetryNetwork

_TOL = 1e-12


def duplicate(network: SymmetryNetwork) -> Iterator[Candidate]:
    r"""Exchanges between units with the same boundary and side.

    Let :math:`h_i = s_i h` for the units of a group. Outgoing weights may change with
    :math:`\sum s_i q_i` fixed. Incoming weights may change by :math:`z_i e` for any e, where
    :math:`\sum z_i q_i` is zero, or equal for all classes of a softmax.
    """
    for hidden in network.hidden:
        if hidden.activation.is_identity or hidden.node.kind not in ("linear", "conv"):
            continue
        if any(consumer.node.kind == "batchnorm" for consumer in hidden.consumers):
            continue
        # Copies up to rounding of float32 are proposed too; the check measures how flat they are.
        for tol in sorted({_TOL, max(_TOL, 16 * network.precision)}):
            for units, factors in _groups(hidden, tol):
                yield from _transfers(network, hidden, units, factors)
                yield from _moves(network, hidden, units, tol)


def common_rows(hidden: HiddenUnits, tol: float) -> tuple[Tensor, Tensor]:
    """Group of units with equal rows (w, b) up to a factor, and the factor: (d,) each.

    The factor is any nonzero number for positively homogeneous activations, a sign for odd ones,
    and 1 for others. The group of units whose row is zero is -1.
    """
    rows = torch.cat([hidden.incoming[0], hidden.incoming[1][:, None]], dim=1)
    factors = torch.ones(len(rows), dtype=torch.float64)
    sizes = torch.linalg.vector_norm(rows, dim=1)
    if hidden.activation.is_homogeneous or hidden.activation.is_odd:
        generator = torch.Generator().manual_seed(0)
        probe = torch.randn(rows.shape[1], generator=generator, dtype=torch.float64)
        factors = torch.where(rows @ probe >= 0, factors, -factors)
    if hidden.activation.is_homogeneous:
        factors = factors * sizes
    labels = torch.full((len(rows),), -1)
    live = sizes > 0
    if bool(live.any()):
        scale = 1.0 if hidden.activation.is_homogeneous else float(sizes.max())
        labels[live], _ = group_rows(rows[live] / factors[live, None], tol * scale)
    return labels, factors


def side_slopes(hidden: HiddenUnits) -> tuple[Tensor, Tensor]:
    """Slopes of a positively homogeneous activation below and above zero: (d,) each."""
    ones = torch.ones(hidden.width, dtype=torch.float64)
    return hidden.activation.derivative(-ones), hidden.activation.derivative(ones)


def _groups(hidden: HiddenUnits, tol: float) -> list[tuple[list[int], Tensor]]:
    """Groups of at least two units, and their factors."""
    labels, factors = common_rows(hidden, tol)
    kinds = [labels]
    if hidden.activation.is_homogeneous:  # on the same side, with the same slope below zero
        kinds += [factors.sign(), side_slopes(hidden)[0]]
    groups = defaultdict(list)
    for unit, kind in enumerate(zip(*(kind.tolist() for kind in kinds), strict=True)):
        groups[kind].append(unit)
    factors = factors.abs() if hidden.activation.is_homogeneous else factors
    return [
        (units, factors[units]) for kind, units in groups.items() if kind[0] >= 0 and len(units) > 1
    ]


def _transfers(
    network: SymmetryNetwork, hidden: HiddenUnits, units: list[int], factors: Tensor
) -> Iterator[Candidate]:
    (head, *rest), (size, *sizes) = units, factors.tolist()
    for unit, factor in zip(rest, sizes, strict=True):
        for consumer in hidden.consumers:
            weight = consumer.layer.weight
            ours, theirs = consumer.where(head), consumer.where(unit)
            terms = [(weight, ours, factor), (weight, theirs, -size)]
            yield from entrywise(network, terms, "duplicate", hidden.name, [head, unit])


def _moves(
    network: SymmetryNetwork, hidden: HiddenUnits, units: list[int], tol: float
) -> Iterator[Candidate]:
    largest = hidden.outgoing[:, units].abs().amax(0)
    scale = torch.where(largest > 0, largest, torch.ones_like(largest))
    _, values, right = torch.linalg.svd(hidden.outgoing_seen[:, units] / scale)
    rank = int((values > tol).sum())
    names = ("duplicate", hidden.name, units)
    for amounts in right[rank:] / scale:
        moves = list(zip(units, amounts.tolist(), strict=True))
        yield from rowwise(network, hidden.layer, moves, *names, weighted=hidden.meets_softmax)
