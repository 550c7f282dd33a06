r"""A network on data, as the rows whose squares make its Fisher metric.

``J_n`` is the Jacobian of sample n's outputs with respect to the parameters and ``F = R R^T`` the
Fisher metric of the output distribution. With ``A_n = R(z_n)^T J_n`` the metric pulled back to the
parameters is ``G = (1/N) sum_n A_n^T A_n``. A dense A may be far larger than memory; rows are given
as the factors that layers make of them, a batch of samples at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from skgeo.autodiff.outputs import first_tensor
from skgeo.autodiff.parameter_jacobian import ParameterJacobian
from skgeo.autodiff.replica import Replica, replica
from skgeo.autodiff.structure import Certificate, Structured, structure_rule
from skgeo.data import Inputs, as_samples, cast_inputs
from skgeo.exceptions import SkgeoError
from skgeo.geometry.likelihood import Likelihood, resolve_likelihood
from skgeo.geometry.running import batch_ranges, check_batch_size, running
from skgeo.linalg.memory import memory_budget as usable_memory
from skgeo.linalg.memory import require_memory

__all__ = ["Pullback"]

# One batch of gradients by default: large enough for full speed of the matrix products.
_BATCH_BYTES = 2**28
# Samples on which layers are checked to have the structure that their rules state.
_CHECKED = 8


class Pullback:
    """A network on data, as rows of its output Jacobian weighted by its likelihood.

    Parameters
    ----------
    module : nn.Module
        Never touched: all work is done on a replica.
    X : array, Tensor, dict, Dataset, DataLoader or Samples
    forward : callable, optional
        ``forward(module, inputs) -> outputs``; default ``module(inputs)``.
    likelihood : str or Likelihood, default="gaussian"
        "auto" is decided by :func:`~skgeo.geometry.likelihood.resolve_likelihood`.
    said, targets
        What "auto" reads: the model's own word, and y.
    parameters : "trainable", "all" or list of str, default="trainable"
    keep_integers : bool, default=False
        Leave integer inputs as they are, as for token ids.
    batch_size : int, optional
        Samples a forward pass; by default as many as 256 MiB of gradients hold.
    device : str or torch.device, optional
    memory_budget : int or str, optional
        Bytes to stay within; by default 0.7 of what is available.

    Attributes
    ----------
    n_samples, n_positions, n_outputs : int
        N, positions a sample (1 for plain vectors of outputs), outputs a position K.
    n_parameters : int
        P.
    n_rows : int
        Rows of A: ``N * n_positions * rank(F)``.
    n_tangent_rows : int
        Rows of J: ``N * n_positions * K``.
    n_covered : int
        Parameters in layers whose structure is known; the others go by dense rows.
    gradient_bytes : int
        What the gradients of one sample take, as factors in float64, by the sizes of activations.
    likelihood : Likelihood
    dtype : torch.dtype
        In which gradients are computed. Rows are float64.
    device : torch.device
    budget : int
        Bytes to stay within.
    """

    def __init__(
        self,
        module: nn.Module,
        X: Any,
        *,
        forward: Callable[..., Any] | None = None,
        likelihood: str | Likelihood = "gaussian",
        said: str | Likelihood | None = None,
        targets: Any = None,
        parameters: str | Sequence[str] = "trainable",
        keep_integers: bool = False,
        batch_size: int | None = None,
        device: str | torch.device | None = None,
        memory_budget: int | str | None = None,
    ) -> None:
        self._replica = replica(module, forward=forward, parameters=parameters, device=device)
        samples = as_samples(X, targets)
        self._samples = samples.to(
            dtype=_input_dtype(self._replica),
            keep_integers=keep_integers or self._replica.takes_integers,
        )
        self.dtype, self.device = self._replica.dtype, self._replica.device
        self.budget = usable_memory(memory_budget, self.device)
        self.n_samples = len(samples)
        self.n_parameters = self._replica.n_parameters
        first, uncovered, activations = self._survey()
        shape = first.shape
        self.n_outputs = shape[-1] if len(shape) > 1 else 1
        self.n_positions = shape.numel() // self.n_outputs
        self.likelihood = resolve_likelihood(
            likelihood, said=said, targets=samples.targets, n_outputs=self.n_outputs
        )
        self.n_tangent_rows = self.n_samples * self.n_positions * self.n_outputs
        self.n_rows = self.n_samples * self.n_positions * self.likelihood.rank(self.n_outputs)
        check_batch_size(batch_size)
        self.n_covered = self.n_parameters - uncovered
        self.gradient_bytes = self._gradient_bytes(uncovered, activations)
        self.batch_size = batch_size or max(
            1, min(self.n_samples, min(_BATCH_BYTES, self.budget // 4) // self.gradient_bytes)
        )
        self.likelihood.check(first.reshape(1, self.n_positions, self.n_outputs))
        self._noticed = False
        self._certificates: dict[bool, Certificate] = {}

    def _batch(self, samples: range) -> Inputs:
        return cast_inputs(self._samples.take(samples.start, samples.stop), device=self.device)

    def _jacobian(self, samples: range) -> ParameterJacobian:
        return ParameterJacobian(self._replica, self._batch(samples))

    def _survey(self) -> tuple[Tensor, int, int]:
        """Run one sample: outputs, parameters without structure, entries of all activations.

        A model and data that do not fit are told apart here, before anything else is asked.
        """
        inputs = self._batch(range(1))
        sizes: list[int] = []
        calls: Counter[int] = Counter()

        def count(module: nn.Module, _: Any, output: Any) -> None:
            calls[id(module)] += 1
            found = first_tensor(output)
            sizes.append(0 if found is None else found.numel())

        modules = list(self._replica.module.modules())
        handles = [m.register_forward_hook(count) for m in modules if not list(m.children())]
        try:
            with torch.no_grad(), running(inputs):
                outputs = self._replica(inputs)
        finally:
            for handle in handles:
                handle.remove()
        return outputs, _without_rule(self._replica, calls), sum(sizes)

    def _gradient_bytes(self, uncovered: int, activations: int) -> int:
        """What the gradients of one sample take, refused where that alone is too much."""
        directions = self.n_positions * self.n_outputs
        require_memory(
            2 * directions * uncovered * self.dtype.itemsize,
            f"the Jacobian of one sample ({directions} outputs x {uncovered} parameters that no "
            "layer rule covers)",
            "name fewer parameters with parameters=[...], wrap the model so that it gives fewer "
            "outputs, or register a rule with skgeo.autodiff.structure.register_structure.",
            self.device,
            self.budget,
        )
        return 8 * ((directions + 1) * activations + directions * uncovered + 1)

    def batches(self, bytes_each: float = 0.0) -> list[range]:
        """The samples in batches; the last may be shorter.

        Parameters
        ----------
        bytes_each : float, default=0.0
            What the caller makes of one sample: batches stay within a quarter of the budget.
        """
        size = self.batch_size
        if bytes_each:
            size = max(1, min(size, int(self.budget / 4 / bytes_each)))
        return batch_ranges(self.n_samples, size)

    def gradients(self, samples: range) -> Structured:
        """Gradients of every output of some samples, one direction a position and output.

        Which layers have structure is checked on the first samples of all, once.
        """
        return self._structured(samples, None)

    def _notice(self, outputs: Tensor) -> None:
        """Have the likelihood look at the first batch: one sample says little of a family."""
        if not self._noticed:
            self._noticed = True
            self.likelihood.notice(outputs.reshape(-1, self.n_positions, self.n_outputs))

    def weighted_gradients(self, samples: range) -> Structured:
        """Gradients in the directions of R^T, for sums of their squares.

        The directions are rounded to the model's dtype before the backward pass, which is cheaper
        than weighting afterwards and no place to decide a rank from.
        """

        return self._structured(samples, self._directions)

    def _directions(self, outputs: Tensor) -> Tensor:
        weights = self.weights(outputs)
        return weights.reshape(*weights.shape[:2], *outputs.shape[1:])

    def _structured(
        self, samples: range, cotangents: Callable[[Tensor], Tensor] | None
    ) -> Structured:
        if self.n_samples <= _CHECKED:
            certificate = None  # the batch is checked itself
        else:
            key = cotangents is None
            if key not in self._certificates:
                some = self._jacobian(range(_CHECKED))
                self._certificates[key] = some.certify(cotangents)
            certificate = self._certificates[key]
        found = self._jacobian(samples).factors(cotangents, certificate)
        self._notice(found.outputs)
        return found

    def weights(self, outputs: Tensor) -> Tensor:
        """``R^T`` of each sample, block by block over positions.

        Parameters
        ----------
        outputs : Tensor of shape (b, ...)
            Natural outputs.

        Returns
        -------
        Tensor of shape (b, n_positions * rank(F), n_positions * K), float64
        """
        z = outputs.reshape(len(outputs), self.n_positions, self.n_outputs).double()
        roots = self.likelihood.transposed_root(z)
        b, positions, rank, k = roots.shape
        if positions == 1:
            return roots[:, 0]
        blocks = roots.new_zeros(b, positions, rank, positions, k)
        index = torch.arange(positions, device=z.device)
        blocks[:, index, :, index, :] = roots.movedim(1, 0)
        return blocks.reshape(b, positions * rank, positions * k)

    def weigh(self, outputs: Tensor, rows: Tensor) -> Tensor:
        """``R^T`` on the output axis: outputs (..., K) and rows (..., K, width)."""
        return self.likelihood.pull_rows(outputs, rows)

    def rows(self, samples: range) -> Tensor:
        """Rows ``R^T J`` of some samples, of shape (b * n_positions * rank(F), P), float64."""
        found = self.gradients(samples)
        size = (len(samples), self.n_positions, self.n_outputs)
        rows = found.rows().double().reshape(*size, self.n_parameters)
        return self.weigh(found.outputs.reshape(size).double(), rows).flatten(0, -2)

    @property
    def row_bytes(self) -> int:
        """What the dense rows of one sample take, weighted and not."""
        return 3 * 8 * self.n_positions * self.n_outputs * self.n_parameters

    def operators(self) -> list[tuple[ParameterJacobian, Tensor]]:
        """Products with J and its transpose, batch by batch.

        Returns
        -------
        list of (ParameterJacobian, Tensor)
            The Jacobian and the outputs of its batch, (b, n_positions, K), float64.
        """
        pairs = []
        for samples in self.batches():
            jacobian = self._jacobian(samples)
            if not bool(torch.isfinite(jacobian.outputs).all()):
                raise SkgeoError(
                    f"the model's outputs for samples {samples.start} to {samples.stop - 1} hold "
                    "NaN or infinity: no metric is defined there."
                )
            self._notice(jacobian.outputs)
            size = (len(samples), self.n_positions, self.n_outputs)
            pairs.append((jacobian, jacobian.outputs.reshape(size).double()))
        return pairs


def _input_dtype(of: Replica) -> torch.dtype:
    """What inputs are cast to: the dtype of the module's first floating parameter."""
    return next((p.dtype for p in of.parameters.values() if p.is_floating_point()), of.dtype)


def _without_rule(of: Replica, calls: Counter[int]) -> int:
    """Entries of selected parameters that stand in no layer with a rule, or in several calls."""
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
