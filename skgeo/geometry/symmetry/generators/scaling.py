"""Positive scaling of a rectifier unit: what goes in grows, what goes out shrinks."""

from __future__ import annotations

from collections.abc import Iterator

from skgeo.geometry.symmetry.generators.candidate import Candidate, Change
from skgeo.geometry.symmetry.generators.compensation import grow, shrink
from skgeo.geometry.symmetry.generators.network import SymmetryNetwork

__all__ = ["scaling"]


def scaling(network: SymmetryNetwork) -> Iterator[Candidate]:
    """``(w, b, -q)`` for every unit, or channel, of a positively homogeneous activation."""
    for hidden in network.hidden:
        if not hidden.is_rectified:
            continue
        for unit in range(hidden.width):
            change = Change(network)
            grow(change, hidden.layer, unit)
            for consumer in hidden.consumers:
                shrink(change, consumer, unit)
            yield from change.candidate("scaling", hidden.name, [unit])
