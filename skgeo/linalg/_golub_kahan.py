"""Leading singular values of matrices from their products with vectors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from skgeo.exceptions import SkgeoError


def golub_kahan(
    matvec: Callable[[Tensor], Tensor],
    rmatvec: Callable[[Tensor], Tensor],
    start: Tensor,
    n_values: int,
    n_steps: int,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Bidiagonalise a batch of matrices, keeping all vectors orthogonal.

    matvec: :math:`A v` for each matrix: (b, n) to (b, m).
    rmatvec: :math:`A^T u` for each matrix: (b, m) to (b, n).
    start: (b, m), random vectors. :math:`A^T` maps them into the row space, which contains all
        further vectors, so r steps suffice for a matrix of rank r.
    n_steps: pairs of products, at least `n_values`.
    Returns values (b, n_values), descending, never above the true ones; right singular vectors
        (b, n_values, n) as rows; and residuals (b, n_values), :math:`\|A^T u_i - \sigma_i v_i\|`,
        bounds on the distance to a true singular value. Values and vectors are zero beyond the
        rank.
    Raises SkgeoError if `n_steps` is smaller than `n_values`.

    Costs `n_steps` pairs of products and ``b * n_steps * (m + n)`` numbers. Each vector is
    orthogonalised twice against all previous ones; otherwise the largest values would appear
    several times after they have converged.

    Source: G. Golub and W. Kahan, "Calculating the singular values and pseudo-inverse of a matrix",
    SIAM J. Numer. Anal. B 2 (1965), section 3.

    >>> A = torch.diag(torch.tensor([3.0, 2.0, 1.0])).double().unsqueeze(0)
    >>> values, _, _ = golub_kahan(
    ...     lambda v: torch.einsum("bij,bj->bi", A, v),
    ...     lambda u: torch.einsum("bij,bi->bj", A, u),
    ...     torch.ones(1, 3, dtype=torch.float64),
    ...     n_values=2,
    ...     n_steps=3,
    ... )
    >>> [round(value, 12) for value in values[0].tolist()]
    [3.0, 2.0]
    """
    if not 1 <= n_values <= n_steps:
        raise SkgeoError(
            f"Got n_values={n_values} and n_steps={n_steps}; expected 1 or more values, and at "
            "least as many steps."
        )
    size, steps = len(start), n_steps
    generator = torch.Generator().manual_seed(0)
    scale = start.new_zeros(size)
    first, _ = _unit(rmatvec(start), scale)
    right = start.new_zeros((size, steps + 1, first.shape[1]))
    right[:, 0] = first
    left = start.new_zeros((size, steps, start.shape[1]))
    alphas, betas = start.new_zeros((size, steps)), start.new_zeros((size, steps))
    for j in range(steps):
        u = _orthogonal(matvec(right[:, j]), left[:, :j])
        left[:, j], alphas[:, j] = _unit(u, scale)
        scale = torch.maximum(scale, alphas[:, j])
        v = _orthogonal(rmatvec(left[:, j]), right[:, : j + 1])
        right[:, j + 1], betas[:, j] = _unit(v, scale)
        scale = torch.maximum(scale, betas[:, j])
        if j + 1 < steps and not bool(betas[:, j].all()):
            # A closed Krylov space contains one direction of each repeated value, so start again
            # outside of it. The distribution is not the one that callers use, so no seed repeats
            # the first vector.
            fresh = torch.rand(start.shape, generator=generator, dtype=start.dtype).to(start) - 0.5
            other = rmatvec(fresh)
            length = torch.linalg.vector_norm(other, dim=1)
            outside, _ = _unit(_orthogonal(other, right[:, : j + 1]), length)
            closed = (betas[:, j] == 0).unsqueeze(1)
            right[:, j + 1] = torch.where(closed, outside, right[:, j + 1])
    bidiagonal = torch.diag_embed(alphas) + torch.diag_embed(betas[:, :-1], offset=1)
    p, values, qt = torch.linalg.svd(bidiagonal)
    vectors = qt[:, :n_values] @ right[:, :steps]
    residuals = betas[:, -1:] * p[:, -1, :n_values].abs()
    return values[:, :n_values], vectors, residuals


def _orthogonal(vectors: Tensor, basis: Tensor) -> Tensor:
    for _ in range(2):
        inside = torch.einsum("bkn,bn->bk", basis, vectors)
        vectors = vectors - torch.einsum("bkn,bk->bn", basis, inside)
    return vectors


def _unit(vectors: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors divided by their lengths, or zero if they are rounding only; and the lengths."""
    lengths = torch.linalg.vector_norm(vectors, dim=1)
    noise = 8 * vectors.shape[1] * torch.finfo(vectors.dtype).eps * scale
    lengths = torch.where(lengths > noise, lengths, torch.zeros_like(lengths))
    safe = torch.where(lengths > 0, lengths, torch.ones_like(lengths))
    alive = (lengths > 0).to(vectors)
    return vectors / safe.unsqueeze(1) * alive.unsqueeze(1), lengths
