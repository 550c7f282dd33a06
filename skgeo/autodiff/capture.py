"""One forward pass seen layer by layer, on one graph."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor

from skgeo.autodiff.batch import Inputs, tensors_of
from skgeo.autodiff.layers import candidates, leaves, named, pick, resolve
from skgeo.autodiff.recorder import LayerCall, Recorder
from skgeo.autodiff.replica import Replica
from skgeo.exceptions import SkgeoError

__all__ = ["Capture", "LayerCall", "capture"]


@dataclasses.dataclass(frozen=True, eq=False)
class Capture:
    """A forward pass: where its graph starts, the layers on the way, and what came out.

    Attributes
    ----------
    root : Tensor
        Where the graph starts: the floating input, or the first captured layer's output when the
        inputs are indices.
    root_name : str
        ``"input"``, or the name of that first layer call.
    layers : tuple of LayerCall
        In the order in which they ran.
    output : Tensor of shape (b, ...)
    """

    root: Tensor
    root_name: str
    layers: tuple[LayerCall, ...]
    output: Tensor

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the layer calls, in the order in which they ran."""
        return tuple(call.name for call in self.layers)

    def __getitem__(self, name: str) -> LayerCall:
        for call in self.layers:
            if call.name == name:
                return call
        raise KeyError(f"No layer call {name!r}; captured: {', '.join(self.names)}")


def capture(replica: Replica, inputs: Inputs, layers: str | Sequence[str] | None = None) -> Capture:
    r"""Run one forward pass and keep what each layer returned, ready for differentiation.

    ``torch.autograd.grad(capture.output, [call.output for call in capture.layers], ...)`` gives the
    derivatives by every layer at once.

    Parameters
    ----------
    replica : Replica
    inputs : Tensor, dict of str to Tensor, or tuple of Tensor
        A batch, samples first.
    layers : list of str, "leaves" or None
        Names of submodules (all their calls) or of single calls (``"relu#1"``). None takes the
        children of a ``Sequential``; of any other module the members of its longest ``ModuleList``,
        or else its direct children, that are cuts. ``"leaves"`` takes every module that holds
        parameters itself or has no children, with its inputs.

    Returns
    -------
    Capture

    Raises
    ------
    SkgeoError
        If a name is unknown; if a named layer was never called, returned no floating tensor, does
        not depend on the root or does not reach the output; if no layer is left.

    Notes
    -----
    A layer is a *cut* when all that the output takes from the root :math:`h_0` passes through it.
    With a random cotangent :math:`v` of the output and :math:`g_l = (\partial z/\partial h_l)^T v`,
    it is one iff :math:`(\partial h_l/\partial h_0)^T g_l = g_0`. Layers inside a residual branch
    are not, and products of layer Jacobians have a meaning between cuts only. The test costs one
    backward pass a layer.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from skgeo.autodiff import capture, replica
    >>> net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    >>> capture(replica(net), torch.ones(5, 3)).names
    ('0', '1', '2')
    """
    module = replica.module
    everything = named(module)
    choice = None if layers is None or layers == "leaves" else resolve(everything, layers)
    if layers == "leaves":
        hooked = leaves(module)
    elif choice is None:
        hooked = candidates(module)
    else:
        hooked = {layer: everything[layer] for layer, _ in choice}

    recorder = Recorder(keep_inputs=layers == "leaves")
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        fed = inputs
        if not _indices(replica, inputs):
            fed = recorder.root_at(inputs)
        for name, child in hooked.items():
            recorder.watch(name, child, stack)
        output = replica(fed)
        replica.reached(output)
        if recorder.root is None or not output.requires_grad:
            raise SkgeoError(
                f"None of the layers {', '.join(hooked)} returned a floating tensor on the way to "
                "the output, and the inputs are not floating either, so there is nothing to "
                "differentiate by. Name the layer that turns the inputs into floating tensors."
            )
        if layers == "leaves":
            calls = _with_reach(recorder.calls, output)
        elif choice is None:
            test = functools.partial(_with_cuts, root=recorder.root, output=output)
            calls = pick(module, recorder.calls, test)
        else:
            calls = _with_cuts(_chosen(recorder, choice), recorder.root, output)
            _check_chosen(calls, recorder)
    return Capture(recorder.root, recorder.root_name, tuple(calls), output)


