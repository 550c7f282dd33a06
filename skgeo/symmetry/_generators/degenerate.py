"""Units without outgoing weights, dead units, and constant units."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from skgeo.network._hidden import HiddenUnits
from skgeo.symmetry._generators.candidate import Candidate, Change, entrywise, rowwise
from skgeo.symmetry._generators.compensation import absorb
from skgeo.symmetry._network import SymmetryNetwork

_TOL = 1e-15


def no_output(network: SymmetryNetwork) -> Iterator[Candidate]:
    """Every incoming weight and bias of a unit without outgoing weights.

    Before a softmax, also of a unit whose outgoing weights are equal for all classes.
    """
    for hidden in network.hidden:
        seen = hidden.outgoing_seen.abs().amax(0)
        gross = hidden.outgoing.abs().amax(0)
        for unit in _units(seen <= _TOL * gross):
            weighted = bool(gross[unit] > 0)  # equal for all classes of a softmax
            yield from _incoming(network, hidden, unit, "no_output", weighted=weighted)


def dead(network: SymmetryNetwork) -> Iterator[Candidate]:
    """Every parameter of a unit whose activation is flat at all samples.

    If its value is not zero, its outgoing weights are covered by ``constant_input``.
    """
    for hidden in network.hidden:
        activation = hidden.activation
        low, high = network.ranges[hidden.name].outputs
        least, most = activation.image(low, high)
        rigid = (activation.derivative(low) == 0) & (activation.derivative(high) == 0)
        reads = hidden.incoming[0].any(1)
        for unit in _units(rigid & (least == most)):
            domain = "data" if bool(reads[unit]) else "all"
            yield from _incoming(network, hidden, unit, "dead", domain=domain)
            for consumer in hidden.consumers:
                if consumer.node.kind != "batchnorm" and bool(most[unit] == 0):
                    terms = [(consumer.layer.weight, consumer.where(unit), 1.0)]
                    names = ("dead", hidden.name, [unit])
                    yield from entrywise(network, terms, *names, domain=domain)


def constant_unit(network: SymmetryNetwork) -> Iterator[Candidate]:
    """The bias of a unit without incoming weights, compensated by the next biases.

    The exchange of its outgoing weights for these biases is covered by ``constant_input``.
    """
    for hidden in network.hidden:
        if hidden.layer.bias is None or hidden.activation.is_identity:
            continue
        weights, biases = hidden.incoming
        slopes = hidden.activation.derivative(biases).tolist()
        for unit in _units(~weights.any(1)):
            change = Change(network).add(hidden.layer.bias, unit, 1.0)
            for consumer in hidden.consumers:
                absorb(change, consumer, unit, slopes[unit])
            yield from change.candidate("constant_unit", hidden.name, [unit])


def _units(chosen: Tensor) -> list[int]:
    return chosen.nonzero().reshape(-1).tolist()


def _incoming(
    network: SymmetryNetwork, hidden: HiddenUnits, unit: int, symmetry: str, **flags: Any
) -> Iterator[Candidate]:
    """Every incoming weight and bias of a unit."""
    for layer in hidden.makers:
        yield from rowwise(network, layer, [(unit, 1.0)], symmetry, hidden.name, [unit], **flags)
