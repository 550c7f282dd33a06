"""Activation patterns: the sides of the kinks of a piecewise linear network."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from skgeo.exceptions import SkgeoError
from skgeo.jacobian._layer_names import named
from skgeo.jacobian._segment import Segment
from skgeo.network._activation_reading import activation_operation
from skgeo.network._batch import Inputs, batch_size, take
from skgeo.network._replica import Replica
from skgeo.network._switches import math_attention

# Operations with a kink where two tensors meet.
_MEETING = {"maximum", "minimum", "clamp", "clamp_min", "clamp_max"}
# Share of kinks whose sides rounding may change where a sample is run alone.
_ROUNDED = 0.05
# Operations that return the largest value and its position.
_WHERE = {"max", "min", "max_pool2d_with_indices", "max_pool3d_with_indices"} | {
    f"adaptive_max_pool{dimension}d" for dimension in (2, 3)
}


def _sides(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """Number of kinks of an operation below each entry; a boolean if it has one kink."""
    x = args[0] if args else None
    if not isinstance(x, Tensor) or not x.is_floating_point():
        return None
    activation = activation_operation(name, args, kwargs)
    places: list[Any] = []
    if activation is not None:
        places = list(activation.kinks)
    elif name in _MEETING:
        places = [place for place in (*args[1:], *kwargs.values()) if place is not None]
    if len(places) < 2:
        return x > places[0] if places else None
    return torch.stack([x > place for place in places]).sum(0, dtype=torch.uint8)


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call, unused-ignore]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self.inside: list[str] = []
        self.found: dict[str, Tensor] = {}
        self._counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__.removesuffix("_")
        # Read before an in-place operation overwrites its input.
        code = _sides(name, args, kwargs)
        result = func(*args, **kwargs)
        if name in _WHERE and isinstance(result, (tuple, list)) and len(result) == 2:
            code = result[1]
        if code is not None:
            self._keep(code.clone())
        return result

    def _keep(self, code: Tensor) -> None:
        layer = self.inside[-1]
        number = self._counts[layer]
        self._counts[layer] += 1
        self.found[layer if number == 0 else f"{layer}#{number}"] = code


def activation_pattern(replica: Replica | Segment, inputs: Inputs) -> dict[str, Tensor]:
    r"""Record the side of every kink that each sample falls on.

    Two inputs with the same pattern lie in one region of a piecewise linear network, on which the
    network is affine. The regions are convex, so equal patterns at both ends of a segment
    mean that there is no kink between them.

    inputs: a batch, samples first.
    Returns tensors (b, n) by the module that contains the kink; later kinks of the same module are
        numbered (``relu#1``). The values are signs, numbers of pieces, or the positions of maxima.
        Empty for a smooth network.
    Raises SkgeoError if an operation with a kink does not have the samples on its first axis. Where
        its shape leaves that open, three samples are run alone.

    Rectifiers of all kinds, clamps, absolute values, maxima and max-pooling are seen, as modules or
    functions. Kinks written with ``torch.where`` or a comparison are not.

    >>> import torch
    >>> from torch import nn
    >>> from skgeo.network import replica
    >>> net = nn.Sequential(nn.Identity(), nn.ReLU(), nn.Linear(2, 1))
    >>> activation_pattern(replica(net), torch.tensor([[1.0, -1.0]]))["1"].tolist()
    [[True, False]]
    """
    size = batch_size(inputs)
    found = _codes(replica, inputs)
    for name, code in found.items():
        # Layers may fold positions into the batch, but samples must stay in front.
        if code.dim() == 0 or code.shape[0] % size:
            raise _not_first(name, code, size)
    doubtful = {name: code for name, code in found.items() if _other_readings(code, size)}
    for sample in sorted({0, size // 2, size - 1}) if doubtful else ():
        where = slice(sample, sample + 1)
        one = replica.take(where) if isinstance(replica, Segment) else replica
        alone = _codes(one, take(inputs, where))
        for name, code in doubtful.items():
            if name not in alone or not _stands_first(code, alone[name], sample, size):
                raise _not_first(name, code, size)
    return {name: code.reshape(size, -1) for name, code in found.items()}


def _other_readings(code: Tensor, size: int) -> list[Tensor]:
    """The code with the samples first, for all ways but the plain one of having them elsewhere."""
    if size == 1:
        return []
    found = []
    for axis, length in enumerate(code.shape):
        if length % size == 0:
            before, after, k = code.shape[:axis], code.shape[axis + 1 :], length // size
            if axis > 0:  # (..., samples * k, ...)
                found.append(code.reshape(*before, size, k, *after).movedim(axis, 0))
            if k > 1:  # (..., k * samples, ...)
                found.append(code.reshape(*before, k, size, *after).movedim(axis + 1, 0))
    return found


def _stands_first(code: Tensor, alone: Tensor, sample: int, size: int) -> bool:
    """Whether a sample's part of a code, samples first, is its code alone, but for rounding."""
    if alone.numel() * size != code.numel():
        return False

    def wrong(reading: Tensor) -> int:
        return int((reading[sample].flatten() != alone.flatten()).sum())

    plain = wrong(code.reshape(size, -1))
    if plain == 0:
        return True
    others = (wrong(reading) for reading in _other_readings(code, size))
    return plain <= _ROUNDED * alone.numel() and plain < min(others)


def _not_first(name: str, code: Tensor, size: int) -> SkgeoError:
    return SkgeoError(
        f"The kink in {name!r} has shape {tuple(code.shape)} for {size} samples: the "
        "samples are not on its first axis, so patterns cannot be told apart."
    )


def _codes(run: Replica | Segment, inputs: Any) -> dict[str, Tensor]:
    """Sides of all kinks in one forward pass, in the shapes of their tensors."""
    watch = _Watch()
    with ExitStack() as stack:
        for name, child in named(run.module).items():

            def enter(_: nn.Module, __: Any, name: str = name) -> None:
                watch.inside.append(name)

            def leave(_: nn.Module, __: Any, ___: Any) -> None:
                watch.inside.pop()

            stack.callback(child.register_forward_pre_hook(enter).remove)
            stack.callback(child.register_forward_hook(leave).remove)
        watch.inside.append(type(run.module).__name__)
        stack.enter_context(torch.no_grad())
        stack.enter_context(math_attention())
        stack.enter_context(watch)
        run(inputs)
    return watch.found
