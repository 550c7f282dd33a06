"""Passes over the data, with the graph of one micro-batch at a time."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from skgeo.fisher._rows import FisherRows
from skgeo.jacobian._parameter_jacobian import ParameterJacobian
from skgeo.linalg._memory import require_memory
from skgeo.network._finite import check_outputs

# Activations that a forward pass and a recorded backward pass hold, in units of the results of
# layers; and numbers per output.
_GRAPH, _OUTPUTS = 6, 8


class Passes:
    """Iterates over samples, their Jacobian in products, and their outputs."""

    def __init__(self, fisher: FisherRows) -> None:
        self.fisher = fisher

    @property
    def sample_bytes(self) -> int:
        """Memory of the graph of one sample."""
        network = self.fisher.network
        outputs = network.n_positions * network.n_outputs
        numbers = _GRAPH * network.first_run.n_activations + _OUTPUTS * outputs
        return numbers * network.replica.dtype.itemsize

    def __iter__(self) -> Iterator[tuple[range, ParameterJacobian, Tensor]]:
        """Samples, their Jacobian, and their outputs (b, n_positions, K) without a graph.

        Raises SkgeoError if the graph of one sample, with two vectors of P, exceeds the budget.
        """
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
        for samples in network.progress(network.batches(self.sample_bytes)):
            jacobian = ParameterJacobian(network.replica, network.inputs(samples))
            check_outputs(jacobian.outputs, samples.start)
            network.notice(jacobian.outputs)
            yield samples, jacobian, network.sized(jacobian.outputs)
