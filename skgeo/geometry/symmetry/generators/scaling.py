"""Positive scaling of a rectifier unit: what goes in grows, what goes out shrinks."""

from __future__ import annotations

from collections.abc import Iterator

from skgeo.geometry.symmetry.generators.candidate import Candidate, Change
from skgeo.geometry.symmetry.generators.hidden import hidden_layers
from skgeo.geometry.symmetry.generators.network import SymmetryNetwork

__all__ = ["scaling"]


def scaling(network: SymmetryNetwork) -> Iterator[Candidate]:
    """``(w, b, -q)`` for every unit of a positively homogeneous activation.

    Parameters
    ----------
    network : SymmetryNetwork

    Yields
    ------
    Candidate
        One a unit, or a channel.
    """
    for hidden in hidden_layers(network):
        if not hidden.is_homogeneous:
            continue
        for unit in range(hidden.width):
            change = Change(network)
            hidden.grow(change, unit)
            for consumer in hidden.consumers:
                consumer.shrink(change, unit)
            yield from change.candidate("scaling", hidden.name, [unit])
