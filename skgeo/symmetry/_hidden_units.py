"""Classes of all hidden units of a network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from skgeo._arguments import check_option
from skgeo.exceptions import SkgeoError
from skgeo.network._activation import Activation
from skgeo.network._hidden import HiddenUnits
from skgeo.network._stack import Stack
from skgeo.symmetry._compression.annihilating import AnnihilatingSets
from skgeo.symmetry._compression.domains import Domain, read_domain
from skgeo.symmetry._compression.reduction import hidden_layers_of
from skgeo.symmetry._network import SymmetryNetwork
from skgeo.symmetry._units import (
    Interval,
    UnitClasses,
    box_interval,
    classify_units,
)

DomainName = Literal["box", "data"] | None


@dataclass(frozen=True, eq=False)
class LayerClasses:
    """Classes of the units of one hidden layer."""

    name: str  # name of the layer that computes the units
    activation: Activation
    classes: UnitClasses


def classify_network(
    network: SymmetryNetwork,
    *,
    domain: DomainName = None,
    tol: float = 1e-10,
    max_size: int = 4,
) -> list[LayerClasses]:
    """Classes of the hidden units of all layers that are covered, in execution order.

    Units are classified as dead or always on if they are so on the domain: the smallest box around
    the data, or the data. With ``domain=None`` no unit with incoming weights is. A box is followed
    through plain chains; in other architectures through the first layer only.
    """
    check_option("domain", domain, (None, "box", "data"))
    box = read_chain(network, "box") if domain == "box" else None
    found = []
    for hidden in classified_layers(network):
        weights, biases = hidden.incoming
        interval: Interval | None = None
        if domain == "data":
            interval = network.ranges[hidden.name].outputs
        elif domain == "box":
            interval = _box_interval(network, hidden, box)
        classes = classify_units(
            weights,
            biases,
            hidden.outgoing,
            activation=hidden.activation,
            interval=interval,
            tol=tol,
            max_size=max_size,
        )
        if hidden.is_pooled:
            classes = _without_reversal(classes)
        found.append(LayerClasses(hidden.source, hidden.activation, classes))
    return found


def classified_layers(network: SymmetryNetwork) -> list[HiddenUnits]:
    """Linear layers, convolutions and BatchNorm with an activation whose units are classified."""
    return [
        hidden
        for hidden in network.hidden
        if not hidden.activation.is_identity and hidden.node.kind in ("linear", "conv", "batchnorm")
    ]


def read_chain(network: SymmetryNetwork, domain: DomainName) -> tuple[Stack, Domain] | None:
    """A network as a chain of linear layers, with its domain; None if it is not a chain."""
    try:
        stack = network.bound.stack
    except SkgeoError:
        return None
    inputs = None if domain is None else network.bound.inputs()
    if set(stack.kinds) != {"linear"} or isinstance(inputs, (dict, tuple)):
        return None
    if inputs is not None and inputs[0].numel() != stack.widths[0]:
        return None
    return stack, read_domain(stack, domain, None if inputs is None else _double(inputs))


def _double(values: Tensor) -> Tensor:
    return values.to("cpu", torch.float64)


def _box_interval(
    network: SymmetryNetwork, hidden: HiddenUnits, box: tuple[Stack, Domain] | None
) -> Interval | None:
    """Bounds of a layer's arguments on the box; None if they are not known."""
    weights, biases = hidden.incoming
    if box is not None:
        stack, domain = box
        before = hidden_layers_of(stack)[: stack.names.index(hidden.source)]
        rows, shifts = [layer.weights for layer in before], [layer.biases for layer in before]
        return domain.at(rows, shifts, len(before)).interval(weights, biases)
    node = hidden.node
    while node.kind in ("batchnorm", "linear", "flatten", "identity") and len(node.parents) == 1:
        if node.kind == "linear" and str(node.module) != hidden.source:
            return None
        (node,) = hidden.flow.parents(node)
    met = network.ranges.get(hidden.source)
    if node.kind != "input" or not node.known or met is None or met.inputs is None:
        return None
    if weights.shape[1] != len(met.inputs.low):
        return None
    return box_interval(weights, biases, *met.inputs)


def _without_reversal(classes: UnitClasses) -> UnitClasses:
    """Classes without "reversible": a maximum over positions is not linear in a unit."""
    labels = tuple("generic" if name == "reversible" else name for name in classes.labels)
    gone = torch.tensor([name == "reversible" for name in classes.labels], dtype=torch.bool)
    return replace(
        classes,
        labels=labels,
        group=torch.where(gone, -1, classes.group),
        residual=torch.where(gone, torch.nan, classes.residual),
        reversible=AnnihilatingSets((), len(labels), True),
    )
