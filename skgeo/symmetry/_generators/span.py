"""Dimensions of the span of sparse columns, group by group."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

_TOL = 1e-9
_GRAM_TOL = 1e-12
# Smallest entry of a pivot, relative to its column.
_PIVOT = 1e-4
_MOST_ENTRIES = 20_000_000


def nested_dimensions(matrix: sparse.csc_array, groups: np.ndarray) -> np.ndarray:
    """Dimension that each group of columns adds to the span of those before it.

    matrix: (P, m), without zero columns.
    groups: (m,), number of the group of each column, from 0.
    Returns (n_groups,), with the rank of the matrix as sum.
    """
    n_groups = int(groups.max()) + 1 if len(groups) else 0
    ranks = [sparse_rank(matrix[:, groups <= group]) for group in range(n_groups)]
    return np.diff([0, *ranks])


def sparse_rank(matrix: sparse.csc_array) -> int:
    """Numerical rank of a sparse matrix.

    Columns are scaled to length 1. A column with one entry, or with an entry in a row that no other
    column uses, is independent of the others and is removed with this row, repeatedly; most null
    vectors of symmetries are of this kind. The remaining columns split into components that share
    no row. The rank of each is that of its singular values, or, if it is too large, of the
    eigenvalues of its Gram matrix, with half the digits.

    >>> sparse_rank(sparse.csc_array(np.array([[1.0, 2.0, 0.0], [0.0, 0.0, 3.0]])))
    2
    """
    # matrix (P, m)
    sizes = np.sqrt(np.asarray((matrix**2).sum(axis=0)).ravel())
    entries = matrix.tocoo()
    values = entries.data / sizes[entries.col]
    kept = values != 0.0
    rows, columns, values = entries.row[kept], entries.col[kept], values[kept]
    rank = 0
    while len(values):
        before = len(values)
        # A column with one entry spans its row, which is cleared in all others.
        single = np.bincount(columns)[columns] == 1
        spanned = np.unique(rows[single & (np.abs(values) > _PIVOT)])
        rank += len(spanned)
        left = ~np.isin(rows, spanned)
        rows, columns, values = rows[left], columns[left], values[left]
        # A column with a row of its own is not a combination of others.
        alone = (np.bincount(rows)[rows] == 1) if len(rows) else np.zeros(0, dtype=bool)
        independent = np.unique(columns[alone & (np.abs(values) > _PIVOT)])
        rank += len(independent)
        left = ~np.isin(columns, independent)
        rows, columns, values = rows[left], columns[left], values[left]
        if len(values) == before:
            break
    if len(values):
        rank += _dense_rank(sparse.csc_array((values, (rows, columns)), shape=matrix.shape))
    return rank


def _dense_rank(matrix: sparse.csc_array) -> int:
    """Rank, component by component."""
    matrix = matrix[:, np.diff(matrix.indptr) > 0]
    pattern = abs(matrix).sign()
    count, labels = connected_components(pattern.T @ pattern, directed=False)
    order = np.argsort(labels, kind="stable")
    ends = np.searchsorted(labels[order], np.arange(count), side="right")
    rank = 0
    for members in np.split(order, ends[:-1]):
        part = matrix[:, members]
        used = np.unique(part.indices)
        if len(used) * len(members) <= _MOST_ENTRIES:
            values = np.linalg.svd(part[used].toarray(), compute_uv=False)
            rank += int((values > _TOL).sum())
        else:
            values = np.linalg.eigvalsh((part.T @ part).toarray())
            rank += int((values > _GRAM_TOL * len(values)).sum())
    return rank
