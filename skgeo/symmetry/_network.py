"""A network on data, as the rules for flat directions need it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from skgeo._cached import cached_property
from skgeo.fisher._rows import FisherRows
from skgeo.likelihood import Categorical
from skgeo.network._bound import BoundNetwork
from skgeo.network._flow import Flow, FlowNode
from skgeo.network._hidden import HiddenUnits, hidden_units_of
from skgeo.network._ranges import LayerRanges


class SymmetryNetwork:
    """A network on data in float64: graph, hidden units, ranges, and indices of parameters.

    Weights and data of lower precision are converted without loss, so this is the same function
    with smaller rounding errors.
    """

    def __init__(self, bound: BoundNetwork) -> None:
        self.bound = bound.double
        _ = self.bound.first_run  # its refusals come before what the graph does not know
        self.precision = bound.precision
        self.n_parameters = self.bound.replica.n_parameters
        self.skipped: list[str] = []  # what rules left out, with the reason
        self._places: dict[int, Tensor] = {}
        start = 0
        for name in self.bound.replica.selected:
            parameter = self.bound.replica.parameters[name]
            end = start + parameter.numel()
            self._places[id(parameter)] = torch.arange(start, end).view(parameter.shape)
            start = end

    @cached_property
    def fisher(self) -> FisherRows:
        """Rows of the Jacobian of the outputs."""
        return FisherRows(self.bound)

    @property
    def flow(self) -> Flow:
        """The data flow of the replica in float64."""
        return self.bound.graph

    @cached_property
    def has_softmax(self) -> bool:
        """Whether what the last layer returns are the logits of a softmax over its units."""
        return isinstance(self.bound.likelihood, Categorical) and not self.bound.classes_moved

    @cached_property
    def hidden(self) -> tuple[HiddenUnits, ...]:
        """Hidden layers whose units can be changed separately."""
        found = hidden_units_of(self.flow, softmax=self.has_softmax)
        return tuple(
            hidden
            for hidden in found
            if self.runs_as_traced(hidden.node)
            # With positions, a BatchNorm normalises another axis than linear layers act on.
            and all(self.ranges[name].n_axes == 2 for name in hidden.flat_norms)
        )

    @property
    def ranges(self) -> dict[str, LayerRanges]:
        """Ranges of the values of each layer on the data, by the name of its module."""
        return self.bound.ranges.layers

    def runs_as_traced(self, node: FlowNode) -> bool:
        """Whether a step is executed as it was traced."""
        return node.known or self.bound.ranges.runs_as_traced(self.flow, node)

    def layers(self, *kinds: str) -> list[tuple[FlowNode, Any]]:
        """Steps of some kinds whose module is called once, and their modules."""
        return self.flow.layers(*kinds)

    def places(self, parameter: Tensor) -> Tensor:
        """Index of each entry of a trained parameter among all P, in the parameter's shape."""
        return self._places[id(parameter)]

    def trains(self, parameter: Tensor) -> bool:
        """Whether a parameter is trained."""
        return id(parameter) in self._places
