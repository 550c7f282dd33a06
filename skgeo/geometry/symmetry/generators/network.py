"""A network on data in float64, with what closed-form null vectors are made from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from skgeo.data import Inputs
from skgeo.geometry.fisher.rows import FisherRows
from skgeo.network.bound import BoundNetwork
from skgeo.network.flow import Flow, FlowNode
from skgeo.network.likelihood import Likelihood

__all__ = ["Ranges", "Seen", "SymmetryNetwork"]

_WATCHED = ("linear", "conv", "batchnorm", "layernorm", "rmsnorm", "embedding")


class Ranges(NamedTuple):
    """Smallest and largest value on the data, by unit."""

    low: Tensor
    high: Tensor


@dataclass(frozen=True)
class Seen:
    """What one layer met on the data.

    Attributes
    ----------
    inputs : Ranges or None
        Of each input column; None where the layer has none.
    outputs : Ranges
        Of each unit.
    reached : Tensor or None
        For embeddings, which rows of the table were read; for convolutions, which entries of the
        weight ever met an input other than zero.
    """

    inputs: Ranges | None
    outputs: Ranges
    reached: Tensor | None


class SymmetryNetwork:
    """What the rules of flat directions read of a network on data, in float64.

    Parameters
    ----------
    bound : BoundNetwork
        In any precision. Weights and data are converted without loss, so this is the same function
        evaluated with smaller rounding errors.

    Attributes
    ----------
    bound : BoundNetwork
        In float64.
    fisher : FisherRows
    n_parameters : int
        P, trainable parameters only.
    precision : float
        Machine epsilon of the coarsest dtype among the user's own parameters.
    skipped : list of str
        What a rule left out, with the reason.
    cache : dict
        What rules share.
    """

    def __init__(self, bound: BoundNetwork) -> None:
        self.bound = bound.double
        self.precision = bound.precision
        self.fisher = FisherRows(self.bound)
        self.n_parameters = self.fisher.n_parameters
        self.skipped: list[str] = []
        self.cache: dict[str, Any] = {}
        self._places: dict[int, Tensor] = {}
        self._offsets: dict[int, int] = {}
        start = 0
        for name in self.bound.replica.selected:
            parameter = self.bound.replica.parameters[name]
            self._offsets[id(parameter)] = start
            start += parameter.numel()

    @property
    def flow(self) -> Flow:
        """The data flow of the replica in float64."""
        return self.bound.graph

    @property
    def likelihood(self) -> Likelihood:
        """The output family."""
        return self.bound.likelihood

    def places(self, parameter: Tensor) -> Tensor:
        """Place of each entry of a trained parameter among all P, in its shape."""
        if id(parameter) not in self._places:
            start = self._offsets[id(parameter)]
            index = torch.arange(start, start + parameter.numel()).view(parameter.shape)
            self._places[id(parameter)] = index
        return self._places[id(parameter)]

    def trains(self, parameter: Tensor) -> bool:
        """Whether a parameter is among the P."""
        return id(parameter) in self._offsets

    def layers(self, *kinds: str) -> list[tuple[FlowNode, Any]]:
        """Steps of some kinds whose module is called once, and the modules."""
        return [
            (node, self.flow.layer(node))
            for node in self.flow
            if node.kind in kinds and node.module is not None and self.calls(node) == 1
        ]

    def calls(self, node: FlowNode) -> int:
        """How often the module of a step is called."""
        return self.flow.calls(str(node.module))

    def batches(self) -> Iterator[Inputs]:
        """The samples, batch by batch."""
        for batch in self.fisher.batches():
            yield self.bound.inputs(batch)

    @property
    def seen(self) -> dict[str, Seen]:
        """What each layer met on the data, by the name of its module."""
        return self._watched[0]

    def runs_as_traced(self, node: FlowNode) -> bool:
        """Whether a step is in a part of the network that was run as a whole.

        Parameters
        ----------
        node : FlowNode
            Where what is around it is not known, its part was traced alone, and the
            forward pass may call the modules inside in some other way.

        Returns
        -------
        bool
        """
        if node.known:
            return True
        counts = self._watched[1]
        part = node.name.split("/")[0]
        inside = [n for n in self.flow if n.name.startswith(f"{part}/") and n.module is not None]
        return all(counts[part] == counts[str(n.module)] > 0 for n in inside)

    @cached_property
    def _watched(self) -> tuple[dict[str, Seen], Counter[str]]:
        watched = {str(node.module): node.kind for node in self.flow if node.kind in _WATCHED}
        found: dict[str, Seen] = {}
        counts: Counter[str] = Counter()

        def note(layer: nn.Module, args: Any, kwargs: Any, output: Any, name: str) -> None:
            counts[name] += 1
            kind = watched.get(name)
            if kind is not None:
                given = args[0] if args else next(iter(kwargs.values()))
                new = _observe(layer, kind, given, output)
                found[name] = _merge(found[name], new) if name in found else new

        handles = [
            layer.register_forward_hook(partial(note, name=name), with_kwargs=True)
            for name, layer in self.bound.replica.module.named_modules()
        ]
        try:
            with torch.no_grad():
                for batch in self.batches():
                    self.bound.replica(batch)
        finally:
            for handle in handles:
                handle.remove()
        return found, counts


def _observe(layer: nn.Module, kind: str, inputs: Tensor, outputs: Tensor) -> Seen:
    axis = 1 if kind in ("conv", "batchnorm") else -1
    reached = None
    if isinstance(layer, nn.Embedding):
        used = torch.bincount(inputs.reshape(-1), minlength=layer.num_embeddings)
        reached = (used > 0).cpu()
    elif kind == "conv":
        reached = _reached(layer, inputs)
    return Seen(
        None if kind == "embedding" else _ranges(inputs, axis), _ranges(outputs, axis), reached
    )


def _reached(layer: Any, inputs: Tensor) -> Tensor:
    """Entries of a kernel whose gradient is not zero for want of inputs."""
    kernel = torch.ones_like(layer.weight, requires_grad=True)
    with torch.enable_grad():
        total = layer._conv_forward(inputs.detach().abs(), kernel, None).sum()
        (sums,) = torch.autograd.grad(total, kernel)
    return (sums != 0).cpu()


def _ranges(values: Tensor, axis: int) -> Ranges:
    columns = values.detach().movedim(axis, -1).reshape(-1, values.shape[axis])
    return Ranges(columns.amin(0).cpu(), columns.amax(0).cpu())


def _merge(old: Seen, new: Seen) -> Seen:
    def join(a: Ranges, b: Ranges) -> Ranges:
        return Ranges(torch.minimum(a.low, b.low), torch.maximum(a.high, b.high))

    inputs = None
    if old.inputs is not None and new.inputs is not None:
        inputs = join(old.inputs, new.inputs)
    reached = None
    if old.reached is not None and new.reached is not None:
        reached = old.reached | new.reached
    return Seen(inputs, join(old.outputs, new.outputs), reached)
