"""Linear layers in a row: the group GL(h) of the space between them."""

from __future__ import annotations

from collections.abc import Iterator

from skgeo.geometry.symmetry.generators.candidate import Candidate, Change
from skgeo.geometry.symmetry.generators.hidden import HiddenLayer, hidden_layers
from skgeo.geometry.symmetry.generators.network import SymmetryNetwork

__all__ = ["linear"]

_MOST_ENTRIES = 20_000_000


def linear(network: SymmetryNetwork) -> Iterator[Candidate]:
    """``(A W, A b, -W' A)`` for every A with one entry, and ``(b, -W')`` for a shift between.

    Parameters
    ----------
    network : SymmetryNetwork

    Yields
    ------
    Candidate
        h^2 + h for h units between two linear layers with biases. Not all of them are independent
        where h exceeds what is before or after.
    """
    for hidden in hidden_layers(network):
        if hidden.activation != "identity" or not hidden.is_dense:
            continue
        entries = hidden.width * (hidden.layer.weight.numel() + hidden.width)
        entries += hidden.width * sum(c.layer.weight.numel() for c in hidden.consumers)
        if entries > _MOST_ENTRIES:
            network.skipped.append(
                f"linear at {hidden.name!r}: {hidden.width}^2 directions of a linear space"
            )
            continue
        yield from _mixtures(network, hidden)
        if hidden.layer.bias is not None:
            yield from _shifts(network, hidden)


def _mixtures(network: SymmetryNetwork, hidden: HiddenLayer) -> Iterator[Candidate]:
    weight, bias = hidden.layer.weight, hidden.layer.bias
    for a in range(hidden.width):
        for b in range(hidden.width):
            change = Change(network).add(weight, a, weight[b].detach())
            if bias is not None:
                change.add(bias, a, bias[b].detach())
            for consumer in hidden.consumers:
                outgoing = consumer.layer.weight
                change.add(outgoing, (slice(None), b), -outgoing[:, a].detach())
            yield from change.candidate("linear", hidden.name, sorted({a, b}))


def _shifts(network: SymmetryNetwork, hidden: HiddenLayer) -> Iterator[Candidate]:
    for unit in range(hidden.width):
        change = Change(network).add(hidden.layer.bias, unit, 1.0)
        for consumer in hidden.consumers:
            layer = consumer.layer
            change.add(layer.bias, slice(None), -layer.weight[:, unit].detach())
        yield from change.candidate("linear", hidden.name, [unit])
