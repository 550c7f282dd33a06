"""The places at which a network can be cut open: its root, its layers and its output."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from skgeo._cached import cached_property
from skgeo.exceptions import SkgeoError
from skgeo.jacobian._calls import CallRecorder
from skgeo.jacobian._cuts import find_calls
from skgeo.jacobian._elementwise import LinkParts, link_parts
from skgeo.jacobian._layer import Layer
from skgeo.jacobian._layer_names import named
from skgeo.jacobian._recording import Recording
from skgeo.network._agreement import agree, seeded_normal
from skgeo.network._batch import Inputs, batch_size, map_inputs, plain, take
from skgeo.network._finite import check_outputs
from skgeo.network._replica import Replica
from skgeo.network._switches import differentiating, math_attention, silent_vmap

if TYPE_CHECKING:  # it imports the replica from this package
    from skgeo.network._bound import BoundNetwork


# Samples of the first run: few, since it costs one backward pass per layer, but more than one, to
# identify the axis of the samples, and not to be misled by a branch that is dead for one of them.
_PROBE = 32


class Layers:
    r"""The places of a network, found in one forward pass of a few samples.

    replica: with ``parameters=None``; otherwise its parameters are on the graphs as well.
    inputs: some samples; the first four are run.
    layers: names of submodules (all their calls) or of single calls (``"relu#1"``). None takes the
        children of a ``Sequential``; of any other module the members of its longest ``ModuleList``,
        or else its direct children, that are cuts.
    Raises SkgeoError for the reasons of :func:`~skgeo.jacobian._cuts.find_calls`; if samples are
        coupled at a layer, or no axis of its result is that of the samples.

    Attributes
    ----------
    layers : tuple of Layer
        In the order in which they run; includes the root if it is one of the layers.
    output : Layer
        The network's output, named ``"output"``.
    batched : bool
        Whether several cotangents may go through one backward pass.

    >>> from torch import nn
    >>> from skgeo.jacobian import Layers
    >>> from skgeo.network import replica
    >>> net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    >>> X = torch.ones(5, 3).double()
    >>> layers = Layers(replica(net, parameters=None), X)
    >>> [(place.name, place.dim) for place in (layers.root, *layers.layers, layers.output)]
    [('input', 3), ('0', 4), ('1', 4), ('2', 2), ('output', 2)]
    >>> seen = layers.record(X, root=True)
    >>> bool((seen.jacobian(layers["0"], layers.root) == net[0].weight).all())
    True
    """

    def __init__(
        self, replica: Replica, inputs: Inputs, layers: Sequence[str] | None = None
    ) -> None:
        self.replica = replica
        self._modules = named(replica.module)
        some = map_inputs(plain, take(inputs, slice(0, _PROBE)))
        with differentiating():
            seen = find_calls(replica, some, layers)
            tensors = [found.call.output for found in seen.calls]
            *axes, self._root_axis = _sample_axes(seen.output, [*tensors, seen.root])
            self.batched = _batched_agrees(seen.output, tensors, replica.arithmetic)
        self._size = batch_size(some)
        self._ran, self._root_call = seen.ran, seen.root_call
        self._root_shape = tuple(seen.root.shape)
        places = []
        for found, tensor, axis in zip(seen.calls, tensors, axes, strict=True):
            call = found.call
            if axis is None:
                raise _no_axis(f"Layer {call.name!r}", tensor.shape, self._size)
            first = tensor.movedim(axis, 0)
            places.append(
                Layer(
                    name=call.name,
                    module=call.layer,
                    number=call.number,
                    shape=tuple(first.shape[1:]),
                    axis=axis,
                    is_cut=found.is_cut,
                    is_output=first.shape == seen.output.shape and torch.equal(first, seen.output),
                )
            )
        self.layers = tuple(places)
        shape = tuple(seen.output.shape[1:])
        self.output = Layer("output", "", 0, shape, 0, is_cut=True, is_output=True)

    @classmethod
    def of(cls, network: BoundNetwork, names: Sequence[str] | None = None) -> Layers:
        """The places of a network on data."""
        first = network.first_run  # raises if model and data do not fit
        # From all over the data: what is a cut must not depend on the first samples.
        size = min(_PROBE, network.affordable(64 * first.n_activations))
        return cls(network.replica, network.spread(size), names)

    def __getitem__(self, name: str) -> Layer:
        for layer in self.layers:
            if layer.name == name:
                return layer
        names = ", ".join(layer.name for layer in self.layers)
        raise SkgeoError(
            f"No layer {name!r} among those looked at: {names}. Name it in layers=[...] to look at "
            "it too."
        )

    @property
    def arithmetic(self) -> torch.dtype:
        """The coarsest dtype in which the network computes."""
        return self.replica.arithmetic

    @cached_property
    def root(self) -> Layer:
        """Where the graph starts: the first floating input, or the first layer behind indices."""
        call, shape, axis = self._root_call, self._root_shape, self._root_axis
        if call is None:
            return Layer("input", "", 0, shape[1:], 0, is_cut=True, is_output=False)
        for layer in self.layers:
            if (layer.module, layer.number) == (call.layer, call.number):
                return layer
        if axis is None:
            raise _no_axis(f"{call.name!r}, where the graph starts,", shape, self._size)
        shape = (*shape[:axis], *shape[axis + 1 :])
        return Layer(call.name, call.layer, call.number, shape, axis, is_cut=True, is_output=False)

    @cached_property
    def after_root(self) -> tuple[Layer, ...]:
        """The layers without the root."""
        return tuple(layer for layer in self.layers if layer != self.root)

    @cached_property
    def cuts(self) -> tuple[Layer, ...]:
        """The root and the cuts among the layers, in order."""
        return (self.root, *(layer for layer in self.after_root if layer.is_cut))

    def cut_before(self, layer: Layer) -> Layer:
        """The last cut that runs before a layer or the output."""
        return self._before[layer]

    @cached_property
    def _before(self) -> dict[Layer, Layer]:
        found, last = {}, self.root
        for layer in self.after_root:
            found[layer] = last
            last = layer if layer.is_cut else last
        return {**found, self.output: last}

    @cached_property
    def elementwise(self) -> dict[str, LinkParts]:
        """Parts of the links from cut to layer that look like ``diag(d) W``, by layer."""
        pairs = [(self.cut_before(layer), layer) for layer in self.after_root]
        plain_ones = [(a, b) for a, b in pairs if _may_be_elementwise(a.shape, b.shape)]
        return link_parts(self.replica.module, self._ran, plain_ones)

    def record(
        self,
        inputs: Inputs,
        names: Sequence[str] | None = None,
        *,
        root: bool = False,
        start: int = 0,
    ) -> Recording:
        """Run one forward pass of a batch, and keep the results of the layers and the output.

        names: which layers; by default all. The graph starts at the first of them.
        root: whether to start it at the root instead, which is then one of the recording's places.
        start: number of the first sample, for messages.
        """
        chosen = self.layers if names is None else tuple(self[name] for name in names)
        recorder = CallRecorder()
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(math_attention())
            fed = map_inputs(plain, inputs)
            watched = [layer.module for layer in chosen]
            if root and self.root.module:
                watched.insert(0, self.root.module)
            elif root:
                fed = recorder.root_at(fed)
            for name in dict.fromkeys(watched):
                recorder.watch(name, self._modules[name], stack)
            output = self.replica(fed)
        check_outputs(output, start)
        returned = {call.name: call.output for call in recorder.calls}
        tensors = {layer: _sized(layer, returned.get(layer.name), len(output)) for layer in chosen}
        if root:
            tensors[self.root] = _sized(self.root, recorder.root, len(output))
        return Recording(self, output, tensors, chosen)


def _sized(layer: Layer, tensor: Tensor | None, size: int) -> Tensor:
    """What a layer returned; raises if its shape is not that of the first run."""
    expected = (*layer.shape[: layer.axis], size, *layer.shape[layer.axis :])
    shape = None if tensor is None else tuple(tensor.shape)
    if tensor is None or shape != expected:
        raise SkgeoError(
            f"Layer {layer.name!r} returned {shape} for a batch of {size}, and {expected} was "
            "expected from the first samples: its size must be the same for all samples. Pad them "
            "to one length, or name other layers."
        )
    return tensor


def _may_be_elementwise(before: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether a linear layer of vectors, or an activation of anything, may lie between."""
    return len(shape) == len(before) == 1 or shape == before


