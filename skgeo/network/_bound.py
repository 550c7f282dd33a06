"""A model on data, the input of every measurement; its parts are computed once, when needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from skgeo._cached import cached_property
from skgeo._random_state import random_state_kept
from skgeo.data import Inputs, Samples, cast_inputs
from skgeo.data._samples import leaves
from skgeo.exceptions import RankAmbiguityWarning, SkgeoError, warn
from skgeo.likelihood import Likelihood, as_likelihood
from skgeo.linalg._memory import memory_budget as usable_memory
from skgeo.linalg._rank import resolution
from skgeo.models import ResolvedModel, resolve_model
from skgeo.network._apart import check_apart
from skgeo.network._batch import floating_inputs, pick, take, tensors_of
from skgeo.network._finite import check_outputs
from skgeo.network._first_run import FirstRun, run_once
from skgeo.network._flow import Flow, read_flow
from skgeo.network._output_reading import OutputReading
from skgeo.network._positions import arranged, with_mask
from skgeo.network._ranges import Ranges, measure_ranges
from skgeo.network._replica import Replica, replica
from skgeo.network._running import batch_ranges, check_batch_size, check_device, running
from skgeo.network._stack import Stack, stack_of

# Memory of one batch, unless the user chooses its size.
_BATCH_BYTES = 2**28
# Samples of a batch that is run in other orders, to see whether samples depend on each other.
_JUDGED = 64
# Number of samples, from all over the data, on which rounding is measured.
_FEW = 32
_HALF = {torch.float16, torch.bfloat16}


class BoundNetwork:
    """A model on data, which are read at most once.

    model: its module is never changed.
    samples: in their own dtype; None for measurements that need no data.
    likelihood: likelihood of the outputs. With "auto", that of the model, or else it is inferred
        from the targets. None for measurements that have no metric on the outputs; of y, they read
        labels that leave positions out.
    parameters: parameters with respect to which derivatives are taken; None for none.
    batch_size: samples per forward pass; by default those that fit into 256 MiB.
    device: by default that of the module.
    memory_budget: in bytes; by default 0.7 of the available memory.
    dtype: dtype of the replica; by default that of the module.
    progress: wraps a sequence of passes over the data.

    >>> network = bind(torch.nn.Linear(3, 2), torch.ones(5, 3))
    >>> network.n_samples, network.n_outputs, network.batches()
    (5, 2, [range(0, 5)])
    """

    def __init__(
        self,
        model: ResolvedModel,
        samples: Samples | None,
        *,
        likelihood: str | Likelihood | None = None,
        parameters: str | Sequence[str] | None = "trainable",
        batch_size: int | None = None,
        device: str | torch.device | None = None,
        memory_budget: int | str | None = None,
        dtype: torch.dtype | None = None,
        progress: Callable[..., Any] = iter,
    ) -> None:
        check_batch_size(batch_size)
        check_device(device)
        if memory_budget is not None:
            usable_memory(memory_budget)  # raises if it is nonsense
        self.model = model
        self.progress = progress
        self.batch_size = batch_size
        self._samples = samples
        self._likelihood = likelihood
        self._parameters = parameters
        self._device = device
        self._memory_budget = memory_budget
        self._dtype = dtype
        self._judged = False
        self._said = False

    # The network itself.

    @cached_property
    def replica(self) -> Replica:
        """The private copy on which everything is measured."""
        return replica(
            self.model.module,
            forward=self.model.forward,
            parameters=self._parameters,
            device=self._device,
            dtype=self._dtype or self._beyond_half,
        )

    @property
    def _beyond_half(self) -> torch.dtype | None:
        """float32 where all weights are in half precision, whose rounding would hide any rank."""
        kinds = self._kinds
        return torch.float32 if kinds and kinds <= _HALF else None

    def resolution(self, n_rows: int, n_columns: int, *, squared: bool = True) -> float:
        """The resolution of a matrix of derivatives, in the arithmetic that ran.

        Raises SkgeoError if half precision leaves no eigenvalue above it; warns if it leaves few.
        """
        dtype = self.first_run.arithmetic
        found = resolution(n_rows, n_columns, dtype, squared=squared)
        if dtype in _HALF:
            said = (
                f"The forward pass computes in {dtype} although not all weights are of that dtype "
                "(torch.autocast, or a cast inside forward): eigenvalues below "
                f"{found:.1e} of the largest are rounding"
            )
            do = "Measure outside of autocast, or cast the whole model with model.float()."
            if found >= 1.0:
                raise SkgeoError(f"{said}, which leaves no rank to decide. {do}")
            if not self._said:
                self._said = True
                warn(f"{said}, and ranks may miss directions. {do}", RankAmbiguityWarning)
        return found

    @property
    def device(self) -> torch.device:
        """Device of the replica."""
        return self.replica.device

    @cached_property
    def dtype(self) -> torch.dtype:
        """Dtype to which inputs are cast: that of the first floating parameter."""
        floating = (p.dtype for p in self.replica.parameters.values() if p.is_floating_point())
        return next(floating, self.replica.dtype)

    @cached_property
    def graph(self) -> Flow:
        """Data flow of the forward pass."""
        example = None if self._samples is None else self._bare(slice(0, 2))
        with random_state_kept(self.device):
            return read_flow(self.replica, example=example)

    @cached_property
    def stack(self) -> Stack:
        """The network as a plain chain of affine layers and activations.

        Raises SkgeoError if it is not one.
        """
        return stack_of(self.graph, self.model.module, convolutions=True)

    @cached_property
    def double(self) -> BoundNetwork:
        """The same network with weights in float64; itself if they already are."""
        kinds = self._kinds
        if self._dtype == torch.float64 or (self._dtype is None and kinds <= {torch.float64}):
            return self
        return self._again(self._samples, torch.float64)

    def on(self, X: Any) -> BoundNetwork:
        """The same network and replica with other data."""
        return self._moved_to(self.model.read(X, None))

    def at(self, inputs: Inputs) -> BoundNetwork:
        """The same network, replica and likelihood on inputs as the module takes them."""
        found = self._moved_to(Samples(inputs))
        found.likelihood = self.likelihood
        return found

    def _moved_to(self, samples: Samples) -> BoundNetwork:
        found = self._again(samples, self._dtype)
        found.replica = self.replica
        return found

    def starting_at(self, source: str | None) -> tuple[BoundNetwork, str | None]:
        """The network with a named input first, where derivatives start, and the `source` left.

        source: name of an input of a dict, or of a layer, which is left for the caller.
        Raises SkgeoError if nothing says which of several floating inputs is meant.
        """
        inputs = self._bare(slice(0, 1))
        if isinstance(inputs, Tensor):
            return self, source
        if isinstance(inputs, dict) and source is not None and source in inputs:
            if not inputs[source].is_floating_point():
                raise SkgeoError(
                    f"Got source={source!r}, which names an input of integers, with respect to "
                    "which there are no derivatives. Name a floating input or a layer behind the "
                    "integers."
                )
            given = cast(dict[str, Tensor], self.samples.inputs)
            rest = {key: value for key, value in given.items() if key != source}
            first = Samples({source: given[source], **rest}, self.samples.targets)
            return self._moved_to(first), None
        several = floating_inputs(inputs)
        integers = [t for t in tensors_of(inputs) if not t.dtype.is_floating_point]
        behind = self.replica.takes_integers and any(t.dtype != torch.bool for t in integers)
        if source is None and len(several) > 1 and not behind:
            raise SkgeoError(
                f"The input has several floating tensors ({', '.join(several)}), and the chain "
                "starts at one of them. Say at which: pass a dict and its key, as in "
                f"source={several[0]!r}, or the name of a layer."
            )
        return self, source

    def _again(self, samples: Samples | None, dtype: torch.dtype | None) -> BoundNetwork:
        found = BoundNetwork(
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
        found._judged = self._judged
        return found

    @property
    def precision(self) -> float:
        """Largest machine epsilon among the dtypes of the user's parameters."""
        finest = torch.finfo(torch.float64).eps
        return max((torch.finfo(kind).eps for kind in self._kinds), default=finest)

    @property
    def _kinds(self) -> set[torch.dtype]:
        """Floating dtypes of the user's parameters."""
        return {p.dtype for p in self.model.module.parameters() if p.is_floating_point()}

    # Its data.

    @property
    def samples(self) -> Samples:
        """The samples, in their own dtype."""
        if self._samples is None:
            raise SkgeoError("This measurement needs data, and X is None: pass X.")
        return self._samples

    @property
    def has_samples(self) -> bool:
        """Whether there are data."""
        return self._samples is not None

    @property
    def n_samples(self) -> int:
        """Number of samples N."""
        return len(self.samples)

    @property
    def keeps_integers(self) -> bool:
        """Whether integer inputs are indices and stay integers."""
        return self.model.keep_integers or self.replica.takes_integers

    @cached_property
    def _cast(self) -> Samples:
        return self.samples.to(dtype=self.dtype, keep_integers=self.keeps_integers)

    def inputs(self, where: range | slice | None = None) -> Inputs:
        """Inputs of some samples, by default all, in the dtype and on the device of the network.

        They carry the mask of the positions that count, if some do not.
        """
        return self._carrying(slice(None) if where is None else slice(where.start, where.stop))

    def spread(self, size: int) -> Inputs:
        """Inputs of at most so many samples, from all over the data, in their order."""
        return self._carrying(self._rows_all_over(size))

    @property
    def few(self) -> Inputs:
        """Samples on which rounding is measured; the size of batches has no part in it."""
        room = self.budget // 4 // max(32 * self.first_run.n_activations, 1)
        return self.spread(int(min(_FEW, max(room, 1))))

    def _rows_all_over(self, size: int) -> Tensor:
        """Numbers of at most so many samples, ascending."""
        size = min(size, self.n_samples)
        return torch.linspace(0, self.n_samples - 1, size, dtype=torch.float64).long()

    def _bare(self, where: slice | Tensor) -> Inputs:
        """Inputs of some samples, as the user gave them."""
        inputs = self._cast.inputs
        chosen = take(inputs, where) if isinstance(where, slice) else pick(inputs, where)
        return cast_inputs(chosen, device=self.device)

    def _carrying(self, where: slice | Tensor) -> Inputs:
        mask = self.mask
        return with_mask(self._bare(where), None if mask is None else mask[where].to(self.device))

    @cached_property
    def mask(self) -> Tensor | None:
        """Which positions count, (N, n_positions), on the CPU; None for all.

        By the labels in y and by the mask of the model. Raises SkgeoError if none does.
        """
        if not self._reading.may_leave_out:
            return None
        batches = (
            self._bare(slice(batch.start, batch.stop))
            for batch in self.batches(8 * self.first_run.n_activations)
        )
        return self._reading.mask(self.n_positions, lambda: self.likelihood, batches)

    def counted_rows(self, first: int | None = None) -> int:
        """Rows of the Jacobian under the root of F, at positions that count.

        first: number of samples; by default all.
        """
        n = self.n_samples if first is None else first
        positions = n * self.n_positions if self.mask is None else int(self.mask[:n].sum())
        return positions * self.likelihood.rank(self.n_outputs)

    @cached_property
    def budget(self) -> int:
        """Memory budget in bytes."""
        return usable_memory(self._memory_budget, self.device)

    @property
    def batch_bytes(self) -> int:
        """Memory of one batch in bytes, if the user does not choose its size."""
        return min(self.budget // 4, _BATCH_BYTES)

    def affordable(self, sample_bytes: float) -> int:
        """Samples per batch if each takes `sample_bytes`; at least one."""
        room = self.batch_bytes if self.batch_size is None else self.budget // 4
        size = max(1, int(room // max(sample_bytes, 1)))
        return min(size, self.batch_size or self.n_samples, self.n_samples)

    def batches(self, sample_bytes: float = 0.0) -> list[range]:
        """Batches of samples that fit into memory; the last may be shorter."""
        return batch_ranges(self.n_samples, self.affordable(sample_bytes))

    @cached_property
    def ranges(self) -> Ranges:
        """Smallest and largest values at every layer on the data, in one pass."""
        batches = self.batches(8 * self.first_run.n_activations)
        return measure_ranges(self.replica, self.graph, map(self.inputs, batches))

    # Its outputs.

    @cached_property
    def _reading(self) -> OutputReading:
        """How they are read."""
        targets = None if self._samples is None else self._samples.targets
        return OutputReading(self.model, self._likelihood, targets)

    @cached_property
    def first_run(self) -> FirstRun:
        """Forward pass of one sample; raises SkgeoError if model and data do not fit.

        Tensors that the forward pass writes to get copies, and whole batches are compared: the
        outputs must be a fixed function of each sample.
        """
        inputs = self._bare(slice(0, 1))
        with running(inputs, self._cast_note):
            found = run_once(self.replica, inputs)
        if self.replica.class_axis is None:
            axis = self._reading.class_axis(tuple(found.outputs.shape))
            self.replica.class_axis = axis
            found = replace(found, outputs=arranged(found.outputs, axis, None))
        if not self._judged:
            self._check_apart(found)
            self._judged = True
        return found

    @property
    def _cast_note(self) -> str:
        """Who has cast integers, for the message of a forward pass that expects them."""
        kinds = {tensor.dtype for _, tensor in leaves(self.samples.inputs)}
        if self.keeps_integers or all(k.is_floating_point or k == torch.bool for k in kinds):
            return ""
        return (
            f" X holds integers, which skgeo has cast to {self.dtype}, the dtype of the parameters,"
            " since the module has no nn.Embedding. If they are indices, pass "
            "WrappedModel(module, forward=lambda module, inputs: module(inputs)), for which "
            "integers stay integers."
        )

    def _check_apart(self, first: FirstRun) -> None:
        """Compare whole batches, those of the first samples and of samples from all over."""
        room = self.budget // 4 // max(8 * first.n_activations, 1)
        size = int(min(self.n_samples, _JUDGED, max(room, 2)))
        chosen = [self._bare(slice(0, size))]
        if size < self.n_samples:
            chosen.append(self._bare(self._rows_all_over(size)))
        for inputs in chosen:
            with torch.no_grad(), running(inputs, self._cast_note):
                check_apart(self.replica, inputs, first.arithmetic, self.device)

    @property
    def classes_moved(self) -> bool:
        """Whether classes are on another axis than the last in what the model returns."""
        last = self.first_run.outputs.ndim - 1
        return self.replica.class_axis not in (None, last)

    @property
    def n_outputs(self) -> int:
        """Number of outputs K per position."""
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
        """The likelihood, checked against the outputs of the first sample."""
        return self._reading.likelihood(
            self.first_run.outputs, self.replica.class_axis, lambda: self.graph
        )

    def notice(self, outputs: Tensor) -> None:
        """Look at the outputs of a batch: is the metric finite, and (once) do they look right?"""
        self._reading.notice(self.sized(outputs.detach()), self.likelihood)

    def outputs(self) -> Tensor:
        """Natural outputs of all samples: (N, n_positions, K), in the network's dtype.

        Raises SkgeoError if one is not finite.
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
    """Any kind of model on any kind of data; X may be None if no data are needed."""
    asked = options.get("likelihood", "auto")
    if asked != "auto":
        as_likelihood(asked)  # refuses what is none
    found = resolve_model(model, X, y, refit=False)
    samples = None if X is None else found.read(X, y)
    return BoundNetwork(found, samples, **options)
