"""Inputs of a layer that are constant on the data, and entries that never meet any."""

from __future__ import annotations

from collections.abc import Iterator

from skgeo.geometry.symmetry.generators.candidate import Candidate, Change
from skgeo.geometry.symmetry.generators.network import SymmetryNetwork

__all__ = ["constant_input", "unused_entry"]


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
    for node, layer in network.layers("linear"):
        inputs = network.seen[str(node.module)].inputs
        if inputs is None:
            continue
        first: int | None = None
        for column in (inputs.low == inputs.high).nonzero().reshape(-1).tolist():
            value = float(inputs.low[column])
            if value != 0.0 and layer.bias is None and first is None:
                first = column  # the others are measured against it
                continue
            for row in range(layer.weight.shape[0]):
                change = Change(network).add(layer.weight, (row, column), 1.0)
                if layer.bias is not None:
                    change.add(layer.bias, row, -value)
                elif value != 0.0 and first is not None:
                    change.add(layer.weight, (row, first), -value / float(inputs.low[first]))
                yield from change.candidate("constant_input", node.module, [row], domain="data")


def unused_entry(network: SymmetryNetwork) -> Iterator[Candidate]:
    """Rows of an embedding that no sample asks for, and entries of a kernel that only meet zeros.

    Parameters
    ----------
    network : SymmetryNetwork

    Yields
    ------
    Candidate
        One an entry.
    """
    for node, layer in network.layers("embedding", "conv"):
        reached = network.seen[str(node.module)].reached
        if reached is None:
            continue
        if node.kind == "embedding":
            reached = reached[:, None].expand(layer.weight.shape)
        for where in (~reached).nonzero().tolist():
            change = Change(network).add(layer.weight, tuple(where), 1.0)
            yield from change.candidate("unused_entry", node.module, where[:1], domain="data")
