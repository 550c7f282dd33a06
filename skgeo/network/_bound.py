"""A model on data: what every measurement begins with, each part made once and only when asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from skgeo.data import Inputs, Samples, cast_inputs
from skgeo.exceptions import SkgeoError
from skgeo.likelihood import Likelihood, resolve_likelihood
from skgeo.linalg._memory import memory_budget as usable_memory
from skgeo.models import ResolvedModel, resolve_model
from skgeo.network._finite import check_outputs
from skgeo.network._flow import Flow, read_flow
from skgeo.network._outputs import first_tensor
from skgeo.network._ranges import Ranges, measure_ranges
from skgeo.network._replica import Replica, replica
from skgeo.network._running import batch_ranges, check_batch_size, running
from skgeo.network._stack import Stack, stack_of

# What one batch may take, unless the user says how many samples it has.
_BATCH_BYTES = 2**28


@dataclass(frozen=True, eq=False)
class FirstRun:
    """One sample run through the network.

    Attributes
    ----------
    outputs : Tensor of shape (1, ...)
    calls : Counter of int
        How often each leaf module was called, by the ``id`` of the replica's module.
    n_activations : int
        Entries of everything that leaf modules returned.
    """

    outputs: Tensor
    calls: Counter[int]
    n_activations: int


class BoundNetwork:
    """A model on data, read at most once.

    model: the user's module, which is never touched, and how it is called.
    samples: in their own dtype; None for measurements that need no data.
    likelihood: what the outputs mean. "auto" asks the model, then the targets of the samples.
    parameters: which parameters derivatives are taken with respect to. None for none: graphs then
        hold only what lies behind a representation.
    batch_size: samples per forward pass; by default what 256 MiB hold.
    device: where to compute; by default where the module is.
    memory_budget: bytes to stay within; by default 0.7 of what is available.
    dtype: to convert the replica to; by default that of the module.
    progress: wraps a sequence of passes over the data.

    >>> network = bind(nn.Linear(3, 2), torch.ones(5, 3))
    >>> network.n_samples, network.n_outputs, network.batches()
    (5, 2, [range(0, 5)])
    """

    def __init__(
        self,
        model: ResolvedModel,
        samples: Samples | None,
        *,
        likelihood: str | Likelihood = "gaussian",
        parameters: str | Sequence[str] | None = "trainable",
        batch_size: int | None = None,
        device: str | torch.device | None = None,
        memory_budget: int | str | None = None,
        dtype: torch.dtype | None = None,
        progress: Callable[..., Any] = iter,
    ) -> None:
        check_batch_size(batch_size)
        self.model = model
        self.progress = progress
        self.batch_size = batch_size
        self._samples = samples
        self._likelihood = likelihood
        self._parameters = parameters
        self._device = device
        self._memory_budget = memory_budget
        self._dtype = dtype
        self._noticed = False

    # The network itself.

    @cached_property
    def replica(self) -> Replica:
        """The private copy that everything is measured on."""
        return replica(
            self.model.module,
            forward=self.model.forward,
            parameters=self._parameters,
            device=self._device,
            dtype=self._dtype,
        )

    @property
    def device(self) -> torch.device:
        """Where the replica is."""
        return self.replica.device

    @cached_property
    def dtype(self) -> torch.dtype:
        """What inputs are cast to: the dtype of the first floating parameter."""
        floating = (p.dtype for p in self.replica.parameters.values() if p.is_floating_point())
        return next(floating, self.replica.dtype)

    @cached_property
    def graph(self) -> Flow:
        """Which step of the forward pass reads which."""
        example = None if self._samples is None else self.inputs(range(min(2, self.n_samples)))
        return read_flow(self.replica, example=example)

    @cached_property
    def stack(self) -> Stack:
        """The plain chain of affine layers and activations that the network is.

        Raises SkgeoError where it is not one.
        """
        return stack_of(self.graph, self.model.module, convolutions=True)

    @cached_property
    def double(self) -> BoundNetwork:
        """The same network with its weights in float64; itself where they are."""
        kinds = {p.dtype for p in self.model.module.parameters() if p.is_floating_point()}
        if self._dtype == torch.float64 or (self._dtype is None and kinds <= {torch.float64}):
            return self
        return self._again(self._samples, torch.float64)

    def on(self, X: Any) -> BoundNetwork:
        """The same network, on the same replica, with other data."""
        found = self._again(self.model.read(X, None), self._dtype)
        found.replica = self.replica
        return found

    def _again(self, samples: Samples | None, dtype: torch.dtype | None) -> BoundNetwork:
        return BoundNetwork(
            self.model,
            samples,
            likelihood=self._likelihood,
            parameters=self._parameters,
            batch_size=self.batch_size,
            device=self._device,
            memory_budget=self._memory_budget,
            dtype=dtype,
            progress=self.progress,
        )

    @property
    def precision(self) -> float:
        """Machine epsilon of the coarsest dtype among the user's parameters."""
        return max(
            (
                torch.finfo(p.dtype).eps
                for p in self.model.module.parameters()
                if p.is_floating_point()
            ),
            default=torch.finfo(torch.float64).eps,
        )

    # Its data.

    @property
    def samples(self) -> Samples:
        """The samples in their own dtype, as they were given."""
        if self._samples is None:
            raise SkgeoError("This measurement needs data, and none were given: pass X.")
        return self._samples

    @property
    def has_samples(self) -> bool:
        """Whether there are data."""
        return self._samples is not None

    @property
    def n_samples(self) -> int:
        """N."""
        return len(self.samples)

    @property
    def keeps_integers(self) -> bool:
        """Whether integer inputs are indices, and stay integers."""
        return self.model.keep_integers or self.replica.takes_integers

    @cached_property
    def _cast(self) -> Samples:
        return self.samples.to(dtype=self.dtype, keep_integers=self.keeps_integers)

    def inputs(self, where: range | slice | None = None) -> Inputs:
        """Inputs of some samples (by default all), in the network's dtype, on its device."""
        if where is None:
            return cast_inputs(self._cast.inputs, device=self.device)
        return cast_inputs(self._cast.take(where.start, where.stop), device=self.device)

    @cached_property
    def budget(self) -> int:
        """Bytes to stay within."""
        return usable_memory(self._memory_budget, self.device)

    @property
    def batch_bytes(self) -> int:
        """What one batch may take, where the user does not say how many samples it has."""
        return min(self.budget // 4, _BATCH_BYTES)

    def affordable(self, sample_bytes: float) -> int:
        """Samples in a batch of which each takes so many bytes, at least one."""
        room = self.batch_bytes if self.batch_size is None else self.budget // 4
        size = max(1, int(room // max(sample_bytes, 1)))
        return min(size, self.batch_size or self.n_samples, self.n_samples)

    def batches(self, sample_bytes: float = 0.0) -> list[range]:
        """The samples in batches that fit in memory; the last may be shorter."""
        return batch_ranges(self.n_samples, self.affordable(sample_bytes))

    @cached_property
    def ranges(self) -> Ranges:
        """Smallest and largest values that every layer meets on the data, in one pass."""
        batches = self.batches(8 * self.first_run.n_activations)
        return measure_ranges(self.replica, self.graph, map(self.inputs, batches))

    # Its outputs.

    @cached_property
    def first_run(self) -> FirstRun:
        """One sample run through: a model and data that do not fit are told apart here."""
        inputs = self.inputs(range(1))
        sizes: list[int] = []
        calls: Counter[int] = Counter()

        def count(module: nn.Module, _: Any, output: Any) -> None:
            calls[id(module)] += 1
            found = first_tensor(output)
            sizes.append(0 if found is None else found.numel())

        modules = list(self.replica.module.modules())
        handles = [m.register_forward_hook(count) for m in modules if not list(m.children())]
        try:
            with torch.no_grad(), running(inputs):
                outputs = self.replica(inputs)
        finally:
            for handle in handles:
                handle.remove()
        return FirstRun(outputs, calls, sum(sizes))

    @property
    def n_outputs(self) -> int:
        """K, outputs per position."""
        shape = self.first_run.outputs.shape
        return shape[-1] if len(shape) > 1 else 1

    @property
    def n_positions(self) -> int:
        """Positions per sample; 1 for plain vectors of outputs."""
        return self.first_run.outputs.numel() // self.n_outputs

    def sized(self, outputs: Tensor) -> Tensor:
        """Outputs of a batch as (b, n_positions, K)."""
        return outputs.reshape(len(outputs), self.n_positions, self.n_outputs)

    @cached_property
    def likelihood(self) -> Likelihood:
        """The output family, which the outputs of the first sample fit."""
        found = resolve_likelihood(
            self._likelihood,
            declared_likelihood=self.model.likelihood,
            targets=None if self._samples is None else self._samples.targets,
            n_outputs=self.n_outputs,
        )
        found.check(self.sized(self.first_run.outputs))
        return found

    def notice(self, outputs: Tensor) -> None:
        """Have the likelihood look at the first batch, once: one sample says little of a family."""
        if not self._noticed:
            self._noticed = True
            self.likelihood.notice(self.sized(outputs))

    def outputs(self) -> Tensor:
        """Natural outputs of all samples: (N, n_positions, K), in the network's dtype.

        Raises SkgeoError where one is not finite.
        """
        parts = []
        with torch.no_grad():
            for batch in self.batches(8 * self.first_run.n_activations):
                parts.append(self.sized(self.replica(self.inputs(batch))))
        outputs = torch.cat(parts)
        check_outputs(outputs)
        return outputs


def bind(
    model: Any,
    X: Any,
    y: Any = None,
    **options: Any,
) -> BoundNetwork:
    """A model of any kind on data of any kind.

    model: what an estimator takes.
    X, y: X may be None where no data are needed.
    """
    found = resolve_model(model, X, y, refit=False)
    samples = None if X is None else found.read(X, y)
    return BoundNetwork(found, samples, **options)
