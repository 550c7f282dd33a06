"""Positive scaling of a channel of a residual stream: what is added grows, what reads shrinks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from skgeo.geometry.symmetry.generators.candidate import Candidate, Change
from skgeo.geometry.symmetry.generators.hidden import Consumer
from skgeo.geometry.symmetry.generators.network import SymmetryNetwork
from skgeo.network.flow import FlowNode

__all__ = ["stream_scaling"]

_MAKERS = ("linear", "conv", "batchnorm", "layernorm")
_HOMOGENEOUS = ("relu", "leaky_relu", "prelu", "identity")
_PASSING = ("identity", "flatten", "pool", "mean", "select", "add")


@dataclass
class _Stream:
    """Steps whose results grow together."""

    makers: list[tuple[FlowNode, Any]]
    readers: list[FlowNode]
    steps: set[str]


def stream_scaling(network: SymmetryNetwork) -> Iterator[Candidate]:
    """Growth of one channel in everything that a residual sum is made of.

    Parameters
    ----------
    network : SymmetryNetwork

    Yields
    ------
    Candidate
        One a channel of each stream that starts and ends in affine layers, with nothing but sums
        and positively homogeneous activations between them.
    """
    seen: set[str] = set()
    for node in network.flow:
        if node.kind != "add" or node.name in seen or not network.runs_as_traced(node):
            continue
        stream = _follow(network, node)
        if stream is None:
            continue
        seen |= stream.steps
        widths = {layer.weight.shape[0] for _, layer in stream.makers}
        if len(widths) != 1:
            continue
        (width,) = widths
        first = stream.makers[0][0].kind in ("conv", "batchnorm")
        consumers = [
            Consumer(reader, network.flow.layer(reader), width, first) for reader in stream.readers
        ]
        if any(
            consumer.node.kind != "batchnorm" and consumer.layer.weight.shape[1] % width
            for consumer in consumers
        ):
            continue
        for unit in range(width):
            change = Change(network)
            for _, layer in stream.makers:
                change.add(layer.weight, unit, layer.weight[unit].detach())
                if layer.bias is not None:
                    change.add(layer.bias, unit, layer.bias[unit].detach())
            for consumer in consumers:
                consumer.shrink(change, unit)
            yield from change.candidate("stream_scaling", stream.makers[0][0].module, [unit])


def _follow(network: SymmetryNetwork, start: FlowNode) -> _Stream | None:
    """Everything that must grow with a sum; None where something cannot."""
    stream = _Stream([], [], set())
    waiting = [start]
    while waiting:
        node = waiting.pop()
        if node.name in stream.steps:
            continue
        stream.steps.add(node.name)
        activation = node.kind == "activation" and node.what in _HOMOGENEOUS
        if activation or node.kind in _PASSING:
            waiting += network.flow.parents(node)
        elif node.kind in _MAKERS and network.calls(node) == 1:
            layer: Any = network.flow.layer(node)
            if layer.weight is None or getattr(layer, "groups", 1) > 1:
                return None
            stream.makers.append((node, layer))
        else:
            return None
        for user in network.flow.users(node):
            if user.kind in _PASSING or (user.kind == "activation" and user.what in _HOMOGENEOUS):
                waiting.append(user)
            elif user.kind in ("linear", "conv", "batchnorm") and network.calls(user) == 1:
                if user.name not in {reader.name for reader in stream.readers}:
                    stream.readers.append(user)
            else:
                return None
    return stream
