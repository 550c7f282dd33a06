"""On which side of its kinks a piecewise linear network stands: the activation pattern."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from skgeo.autodiff.batch import Inputs, batch_size
from skgeo.autodiff.layer_names import named
from skgeo.autodiff.replica import Replica
from skgeo.autodiff.switches import math_attention
from skgeo.exceptions import SkgeoError

__all__ = ["activation_pattern"]

Code = Callable[..., Tensor | None]


def _sign(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return x > 0


def _sides(x: Tensor, low: Any = None, high: Any = None, *_: Any, **__: Any) -> Tensor:
    code = torch.zeros(x.shape, dtype=torch.uint8, device=x.device)
    if low is not None:
        code += x > low
    if high is not None:
        code += x > high
    return code


def _elu(x: Tensor, alpha: float = 1.0, scale: float = 1.0, inner: float = 1.0) -> Tensor | None:
    return None if alpha * inner == 1.0 else x > 0  # with equal slopes there is no kink


# What torch calls the operations with kinks, whether a module, a function or a method starts them.
_CODES: dict[str, Code] = {
    "relu": _sign,
    "leaky_relu": _sign,
    "rrelu_with_noise": _sign,
    "_prelu_kernel": _sign,
    "abs": _sign,
    "elu": _elu,
    "clamp": _sides,
    "clamp_min": lambda x, low: _sides(x, low),
    "clamp_max": lambda x, high: _sides(x, None, high),
    "threshold": lambda x, threshold, value: _sides(x, threshold),
    "hardtanh": lambda x, low=-1.0, high=1.0: _sides(x, low, high),
    "hardsigmoid": lambda x: _sides(x, -3.0, 3.0),
    "hardswish": lambda x: _sides(x, -3.0, 3.0),
    "hardshrink": lambda x, width=0.5: _sides(x, -width, width),
    "softshrink": lambda x, width=0.5: _sides(x, -width, width),
    "maximum": lambda x, other: x > other,
    "minimum": lambda x, other: x > other,
}
# Operations that return, beside the largest value, where it was found.
_WHERE = {"max", "min", "max_pool2d_with_indices", "max_pool3d_with_indices"} | {
    f"adaptive_max_pool{dimension}d" for dimension in (2, 3)
}


class _Watch(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.inside: list[str] = []
        self.found: dict[str, Tensor] = {}
        self._counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__.removesuffix("_")
        code = None
        if name in _CODES and isinstance(args[0], Tensor) and args[0].is_floating_point():
            code = _CODES[name](*args, **kwargs)  # before an in-place operation overwrites it
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


def activation_pattern(replica: Replica, inputs: Inputs) -> dict[str, Tensor]:
    r"""Record the side of every kink that each sample falls on.

    Two inputs with the same pattern lie in one region of a piecewise linear network, on which the
    network is affine. The regions are convex, so that equal patterns at both ends of a segment
    mean that there is no kink between them.

    Parameters
    ----------
    replica : Replica
    inputs : Tensor, dict of str to Tensor, or tuple of Tensor
        A batch, samples first.

    Returns
    -------
    dict of str to Tensor of shape (b, n)
        By the module in which the kink is, later ones of the same module numbered
        (``relu#1``). The values are signs, numbers of pieces, or the positions of maxima. Empty
        for a smooth network.

    Raises
    ------
    SkgeoError
        If an operation with a kink does not have the samples on its first axis.

    Notes
    -----
    Seen are rectifiers of all kinds, clamps, absolute values, maxima and max-pooling, called in
    whatever way. Not seen are kinks that are written with ``torch.where`` or a comparison.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from skgeo.autodiff import replica
    >>> net = nn.Sequential(nn.Identity(), nn.ReLU(), nn.Linear(2, 1))
    >>> activation_pattern(replica(net), torch.tensor([[1.0, -1.0]]))["1"].tolist()
    [[True, False]]
    """
    watch = _Watch()
    size = batch_size(inputs)
    with ExitStack() as stack:
        for name, child in named(replica.module).items():

            def enter(_: nn.Module, __: Any, name: str = name) -> None:
                watch.inside.append(name)

            def leave(_: nn.Module, __: Any, ___: Any) -> None:
                watch.inside.pop()

            stack.callback(child.register_forward_pre_hook(enter).remove)
            stack.callback(child.register_forward_hook(leave).remove)
        watch.inside.append(type(replica.module).__name__)
        stack.enter_context(torch.no_grad())
        stack.enter_context(math_attention())
        stack.enter_context(watch)
        replica(inputs)
    for name, code in watch.found.items():
        # Layers may fold positions into the batch, but samples must stay in front.
        if code.dim() == 0 or code.shape[0] % size:
            raise SkgeoError(
                f"The kink in {name!r} has shape {tuple(code.shape)} for {size} samples: the "
                "samples are not on its first axis, so patterns cannot be told apart."
            )
    return {name: code.reshape(size, -1) for name, code in watch.found.items()}
