"""The shift common to all logits, which a softmax does not see."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from skgeo.network._hidden import last_layer
from skgeo.symmetry._generators.candidate import Candidate, rowwise
from skgeo.symmetry._network import SymmetryNetwork


def softmax_shift(network: SymmetryNetwork) -> Iterator[Candidate]:
    """One column of the last layer, or its bias, raised in all rows.

    n + 1 for n features and a bias. Flat for the output distribution, while the logits change.
    """
    node = last_layer(network.flow) if network.has_softmax else None
    if node is not None:
        layer: Any = network.flow.layer(node)
        rows = [(row, 1.0) for row in range(len(layer.weight))]
        yield from rowwise(network, layer, rows, "softmax_shift", node.module, weighted=True)
