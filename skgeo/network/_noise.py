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

# Errors in units of rounding, and the growth between which a derivative is rounding. That of true
# derivatives is 1.1 at most, in float32 behind a saturated softmax, and that of sums that cancel is
# as large as the errors are, over the few units that rounding leaves of a sum. What grows far more
# was no such sum: the tail of a saturated softmax, whose largest entry is 1 to the last digit.
_UNITS = 2.0**11
_GROWTH = (2.0**6, 2.0**21)
# Errors that show how much rounding is amplified, without passing the range where that is linear.
_FEW = 2.0**6
# Repetitions: one of them may be small by chance.
_RUNS = 4


class Noise(TorchDispatchMode):  # type: ignore[no-untyped-call, unused-ignore]
    """Change every new floating result by relative errors of random sign.

    units: size of the errors in units of rounding.
    """

    def __init__(self, units: float = _UNITS) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self._units = units
        self._generator = torch.Generator().manual_seed(0)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        # Views and written tensors hold values that have been changed already, and constants are
        # exact: those made from no floating tensor.
        aliased = any(value.alias_info is not None for value in func._schema.returns)
        if aliased or not tree_any(_is_floating, (args, kwargs)):
            return result
        return tree_map(self.added, result)

    def added(self, value: Any) -> Any:
        """The value with errors, if it is a floating tensor."""
        if not _is_floating(value):
            return value
        drawn = torch.randint(0, 2, value.shape, generator=self._generator)
        signs = torch.empty_like(value).copy_(drawn)
        return value * (1.0 + self._units * torch.finfo(value.dtype).eps * (2.0 * signs - 1.0))


def _is_floating(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def is_rounding(found: Tensor, run: Callable[[Noise], Tensor]) -> Tensor:
    """Whether sizes of derivatives are rounding.

    found: sizes, such as norms per sample; zeros are rounding.
    run: computes them again, under a noise that is in force.
    """
    # (...) -> (...), bool
    noise = Noise()
    try:
        with noise:
            noisy = torch.stack([run(noise) for _ in range(_RUNS)])
    except (RuntimeError, IndexError, SkgeoError):  # an index computed in floating point
        return found == 0.0
    growth = noisy.square().mean(0).sqrt() / found
    return (found == 0.0) | ((growth >= _GROWTH[0]) & (growth <= _GROWTH[1]))


def with_noise(run: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors computed under errors of a few units of rounding; none where that fails."""
    try:
        with Noise(_FEW):
            return run()
    except (RuntimeError, IndexError, SkgeoError):  # an index computed in floating point
        return {}


def relative_errors(run: Callable[[], dict[str, Tensor]]) -> dict[str, float]:
    """Relative errors that rounding causes in derivatives; empty if they cannot be measured.

    run: computes them, one row per sample, some combination of its derivatives.
    Returns the root mean square over the samples whose derivatives are not zero.
    """
    # {name: (b, n)}
    found, noisy = run(), with_noise(run)
    errors = {}
    for name, rows in noisy.items():
        size = found[name].double().norm(dim=1)
        off = (rows - found[name]).double().norm(dim=1) / _FEW
        errors[name] = float((off / size)[size > 0].square().mean().sqrt().nan_to_num(0.0))
    return errors


def may_be_rounding(size: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Whether sizes are so far below a scale that :func:`is_rounding` should be asked."""
    eps: float = torch.finfo(dtype).eps
    small: Tensor = size <= eps**0.5 * scale
    return small