def _indices(replica: Replica, inputs: Inputs) -> bool:
    """Whether the graph has to start behind an embedding."""
    tensors = tensors_of(inputs)
    floating = [tensor.is_floating_point() for tensor in tensors]
    # A float beside indices is most likely a mask or a weight, not what the layers transform.
    return not any(floating) or (replica.takes_integers and not all(floating))


def _backward(output: Tensor, by: Sequence[Tensor], cotangent: Tensor) -> list[Tensor | None]:
    if not output.requires_grad:
        return [None for _ in by]
    return list(
        torch.autograd.grad(output, list(by), cotangent, retain_graph=True, allow_unused=True)
    )


def _cotangent(output: Tensor) -> Tensor:
    generator = torch.Generator(output.device).manual_seed(0)
    return torch.randn(output.shape, generator=generator, dtype=output.dtype, device=output.device)


def _with_reach(calls: list[LayerCall], output: Tensor) -> list[LayerCall]:
    gradients = _backward(output, [call.output for call in calls], _cotangent(output))
    return [
        dataclasses.replace(call, reaches_output=gradient is not None)
        for call, gradient in zip(calls, gradients, strict=True)
    ]


def _with_cuts(calls: Sequence[LayerCall], root: Tensor, output: Tensor) -> list[LayerCall]:
    """Apply the cut test to every call, in one backward pass each."""
    found = _backward(output, [root, *(call.output for call in calls)], _cotangent(output))
    through_root, gradients = found[0], found[1:]
    tested = []
    for call, gradient in zip(calls, gradients, strict=True):
        is_cut = False
        if gradient is not None and through_root is not None:
            (back,) = (
                [gradient] if call.output is root else _backward(call.output, [root], gradient)
            )
            if back is not None:
                # Equal up to rounding, or different by a whole branch; nothing in between.
                error = torch.linalg.vector_norm(back - through_root)
                scale = torch.linalg.vector_norm(through_root)
                is_cut = bool(error <= torch.finfo(back.dtype).eps ** 0.5 * scale)
        tested.append(dataclasses.replace(call, reaches_output=gradient is not None, is_cut=is_cut))
    return tested


def _chosen(recorder: Recorder, choice: list[tuple[str, int | None]]) -> list[LayerCall]:
    """Keep the calls that were asked for."""
    calls = recorder.calls
    kept: set[int] = set()
    for layer, number in choice:
        own = [index for index, call in enumerate(calls) if call.layer == layer]
        if layer in recorder.without_tensor:
            raise SkgeoError(f"Layer {layer!r} returned no floating tensor; choose another layer.")
        if not own:
            raise SkgeoError(
                f"Layer {layer!r} was never called in the forward pass. Containers are not called, "
                "nor are modules of which only the weights are used; name one that is called."
            )
        if number is not None and number >= len(own):
            raise SkgeoError(
                f"Layer {layer!r} was called {len(own)} time(s), so there is no call "
                f"'{layer}#{number}'; calls are numbered from 0."
            )
        kept.update(own if number is None else [own[number]])
    return [call for index, call in enumerate(calls) if index in kept]


def _check_chosen(calls: list[LayerCall], recorder: Recorder) -> None:
    """Refuse layers that lie on no path from the root to the output."""
    for call in calls:
        if not call.reaches_output:
            raise SkgeoError(
                f"The output does not depend on what layer {call.name!r} returns (of several "
                "tensors, the first floating one is taken). Choose another layer."
            )
        if not _depends(call.output, recorder.root):
            raise SkgeoError(
                f"Layer {call.name!r} does not depend on {recorder.root_name!r}, where the graph "
                "starts, so it has no place in a chain from there. Choose another layer."
            )


def _depends(tensor: Tensor, root: Tensor | None) -> bool:
    if root is None or tensor is root:
        return root is not None
    return _backward(tensor, [root], torch.ones_like(tensor))[0] is not None
