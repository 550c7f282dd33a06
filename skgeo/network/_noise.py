"""Whether a derivative is rounding: does it grow with the errors of the arithmetic?

A derivative that is zero because terms cancel is computed as some 1e-17, and no bound on the
derivative itself tells it from a true 1e-17 of a network with small weights: products of norms
along the network are too coarse, and errors of the forward pass, such as a mean that is not quite
zero, reach it as well. So every result of both passes is changed at random by many units of
rounding. A true derivative stays as it is; rounding grows as much as the errors do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_any, tree_map

from skgeo.exceptions import SkgeoError

# Errors in units of rounding: they show how much it is amplified, without passing the range where
# that is linear.
_UNITS = 2.0**6
# A derivative of this many times the change by one unit is more than rounding. That leaves some
# tenths of a unit where each operation is rounded once. In float64 the sums within an operation
# cannot be had more accurately, and leave tens of units where they are long.
_ROUNDED_ONCE, _ROUNDED = 4.0, 2.0**5
# What is far below one unit was no sum that cancels: the tail of a saturated softmax, whose largest
# entry is 1 to the last digit.
_LEAST = 2.0**-10
# They give numbers that they are given, which the backward pass looks for among the inputs.
_SELECT = frozenset(
    f"aten::{name}"
    for name in ("amax", "amin", "max", "min", "median", "nanmedian", "kthvalue", "sort", "topk")
)
# Repetitions: one of them may be small by chance.
_RUNS = 4


class Noise(TorchDispatchMode):  # type: ignore[no-untyped-call, unused-ignore]
    """Change every new floating result by relative errors of random sign.

    units: size of the errors in units of rounding.
    rounded_once: whether to compute each operation in float64 before, so that nothing but its
        result is rounded.
    """

    def __init__(self, units: float = _UNITS, *, rounded_once: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self._units, self._rounded_once = units, rounded_once
        self._generator = torch.Generator().manual_seed(0)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        # Views and written tensors hold values that have been changed already, and constants are
        # exact: those made from no floating tensor.
        aliased = any(value.alias_info is not None for value in func._schema.returns)
        if aliased or func._schema.name in _SELECT or not tree_any(_is_floating, (args, kwargs)):
            return result
        if self._rounded_once:
            result = _rounded_once(func, args, kwargs, result)
        return tree_map(self.added, result) if self._units else result

    def added(self, value: Any) -> Any:
        """The value with errors, if it is a floating tensor."""
        if not _is_floating(value):
            return value
        drawn = torch.randint(0, 2, value.shape, generator=self._generator)
        signs = torch.empty_like(value).copy_(drawn)
        return value * (1.0 + self._units * torch.finfo(value.dtype).eps * (2.0 * signs - 1.0))


def _is_floating(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _rounded_once(func: Any, args: Sequence[Any], kwargs: Any, result: Any) -> Any:
    """The result of an operation computed in float64; as it is where there is none."""

    def widened(value: Any) -> Any:
        if isinstance(value, torch.dtype) and value.is_floating_point:
            return torch.float64
        return value.double() if _is_floating(value) else value

    def narrowed(found: Any, value: Any) -> Any:
        return found.to(value) if _is_floating(found) and _is_floating(value) else value

    if not tree_any(lambda v: _is_floating(v) and v.dtype != torch.float64, (args, kwargs)):
        return result
    try:
        args, kwargs = tree_map(widened, (tuple(args), kwargs))
        return tree_map(narrowed, func(*args, **kwargs), result)
    except (RuntimeError, ValueError, TypeError):  # an operation that has no float64
        return result


def is_rounding(found: Tensor, run: Callable[[Noise], Tensor], dtype: torch.dtype) -> Tensor:
    """Whether sizes of derivatives are rounding.

    found: sizes, such as norms per sample; zeros are rounding.
    run: computes them again, under a noise that is in force.
    dtype: in which they were computed.
    """
    # (...) -> (...), bool
    once = dtype != torch.float64
    try:
        if once:
            with Noise(0.0, rounded_once=True) as none:
                found = torch.where(found == 0.0, 0.0, run(none))
        with Noise(rounded_once=once) as noise:
            noisy = torch.stack([run(noise) for _ in range(_RUNS)])
    except (RuntimeError, IndexError, SkgeoError):  # an index computed in floating point
        return found == 0.0
    in_units = _UNITS * found / noisy.square().mean(0).sqrt()
    most = _ROUNDED_ONCE if once else _ROUNDED
    return (found == 0.0) | ((in_units >= _LEAST) & (in_units <= most))


def with_noise(run: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors computed under errors of a few units of rounding; none where that fails."""
    try:
        with Noise():
            return run()
    except (RuntimeError, IndexError, SkgeoError):  # an index computed in floating point
        return {}


def relative_errors(run: Callable[[], dict[str, Tensor]]) -> dict[str, float]:
    """Relative errors that rounding causes in derivatives; empty if they cannot be measured.

    run: computes them, one row per sample, some combination of its derivatives.
    Returns the root mean square over the samples whose derivatives are not zero; 1 where all of
    them are, but for rounding, or where errors lead out of what the network is defined for.
    """
    # {name: (b, n)}
    found, noisy = run(), with_noise(run)
    errors = {}
    for name, rows in noisy.items():
        size = found[name].double().norm(dim=1)
        off = (rows - found[name]).double().norm(dim=1) / _UNITS
        settled = size > 0
        if bool(settled.any()):
            errors[name] = float((off / size)[settled].square().mean().sqrt().nan_to_num(1.0))
        else:
            errors[name] = float(bool(off.any()))
    return errors


def may_be_rounding(size: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Whether sizes are so far below a scale that :func:`is_rounding` should be asked."""
    eps: float = torch.finfo(dtype).eps
    small: Tensor = size <= eps**0.5 * scale
    return small
