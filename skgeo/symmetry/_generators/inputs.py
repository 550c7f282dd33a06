"""Inputs of a layer that are constant on the data, and weights that are never used."""

from __future__ import annotations

from collections.abc import Iterator

from skgeo.symmetry._generators.candidate import Candidate, Change, entrywise
from skgeo.symmetry._network import SymmetryNetwork


def constant_input(network: SymmetryNetwork) -> Iterator[Candidate]:
    """Weights on an input that is equal for all samples, compensated by the bias.

    One direction per row of the layer and constant input. Without a bias, weights on nonzero
    constants are exchanged for each other.
    """
    for node, layer in network.layers("linear"):
        met = network.ranges.get(str(node.module))
        if met is None or met.inputs is None:
            continue
        values = met.inputs.low.tolist()
        constant = (met.inputs.low == met.inputs.high).nonzero().reshape(-1).tolist()
        # Without a bias, the others are compensated by the first.
        first = next((c for c in constant if values[c] != 0.0 and layer.bias is None), None)
        for column in constant:
            if column == first:
                continue
            for row in range(len(layer.weight)):
                change = Change(network).add(layer.weight, (row, column), 1.0)
                if first is None:
                    change.add(layer.bias, row, -values[column])
                else:
                    change.add(layer.weight, (row, first), -values[column] / values[first])
                yield from change.candidate("constant_input", node.module, [row], domain="data")


def unused_entry(network: SymmetryNetwork) -> Iterator[Candidate]:
    """Rows of an embedding that no sample uses, and kernel entries that only multiply zeros."""
    for node, layer in network.layers("embedding", "conv"):
        met = network.ranges.get(str(node.module))
        if met is None or met.reached is None:
            continue
        for row, reached in enumerate(met.reached):
            missed = ~reached.expand(layer.weight[row].shape)
            terms = [(layer.weight, (row, missed), 1.0)]
            names = ("unused_entry", node.module, [row])
            yield from entrywise(network, terms, *names, domain="data")
