"""Leading singular values of Jacobians that are given by their products with vectors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from skgeo.linalg._golub_kahan import golub_kahan

# Errors above this share of the largest value ask for more steps.
RELATIVE = 1e-5


def default_steps(n_values: int, side: int) -> int:
    """Pairs of products after which `n_values` leading values have usually converged.

    >>> default_steps(10, 512), default_steps(10, 12)
    (45, 12)
    """
    return min(side, 4 * n_values + 5)


def leading_singular_values(
    push: Callable[[Tensor], Tensor],
    pull: Callable[[Tensor], Tensor],
    shape: tuple[int, int, int],
    n_values: int,
    *,
    n_steps: int | None = None,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    r"""Largest singular values of a batch of matrices, by Golub-Kahan bidiagonalisation.

    Parameters
    ----------
    push : callable
        :math:`J v` for each matrix: (b, n) to (b, m).
    pull : callable
        :math:`J^T u` for each matrix: (b, m) to (b, n).
    shape : (b, m, n)
        Number of matrices, their rows and columns.
    n_values : int
        Number of values.
    n_steps : int, optional
        Pairs of products. By default :func:`default_steps`; if a value of a batch has not
        converged to 1e-5 of the largest, twice as many, used for the samples concerned.
    device : torch.device or str, default="cpu"
        Device of the starting vector.

    Returns
    -------
    values : Tensor of shape (b, n_values)
        Descending, float64, never above the true ones by more than rounding.
    errors : Tensor of shape (b, n_values)
        Estimates of their distance to the true ones: the residual r, which bounds the distance to
        some singular value, or :math:`r^2` divided by the gap to the next value if that is smaller.

    Notes
    -----
    All matrices start from one seeded vector, so a value does not depend on the rest of
    the batch. ``n_steps`` vectors of each side per sample are kept.

    Examples
    --------
    >>> A = torch.diag(torch.arange(1.0, 41.0)).double().unsqueeze(0)
    >>> apply = lambda v: torch.einsum("bij,bj->bi", A, v)
    >>> values, errors = leading_singular_values(apply, apply, (1, 40, 40), 2)
    >>> [round(value, 4) for value in values[0].tolist()]
    [40.0, 39.0]
    """
    size, rows, columns = shape
    side = min(rows, columns)
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(rows, generator=generator, dtype=torch.float64).to(device)

    def run(steps: int) -> tuple[Tensor, Tensor]:
        values, _, residuals = golub_kahan(
            lambda v: push(v).double(),
            lambda u: pull(u).double(),
            start.expand(size, -1),
            # One more than asked for, for the gap below the last.
            min(n_values + 1, steps),
            steps,
        )
        return values, _errors(values, residuals)

    first = default_steps(n_values, side) if n_steps is None else min(n_steps, side)
    values, errors = run(first)
    steps = min(side, 2 * first)
    loose = (errors[:, :n_values] > RELATIVE * values[:, :1]).any(1, keepdim=True)
    if n_steps is None and steps > first and bool(loose.any()):
        again, left = run(steps)
        values = torch.where(loose, again[:, : values.shape[1]], values)
        errors = torch.where(loose, left[:, : errors.shape[1]], errors)
    return values[:, :n_values], errors[:, :n_values]


def _errors(values: Tensor, residuals: Tensor) -> Tensor:
    following = torch.cat([values[:, 1:], values[:, -1:]], 1)
    gaps = values - following
    quadratic = torch.where(gaps > 0, residuals.square() / gaps, torch.inf)
    return torch.minimum(residuals, quadratic)
