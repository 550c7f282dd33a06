r"""The first forward pass: which layers are called, and which of them are cuts.

A layer is a *cut* if the output depends on the root :math:`h_0` through this layer only. For a
random cotangent :math:`v` of the output and :math:`g_l = (\partial z/\partial h_l)^T v`, this holds
iff :math:`(\partial h_l/\partial h_0)^T g_l = g_0`. Layers inside a residual branch are not cuts,
and products of layer Jacobians are meaningful between cuts only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor

from skgeo.exceptions import SkgeoError
from skgeo.jacobian._calls import Call, CallRecorder
from skgeo.jacobian._layer_names import default_groups, leaves, named, resolve
from skgeo.network._agreement import agree, seeded_normal
from skgeo.network._batch import Inputs, tensors_of
from skgeo.network._finite import check_derivatives, check_outputs
from skgeo.network._replica import Replica


@dataclasses.dataclass(frozen=True, eq=False)
class FoundCall:
    """A call with the result of the cut test."""

    call: Call
    reaches_output: bool
    is_cut: bool


@dataclasses.dataclass(frozen=True, eq=False)
class FoundCalls:
    """A recorded forward pass of some samples, and the calls chosen as layers, in their order.

    `ran` holds the names of the layers that ran, in the order in which they returned: those without
    children or with their own parameters, and those among which the layers were chosen.
    """

    root: Tensor
    root_call: Call | None
    output: Tensor
    calls: tuple[FoundCall, ...]
    ran: tuple[str, ...]


def find_calls(replica: Replica, inputs: Inputs, names: Sequence[str] | None) -> FoundCalls:
    """Run one forward pass and choose layers: those named, or the default ones.

    Costs one forward pass, one backward pass to all layers, and one for each layer's cut test.
    """
    module = replica.module
    everything = named(module)
    groups, take_all = default_groups(module)
    choice = None if names is None else resolve(everything, names)
    if choice is None:
        kept = [name for group in groups for name in group]
    else:
        kept = [name for name, _ in choice]
    recorder = CallRecorder()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        fed = inputs if _starts_behind(replica, inputs) else recorder.root_at(inputs)
        for name in dict.fromkeys([*kept, *leaves(module)]):
            recorder.watch(name, everything[name], stack, keep=name in kept)
        output = replica(fed)
        replica.reached(output)
        root = recorder.root
        if root is None or not output.requires_grad:
            raise SkgeoError(
                f"None of the layers {', '.join(kept)} returned a floating tensor on the way to "
                "the output, and the inputs are not floating either, so there is nothing to "
                "differentiate with respect to. Name the layer that turns the inputs into floating "
                "tensors."
            )
        check_outputs(output)

        def test(calls: Sequence[Call]) -> list[FoundCall]:
            return _tested(calls, root, recorder.root_name, output, replica.arithmetic)

        if choice is not None:
            calls = test(_chosen(recorder, choice))
            _check_chosen(calls, root, recorder.root_name)
        elif take_all:
            calls = [tested for tested in test(recorder.calls) if tested.reaches_output]
        else:
            calls = _first_with_cuts(recorder.calls, groups, test)
    if not calls:
        raise SkgeoError(
            "No layer was found that the whole computation passes through. Name the layers to look "
            f"at: layers=[...], of {', '.join(everything)}."
        )
    return FoundCalls(root, recorder.root_call, output, tuple(calls), tuple(recorder.ran))


def _starts_behind(replica: Replica, inputs: Inputs) -> bool:
    """Whether the graph has to start after an embedding."""
    # Booleans are masks, not indices.
    given = [tensor for tensor in tensors_of(inputs) if tensor.dtype != torch.bool]
    floating = [tensor.is_floating_point() for tensor in given]
    # A floating tensor next to indices is most likely a mask or a weight.
    return not any(floating) or (replica.takes_integers and not all(floating))


def _backward(output: Tensor, sources: Sequence[Tensor], cotangent: Tensor) -> list[Tensor | None]:
    return list(
        torch.autograd.grad(output, list(sources), cotangent, retain_graph=True, allow_unused=True)
    )


def _tested(
    calls: Sequence[Call], root: Tensor, root_name: str, output: Tensor, dtype: torch.dtype
) -> list[FoundCall]:
    """Apply the cut test to every call, in one backward pass each."""
    cotangent = seeded_normal(*output.shape, like=output)
    through_root, *gradients = _backward(output, [root, *(c.output for c in calls)], cotangent)
    if through_root is not None:
        # NaN equals nothing: without this, no layer would look like a cut.
        check_derivatives(through_root, f"the outputs with respect to {root_name!r}")
    return [
        FoundCall(call, gradient is not None, _is_cut(call, gradient, root, through_root, dtype))
        for call, gradient in zip(calls, gradients, strict=True)
    ]


def _is_cut(
    call: Call,
    gradient: Tensor | None,
    root: Tensor,
    through_root: Tensor | None,
    dtype: torch.dtype,
) -> bool:
    if gradient is None or through_root is None:
        return False
    back = gradient if call.output is root else _backward(call.output, [root], gradient)[0]
    if back is None:
        return False
    # Equal up to rounding, or different by a whole branch and nothing in between: the usual
    # tolerance would be four times as wide as this one.
    scale = float(torch.linalg.vector_norm(through_root)) / 4
    return agree(back, through_root, dtype, scale, floor=False)


def _first_with_cuts(
    calls: Sequence[Call],
    groups: Sequence[Sequence[str]],
    test: Callable[[Sequence[Call]], list[FoundCall]],
) -> list[FoundCall]:
    """The cuts of the first group that has any."""
    for group in groups:
        cuts = [tested for tested in test([c for c in calls if c.layer in group]) if tested.is_cut]
        if cuts:
            return cuts
    return []


def _chosen(recorder: CallRecorder, choice: list[tuple[str, int | None]]) -> list[Call]:
    """The requested calls, in the order in which they ran."""
    kept: set[str] = set()
    for layer, number in choice:
        own = [call.name for call in recorder.calls if call.layer == layer]
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
    return [call for call in recorder.calls if call.name in kept]


def _check_chosen(calls: Sequence[FoundCall], root: Tensor, root_name: str) -> None:
    """Refuse layers that lie on no path from the root to the output."""
    for tested in calls:
        name, tensor = tested.call.name, tested.call.output
        if not tested.reaches_output:
            raise SkgeoError(
                f"The output does not depend on what layer {name!r} returns (of several tensors, "
                "the first floating one is taken). Choose another layer."
            )
        if tensor is not root and _backward(tensor, [root], torch.ones_like(tensor))[0] is None:
            raise SkgeoError(
                f"Layer {name!r} does not depend on {root_name!r}, where the graph starts, so it "
                "has no place in a chain from there. Choose another layer."
            )
