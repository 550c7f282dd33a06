"""Agreement of two computations of one tensor up to rounding."""

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

    scale: size of the summands, which sets the size of rounding.
    by_entry: whether to compare every entry with the scale, instead of the norm of the difference.

    >>> x = torch.ones(3)
    >>> agree(x + 1e-6, x, x.dtype, 1.0), agree(x + 0.1, x, x.dtype, 1.0)
    (True, False)
    """
    off = (found - expected).detach()
    difference = off.abs().max() if by_entry else torch.linalg.vector_norm(off)
    return float(difference) <= agreement_tolerance(dtype, scale, floor=floor)


def agreement_tolerance(dtype: torch.dtype, scale: float, *, floor: bool = True) -> float:
    """Largest difference of two computations of one number that counts as rounding.

    It lies between rounding and a true difference, on the scale of the largest number. Where all
    terms cancel, as in a product of matrices that is zero, the scale itself is rounding: with
    `floor`, differences below ``eps^0.75`` always count as rounding.
    """
    eps = float(torch.finfo(dtype).eps)
    root: float = eps**0.5
    least: float = eps**0.75 if floor else 0.0
    return 4 * root * scale + least


def seeded_normal(*shape: int, like: Tensor, seed: int = 0) -> Tensor:
    """Normal random numbers, the same at every call, for any dtype and device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(like)
