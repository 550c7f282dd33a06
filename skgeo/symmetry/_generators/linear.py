"""Consecutive linear layers: the group GL(h) of the space between them, and kernels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from skgeo.network._activation import IDENTITY
from skgeo.network._flow import Flow, FlowNode
from skgeo.network._hidden import Consumer, HiddenUnits
from skgeo.symmetry._generators.candidate import Candidate, Change, entrywise, rowwise
from skgeo.symmetry._generators.compensation import absorb
from skgeo.symmetry._network import SymmetryNetwork

_MOST_ENTRIES = 20_000_000
_TOL = 1e-12


def linear(network: SymmetryNetwork) -> Iterator[Candidate]:
    r"""``(A W, A b, -W' A)`` for every matrix unit A, ``(b, -W')`` for a shift, and kernels.

    If W' u = 0, ``W + u t^T`` is free for any t. If s^T W = 0 and s^T b = 0, ``W' + v s^T`` is free
    for any v. This gives at least h^2 + h directions for h units between two linear layers with
    biases, between convolutions, or between an embedding and a linear layer. They are not all
    independent.
    """
    for hidden in _linear_layers(network):
        name, width = hidden.name, hidden.width
        entries = width * (hidden.layer.weight.numel() + width)
        entries += width * sum(c.layer.weight.numel() for c in hidden.consumers)
        if entries > _MOST_ENTRIES:
            network.skipped.append(f"linear at {name!r}: {width}^2 directions, too many")
            continue
        yield from _mixtures(network, hidden)
        yield from _shifts(network, hidden)
        yield from _kernels(network, hidden)


def _linear_layers(network: SymmetryNetwork) -> Iterator[HiddenUnits]:
    for hidden in network.hidden:
        if hidden.activation.is_identity and hidden.node.kind in ("linear", "conv"):
            yield hidden
    flow = network.flow
    for node, layer in network.layers("embedding"):
        ends, _ = flow.readers(node, ("identity", "mean", "select"))
        width = layer.embedding_dim
        if layer.max_norm is None and ends and all(_reads(flow, end, width) for end in ends):
            consumers = tuple(Consumer(end, flow.layer(end), width, False) for end in ends)
            yield HiddenUnits(flow, node, layer, IDENTITY, consumers)


def _reads(flow: Flow, end: FlowNode, width: int) -> bool:
    """Whether a step is a linear layer of `width` inputs that is called once."""
    layer: Any = flow.layer(end) if end.kind == "linear" and flow.is_single(end) else None
    return layer is not None and layer.weight.shape[1] == width


def _mixtures(network: SymmetryNetwork, hidden: HiddenUnits) -> Iterator[Candidate]:
    weight, bias = hidden.layer.weight, getattr(hidden.layer, "bias", None)
    for a in range(hidden.width):
        for b in range(hidden.width):
            change = Change(network).add(weight, hidden.where(a), weight[hidden.where(b)])
            if bias is not None:
                change.add(bias, a, bias[b])
            for consumer in hidden.consumers:
                outgoing = consumer.layer.weight
                change.add(outgoing, consumer.where(b), -outgoing[consumer.where(a)])
            yield from change.candidate("linear", hidden.name, sorted({a, b}))


def _shifts(network: SymmetryNetwork, hidden: HiddenUnits) -> Iterator[Candidate]:
    raised = getattr(hidden.layer, "bias", None)
    if hidden.node.kind == "embedding":  # equal in every row of the table
        raised = hidden.layer.weight
    if raised is None:
        return
    for unit in range(hidden.width):
        change = Change(network).add(raised, hidden.where(unit), 1.0)
        for consumer in hidden.consumers:
            absorb(change, consumer, unit, 1.0)
        yield from change.candidate("linear", hidden.name, [unit])


def _kernels(network: SymmetryNetwork, hidden: HiddenUnits) -> Iterator[Candidate]:
    names = ("linear", hidden.name)
    for amounts in _null_rows(hidden.outgoing).tolist():
        moves = [(hidden.where(unit), amount) for unit, amount in enumerate(amounts)]
        yield from rowwise(network, hidden.layer, moves, *names)
    rows = torch.cat([hidden.incoming[0], hidden.incoming[1][:, None]], dim=1)
    for amounts in _null_rows(rows.T).tolist():
        for consumer in hidden.consumers:
            weight = consumer.layer.weight
            terms = [(weight, consumer.where(unit), a) for unit, a in enumerate(amounts)]
            yield from entrywise(network, terms, *names)


def _null_rows(matrix: Tensor) -> Tensor:
    """Orthonormal rows v with ``matrix @ v = 0``."""
    _, values, right = torch.linalg.svd(matrix)
    largest = float(values[0]) if len(values) else 0.0
    rank = int((values > _TOL * largest).sum())
    rows: Tensor = right[rank:]
    return rows
