"""Positive scaling of a rectifier unit: incoming weights grow, outgoing weights shrink."""

from __future__ import annotations

from collections.abc import Iterator

from skgeo.symmetry._generators.candidate import Candidate, Change
from skgeo.symmetry._generators.compensation import grow, shrink
from skgeo.symmetry._network import SymmetryNetwork


def scaling(network: SymmetryNetwork) -> Iterator[Candidate]:
    """``(w, b, -q)`` for every unit, or channel, of a positively homogeneous activation.

    Before a BatchNorm without a gain the direction is ``(w, b - mu, -q)``.
    """
    for hidden in network.hidden:
        layer = hidden.layer if hidden.layer.weight is not None else hidden.makers[-1]
        if not hidden.is_rectified or layer.weight is None:
            continue
        for unit in range(hidden.width):
            change = Change(network)
            origin = 0.0 if layer is hidden.layer else hidden.layer.running_mean[unit]
            grow(change, layer, unit, origin)
            for consumer in hidden.consumers:
                shrink(change, consumer, unit)
            yield from change.candidate("scaling", hidden.name, [unit])
