"""Units that are never read, never respond, or respond to everything alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch

from skgeo.geometry.symmetry.activations import derivative
from skgeo.geometry.symmetry.generators.candidate import Candidate, Change
from skgeo.geometry.symmetry.generators.hidden import HiddenLayer, hidden_layers
from skgeo.geometry.symmetry.generators.network import SymmetryNetwork

__all__ = ["constant_unit", "dead", "no_output"]

_TOL = 1e-15


def no_output(network: SymmetryNetwork) -> Iterator[Candidate]:
    """Every incoming weight and bias of a unit whose outgoing weights are all zero.

    Before a softmax, also of one whose outgoing weights are the same for all classes.

    Parameters
    ----------
    network : SymmetryNetwork

    Yields
    ------
    Candidate
    """
    for hidden in hidden_layers(network):
        seen = hidden.all_seen().abs().amax(0)
        gross = hidden.all_outgoing().abs().amax(0)
        for unit in (seen <= _TOL * gross).nonzero().reshape(-1).tolist():
            weighted = bool(gross[unit] > 0)  # one number for all classes of a softmax
            yield from _incoming(network, hidden, unit, "no_output", "all", weighted=weighted)


def dead(network: SymmetryNetwork) -> Iterator[Candidate]:
    """Every parameter of a rectifier unit that responds to no sample.

    Parameters
    ----------
    network : SymmetryNetwork

    Yields
    ------
    Candidate
        Of domain "data", or "all" where the unit has no incoming weights.
    """
    for hidden in hidden_layers(network):
        if hidden.activation != "relu":
            continue
        high = network.seen[hidden.name].outputs.high
        for unit in (high <= 0).nonzero().reshape(-1).tolist():
            constant = not bool(hidden.layer.weight[unit].any())
            domain: Literal["all", "data"] = "all" if constant else "data"
            yield from _incoming(network, hidden, unit, "dead", domain)
            for consumer in hidden.consumers:
                if consumer.node.kind == "batchnorm":
                    continue
                weight, columns = consumer.layer.weight, consumer.columns(unit)
                shape = weight[:, columns].shape
                for place in torch.arange(shape.numel()).tolist():
                    values = torch.zeros(shape.numel(), dtype=torch.float64)
                    values[place] = 1.0
                    change = Change(network).add(weight, (slice(None), columns), values.view(shape))
                    yield from change.candidate("dead", hidden.name, [unit], domain=domain)


def constant_unit(network: SymmetryNetwork) -> Iterator[Candidate]:
    """The bias of a unit without incoming weights against the biases of what reads it.

    Parameters
    ----------
    network : SymmetryNetwork

    Yields
    ------
    Candidate
        That its outgoing weights can be exchanged for those biases is told by ``constant_input``.
    """
    for hidden in hidden_layers(network):
        bias = hidden.layer.bias
        if bias is None or hidden.activation == "identity":
            continue
        norms = hidden.layer.weight.detach().reshape(hidden.width, -1).abs().amax(1)
        for unit in (norms == 0).nonzero().reshape(-1).tolist():
            slopes = derivative(hidden.activation, hidden.slope, bias[unit].detach())
            if slopes is None:
                continue
            slope = float(slopes)
            change = Change(network).add(bias, unit, 1.0)
            for consumer in hidden.consumers:
                if consumer.node.kind == "batchnorm":
                    continue
                sums = consumer.outgoing(unit).flatten(1).sum(1)
                change.add(consumer.layer.bias, slice(None), -slope * sums)
            yield from change.candidate("constant_unit", hidden.name, [unit])


def _incoming(
    network: SymmetryNetwork,
    hidden: HiddenLayer,
    unit: int,
    symmetry: str,
    domain: Literal["all", "data"],
    *,
    weighted: bool = False,
) -> Iterator[Candidate]:
    """Every entry of what makes a unit."""
    for parameter in (hidden.layer.weight, hidden.layer.bias):
        if parameter is None:
            continue
        shape = parameter[unit].shape
        for place in range(shape.numel()):
            values = torch.zeros(shape.numel(), dtype=torch.float64)
            values[place] = 1.0
            change = Change(network).add(parameter, unit, values.view(shape))
            yield from change.candidate(
                symmetry, hidden.name, [unit], domain=domain, weighted=weighted
            )
