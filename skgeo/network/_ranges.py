"""Ranges of values at the layers of a network on its data, and numbers of calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from skgeo.data import Inputs
from skgeo.network._flow import Flow, FlowNode
from skgeo.network._replica import Replica

_WATCHED = ("linear", "conv", "batchnorm", "layernorm", "rmsnorm", "embedding")


class Range(NamedTuple):
    """Smallest and largest values over samples and positions, per unit, on the CPU."""

    low: Tensor
    high: Tensor

    def joined(self, other: Range) -> Range:
        """The smallest range that contains both."""
        return Range(torch.minimum(self.low, other.low), torch.maximum(self.high, other.high))


@dataclass(frozen=True, eq=False)
class LayerRanges:
    """Inputs and outputs of one layer on the data."""

    inputs: Range | None  # per input column; None for an embedding
    outputs: Range
    # For an embedding, which rows were read; for a convolution, which entries of the weight were
    # ever multiplied with a nonzero input.
    reached: Tensor | None
    n_axes: int  # of the outputs, with the batch axis

    def joined(self, other: LayerRanges) -> LayerRanges:
        """Ranges over both batches."""
        inputs, reached = self.inputs, self.reached
        if inputs is not None and other.inputs is not None:
            inputs = inputs.joined(other.inputs)
        if reached is not None and other.reached is not None:
            reached = reached | other.reached
        n_axes = max(self.n_axes, other.n_axes)
        return LayerRanges(inputs, self.outputs.joined(other.outputs), reached, n_axes)


@dataclass(frozen=True, eq=False)
class Ranges:
    """Ranges of all layers, by the names of their modules."""

    layers: dict[str, LayerRanges]
    calls: Counter[str]  # of every module, over all batches

    def runs_as_traced(self, flow: Flow, node: FlowNode) -> bool:
        """Whether the forward pass calls the part of a step as it was traced.

        A part whose place is not known was traced separately; the forward pass may call the modules
        inside differently.
        """
        part = node.name.split("/")[0]
        inside = [n for n in flow if n.name.startswith(f"{part}/") and n.module is not None]
        return node.known or all(self.calls[part] == self.calls[str(n.module)] > 0 for n in inside)


def measure_ranges(replica: Replica, flow: Flow, batches: Iterable[Inputs]) -> Ranges:
    """Ranges of all layers of a data flow, in one pass of the replica."""
    watched = {str(node.module): node.kind for node in flow if node.kind in _WATCHED}
    found: dict[str, LayerRanges] = {}
    calls: Counter[str] = Counter()

    def note(layer: nn.Module, args: Any, kwargs: Any, output: Any, name: str) -> None:
        calls[name] += 1
        if name in watched:
            given = args[0] if args else next(iter(kwargs.values()))
            new = _observed(layer, watched[name], given, output)
            found[name] = found[name].joined(new) if name in found else new

    handles = [
        layer.register_forward_hook(partial(note, name=name), with_kwargs=True)
        for name, layer in replica.module.named_modules()
    ]
    try:
        with torch.no_grad():
            for batch in batches:
                replica(batch)
    finally:
        for handle in handles:
            handle.remove()
    return Ranges(found, calls)


def _observed(layer: Any, kind: str, inputs: Tensor, outputs: Tensor) -> LayerRanges:
    axis = 1 if kind in ("conv", "batchnorm") else -1
    if kind == "embedding":
        used = torch.bincount(inputs.reshape(-1), minlength=layer.num_embeddings)
        return LayerRanges(None, _range(outputs, axis), (used > 0).cpu(), outputs.dim())
    reached = _reached(layer, inputs) if kind == "conv" else None
    return LayerRanges(_range(inputs, axis), _range(outputs, axis), reached, outputs.dim())


def _reached(layer: Any, inputs: Tensor) -> Tensor:
    """Entries of a kernel that are multiplied with a nonzero input."""
    kernel = torch.ones_like(layer.weight, requires_grad=True)
    with torch.enable_grad():
        total = layer._conv_forward(inputs.detach().abs(), kernel, None).sum()
        (sums,) = torch.autograd.grad(total, kernel)
    return (sums != 0).cpu()


def _range(values: Tensor, axis: int) -> Range:
    columns = values.detach().movedim(axis, -1).flatten(0, -2)
    return Range(columns.amin(0).cpu(), columns.amax(0).cpu())
