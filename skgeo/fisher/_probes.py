r"""Random vectors g with E[g g^T] = G, one backward pass each, and what their squares tell.

With random signs e, the vector ``g = N^(-1/2) sum_n J_n^T R_n e_n`` has covariance G. Squares of
its parts estimate traces without bias. Where layer structure gives the gradient of each sample,
``(1/N) sum_n |J_n^T R_n e_n|^2`` has the same mean and a far smaller variance, since products
between different samples do not enter it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from skgeo.exceptions import SkgeoError
from skgeo.fisher._kinds import OutputMetric, seeded
from skgeo.fisher._passes import Passes
from skgeo.jacobian._rules.factored import FactoredJacobian
from skgeo.jacobian._rules.rule_table import structure_rule
from skgeo.linalg._memory import format_bytes
from skgeo.network._finite import check_metric


class Probes:
    """Probes of one Fisher matrix, the same for the same seed and any size of batches."""

    def __init__(self, passes: Passes, metric: OutputMetric, seed: int) -> None:
        self._passes, self._metric, self._seed = passes, metric, seed
        self._squares: dict[int, Tensor] = {}

    @property
    def apart(self) -> bool:
        """Whether the gradients of single samples are at hand, from the structure of layers."""
        fisher = self._passes.fisher
        dense = (fisher.n_parameters - fisher.n_covered) * fisher.network.replica.dtype.itemsize
        return 16 * dense <= fisher.network.batch_bytes

    def vectors(self, n: int) -> Tensor:
        """Probes as rows. Raises SkgeoError if they do not fit in memory."""
        # -> (n, P)
        p, network = self._passes.fisher.n_parameters, self._passes.fisher.network
        needed = (n + 2) * p * network.replica.dtype.itemsize
        if needed > network.budget:
            raise SkgeoError(
                f"{n} probes of {p} parameters take {format_bytes(needed)}, and "
                f"{format_bytes(network.budget)} can be used. Instead: use fewer probes, name "
                "fewer parameters with parameters=[...], or raise memory_budget."
            )
        return self._block(range(n))

    def _block(self, which: range) -> Tensor:
        # -> (len(which), P)
        fisher, network = self._passes.fisher, self._passes.fisher.network
        generators = [seeded(self._seed, 1, index) for index in which]
        shape = (len(which), fisher.n_parameters)
        found = torch.zeros(shape, dtype=network.replica.dtype, device=network.device)
        for samples, jacobian, z in self._passes:
            for into, generator in zip(found, generators, strict=True):
                direction = self._metric.direction(z, self._signs(generator, z), samples)
                jacobian.pull(direction.view_as(jacobian.outputs), into)
        check_metric(found.sum(), network.likelihood.name)
        found /= network.n_samples**0.5
        return found

    def _signs(self, generator: torch.Generator, z: Tensor) -> Tensor:
        """Random signs, in the order of the samples, whatever the size of batches."""
        # -> (b, n_signs)
        shape = (len(z), self._metric.n_signs(z))
        drawn = torch.randint(0, 2, shape, generator=generator, dtype=torch.int8)
        signs: Tensor = (2 * drawn - 1).to(z)
        return signs

    def squares(self, n: int) -> Tensor:
        """Unbiased estimates of the trace of each parameter's block, one row per probe."""
        # -> (n, number of selected parameters), float64
        if n not in self._squares:
            blocks = [self._squares_of(which) for which in self._blocks(n)]
            self._squares[n] = torch.cat(blocks).cpu()
            check_metric(self._squares[n], self._passes.fisher.network.likelihood.name)
        return self._squares[n]

    def diagonals(self, n: int) -> Iterator[Tensor]:
        """Unbiased estimates of the diagonal, one per probe."""
        # -> n tensors (P,), float64
        for which in self._blocks(n):
            if not self.apart:
                yield from self._block(which).double().square()
                continue
            total = torch.zeros((), dtype=torch.float64, device=self._passes.fisher.network.device)
            for found in self._gradients(which):
                total = total + torch.stack([part.diagonal() for part in _single(found)])
            yield from total / self._passes.fisher.network.n_samples

    def _squares_of(self, which: range) -> Tensor:
        fisher, replica = self._passes.fisher, self._passes.fisher.network.replica
        if not self.apart:
            sizes = [replica.parameters[name].numel() for name in replica.selected]
            parts = torch.split(self._block(which), sizes, dim=1)
            return torch.stack([part.double().square().sum(1) for part in parts], 1)
        total = torch.zeros((), dtype=torch.float64, device=replica.device)
        for found in self._gradients(which):
            total = total + _traces(found)
        return total / fisher.network.n_samples

    def _gradients(self, which: range) -> Iterator[FactoredJacobian]:
        """Gradients of each sample in the directions of some probes, by batches."""
        fisher, network = self._passes.fisher, self._passes.fisher.network
        generators = [seeded(self._seed, 1, index) for index in which]
        for samples in network.batches(self._bytes(len(which))):

            def directions(outputs: Tensor, samples: range = samples) -> Tensor:
                z = network.sized(outputs)
                drawn = [self._metric.direction(z, self._signs(g, z), samples) for g in generators]
                return torch.stack(drawn, 1).reshape(len(z), -1, *outputs.shape[1:])

            yield fisher.directed(samples, directions)

    def _bytes(self, n: int) -> float:
        """Memory per sample of gradients in n directions."""
        fisher = self._passes.fisher
        outputs = fisher.network.n_positions * fisher.network.n_outputs
        each = fisher.network.first_run.n_activations + 4 * outputs
        return 8 * (n + 1) * (each + fisher.n_parameters - fisher.n_covered)

    def _blocks(self, n: int) -> list[range]:
        """Probes that share a forward pass."""
        network = self._passes.fisher.network
        if self.apart:
            size = max(1, int(network.batch_bytes // self._bytes(1)) // 4)
        else:
            each = self._passes.fisher.n_parameters * network.replica.dtype.itemsize
            size = max(1, int(network.batch_bytes // each))
        return [range(start, min(start + size, n)) for start in range(0, n, size)]


def _single(found: FactoredJacobian) -> list[FactoredJacobian]:
    """The gradients in one direction each."""
    parts = []
    for index in range(found.n_directions):
        which = slice(index, index + 1)
        calls = tuple(
            dataclasses.replace(call, gradients=call.gradients[:, which]) for call in found.calls
        )
        parts.append(dataclasses.replace(found, calls=calls, rest_rows=found.rest_rows[:, which]))
    return parts


def _traces(found: FactoredJacobian) -> Tensor:
    """Squared derivatives with respect to each parameter, by direction."""
    # -> (m, number of selected parameters), float64
    names = list(found.shapes)
    total = torch.zeros(
        found.n_directions, len(names), dtype=torch.float64, device=found.rest_rows.device
    )
    sizes = [found.shapes[name].numel() for name in found.rest]
    for name, rows in zip(found.rest, torch.split(found.rest_rows, sizes, dim=2), strict=True):
        total[:, names.index(name)] = rows.double().square().sum((0, 2))
    for index, part in enumerate(_single(found)):
        for call in part.calls:
            rule = structure_rule(call.module)
            assert rule is not None
            for local, name in call.names.items():
                alone = dataclasses.replace(call, names={local: name})
                total[index, names.index(name)] = rule.trace(alone)
    return total