def _sample_axes(output: Tensor, tensors: Sequence[Tensor]) -> list[int | None]:
    """The axis of the samples in each: the output of a sample depends on its own entry only.

    Several samples are asked: where outputs read the first entry of another axis of the same
    length, as the first of T = N tokens, sample 0 alone does not tell the two apart.
    """
    size = len(output)
    fitting = [[a for a, length in enumerate(t.shape) if length == size] for t in tensors]
    for sample in sorted({0, size // 2, size - 1}):
        cotangent = torch.zeros_like(output)
        cotangent[sample] = seeded_normal(*output.shape[1:], like=output)
        found = torch.autograd.grad(
            output, tensors, cotangent, retain_graph=True, allow_unused=True
        )
        others = torch.arange(size, device=output.device) != sample
        for place, gradient in enumerate(found):
            if gradient is not None and bool(torch.isfinite(gradient).all()):
                fitting[place] = [
                    a for a in fitting[place] if not bool(gradient.movedim(a, 0)[others].any())
                ]
    return [axes[0] if axes else None for axes in fitting]


def _no_axis(what: str, shape: Sequence[int], size: int) -> SkgeoError:
    return SkgeoError(
        f"{what} returned {tuple(shape)} for {size} samples, and no axis of it keeps them apart: "
        "either none is that of the samples, or outputs of one sample depend on the representation "
        "of another. Name other layers with layers=[...]."
    )


def _batched_agrees(output: Tensor, tensors: Sequence[Tensor], dtype: torch.dtype) -> bool:
    """Whether batched backward passes work on this graph and give what plain ones give."""
    block = seeded_normal(2, *output.shape, like=output)
    options = {"retain_graph": True, "allow_unused": True}
    with silent_vmap():
        try:
            together = torch.autograd.grad(output, tensors, block, is_grads_batched=True, **options)
        except (RuntimeError, NotImplementedError):
            return False
        alone = torch.autograd.grad(output, tensors, block[1], **options)
    for several, one in zip(together, alone, strict=True):
        if several is None or one is None:
            if several is not one:
                return False
            continue
        scale = float(torch.linalg.vector_norm(one))
        if not agree(several[1], one, dtype, scale, floor=False):
            return False
    return True
