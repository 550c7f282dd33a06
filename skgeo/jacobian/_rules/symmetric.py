"""Matrix products; only half of them is computed if both factors are the same."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

_BLOCK = 512


def lower_blocks(n_rows: int, n_columns: int, same: bool, step: int) -> Iterator[tuple[slice, int]]:
    """Blocks of `step` rows of a matrix, each with the column at which it ends.

    same: whether the blocks cover the lower triangle only.
    """
    for start in range(0, n_rows, step):
        stop = min(start + step, n_rows)
        yield slice(start, stop), stop if same else n_columns


def lower_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add ``left @ right.T`` to a matrix, only below the diagonal if both are the same tensor.

    total: (n, m), changed in place.
    """
    # left (n, p); right (m, p)
    same = left is right
    for rows, stop in lower_blocks(len(left), len(right), same, _BLOCK if same else len(left)):
        total[rows, :stop].addmm_(left[rows], right[:stop].T)


def mirror(matrix: Tensor) -> Tensor:
    """Copy the part below the diagonal to above it.

    matrix: (n, n), changed in place.
    """
    n = len(matrix)
    for start in range(0, n, _BLOCK):
        stop = min(start + _BLOCK, n)
        block = matrix[start:stop, start:stop]
        block.copy_(block.tril() + block.tril(-1).T)
        matrix[start:stop, stop:] = matrix[stop:, start:stop].T
    return matrix
