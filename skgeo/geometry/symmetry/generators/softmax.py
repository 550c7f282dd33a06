"""The shift common to all logits, which a softmax does not see."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from skgeo.geometry.symmetry.generators.candidate import Candidate, Change
from skgeo.geometry.symmetry.generators.hidden import last_layer
from skgeo.geometry.symmetry.generators.network import SymmetryNetwork
from skgeo.network.likelihood import Categorical

__all__ = ["softmax_shift"]


def softmax_shift(network: SymmetryNetwork) -> Iterator[Candidate]:
    """One column of the last layer, or its bias, raised in all rows.

    Parameters
    ----------
    network : SymmetryNetwork

    Yields
    ------
    Candidate
        n + 1 for a last layer of n features with a bias. Flat for the output distribution, while
        the logits change.
    """
    node = last_layer(network) if isinstance(network.likelihood, Categorical) else None
    if node is None:
        return
    layer: Any = network.flow.layer(node)
    weight, bias = layer.weight, layer.bias
    for column in range(weight.shape[1]):
        change = Change(network).add(weight, (slice(None), column), 1.0)
        yield from change.candidate("softmax_shift", node.module, weighted=True)
    if bias is not None:
        change = Change(network).add(bias, slice(None), 1.0)
        yield from change.candidate("softmax_shift", node.module, weighted=True)
