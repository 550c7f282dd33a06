"""The shift common to all logits, which a softmax does not see."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from skgeo.geometry.likelihood import Categorical
from skgeo.geometry.symmetry.generators.candidate import Candidate, Change
from skgeo.geometry.symmetry.generators.hidden import PASSING
from skgeo.geometry.symmetry.generators.network import SymmetryNetwork

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
    if not isinstance(network.likelihood, Categorical) or network.flow.output is None:
        return
    node = network.flow.output
    while node.kind in PASSING and len(node.parents) == 1:
        (node,) = network.flow.parents(node)
    if node.kind != "linear" or network.calls(node) != 1:
        return
    layer: Any = network.flow.layer(node)
    weight, bias = layer.weight, layer.bias
    for column in range(weight.shape[1]):
        change = Change(network).add(weight, (slice(None), column), 1.0)
        yield from change.candidate("softmax_shift", node.module, weighted=True)
    if bias is not None:
        change = Change(network).add(bias, slice(None), 1.0)
        yield from change.candidate("softmax_shift", node.module, weighted=True)
