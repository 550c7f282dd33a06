"""Hidden layers: units with what makes them, one activation, and all that reads them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from skgeo.geometry.symmetry.generators.candidate import Change
from skgeo.geometry.symmetry.generators.network import SymmetryNetwork
from skgeo.network.flow import FlowNode
from skgeo.network.likelihood import Categorical

__all__ = ["PASSING", "Consumer", "HiddenLayer", "hidden_layers", "last_layer", "readers"]

# Steps that pass units on one by one, each to a place of its own.
PASSING = ("identity", "flatten", "pool", "mean", "select")
_MAKERS = ("linear", "conv", "batchnorm", "layernorm")


@dataclass(frozen=True, eq=False)
class Consumer:
    """A layer that reads hidden units.

    Attributes
    ----------
    node : FlowNode
    layer : torch.nn.Module
        Linear, convolution or BatchNorm.
    width : int
        Number of units read.
    channels_first : bool
        Whether the units were on axis 1 before they were flattened.
    """

    node: FlowNode
    layer: Any
    width: int
    channels_first: bool

    def columns(self, unit: int) -> Tensor | None:
        """Input columns of the layer's weight that belong to a unit; None for BatchNorm."""
        if self.node.kind == "batchnorm":
            return None
        n = self.layer.weight.shape[1]
        spread = n // self.width
        if self.channels_first:
            return torch.arange(unit * spread, (unit + 1) * spread)
        return torch.arange(unit, n, self.width)

    def outgoing(self, unit: int) -> Tensor:
        """The weights by which the layer reads a unit."""
        if self.node.kind == "batchnorm":
            return self.layer.weight[unit : unit + 1].detach()
        return self.layer.weight[:, self.columns(unit)].detach()

    def shrink(self, change: Change, unit: int, amount: float = 1.0) -> None:
        """Add to a change what makes up for the growth of a unit."""
        layer = self.layer
        if self.node.kind == "batchnorm":
            gamma = layer.weight.detach()[unit]
            root = (layer.running_var[unit] + layer.eps).sqrt()
            change.add(layer.weight, unit, -amount * gamma)
            change.add(layer.bias, unit, -amount * gamma * layer.running_mean[unit] / root)
        else:
            columns = self.columns(unit)
            change.add(
                layer.weight, (slice(None), columns), -amount * layer.weight[:, columns].detach()
            )


@dataclass(frozen=True, eq=False)
class HiddenLayer:
    """Units, their activation, and the layers that read them.

    Attributes
    ----------
    network : SymmetryNetwork
    node : FlowNode
        The layer that makes the units: the last affine one before the activation.
    layer : torch.nn.Module
    activation : str
        ``"identity"`` where an affine layer follows at once.
    slope : float
        Of a rectifier for negative arguments.
    consumers : tuple of Consumer
    is_pooled : bool
        Whether maxima are taken over positions on the way to a consumer.
    meets_softmax : bool
        Whether the only consumer gives the logits of a softmax, which sees their differences.
    """

    network: SymmetryNetwork
    node: FlowNode
    layer: Any
    activation: str
    slope: float
    consumers: tuple[Consumer, ...]
    is_pooled: bool = False
    meets_softmax: bool = False

    @property
    def name(self) -> str:
        """Dotted name of the layer."""
        return str(self.node.module)

    @property
    def width(self) -> int:
        """Number of units."""
        return int(self.layer.weight.shape[self.node.kind == "embedding"])

    @property
    def is_homogeneous(self) -> bool:
        """Whether a unit whose argument grows by a positive factor grows by the same."""
        return self.activation in ("relu", "leaky_relu", "prelu")

    @property
    def is_dense(self) -> bool:
        """Whether units and all their readers are plain linear layers."""
        return self.node.kind == "linear" and all(
            consumer.node.kind == "linear" and consumer.layer.weight.shape[1] == self.width
            for consumer in self.consumers
        )

    def grow(self, change: Change, unit: int, amount: float = 1.0) -> None:
        """Add to a change the growth of all that goes into a unit."""
        change.add(self.layer.weight, unit, amount * self.layer.weight[unit].detach())
        if self.layer.bias is not None:
            change.add(self.layer.bias, unit, amount * self.layer.bias[unit].detach())

    def all_outgoing(self) -> Tensor:
        """All weights by which units are read, one column a unit."""
        if self.is_dense:
            return torch.cat([consumer.layer.weight.detach() for consumer in self.consumers])
        return torch.stack([self.outgoing(unit) for unit in range(self.width)], dim=1)

    def all_seen(self) -> Tensor:
        """The same, as far as the output distribution depends on them to first order.

        Before a softmax the mean over the classes is taken off each column.
        """
        if not self.meets_softmax:
            return self.all_outgoing()
        weights = [self.consumers[0].outgoing(unit) for unit in range(self.width)]
        return torch.stack([(w - w.mean(0)).reshape(-1) for w in weights], dim=1)

    def outgoing(self, unit: int) -> Tensor:
        """All weights by which a unit is read, in one row."""
        return torch.cat([consumer.outgoing(unit).reshape(-1) for consumer in self.consumers])


