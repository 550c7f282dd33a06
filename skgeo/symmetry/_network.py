"""What the rules of flat directions read of a network on data."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from skgeo.fisher._rows import FisherRows
from skgeo.likelihood import Categorical
from skgeo.network._bound import BoundNetwork
from skgeo.network._flow import Flow, FlowNode
from skgeo.network._hidden import HiddenUnits, hidden_units_of
from skgeo.network._ranges import LayerRanges


class SymmetryNetwork:
    """A network on data in float64: its graph, hidden units, ranges, and places of parameters.

    Weights and data of a coarser precision are converted without loss, so this is the same
    function evaluated with smaller rounding errors.
    """

    def __init__(self, bound: BoundNetwork) -> None:
        self.bound = bound.double
        self.precision = bound.precision
        self.n_parameters = self.bound.replica.n_parameters
        self.skipped: list[str] = []  # what a rule left out, with the reason
        self._places: dict[int, Tensor] = {}
        start = 0
        for name in self.bound.replica.selected:
            parameter = self.bound.replica.parameters[name]
            end = start + parameter.numel()
            self._places[id(parameter)] = torch.arange(start, end).view(parameter.shape)
            start = end

    @cached_property
    def fisher(self) -> FisherRows:
        """Rows of its Jacobian."""
        return FisherRows(self.bound)

    @property
    def flow(self) -> Flow:
        """The data flow of the replica in float64."""
        return self.bound.graph

    @cached_property
    def has_softmax(self) -> bool:
        """Whether the outputs are the logits of a softmax."""
        return isinstance(self.bound.likelihood, Categorical)

    @cached_property
    def hidden(self) -> tuple[HiddenUnits, ...]:
        """The hidden layers whose units can be changed one at a time."""
        found = hidden_units_of(self.flow, softmax=self.has_softmax)
        return tuple(hidden for hidden in found if self.runs_as_traced(hidden.node))

    @property
    def ranges(self) -> dict[str, LayerRanges]:
        """What each layer meets on the data, by the name of its module."""
        return self.bound.ranges.layers

    def runs_as_traced(self, node: FlowNode) -> bool:
        """Whether a step is in a part of the network that runs as a whole."""
        return node.known or self.bound.ranges.runs_as_traced(self.flow, node)

    def layers(self, *kinds: str) -> list[tuple[FlowNode, Any]]:
        """Steps of some kinds whose module is called once, and the modules."""
        return self.flow.layers(*kinds)

    def places(self, parameter: Tensor) -> Tensor:
        """Place of each entry of a trained parameter among all P, in its shape."""
        return self._places[id(parameter)]

    def trains(self, parameter: Tensor) -> bool:
        """Whether a parameter is among the P."""
        return id(parameter) in self._places
