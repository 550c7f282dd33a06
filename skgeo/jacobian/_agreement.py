"""When two computations of one tensor agree up to rounding."""

from __future__ import annotations

import torch
from torch import Tensor


def agree(
    found: Tensor,
    expected: Tensor,
    dtype: torch.dtype,
    scale: float,
    *,
    by_entry: bool = False,
    floor: bool = True,
) -> bool:
    """Whether two computations differ by rounding only; False for NaN.

    dtype: in which both were computed.
    scale: of the numbers that were added up on the way.
    by_entry: whether every entry is compared with the scale, instead of the norm of the difference.

    >>> x = torch.ones(3)
    >>> agree(x + 1e-6, x, x.dtype, 1.0), agree(x + 0.1, x, x.dtype, 1.0)
    (True, False)
    """
    off = (found - expected).detach()
    difference = off.abs().max() if by_entry else torch.linalg.vector_norm(off)
    return float(difference) <= agreement_tolerance(dtype, scale, floor=floor)


def agreement_tolerance(dtype: torch.dtype, scale: float, *, floor: bool = True) -> float:
    """How far apart two computations of one number may be before they count as different.

    Halfway between rounding and a real difference, on the scale of the largest number. Where
    everything cancels, as in a product of matrices that is zero, that scale is itself rounding:
    with `floor`, differences below ``eps^0.75`` are never counted.
    """
    eps = float(torch.finfo(dtype).eps)
    root: float = eps**0.5
    least: float = eps**0.75 if floor else 0.0
    return 4 * root * scale + least


def seeded_normal(*shape: int, like: Tensor, seed: int = 0) -> Tensor:
    """Normal numbers for a check: the same at every call, in any dtype and on any device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(like)