def hidden_layers(network: SymmetryNetwork) -> tuple[HiddenLayer, ...]:
    """Find the hidden layers whose units can be changed one at a time.

    Parameters
    ----------
    network : SymmetryNetwork

    Returns
    -------
    tuple of HiddenLayer
        In the order in which they run. Left out are units that reach something other than affine
        layers, such as a residual sum, and layers that are called twice. Found once a network.
    """
    known = network.cache.get("hidden")
    if known is None:
        known = network.cache["hidden"] = tuple(_find(network))
    return known


def _find(network: SymmetryNetwork) -> Iterator[HiddenLayer]:
    for node, layer in network.layers(*_MAKERS):
        if getattr(layer, "weight", None) is None:
            continue
        if node.kind == "layernorm" and layer.weight.dim() > 1:
            continue
        if node.kind == "conv" and layer.groups > 1:
            continue
        found = _follow(network, node)
        if found is not None and network.runs_as_traced(node):
            softmax = isinstance(network.likelihood, Categorical)
            last = last_layer(network) if softmax else None
            meets = last is not None and [c.node.name for c in found[2]] == [last.name]
            yield HiddenLayer(network, node, layer, *found, meets)


def last_layer(network: SymmetryNetwork) -> FlowNode | None:
    """The linear layer that the network's outputs are of, where there is one.

    Parameters
    ----------
    network : SymmetryNetwork

    Returns
    -------
    FlowNode or None
        Looking back through steps that only pass values on.
    """
    node = network.flow.output
    while node is not None and node.kind in PASSING and len(node.parents) == 1:
        (node,) = network.flow.parents(node)
    if node is None or node.kind != "linear" or network.calls(node) != 1:
        return None
    return node


def _follow(
    network: SymmetryNetwork, node: FlowNode
) -> tuple[str, float, tuple[Consumer, ...], bool] | None:
    """Activation and readers of the units that a step makes, and whether maxima are taken."""
    first = node.kind in ("conv", "batchnorm")
    maker: Any = network.flow.layer(node)
    width = maker.weight.shape[0]
    start, activation, slope = node, "identity", 1.0
    current = node
    while True:
        users = network.flow.users(current)
        if len(users) != 1 or users[0].kind not in ("identity", "activation"):
            break
        current = users[0]
        if current.kind == "activation":
            start, activation, slope = current, current.what, current.slope
            break
    passed: list[FlowNode] = []
    ends = readers(network, start, PASSING, passed)
    if ends is None or not ends:
        return None
    consumers = []
    for end in ends:
        layer: Any = network.flow.layer(end) if end.module is not None else None
        if end.kind not in ("linear", "conv", "batchnorm") or network.calls(end) != 1:
            return None
        if end.kind == "batchnorm" and (activation == "identity" or layer.weight is None):
            return None
        if end.kind == "conv" and layer.groups > 1:
            return None
        if end.kind != "batchnorm" and layer.weight.shape[1] % width:
            return None
        consumers.append(Consumer(end, layer, int(width), first))
    pooled = any(step.kind == "pool" and "max" in step.what.lower() for step in passed)
    return activation, slope, tuple(consumers), pooled


def readers(
    network: SymmetryNetwork,
    node: FlowNode,
    passing: tuple[str, ...],
    passed: list[FlowNode] | None = None,
) -> list[FlowNode] | None:
    """Steps that read a result, looking through those that pass it on.

    Parameters
    ----------
    network : SymmetryNetwork
    node : FlowNode
    passing : tuple of str
        Kinds of steps to look through.
    passed : list, optional
        Filled with the steps that were looked through.

    Returns
    -------
    list of FlowNode, or None
        In order, each once; None where nobody reads it.
    """
    ends: dict[str, FlowNode] = {}
    entered: set[str] = set()

    def walk(current: FlowNode) -> None:
        for user in network.flow.users(current):
            if user.kind in passing:
                if user.name not in entered:
                    entered.add(user.name)
                    if passed is not None:
                        passed.append(user)
                    walk(user)
            else:
                ends[user.name] = user

    walk(node)
    return list(ends.values()) or None
