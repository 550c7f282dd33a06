"""Positive scaling of a channel of a residual stream, compensated where it is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from skgeo.network._flow import Flow, FlowNode
from skgeo.network._hidden import Consumer, reads_units
from skgeo.symmetry._generators.candidate import Candidate, Change
from skgeo.symmetry._generators.compensation import grow, shrink
from skgeo.symmetry._network import SymmetryNetwork

_MAKERS = ("linear", "conv", "batchnorm", "layernorm")
_PASSING = ("identity", "flatten", "pool", "mean", "select", "add")


@dataclass
class _Stream:
    """Steps whose results are scaled together."""

    makers: list[tuple[FlowNode, Any]] = field(default_factory=list)
    readers: dict[str, FlowNode] = field(default_factory=dict)
    steps: set[str] = field(default_factory=set)


def stream_scaling(network: SymmetryNetwork) -> Iterator[Candidate]:
    """Scaling of one channel in all terms of a residual sum.

    One direction per channel of each stream that starts and ends in affine layers, with only sums
    and positively homogeneous activations between them.
    """
    flow = network.flow
    seen: set[str] = set()
    for node in flow:
        if node.kind != "add" or node.name in seen or not network.runs_as_traced(node):
            continue
        stream = _follow(flow, node)
        if stream is None:
            continue
        seen |= stream.steps
        widths = {len(layer.weight) for _, layer in stream.makers}
        ends = list(stream.readers.values())
        if len(widths) != 1 or not all(reads_units(flow, end, *widths) for end in ends):
            continue
        (width,) = widths
        first, _ = stream.makers[0]
        channels_first = first.kind in ("conv", "batchnorm")
        consumers = [Consumer(end, flow.layer(end), width, channels_first) for end in ends]
        for unit in range(width):
            change = Change(network)
            for _, layer in stream.makers:
                grow(change, layer, unit)
            for consumer in consumers:
                shrink(change, consumer, unit)
            yield from change.candidate("stream_scaling", first.module, [unit])


def _passes(node: FlowNode) -> bool:
    homogeneous = node.activation is not None and node.activation.is_homogeneous
    return homogeneous or node.kind in _PASSING


def _follow(flow: Flow, start: FlowNode) -> _Stream | None:
    """All steps that must be scaled with a sum; None if one of them cannot be."""
    stream = _Stream()
    waiting = [start]
    while waiting:
        node = waiting.pop()
        if node.name in stream.steps:
            continue
        stream.steps.add(node.name)
        if _passes(node):
            waiting += flow.parents(node)
        elif node.kind in _MAKERS and flow.is_single(node):
            layer: Any = flow.layer(node)
            if layer.weight is None or getattr(layer, "groups", 1) > 1:
                return None
            stream.makers.append((node, layer))
        else:
            return None
        for user in flow.users(node):
            if _passes(user):
                waiting.append(user)
            else:
                stream.readers[user.name] = user
    return stream
