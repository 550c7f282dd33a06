"""Linear layers in a row: the group GL(h) of the space between them, and its dead ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from skgeo.geometry.symmetry.generators.candidate import Candidate, Change
from skgeo.geometry.symmetry.generators.hidden import (
    Consumer,
    HiddenLayer,
    hidden_layers,
    readers,
)
from skgeo.geometry.symmetry.generators.network import SymmetryNetwork

__all__ = ["linear"]

_MOST_ENTRIES = 20_000_000
_TOL = 1e-12


def linear(network: SymmetryNetwork) -> Iterator[Candidate]:
    r"""``(A W, A b, -W' A)`` for every A with one entry, ``(b, -W')`` for a shift, and kernels.

    Directions u with W' u = 0 go nowhere: ``W + u t^T`` for any t. Directions s with s^T W = 0 and
    s^T b = 0 come from nowhere: ``W' + v s^T`` for any v.

    Parameters
    ----------
    network : SymmetryNetwork

    Yields
    ------
    Candidate
        h^2 + h and more for h units between two linear layers with biases, between convolutions,
        or between an embedding and a linear layer. Not all of them are independent.
    """
    for hidden in _linear_layers(network):
        name, width = hidden.name, hidden.width
        entries = width * (hidden.layer.weight.numel() + width)
        entries += width * sum(c.layer.weight.numel() for c in hidden.consumers)
        if entries > _MOST_ENTRIES:
            network.skipped.append(f"linear at {name!r}: {width}^2 directions of a linear space")
            continue
        yield from _mixtures(network, hidden)
        yield from _shifts(network, hidden)
        yield from _kernels(network, hidden)


def _linear_layers(network: SymmetryNetwork) -> Iterator[HiddenLayer]:
    for hidden in hidden_layers(network):
        if hidden.activation == "identity" and hidden.node.kind in ("linear", "conv"):
            yield hidden
    for node, layer in network.layers("embedding"):
        ends = readers(network, node, ("identity", "mean", "select"))
        if ends is None or layer.max_norm is not None:
            continue
        width = layer.embedding_dim
        if any(
            end.kind != "linear"
            or network.calls(end) != 1
            or network.flow.layer(end).weight.shape[1] != width  # type: ignore[index]
            for end in ends
        ):
            continue
        consumers = tuple(Consumer(end, network.flow.layer(end), width, False) for end in ends)
        yield HiddenLayer(network, node, layer, "identity", 1.0, consumers)


def _unit(hidden: HiddenLayer, unit: int) -> Any:
    """Index of a unit in the weight that makes it."""
    return (slice(None), unit) if hidden.node.kind == "embedding" else unit


def _bias(hidden: HiddenLayer) -> Tensor | None:
    bias = getattr(hidden.layer, "bias", None)
    return bias if isinstance(bias, Tensor) else None


def _mixtures(network: SymmetryNetwork, hidden: HiddenLayer) -> Iterator[Candidate]:
    weight, bias = hidden.layer.weight, _bias(hidden)
    for a in range(hidden.width):
        for b in range(hidden.width):
            change = Change(network)
            change.add(weight, _unit(hidden, a), weight[_unit(hidden, b)].detach())
            if bias is not None:
                change.add(bias, a, bias[b].detach())
            for consumer in hidden.consumers:
                outgoing = consumer.layer.weight
                ours = outgoing[:, consumer.columns(a)].detach()
                change.add(outgoing, (slice(None), consumer.columns(b)), -ours)
            yield from change.candidate("linear", hidden.name, sorted({a, b}))


def _shifts(network: SymmetryNetwork, hidden: HiddenLayer) -> Iterator[Candidate]:
    bias = _bias(hidden)
    if bias is None and hidden.node.kind != "embedding":
        return
    for unit in range(hidden.width):
        change = Change(network)
        if bias is None:  # the same in every row of the table
            change.add(hidden.layer.weight, (slice(None), unit), 1.0)
        else:
            change.add(bias, unit, 1.0)
        for consumer in hidden.consumers:
            sums = consumer.outgoing(unit).flatten(1).sum(1)
            change.add(consumer.layer.bias, slice(None), -sums)
        yield from change.candidate("linear", hidden.name, [unit])


def _kernels(network: SymmetryNetwork, hidden: HiddenLayer) -> Iterator[Candidate]:
    outgoing = hidden.all_outgoing()
    weight, bias = hidden.layer.weight, _bias(hidden)
    matrix = weight.detach()
    matrix = matrix.T if hidden.node.kind == "embedding" else matrix.flatten(1)
    if bias is not None:
        matrix = torch.cat([matrix, bias.detach()[:, None]], dim=1)
    for u in _null_rows(outgoing):
        for place in range(matrix.shape[1]):
            change = Change(network)
            if bias is not None and place == matrix.shape[1] - 1:
                change.add(bias, slice(None), u)
            elif hidden.node.kind == "embedding":
                change.add(weight, place, u)
            else:
                step = torch.zeros(hidden.width, weight[0].numel(), dtype=torch.float64)
                step[:, place] = u
                change.add(weight, ..., step.view(weight.shape))
            yield from change.candidate("linear", hidden.name)
    for s in _null_rows(matrix.T):
        for consumer in hidden.consumers:
            columns = [consumer.columns(unit) for unit in range(hidden.width)]
            read = consumer.layer.weight[:, torch.stack(columns)]  # type: ignore[arg-type]
            rest = read[:, 0].numel()
            for place in range(rest):
                step = torch.zeros(rest, dtype=torch.float64)
                step[place] = 1.0
                change = Change(network)
                for unit, amount in enumerate(s.tolist()):
                    values = amount * step.view(read[:, 0].shape)
                    change.add(consumer.layer.weight, (slice(None), columns[unit]), values)
                yield from change.candidate("linear", hidden.name)


def _null_rows(matrix: Tensor) -> Tensor:
    """Orthonormal rows v with ``matrix @ v = 0``."""
    _, values, right = torch.linalg.svd(matrix.cpu())
    largest = float(values[0]) if len(values) else 0.0
    return right[int((values > _TOL * largest).sum()) :]
