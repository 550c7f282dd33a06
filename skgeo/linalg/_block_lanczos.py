"""Leading eigenpairs of a symmetric matrix from its products with vectors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from skgeo.exceptions import SkgeoError
from skgeo.linalg._subspaces import orthonormalise_rows

# Products with a new direction after convergence, to find eigenvalues that were missed.
_PROBES = 5
_EPS = float(torch.finfo(torch.float64).eps)


def krylov_capacity(n_values: int, block: int = 1) -> int:
    """Number of vectors that :func:`block_lanczos` holds."""
    return max(3 * n_values, n_values + 20) + 2 * block


def block_lanczos(
    product: Callable[[Tensor], Tensor],
    start: Tensor,
    n_values: int,
    *,
    tol: float = 1e-9,
    noise: float = 16 * _EPS,
    max_steps: int = 3000,
) -> tuple[Tensor, Tensor]:
    r"""Largest eigenvalues of a symmetric matrix, by thick-restarted block Lanczos.

    product: :math:`G v` for vectors as rows: (w, n) to (w, n).
    start: (w, n), random vectors; w is the size of blocks.
    n_values: at most n.
    tol: a pair has converged where :math:`\|G v - \lambda v\| \le` ``tol`` :math:`\lambda`.
    noise: relative error of a product. Residuals below ``noise`` times the largest eigenvalue are
        rounding, and count as converged.
    max_steps: largest number of products with a block.
    Raises SkgeoError if the iteration does not converge, or a product is NaN or infinite.

    Runs on the device of `start`. Each new block is orthogonalised against all vectors held. When
    the capacity is reached, the leading Ritz vectors are kept [1]_.

    A Krylov space contains at most w directions of a repeated eigenvalue. After convergence all but
    the wanted vectors are dropped, and five blocks from a random direction search for eigenvalues
    that were missed. These then have to converge as well, and the search is repeated until it
    finds no more.

    .. [1] K. Wu and H. Simon, "Thick-restart Lanczos method for large symmetric eigenvalue
       problems", SIAM J. Matrix Anal. Appl. 22 (2000), section 3.

    >>> G = torch.diag(torch.tensor([3.0, 3.0, 2.0, 1.0])).double()
    >>> start = torch.ones(1, 4, dtype=torch.float64)
    >>> values, _ = block_lanczos(lambda v: v @ G, start, n_values=3)
    >>> [round(value, 9) for value in values.tolist()]
    [3.0, 3.0, 2.0]
    """
    # -> values (n_values,), vectors (n_values, n)
    width, n = start.shape
    if not 1 <= n_values <= n:
        raise SkgeoError(f"Got n_values={n_values}; expected 1 to {n}, the size of the matrix.")
    space = _Space(start, min(n, krylov_capacity(n_values, width)))
    block = space.orthonormal(start, 0.0)
    known: Tensor | None = None
    since = 0
    # Vectors dropped after a search remain in the residuals, and their sum must be below tol.
    share = tol / 2
    for _ in range(max_steps):
        rest = space.extend(block, product(block))
        since += 1
        values, mixing = space.ritz()
        scale = float(values.abs().max())
        residuals = space.residuals(rest, mixing[:, :n_values])
        bounds = torch.clamp(share * values[:n_values].abs(), min=noise * scale)
        converged = space.filled >= n_values and bool((residuals <= bounds).all())
        if space.filled == n:
            break
        if converged and (known is None or since >= _PROBES):
            if known is not None and bool((values[:n_values] - known <= bounds).all()):
                break
            known, since, share = values[:n_values], 0, share / 2
            space.restart(mixing[:, :n_values])
            block = space.orthonormal(torch.zeros_like(start), 1.0)  # random ones
            continue
        block = space.orthonormal(rest, scale)
        if space.filled + len(block) > space.capacity:
            kept = min(n_values + (space.capacity - n_values) // 3, space.capacity - 2 * width)
            space.restart(mixing[:, : max(kept, 1)])  # thick restart, [1]_, section 3
    else:
        raise SkgeoError(
            f"{max_steps} products were not enough for {n_values} eigenpairs to converge to a "
            f"relative residual of {tol:.1e}. Ask for fewer."
        )
    vectors = orthonormalise_rows(mixing[:, :n_values].T @ space.basis[: space.filled])
    return values[:n_values], vectors


class _Space:
    """An orthonormal basis as rows, and the projection of the operator onto it."""

    def __init__(self, like: Tensor, capacity: int) -> None:
        self.capacity = capacity
        self.basis = like.new_empty(capacity, like.shape[1])
        self.matrix = like.new_zeros(capacity, capacity)
        self.filled = 0
        self._generator = torch.Generator().manual_seed(0)

    def _random(self) -> Tensor:
        # Not the distribution that callers use, so no seed repeats a vector of the basis.
        size = self.basis.shape[1]
        row = torch.rand(1, size, generator=self._generator, dtype=torch.float64) - 0.5
        return row.to(self.basis)

    def extend(self, block: Tensor, moved: Tensor) -> Tensor:
        """Add a block and its products; returns the part of these outside the space."""
        stop = self.filled + len(block)
        self.basis[self.filled : stop] = block
        # The products lie almost entirely in the last two blocks, so one pass over the others is
        # as accurate as two.
        recent = slice(max(0, stop - 2 * len(block)), stop)
        first = moved @ self.basis[recent].T
        inside, rest = _split(moved - first @ self.basis[recent], self.basis[:stop])
        inside[:, recent] += first
        if not bool(torch.isfinite(inside).all()):
            raise SkgeoError("A product with the matrix is NaN or infinite, so it has no spectrum.")
        self.matrix[self.filled : stop, :stop] = inside
        self.matrix[:stop, self.filled : stop] = inside.T
        among = self.matrix[self.filled : stop, self.filled : stop]
        among.copy_((among + among.T) / 2)
        self.filled = stop
        return rest

    def ritz(self) -> tuple[Tensor, Tensor]:
        """Descending eigenvalues of the small matrix, and their vectors as columns."""
        values, vectors = torch.linalg.eigh(self.matrix[: self.filled, : self.filled])
        return values.flip(0), vectors.flip(1)

    def residuals(self, rest: Tensor, mixing: Tensor) -> Tensor:
        """Norms of ``G v - lambda v``; only the last block has products outside the space."""
        last = mixing[self.filled - len(rest) :]
        return ((rest @ rest.T @ last) * last).sum(0).clamp_min(0.0).sqrt()

    def restart(self, mixing: Tensor) -> None:
        """Keep some Ritz vectors only."""
        kept = mixing.shape[1]
        small = self.matrix[: self.filled, : self.filled]
        values = torch.linalg.vecdot(mixing, small @ mixing, dim=0)
        # Orthonormalised again, since deviations would accumulate from restart to restart.
        self.basis[:kept] = orthonormalise_rows(mixing.T @ self.basis[: self.filled])
        self.matrix.zero_()
        self.matrix[:kept, :kept] = torch.diag(values)
        self.filled = kept

    def orthonormal(self, rows: Tensor, scale: float) -> Tensor:
        """Orthonormal rows from rows outside the basis; random ones instead of zero rows."""
        found = rows.new_empty(min(len(rows), rows.shape[1] - self.filled), rows.shape[1])
        small = 8 * rows.shape[1] ** 0.5 * _EPS * scale
        for index in range(len(found)):
            row = rows[index : index + 1]
            length = float(torch.linalg.vector_norm(row))
            if not length > small:
                row = self._random()
            if index or not length > 1e-3 * scale:
                row = row / torch.linalg.vector_norm(row)
                row = _split(row, torch.cat([self.basis[: self.filled], found[:index]]))[1]
                if float(torch.linalg.vector_norm(row)) < 1e-3:
                    row = self._random()
                    for _ in range(2):
                        row = row / torch.linalg.vector_norm(row)
                        row = _split(row, torch.cat([self.basis[: self.filled], found[:index]]))[1]
            found[index] = row / torch.linalg.vector_norm(row)
        return found


def _split(rows: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Coefficients in an orthonormal basis, and the rest.

    Projected twice if the rest has less than half the norm, since rounding would accumulate.
    """
    inside = rows @ basis.T
    rest = rows - inside @ basis
    before, after = (torch.linalg.vector_norm(part, dim=1) for part in (rows, rest))
    if bool((after < 0.5 * before).any()):
        more = rest @ basis.T
        inside, rest = inside + more, rest - more @ basis
    return inside, rest
