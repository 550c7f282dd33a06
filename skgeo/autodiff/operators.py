"""The maps from each layer's representation to the outputs, and their Jacobians."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from skgeo.autodiff.batch import Inputs, batch_size, map_inputs, plain, take
from skgeo.autodiff.capture import capture
from skgeo.autodiff.cotangents import unit_cotangents
from skgeo.autodiff.layers import named
from skgeo.autodiff.recorder import Recorder
from skgeo.autodiff.recording import Layer, Recording
from skgeo.autodiff.replica import Forward, Replica, replica
from skgeo.autodiff.switches import math_attention, silent_vmap
from skgeo.exceptions import SkgeoError

__all__ = ["LayerMaps", "layer_replica"]

# Samples of the first look at a network: few, since it costs a backward pass a layer, but more than
# one, so that an axis of samples shows, and a branch that is dead for one of them as well.
_PROBE = 4


class LayerMaps:
    r"""The layers of a network, each with its map to the outputs :math:`h_l \mapsto z`.

    Parameters
    ----------
    replica : Replica
        As :func:`layer_replica` makes it.
    inputs : Tensor, dict of str to Tensor, or tuple of Tensor
        Some samples, of which the first four are run to find the layers.
    layers : list of str, optional
        Names of layers or of single calls; by default as in
        :func:`~skgeo.autodiff.capture.capture`.

    Attributes
    ----------
    layers : tuple of Layer
        In the order in which they run.
    root_name : str
        Where the graph starts, as in :class:`~skgeo.autodiff.capture.Capture`.

    Raises
    ------
    SkgeoError
        For the reasons of :func:`~skgeo.autodiff.capture.capture`; if samples are coupled at a
        layer, or no axis of its result is that of the samples.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    >>> maps = LayerMaps(layer_replica(net), torch.ones(5, 3))
    >>> [(layer.name, layer.dim, layer.is_cut) for layer in maps.layers]
    [('0', 4, True), ('1', 4, True), ('2', 2, True)]
    >>> z, jacobians = maps.jacobians(torch.ones(5, 3))
    >>> bool((jacobians["1"] == net[2].weight).all())
    True
    """

    def __init__(
        self, replica: Replica, inputs: Inputs, layers: Sequence[str] | None = None
    ) -> None:
        if isinstance(layers, str):
            raise SkgeoError(
                f"layers={layers!r} is not understood; expected None or a list of names such as "
                f"[{layers!r}]."
            )
        self.replica = replica
        self._modules = named(replica.module)
        some = map_inputs(plain, take(inputs, slice(0, _PROBE)))
        size = batch_size(some)
        with math_attention(), torch.inference_mode(False):
            seen = capture(replica, some, layers)
            self.root_name = seen.root_name
            calls = [call for call in seen.layers if call.reaches_output]
            tensors = [call.output for call in calls]
            axes = _sample_axes(seen.output, tensors, [call.name for call in calls])
            self.batched = _batched_agrees(seen.output, tensors)
        self.layers = tuple(
            Layer(
                name=call.name,
                module=call.layer,
                number=int(call.name.rpartition("#")[2]) if call.name != call.layer else 0,
                shape=tuple(tensor.movedim(axis, 0).shape[1:]),
                axis=axis,
                is_cut=bool(call.is_cut),
                is_output=_same(tensor.movedim(axis, 0), seen.output),
            )
            for call, tensor, axis in zip(calls, tensors, axes, strict=True)
        )
        assert all(tensor.shape[axis] == size for tensor, axis in zip(tensors, axes, strict=True))

    def __getitem__(self, name: str) -> Layer:
        for layer in self.layers:
            if layer.name == name:
                return layer
        names = ", ".join(layer.name for layer in self.layers)
        raise SkgeoError(
            f"No layer {name!r} among those looked at: {names}. Name it in layers=[...] to look at "
            "it too."
        )

    def record(
        self, inputs: Inputs, names: Sequence[str] | None = None, *, root: bool = False
    ) -> Recording:
        """Run one forward pass and keep the representations.

        Parameters
        ----------
        inputs : Tensor, dict of str to Tensor, or tuple of Tensor
            A batch, samples first.
        names : list of str, optional
            Which layers; by default all. The graph starts at the first of them.
        root : bool, default=False
            Start it at `root_name` instead, and keep what is there as ``Recording.root``.

        Returns
        -------
        Recording
        """
        chosen = self.layers if names is None else tuple(self[name] for name in names)
        recorder = Recorder(keep_inputs=False)
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(math_attention())
            fed = map_inputs(plain, inputs)
            watched = [layer.module for layer in chosen]
            if root and self.root_name == "input":
                fed = recorder.root_at(fed)
            elif root:
                watched.insert(0, self.root_name)
            for name in dict.fromkeys(watched):
                recorder.watch(name, self._modules[name], stack)
            output = self.replica(fed)
        calls = {call.name: call.output for call in recorder.calls}
        size = len(output)
        for layer in chosen:
            tensor = calls.get(layer.name)
            shape = None if tensor is None else tuple(tensor.shape)
            expected = (*layer.shape[: layer.axis], size, *layer.shape[layer.axis :])
            if shape != expected:
                raise SkgeoError(
                    f"Layer {layer.name!r} returned {shape} for a batch of {size}, and {expected} "
                    "was expected from the first samples: its size must be the same for all "
                    "samples. Pad them to one length, or name other layers."
                )
        if not bool(torch.isfinite(output.detach()).all()):
            bad = (~torch.isfinite(output.detach())).reshape(size, -1).any(1).nonzero()
            raise SkgeoError(
                f"Outputs are NaN or infinite (first: sample {int(bad[0])} of the batch), so no "
                "derivative is defined there."
            )
        tensors = [calls[layer.name] for layer in chosen]
        return Recording(output, chosen, tensors, self.batched, recorder.root if root else None)

    def jacobians(
        self, inputs: Inputs, names: Sequence[str] | None = None, max_bytes: int | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        r"""Jacobians of the outputs by the representations, :math:`B_l = \partial z/\partial h_l`.

        Parameters
        ----------
        inputs : Tensor, dict of str to Tensor, or tuple of Tensor
        names : list of str, optional
            Which layers; by default all.
        max_bytes : int, optional
            Bound on the gradients in flight beside the result.

        Returns
        -------
        z : Tensor of shape (b, ...)
            Outputs, without a graph.
        jacobians : dict of str to Tensor of shape (b, M, n_l)
            M outputs a sample, in the dtype of the representation.

        Notes
        -----
        M backward passes serve all layers; ``b * M * sum(n_l)`` numbers.
        """
        seen = self.record(inputs, names)
        count = seen.output[0].numel()
        rows = seen.pull_back(unit_cotangents(seen.output), count, max_bytes)
        return seen.output.detach(), rows


def layer_replica(
    module: nn.Module,
    *,
    forward: Forward | None = None,
    device: str | torch.device | None = None,
) -> Replica:
    """Make a private copy of a module to differentiate by representations on.

    No parameter requires a gradient, so that a graph holds only what lies behind a layer.

    Parameters
    ----------
    module, forward, device
        As in :func:`~skgeo.autodiff.replica.replica`.

    Returns
    -------
    Replica
    """
    copy = replica(module, forward=forward, parameters="all", device=device)
    for parameter in copy.parameters.values():
        parameter.requires_grad_(False)
    return copy


def _same(tensor: Tensor, output: Tensor) -> bool:
    return tensor.shape == output.shape and bool(torch.equal(tensor, output))


def _random_cotangents(output: Tensor, count: int) -> Tensor:
    generator = torch.Generator(output.device).manual_seed(0)
    shape = (count, *output.shape)
    return torch.randn(shape, generator=generator, dtype=output.dtype, device=output.device)


def _sample_axes(output: Tensor, tensors: list[Tensor], names: list[str]) -> list[int]:
    """Find the axis of the samples: the one along which sample 0's output sees entry 0 only."""
    size = len(output)
    cotangent = _random_cotangents(output, 1)[0]
    cotangent[1:] = 0.0
    found = torch.autograd.grad(output, tensors, cotangent, retain_graph=True, allow_unused=True)
    axes = []
    for name, tensor, gradient in zip(names, tensors, found, strict=True):
        fitting = [axis for axis, length in enumerate(tensor.shape) if length == size]
        if gradient is not None and bool(torch.isfinite(gradient).all()):
            fitting = [a for a in fitting if not bool(gradient.movedim(a, 0)[1:].any())]
        if not fitting:
            raise SkgeoError(
                f"Layer {name!r} returned {tuple(tensor.shape)} for {size} samples, and no axis of "
                "it keeps them apart: either none is that of the samples, or outputs of one "
                "sample depend on the representation of another. Name other layers with "
                "layers=[...]."
            )
        axes.append(fitting[0])
    return axes


def _batched_agrees(output: Tensor, tensors: list[Tensor]) -> bool:
    """Whether batched backward passes work on this graph and give what plain ones give."""
    block = _random_cotangents(output, 2)
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
        error = torch.linalg.vector_norm(several[1] - one)
        if not error <= 4 * torch.finfo(one.dtype).eps ** 0.5 * torch.linalg.vector_norm(one):
            return False
    return True
