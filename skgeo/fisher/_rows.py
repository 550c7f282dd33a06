r"""The rows A for which ``A^T A / N`` is the Fisher metric on the parameters.

``J_n`` is the Jacobian of sample n's outputs with respect to the parameters and ``F = R R^T`` the
Fisher metric of the output distribution. With ``A_n = R(z_n)^T J_n`` the metric pulled back to the
parameters is ``G = (1/N) sum_n A_n^T A_n``. A dense A may be far larger than memory. The rows are
therefore given as the factors that the structure of the layers provides, in batches of samples.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from skgeo._cached import cached_property
from skgeo.jacobian._parameter_jacobian import ParameterJacobian
from skgeo.jacobian._rules.factored import FactoredJacobian
from skgeo.jacobian._rules.rule_check import Certificate
from skgeo.jacobian._rules.rule_table import structure_rule
from skgeo.linalg._memory import require_memory
from skgeo.network._agreement import seeded_normal
from skgeo.network._bound import BoundNetwork
from skgeo.network._finite import check_outputs
from skgeo.network._noise import Noise, is_rounding, may_be_rounding, relative_errors
from skgeo.network._replica import Replica

# Number of samples on which the layers are checked to have the structure of their rules.
_CHECKED = 8


class Weighted(NamedTuple):
    """Gradients in the directions of R^T, divided by a number that keeps them in range.

    squared_scale: the square of that number, by which their products are multiplied.
    """

    part: FactoredJacobian
    squared_scale: float


class FisherRows:
    """Rows of the output Jacobian of a network on data, weighted by its likelihood.

    Attributes
    ----------
    network : BoundNetwork
    n_parameters : int
        P.
    n_rows : int
        Rows of A: ``N * n_positions * rank(F)``.
    n_tangent_rows : int
        Rows of J: ``N * n_positions * K``.
    n_covered : int
        Parameters in layers of known structure; dense rows are formed for the others.
    """

    def __init__(self, network: BoundNetwork) -> None:
        self.network = network
        self.n_parameters = network.replica.n_parameters
        samples = network.n_samples * network.n_positions
        self.n_tangent_rows = samples * network.n_outputs
        self.n_rows = samples * network.likelihood.rank(network.n_outputs)
        uncovered = _without_rule(network.replica, network.first_run.calls)
        self.n_covered = self.n_parameters - uncovered
        self._certificates: dict[bool, Certificate] = {}

    @cached_property
    def batch_size(self) -> int:
        """Samples in a batch of gradients."""
        return self.network.affordable(self.gradient_bytes)

    @cached_property
    def gradient_bytes(self) -> int:
        """Size of the gradients of one sample. Raises SkgeoError if that exceeds the budget."""
        network, uncovered = self.network, self.n_parameters - self.n_covered
        directions = network.n_positions * network.n_outputs
        require_memory(
            2 * directions * uncovered * network.replica.dtype.itemsize,
            f"the Jacobian of one sample ({directions} outputs x {uncovered} parameters that no "
            "layer rule covers)",
            "name fewer parameters with parameters=[...], wrap the model such that it has fewer "
            "outputs, or register a rule with skgeo.jacobian.register_structure.",
            network.device,
            network.budget,
        )
        activations = network.first_run.n_activations
        return 8 * ((directions + 1) * activations + directions * uncovered + 1)

    @cached_property
    def row_bytes(self) -> int:
        """Size of the dense rows of one sample, weighted and unweighted."""
        return 3 * 8 * self.network.n_positions * self.network.n_outputs * self.n_parameters

    def batches(self, bytes_each: float = 0.0) -> list[range]:
        """Batches of samples that fit in memory.

        bytes_each: what the caller needs per sample, if more than the gradients.
        """
        return self.network.batches(max(self.gradient_bytes, bytes_each))

    def gradients(self, samples: range) -> FactoredJacobian:
        """Gradients of every output of some samples, one direction per position and output.

        The structure of the layers is checked once, on the first samples.
        """
        return self._structured(samples, None)

    def weighted_gradients(self, samples: range, which: slice | None = None) -> Weighted:
        """Gradients in the directions of R^T, for sums of their squares.

        which: some of the directions, by default all.

        The directions are rounded to the model's dtype before the backward pass. This is cheaper
        than weighting afterwards, but not accurate enough to decide a rank.
        """
        which = slice(0, self.n_directions) if which is None else which
        scale = 1.0

        def in_range(outputs: Tensor) -> Tensor:
            nonlocal scale
            found = self._directions(outputs, which)
            largest = float(found.abs().max())
            if 0.0 < largest < math.inf:  # a power of two: nothing is rounded
                scale = 2.0 ** math.floor(math.log2(largest))
            return found.div_(scale).to(outputs.dtype)

        part = self._structured(samples, in_range)
        return Weighted(part, scale**2)

    @property
    def n_directions(self) -> int:
        """Rows of A per sample."""
        return self.n_rows // self.network.n_samples

    def pieces(self) -> Iterator[Weighted]:
        """Weighted gradients by batches of samples, and by blocks of directions if they are many.

        Raises SkgeoError if those of one sample in one direction exceed the budget.
        """
        network = self.network
        outputs = network.n_positions * network.n_outputs
        uncovered = self.n_parameters - self.n_covered
        # A few copies of the direction and of the dense rows, besides the gradients.
        each = 8 * (network.first_run.n_activations + 5 * outputs)
        each += 3 * network.replica.dtype.itemsize * uncovered
        require_memory(
            each,
            f"the gradient of one sample in one direction ({network.first_run.n_activations} "
            f"activations, {outputs} outputs and {uncovered} parameters that no layer rule covers)",
            "name fewer parameters with parameters=[...], or raise memory_budget.",
            network.device,
            network.budget,
        )
        block = min(self.n_directions, max(1, network.batch_bytes // each))
        for samples in network.batches(block * each):
            for start in range(0, self.n_directions, block):
                stop = min(start + block, self.n_directions)
                yield self.weighted_gradients(samples, slice(start, stop))

    def _jacobian(self, samples: range) -> ParameterJacobian:
        return ParameterJacobian(self.network.replica, self.network.inputs(samples))

    def _directions(self, outputs: Tensor, which: slice) -> Tensor:
        """Rows of ``R^T`` as directions of the outputs, block-diagonal over positions."""
        # outputs (b, ...) -> (b, n_chosen, ...), float64
        z = self.network.sized(outputs).double()
        rank = self.n_directions // self.network.n_positions
        found = z.new_zeros(len(z), which.stop - which.start, *z.shape[1:])
        for position in range(which.start // rank, -(-which.stop // rank)):
            first = position * rank
            rows = slice(max(which.start - first, 0), min(which.stop - first, rank))
            into = slice(first + rows.start - which.start, first + rows.stop - which.start)
            found[:, into, position] = self.network.likelihood.root_rows(z[:, position], rows)
        return found.reshape(*found.shape[:2], *outputs.shape[1:])

    def directed(self, samples: range, directions: Callable[[Tensor], Tensor]) -> FactoredJacobian:
        """Gradients in directions of the outputs that the caller chooses.

        directions: outputs (b, ...) -> (b, m, ...), called once, with the outputs of `samples`.
        """
        return self._structured(samples, directions, _any_direction)

    def _structured(
        self,
        samples: range,
        cotangents: Callable[[Tensor], Tensor] | None,
        checked: Callable[[Tensor], Tensor] | None = None,
    ) -> FactoredJacobian:
        """checked: directions on which the structure of the layers is checked."""
        network = self.network
        certificate = None  # with few samples each batch is checked itself
        if network.n_samples > _CHECKED and self._first_ones_count:
            key = cotangents is None
            if key not in self._certificates:
                few = checked or (None if cotangents is None else _first_of(cotangents))
                self._certificates[key] = self._jacobian(range(_CHECKED)).certify(few)
            certificate = self._certificates[key]
        found = self._jacobian(samples).factors(cotangents, certificate)
        network.notice(found.outputs)
        return found

    @cached_property
    def _first_ones_count(self) -> bool:
        """Whether the samples of the check all have a gradient: what is left out shows nothing."""
        mask = self.network.mask
        return mask is None or bool(mask[:_CHECKED].any(1).all())

    def weights(self, outputs: Tensor) -> Tensor:
        """``R^T`` per sample at natural outputs, block-diagonal over positions, in float64."""
        # outputs (b, ...) -> (b, positions * rank, positions * K)
        z = self.network.sized(outputs).double()
        roots = self.network.likelihood.transposed_root(z)
        b, positions, rank, k = roots.shape
        if positions == 1:
            return roots[:, 0]
        blocks = roots.new_zeros(b, positions, rank, positions, k)
        index = torch.arange(positions, device=z.device)
        blocks[:, index, :, index, :] = roots.movedim(1, 0)
        return blocks.reshape(b, positions * rank, positions * k)

    def weigh(self, outputs: Tensor, rows: Tensor) -> Tensor:
        """``R^T`` applied to the output axis of rows."""
        # outputs (..., K), rows (..., K, width) -> (..., rank, width)
        return self.network.likelihood.pull_rows(outputs, rows)

    def rows(self, samples: range) -> Tensor:
        """Rows ``R^T J`` of some samples, in float64."""
        # -> (b * n_positions * rank(F), P)
        found = self.gradients(samples)
        z = self.network.sized(found.outputs).double()
        rows = found.rows().double().reshape(*z.shape, self.n_parameters)
        return self.weigh(z, rows).flatten(0, -2)

    def is_rounding(self, trace: float) -> bool:
        """Whether the Fisher metric, of this trace, is rounding of zero derivatives."""
        network = self.network
        dtype = network.first_run.arithmetic
        z = network.sized(network.first_run.outputs)
        v = seeded_normal(*z.shape, like=z.double())
        root = (v * network.likelihood.apply_fisher(z.double(), v)).sum().clamp_min(0.0).sqrt()
        # Root mean squares: of one direction of the outputs, and of all derivatives.
        if not bool(may_be_rounding(root.new_tensor(trace**0.5), root, dtype)):
            return False
        sizes = self._combined(None)
        return bool(is_rounding(sizes, self._combined, dtype))

    def _combined(self, noise: Noise | None) -> Tensor:
        """Norm of the derivatives of one random combination of all rows."""
        # -> ()
        total = torch.zeros((), dtype=torch.float64, device=self.network.device)
        for samples in self.batches():
            found = self._combination(self._jacobian(samples), noise)
            total += found.double().square().sum()
        return total.sqrt()

    def _combination(self, jacobian: ParameterJacobian, noise: Noise | None = None) -> Tensor:
        """Derivatives of one random combination of the rows of some samples."""
        # -> (P,)
        z = self.network.sized(jacobian.outputs)
        signs = seeded_normal(*z.shape[:2], self.network.likelihood.rank(z.shape[-1]), like=z)
        combined = self._transposed(z, signs.sign().double()).to(z.dtype)
        combined = combined.view_as(jacobian.outputs)
        return jacobian.pull(combined if noise is None else noise.added(combined))

    def error(self) -> float:
        """Relative error of the rows by rounding, measured on a few samples."""
        inputs = self.network.few

        def run() -> dict[str, Tensor]:
            jacobian = ParameterJacobian(self.network.replica, inputs)
            return {"": self._combination(jacobian).unsqueeze(0)}

        return relative_errors(run).get("", 0.0)

    def _transposed(self, z: Tensor, u: Tensor) -> Tensor:
        """``R u``, as the derivative of ``w -> R^T w``, which the likelihood gives."""
        # z (b, positions, K), u (b, positions, rank) -> (b, positions, K), float64
        with torch.enable_grad():
            w = torch.zeros_like(z, dtype=torch.float64, requires_grad=True)
            weighted = self.network.likelihood.pull_rows(z.detach(), w.unsqueeze(-1)).squeeze(-1)
            return torch.autograd.grad(weighted, w, u)[0]

    def operators(self) -> Iterator[tuple[ParameterJacobian, Tensor]]:
        """Products with J and its transpose, batch by batch, with the outputs of the batch."""
        # outputs (b, positions, K)
        for samples in self.batches():
            jacobian = self._jacobian(samples)
            check_outputs(jacobian.outputs, samples.start)
            self.network.notice(jacobian.outputs)
            yield jacobian, self.network.sized(jacobian.outputs).double()


def _first_of(cotangents: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A few of the directions: the structure of a layer is that of each."""

    def few(outputs: Tensor) -> Tensor:
        parts = [cotangents(one.unsqueeze(0))[:, :_CHECKED] for one in outputs]
        return torch.cat(parts)

    return few


def _any_direction(outputs: Tensor) -> Tensor:
    return seeded_normal(*outputs.shape, like=outputs).unsqueeze(1)


def _without_rule(of: Replica, calls: Counter[int]) -> int:
    """Number of entries of selected parameters without a rule, or that are used several times."""
    owners: Counter[int] = Counter()
    ruled: set[int] = set()
    for module in of.module.modules():
        rule = structure_rule(module)
        for name, parameter in module._parameters.items():
            if parameter is not None:
                owners[id(parameter)] += max(1, calls[id(module)])
                if rule is not None and name in rule.names:
                    ruled.add(id(parameter))
    chosen = (of.parameters[name] for name in of.selected)
    return sum(p.numel() for p in chosen if id(p) not in ruled or owners[id(p)] > 1)
