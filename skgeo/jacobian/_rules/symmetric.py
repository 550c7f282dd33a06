"""Products of which only half is computed when both sides are the same."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

_BLOCK = 512


def lower_blocks(n_rows: int, n_columns: int, same: bool, step: int) -> Iterator[tuple[slice, int]]:
    """Cut a matrix into blocks of rows, each as long as needed.

    Parameters
    ----------
    n_rows, n_columns : int
    same : bool
        Whether only the lower triangle is wanted.
    step : int
        Rows a block.

    Yields
    ------
    rows : slice
    stop : int
        Columns from 0 to here.
    """
    for start in range(0, n_rows, step):
        stop = min(start + step, n_rows)
        yield slice(start, stop), stop if same else n_columns


def lower_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add ``left @ right.T`` to a matrix, only below the diagonal where both are one tensor.

    Parameters
    ----------
    total : Tensor of shape (n, m)
        Changed in place.
    left : Tensor of shape (n, p)
    right : Tensor of shape (m, p)
    """
    same = left is right
    for rows, stop in lower_blocks(len(left), len(right), same, _BLOCK if same else len(left)):
        total[rows, :stop].addmm_(left[rows], right[:stop].T)


def mirror(matrix: Tensor) -> Tensor:
    """Copy what is below the diagonal to above it.

    Parameters
    ----------
    matrix : Tensor of shape (n, n)
        Changed in place.

    Returns
    -------
    Tensor
        `matrix`.
    """
    n = len(matrix)
    for start in range(0, n, _BLOCK):
        stop = min(start + _BLOCK, n)
        block = matrix[start:stop, start:stop]
        block.copy_(block.tril() + block.tril(-1).T)
        matrix[start:stop, stop:] = matrix[stop:, start:stop].T
    return matrix
