"""Hidden units: their layer, their activation, and the layers that read them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from skgeo._cached import cached_property
from skgeo.network._activation import IDENTITY, Activation
from skgeo.network._flow import Flow, FlowNode

# Steps that keep units separate.
_PASSING = ("identity", "flatten", "pool", "mean", "select")
_MAKERS = ("linear", "conv", "batchnorm", "layernorm")


@dataclass(frozen=True, eq=False)
class Consumer:
    """A linear layer, convolution or BatchNorm that reads hidden units."""

    node: FlowNode
    layer: Any
    width: int  # number of units
    channels_first: bool  # whether the units were on axis 1 before they were flattened

    @cached_property
    def _columns(self) -> Tensor:  # (width, spread)
        n = self.layer.weight.shape[1]
        if self.channels_first:
            return torch.arange(n).reshape(self.width, -1)
        return torch.arange(n).reshape(-1, self.width).T

    def where(self, unit: int) -> Any:
        """Index of a unit in the weight of the layer."""
        return unit if self.node.kind == "batchnorm" else (slice(None), self._columns[unit])

    @property
    def weights(self) -> Tensor:
        """Outgoing weights, float64 on the CPU: (width, outputs, entries of a unit)."""
        weight = cast(Tensor, self.layer.weight).detach().to("cpu", torch.float64)
        if self.node.kind == "batchnorm":
            return weight[:, None, None]
        return weight[:, self._columns].movedim(1, 0).flatten(2)


@dataclass(frozen=True, eq=False)
class HiddenUnits:
    """Units that can be changed one at a time: only affine layers read them.

    Attributes
    ----------
    flow : Flow
    node : FlowNode
        The layer that makes the units: the last affine one before the activation.
    layer : torch.nn.Module
    activation : Activation
        The identity if an affine layer follows directly.
    consumers : tuple of Consumer
    passed : tuple of FlowNode
        Steps between the layer and the consumers, except the activation.
    meets_softmax : bool
        Whether the only consumer returns the logits of a softmax, of which only differences
        matter.
    """

    flow: Flow
    node: FlowNode
    layer: Any
    activation: Activation
    consumers: tuple[Consumer, ...]
    passed: tuple[FlowNode, ...] = ()
    meets_softmax: bool = False

    @property
    def name(self) -> str:
        """Dotted name of the layer."""
        return str(self.node.module)

    @property
    def source(self) -> str:
        """Dotted name of the layer, or for a BatchNorm of the layer that it normalises."""
        return self.name if self.normalised is None else str(self.normalised.module)

    @property
    def width(self) -> int:
        """Number of units."""
        return _width(self.node.kind, self.layer)

    @property
    def is_rectified(self) -> bool:
        """Whether the activation is positively homogeneous, and not the identity."""
        return self.activation.is_homogeneous and not self.activation.is_identity

    @property
    def is_pooled(self) -> bool:
        """Whether there is max pooling before a consumer."""
        return any(step.kind == "pool" and "max" in step.what.lower() for step in self.passed)

    @property
    def is_dense(self) -> bool:
        """Whether the units and all their readers are plain linear layers."""
        return self.node.kind == "linear" and all(
            consumer.node.kind == "linear" and consumer.layer.weight.shape[1] == self.width
            for consumer in self.consumers
        )

    def where(self, unit: int) -> Any:
        """Index of a unit in the parameters of the layer."""
        return (slice(None), unit) if self.node.kind == "embedding" else unit

    @property
    def makers(self) -> list[Any]:
        """The layer, and the layer that a BatchNorm normalises."""
        before = self.normalised
        return [self.layer] if before is None else [self.layer, self.flow.layer(before)]

    @cached_property
    def normalised(self) -> FlowNode | None:
        """The layer that a BatchNorm normalises, if nothing else reads it."""
        if self.node.kind != "batchnorm":
            return None
        (before,) = self.flow.parents(self.node)
        while before.kind == "identity" and len(before.users) == len(before.parents) == 1:
            (before,) = self.flow.parents(before)
        if before.kind not in ("linear", "conv") or not self.flow.is_single(before):
            return None
        layer: Any = self.flow.layer(before)
        fits = getattr(layer, "groups", 1) == 1 and len(layer.weight) == self.width
        return before if fits and len(before.users) == 1 else None

    @cached_property
    def flat_norms(self) -> tuple[str, ...]:
        """Names of the BatchNorms that must read (samples, units).

        A BatchNorm normalises axis 1 and a linear layer acts on the last one: with positions
        between them, the units of one are not those of the other.
        """
        found = [c.node for c in self.consumers if c.node.kind == "batchnorm"]
        found = found if self.node.kind == "linear" else []
        if self.node.kind == "batchnorm":
            before = self.normalised
            rows = {"flatten", "mean", "select"}.isdisjoint(step.kind for step in self.passed)
            reads = rows and any(c.node.kind == "linear" for c in self.consumers)
            if reads or (before is not None and before.kind == "linear"):
                found.append(self.node)
        return tuple(str(node.module) for node in found if not _is_flat(self.flow, node))

    @cached_property
    def incoming(self) -> tuple[Tensor, Tensor]:
        """Weights in rows (width, n) and biases (width,), float64 on the CPU.

        A BatchNorm is merged with the layer it normalises. Without one, and for a LayerNorm, the
        inputs are the normalised values.
        """
        layer = self.layer
        if self.node.kind == "embedding":
            return _double(layer.weight).T, torch.zeros(self.width, dtype=torch.float64)
        if self.node.kind != "batchnorm":
            weights, biases = _affine(layer)
            return (torch.diag(weights[:, 0]) if layer.weight.dim() == 1 else weights), biases
        gain = (_double(layer.running_var) + layer.eps).rsqrt()
        gain = gain if layer.weight is None else gain * _double(layer.weight)
        shift = -gain * _double(layer.running_mean)
        shift = shift if layer.bias is None else shift + _double(layer.bias)
        if self.normalised is None:
            return torch.diag(gain), shift
        weights, biases = _affine(self.flow.layer(self.normalised))
        return gain[:, None] * weights, gain * biases + shift

    @cached_property
    def outgoing(self) -> Tensor:
        """All weights by which units are read, one column per unit, float64 on the CPU."""
        return torch.cat([c.weights.flatten(1) for c in self.consumers], dim=1).T

    @cached_property
    def outgoing_seen(self) -> Tensor:
        """Outgoing weights as far as the output distribution depends on them to first order.

        Before a softmax, the mean over the classes is subtracted from each column.
        """
        if not self.meets_softmax:
            return self.outgoing
        weights = self.consumers[0].weights
        return (weights - weights.mean(1, keepdim=True)).flatten(1).T


def _is_flat(flow: Flow, node: FlowNode) -> bool:
    """Whether a step reads (samples, units), since they were flattened before."""
    while node.known and node.kind in ("batchnorm", "linear", "activation", "identity"):
        if len(node.parents) != 1:
            return False
        (node,) = flow.parents(node)
    return node.kind == "flatten"


def _double(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float64)


def _affine(layer: Any) -> tuple[Tensor, Tensor]:
    weights = (
        _double(layer.weight).flatten(1)
        if layer.weight.dim() > 1
        else _double(layer.weight)[:, None]
    )
    return weights, weights.new_zeros(len(weights)) if layer.bias is None else _double(layer.bias)


def _width(kind: str, layer: Any) -> int:
    """Number of units of a layer."""
    if kind == "batchnorm":
        return int(layer.num_features)
    return int(layer.weight.shape[kind == "embedding"])


def hidden_units_of(flow: Flow, *, softmax: bool = False) -> tuple[HiddenUnits, ...]:
    """Hidden layers whose units can be changed one at a time, in the order in which they run.

    Units that are read by a step other than an affine layer, such as a residual sum, and layers
    that are called twice are left out.

    softmax: whether the outputs are logits of a softmax.
    """
    last = last_layer(flow) if softmax else None
    return tuple(_found(flow, None if last is None else last.name))


def _found(flow: Flow, last: str | None) -> Iterator[HiddenUnits]:
    for node, layer in flow.layers(*_MAKERS):
        if node.kind == "layernorm" and (layer.weight is None or layer.weight.dim() > 1):
            continue
        width = _width(node.kind, layer)
        if width == 0 or getattr(layer, "groups", 1) > 1:
            continue
        activated, activation, steps = _activation_behind(flow, node)
        ends, passed = flow.readers(activated, _PASSING)
        if not ends or not all(reads_units(flow, end, width) for end in ends):
            continue
        kinds = {step.kind for step in (*steps, *passed)}
        if not all(_axes_agree(node.kind, end.kind, kinds) for end in ends):
            continue
        if activation.is_identity and any(end.kind == "batchnorm" for end in ends):
            continue
        if activation.per_unit and len(dict(activation.options)["weight"]) != width:
            continue
        first = node.kind in ("conv", "batchnorm")
        consumers = tuple(Consumer(end, flow.layer(end), width, first) for end in ends)
        meets = last is not None and [end.name for end in ends] == [last]
        yield HiddenUnits(flow, node, layer, activation, consumers, (*steps, *passed), meets)


def _activation_behind(flow: Flow, node: FlowNode) -> tuple[FlowNode, Activation, list[FlowNode]]:
    """The activation after a step if only it reads the step, or the step; and steps between."""
    steps: list[FlowNode] = []
    current = node
    while len(users := flow.users(current)) == 1:
        (current,) = users
        if current.activation is not None:
            return current, current.activation, steps
        if current.kind not in ("identity", "flatten"):
            break
        steps.append(current)
    return node, IDENTITY, []


def _axes_agree(maker: str, reader: str, between: set[str]) -> bool:
    """Whether the reader reads the axis of the units; channels come before positions."""
    if maker == "conv" and reader == "linear":
        return not between.isdisjoint({"flatten", "mean", "select"})
    return reader != "conv" or maker in ("conv", "batchnorm")


def reads_units(flow: Flow, end: FlowNode, width: int) -> bool:
    """Whether a step is an affine layer that reads `width` units, each in its own columns."""
    if end.kind not in ("linear", "conv", "batchnorm") or not flow.is_single(end):
        return False
    layer: Any = flow.layer(end)
    if end.kind == "batchnorm":
        return layer.weight is not None and layer.num_features == width
    return getattr(layer, "groups", 1) == 1 and layer.weight.shape[1] % width == 0


def last_layer(flow: Flow) -> FlowNode | None:
    """The linear layer that returns the outputs, possibly through steps that keep units."""
    node = flow.output
    while node is not None and node.kind in _PASSING and len(node.parents) == 1:
        (node,) = flow.parents(node)
    return node if node is not None and node.kind == "linear" and flow.is_single(node) else None
