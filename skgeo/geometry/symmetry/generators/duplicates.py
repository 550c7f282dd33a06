"""Units that are multiples of one another on all inputs."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from skgeo.geometry.symmetry.generators.candidate import Candidate, Change
from skgeo.geometry.symmetry.generators.hidden import HiddenLayer, hidden_layers
from skgeo.geometry.symmetry.generators.network import SymmetryNetwork
from skgeo.geometry.symmetry.grouping import group_rows

__all__ = ["duplicate", "incoming_rows"]

_TOL = 1e-12
_ODD = ("tanh", "hardtanh", "softsign", "tanhshrink")


def duplicate(network: SymmetryNetwork) -> Iterator[Candidate]:
    r"""Trades between units of one boundary, on one side of it.

    Let :math:`h_i = s_i h` for the units of a group. Outgoing weights move from one to another
    with their total :math:`\sum s_i q_i` fixed; and incoming weights move as
    :math:`z_i e` for any e, with :math:`\sum z_i q_i` zero, or one number for all classes of a
    softmax.

    Parameters
    ----------
    network : SymmetryNetwork

    Yields
    ------
    Candidate
    """
    for hidden in hidden_layers(network):
        if hidden.activation == "identity" or hidden.node.kind not in ("linear", "conv"):
            continue
        if any(consumer.node.kind == "batchnorm" for consumer in hidden.consumers):
            continue
        # Copies that float32 has rounded are proposed too: the check says how flat they are.
        for tol in sorted({_TOL, max(_TOL, 16 * network.precision)}):
            for units, factors in _groups(hidden, tol):
                yield from _transfers(network, hidden, units, factors)
                yield from _moves(network, hidden, units, tol)


def incoming_rows(hidden: HiddenLayer) -> Tensor:
    """Incoming weights and bias of each unit in a row, the bias last."""
    weight, bias = hidden.layer.weight.detach(), hidden.layer.bias
    last = weight.new_zeros(len(weight)) if bias is None else bias.detach()
    return torch.cat([weight.flatten(1), last[:, None]], dim=1).cpu()


def _groups(hidden: HiddenLayer, tol: float) -> list[tuple[list[int], Tensor]]:
    """Groups of two units or more with the factor of each to the common one."""
    rows = incoming_rows(hidden)
    sizes = torch.linalg.vector_norm(rows, dim=1)
    live = (sizes > 0).nonzero().reshape(-1)
    if len(live) < 2:
        return []
    rows, sizes = rows[live], sizes[live]
    if hidden.is_homogeneous:
        labels, _ = group_rows(rows / sizes[:, None], tol)
        factors = sizes
    else:
        factors = torch.ones(len(live), dtype=torch.float64)
        if hidden.activation in _ODD:
            largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))[:, 0]
            factors = largest.sign()
            # Two signs of one row have their largest entry in one place, but for ties.
        labels, _ = group_rows(rows * factors[:, None], tol * float(sizes.max()))
    groups = []
    for label in (torch.bincount(labels) > 1).nonzero().reshape(-1).tolist():
        members = (labels == label).nonzero().reshape(-1)
        groups.append((live[members].tolist(), factors[members]))
    return groups


def _transfers(
    network: SymmetryNetwork, hidden: HiddenLayer, units: list[int], factors: Tensor
) -> Iterator[Candidate]:
    head, rest = units[0], units[1:]
    for unit, factor in zip(rest, factors[1:].tolist(), strict=True):
        for consumer in hidden.consumers:
            weight = consumer.layer.weight
            ours, theirs = consumer.columns(head), consumer.columns(unit)
            assert ours is not None
            shape = weight[:, ours].shape
            for place in range(shape.numel()):
                values = torch.zeros(shape.numel(), dtype=torch.float64)
                values[place] = 1.0
                change = Change(network)
                change.add(weight, (slice(None), ours), factor * values.view(shape))
                change.add(weight, (slice(None), theirs), -float(factors[0]) * values.view(shape))
                yield from change.candidate("duplicate", hidden.name, [head, unit])


def _moves(
    network: SymmetryNetwork, hidden: HiddenLayer, units: list[int], tol: float
) -> Iterator[Candidate]:
    outgoing = hidden.all_seen()[:, units].cpu()
    largest = hidden.all_outgoing()[:, units].cpu().abs().amax(0)
    scale = torch.where(largest > 0, largest, torch.ones_like(largest))
    _, values, right = torch.linalg.svd(outgoing / scale)
    rank = int((values > tol).sum())
    weight, bias = hidden.layer.weight, hidden.layer.bias
    for z in right[rank:] / scale:
        for place in range(weight[0].numel() + (bias is not None)):
            change = Change(network)
            for unit, amount in zip(units, z.tolist(), strict=True):
                if place == weight[0].numel():
                    change.add(bias, unit, amount)
                else:
                    step = torch.zeros(weight[0].numel(), dtype=torch.float64)
                    step[place] = amount
                    change.add(weight, unit, step.view(weight[0].shape))
            yield from change.candidate(
                "duplicate", hidden.name, units, weighted=hidden.meets_softmax
            )
