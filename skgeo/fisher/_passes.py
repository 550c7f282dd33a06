"""Passes over the data, with the graph of one micro-batch at a time."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from skgeo.fisher._rows import FisherRows
from skgeo.jacobian._parameter_jacobian import ParameterJacobian
from skgeo.linalg._memory import require_memory
from skgeo.network._finite import check_outputs

_Pass = tuple[range, ParameterJacobian, Tensor]

# Activations that a forward pass and a recorded backward pass hold, in units of the results of
# layers; and numbers per output.
_GRAPH, _OUTPUTS = 6, 8


class Passes:
    """Iterates over samples, their Jacobian in products, and their outputs.

    keep: whether to keep the graphs of all micro-batches for later passes.
    """

    def __init__(self, fisher: FisherRows, keep: bool = False) -> None:
        self.fisher = fisher
        self._keep = keep
        self._kept: list[_Pass] = []

    @property
    def sample_bytes(self) -> int:
        """Memory of the graph of one sample."""
        network = self.fisher.network
        outputs = network.n_positions * network.n_outputs
        numbers = _GRAPH * network.first_run.n_activations + _OUTPUTS * outputs
        return numbers * network.replica.dtype.itemsize

    def require(self) -> None:
        """Raise SkgeoError if the graph of one sample and two vectors of P exceed the budget."""
        fisher, network = self.fisher, self.fisher.network
        vectors = 2 * fisher.n_parameters * network.replica.dtype.itemsize
        require_memory(
            self.sample_bytes + vectors,
            f"the graph of one sample ({network.first_run.n_activations} activations, "
            f"{network.n_positions * network.n_outputs} outputs) with two vectors of "
            f"{fisher.n_parameters} parameters",
            "name fewer parameters with parameters=[...], or raise memory_budget.",
            network.device,
            network.budget,
        )

    def __iter__(self) -> Iterator[_Pass]:
        """Samples, their Jacobian, and their outputs (b, n_positions, K) without a graph."""
        if self._kept:
            yield from self._kept
            return
        self.require()
        network = self.fisher.network
        kept = []
        for samples in network.batches(self.sample_bytes):
            jacobian = ParameterJacobian(network.replica, network.inputs(samples))
            check_outputs(jacobian.outputs, samples.start)
            network.notice(jacobian.outputs)
            each = (samples, jacobian, network.sized(jacobian.outputs))
            yield each
            if self._keep:
                kept.append(each)
        self._kept = kept
