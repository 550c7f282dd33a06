"""Inputs of a layer that are constant on the data, and rows of a table that are never read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from skgeo.geometry.symmetry.generators.candidate import Candidate, Change
from skgeo.geometry.symmetry.generators.network import SymmetryNetwork

__all__ = ["constant_input", "unused_row"]


def constant_input(network: SymmetryNetwork) -> Iterator[Candidate]:
    """Weights on an input that is the same for all samples, against the bias.

    Parameters
    ----------
    network : SymmetryNetwork

    Yields
    ------
    Candidate
        One for each row of the layer and constant input, zero or not. Without a bias those on
        constants that are not zero are traded for one another.
    """
    for node, layer in network.layers("linear", "conv"):
        inputs = network.seen[str(node.module)].inputs
        if inputs is None or (node.kind == "conv" and layer.groups > 1):
            continue
        constant = inputs.low == inputs.high
        first: int | None = None
        for column in constant.nonzero().reshape(-1).tolist():
            value = float(inputs.low[column])
            if value != 0.0 and layer.bias is None and first is None:
                first = column  # the others are measured against it
                continue
            for row in range(layer.weight.shape[0]):
                for place in _kernel(layer):
                    where = (row, column, *place)
                    change = Change(network).add(layer.weight, where, 1.0)
                    if layer.bias is not None:
                        change.add(layer.bias, row, -value)
                    elif value != 0.0 and first is not None:
                        ratio = value / float(inputs.low[first])
                        change.add(layer.weight, (row, first, *place), -ratio)
                    yield from change.candidate("constant_input", node.module, [row], domain="data")


def _kernel(layer: Any) -> list[tuple[int, ...]]:
    shape = tuple(layer.weight.shape[2:])
    places: list[tuple[int, ...]] = [()]
    for length in shape:
        places = [(*place, step) for place in places for step in range(length)]
    return places


def unused_row(network: SymmetryNetwork) -> Iterator[Candidate]:
    """Rows of an embedding that no sample asks for.

    Parameters
    ----------
    network : SymmetryNetwork

    Yields
    ------
    Candidate
        One an entry.
    """
    for node, layer in network.layers("embedding"):
        rows = network.seen[str(node.module)].rows
        if rows is None:
            continue
        for row in (~rows).nonzero().reshape(-1).tolist():
            for column in range(layer.weight.shape[1]):
                change = Change(network).add(layer.weight, (row, column), 1.0)
                yield from change.candidate("unused_row", node.module, [row], domain="data")
