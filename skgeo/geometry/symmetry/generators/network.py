"""A network on data in float64, with what closed-form null vectors are made from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from skgeo.autodiff.copytree import TreeCopy, unwrap
from skgeo.autodiff.modelcheck import check_kind
from skgeo.autodiff.parameter_jacobian import ParameterJacobian
from skgeo.autodiff.replica import Replica, replica
from skgeo.data import Inputs, Samples, as_samples, cast_inputs
from skgeo.geometry.likelihood import Likelihood
from skgeo.geometry.pullback import Pullback
from skgeo.geometry.symmetry.flow import Flow, FlowNode, read_flow

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
    """A network on data, in float64, whose flat directions are to be named.

    Parameters
    ----------
    module : torch.nn.Module
        Never touched.
    X : any kind of data
    forward : callable, optional
    likelihood, said, targets
        As in :class:`~skgeo.geometry.pullback.Pullback`.
    keep_integers : bool, default=False
    batch_size : int, optional
    device : str or torch.device, optional

    Attributes
    ----------
    flow : Flow
        Of the copy in float64.
    pullback : Pullback
        Of the same copy.
    n_parameters : int
        P, trainable parameters only.
    precision : float
        Machine epsilon of the coarsest dtype among the module's own parameters.
    skipped : list of str
        What a rule left out, with the reason.
    cache : dict
        What rules share.

    Notes
    -----
    Weights and data are converted without loss, so that this is the same function evaluated with
    smaller rounding errors.
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
        keep_integers: bool = False,
        batch_size: int | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        self._module, self._forward = as_double(module, forward)
        self.precision = max(
            (torch.finfo(p.dtype).eps for p in module.parameters() if p.is_floating_point()),
            default=torch.finfo(torch.float64).eps,
        )
        samples = as_samples(X, targets)
        self.pullback = Pullback(
            self._module,
            samples,
            forward=self._forward,
            likelihood=likelihood,
            said=said,
            keep_integers=keep_integers,
            batch_size=batch_size,
            device=device,
        )
        for part in self._module.modules():  # what train mode changes was warned of, once
            part.training = False
        self._samples = samples
        self._keep_integers = keep_integers
        self._device = device
        self.flow: Flow = read_flow(
            self._module, forward=self._forward, example=self._example(samples)
        )
        self.n_parameters = self.pullback.n_parameters
        self.skipped: list[str] = []
        self.cache: dict[str, Any] = {}
        self._places: dict[int, Tensor] = {}
        self._offsets: dict[int, int] = {}
        start = 0
        for parameter in self._module.parameters():
            if parameter.requires_grad:
                self._offsets[id(parameter)] = start
                start += parameter.numel()

    def _example(self, samples: Samples) -> Inputs:
        """Two samples as the copy takes them, to follow what depends on their lengths."""
        integers = self._keep_integers or any(
            isinstance(m, (nn.Embedding, nn.EmbeddingBag)) for m in self._module.modules()
        )
        device = next(self._module.parameters()).device
        return cast_inputs(
            samples.take(0, 2), dtype=torch.float64, device=device, keep_integers=integers
        )

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

    @property
    def likelihood(self) -> Likelihood:
        """The output family."""
        return self.pullback.likelihood

    def layers(self, *kinds: str) -> list[tuple[FlowNode, Any]]:
        """Steps of some kinds whose module is called once, and the modules.

        Parameters
        ----------
        *kinds : str

        Returns
        -------
        list of (FlowNode, Module)
        """
        return [
            (node, self.flow.layer(node))
            for node in self.flow
            if node.kind in kinds and node.module is not None and self.calls(node) == 1
        ]

    def calls(self, node: FlowNode) -> int:
        """How often the module of a step is called."""
        return self.flow.calls(str(node.module))

    @property
    def forward(self) -> Callable[..., Any] | None:
        """How the copy is called."""
        return self._forward

    @property
    def inputs(self) -> Inputs:
        """The samples, in their own dtype."""
        return self._samples.inputs

    def replicas(self) -> Iterator[tuple[Replica, Inputs]]:
        """A replica of the copy in float64, and the samples batch by batch."""
        copy = replica(self._module, forward=self._forward, device=self._device)
        for batch in self._batches(copy):
            yield copy, batch

    def operators(self) -> Iterator[ParameterJacobian]:
        """Products with J and its transpose, one batch after the other."""
        for copy, batch in self.replicas():
            yield ParameterJacobian(copy, batch)

    def _batches(self, copy: Replica) -> Iterator[Inputs]:
        samples = self._samples.to(
            dtype=torch.float64, keep_integers=self._keep_integers or copy.takes_integers
        )
        for batch in self.pullback.batches():
            yield cast_inputs(samples.take(batch.start, batch.stop), device=copy.device)

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
        copy = replica(self._module, forward=self._forward, device=self._device)
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

        for name, layer in copy.module.named_modules():
            layer.register_forward_hook(partial(note, name=name), with_kwargs=True)
        with torch.no_grad():
            for batch in self._batches(copy):
                copy(batch)
        return found, counts


def as_double(
    module: nn.Module, forward: Callable[..., Any] | None
) -> tuple[nn.Module, Callable[..., Any] | None]:
    """Copy of a module in float64, and its forward function with the copy in place of it."""
    source = unwrap(check_kind(module))
    copy = TreeCopy(source)
    for parameter in copy.root.parameters():
        parameter.requires_grad_(copy.sources[id(parameter)].requires_grad)
    modes = {name: m.training for name, m in source.named_modules()}
    for name, part in copy.root.named_modules():
        part.training = modes.get(name, False)
    if any(p.dtype != torch.float64 for p in copy.root.parameters() if p.is_floating_point()):
        copy.root.double()
    return copy.root, copy.visit(forward)


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
