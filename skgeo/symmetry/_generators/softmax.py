"""The common shift of all logits, to which a softmax is invariant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from skgeo.network._hidden import last_layer
from skgeo.symmetry._generators.candidate import Candidate, rowwise
from skgeo.symmetry._network import SymmetryNetwork


def softmax_shift(network: SymmetryNetwork) -> Iterator[Candidate]:
    """A constant added to one column of the last layer, or to its bias.

    n + 1 directions for n features and a bias. The output distribution does not change, but the
    logits do.
    """
    node = last_layer(network.flow) if network.has_softmax else None
    if node is not None:
        layer: Any = network.flow.layer(node)
        rows = [(row, 1.0) for row in range(len(layer.weight))]
        yield from rowwise(network, layer, rows, "softmax_shift", node.module, weighted=True)
