"""Numbers of a measurement against those of the oracle."""

from __future__ import annotations

import numpy as np
import torch

from fuzz.oracle import Answer

RTOL = {torch.float64: 1e-8, torch.float32: 2e-4, torch.bfloat16: 3e-2}
# Answers further from their own rounding than this are compared.
MOST_NOISE = 6e-2


def tolerance(dtype: torch.dtype, noise: float) -> float:
    return min(RTOL[dtype] + 20 * noise, 0.5)


def is_clear(found: Answer) -> bool:
    """Whether rounding leaves the oracle's answer standing."""
    return found.finite and found.noise <= MOST_NOISE


def apart(given: object, right: object, allowed: float, scale: float | None = None) -> str:
    """How two arrays differ by more than `allowed` of their largest entry; empty if not."""
    given, right = np.asarray(given, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if given.shape != right.shape:
        return f"shape {given.shape} for {right.shape}"
    if not given.size:
        return ""
    scale = float(np.abs(right).max()) if scale is None else scale
    off = np.abs(given - right)
    if not (off <= allowed * scale).all():  # NaN is a difference
        worst = int(np.nanargmax(np.where(np.isnan(off), np.inf, off)))
        return f"{given.ravel()[worst]:.6g} for {right.ravel()[worst]:.6g} of largest {scale:.3g}"
    return ""


def spectra_apart(given: object, found: Answer, dtype: torch.dtype) -> str:
    """Eigenvalues against squared singular values; zeros beyond the shorter are left out."""
    given = np.asarray(given, dtype=np.float64)
    right = found.eigenvalues
    size = max(len(given), len(right))
    given, right = (np.pad(v, (0, size - len(v))) for v in (given, right))
    return apart(given, right, tolerance(dtype, found.noise))


def rank_apart(given: float, found: Answer, relative: float) -> str:
    """A rank at a relative tolerance; whatever lies in a window around it may count or not."""
    most, least = found.count(relative / 100), found.count(relative * 100)
    if least <= given <= most:
        return ""
    return f"rank {given} for {least if least == most else (least, most)} at {relative:.1e}"
