"""How many directions sparse columns span, group after group."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

__all__ = ["nested_dimensions"]

_TOL = 1e-9
_GRAM_TOL = 1e-12
_MOST_ENTRIES = 20_000_000


def nested_dimensions(matrix: sparse.csc_array, groups: np.ndarray) -> np.ndarray:
    """Dimension that each group of columns adds to the span of those before it.

    Parameters
    ----------
    matrix : sparse array of shape (P, m)
        Without zero columns.
    groups : ndarray of int, shape (m,)
        Number of the group of each column, counted from 0.

    Returns
    -------
    ndarray of int, shape (n_groups,)
        They add up to the rank of the matrix.

    Notes
    -----
    Columns that share no row, not even through others, are taken apart. Within a component the
    columns, scaled to length 1, are orthogonalised against those before; where that is too large,
    their Gram matrix tells the ranks, with half the digits.
    """
    n_groups = int(groups.max()) + 1 if len(groups) else 0
    dimensions = np.zeros(n_groups, dtype=np.int64)
    if not len(groups):
        return dimensions
    sizes = np.sqrt(np.asarray((matrix**2).sum(axis=0)).ravel())
    scaled = sparse.csc_array(matrix @ sparse.diags_array(1.0 / sizes))
    pattern = abs(scaled).sign()
    count, labels = connected_components(pattern.T @ pattern, directed=False)
    order = np.lexsort((groups, labels))
    ends = np.searchsorted(labels[order], np.arange(count), side="right")
    for members in np.split(order, ends[:-1]):
        if len(members) == 1:
            dimensions[groups[members[0]]] += 1
            continue
        part = scaled[:, members]
        used = np.unique(part.indices)
        if len(used) * len(members) <= _MOST_ENTRIES:
            _orthogonalise(part[used].toarray(), groups[members], dimensions)
        else:
            _gram_ranks((part.T @ part).toarray(), groups[members], dimensions)
    return dimensions


def _orthogonalise(columns: np.ndarray, groups: np.ndarray, dimensions: np.ndarray) -> None:
    basis = np.zeros((len(columns), 0))
    for group in np.unique(groups):
        rest = columns[:, groups == group]
        for _ in range(2):
            rest = rest - basis @ (basis.T @ rest)
        left, values, _ = np.linalg.svd(rest, full_matrices=False)
        new = left[:, values > _TOL]
        dimensions[group] += new.shape[1]
        basis = np.concatenate([basis, new], axis=1)


def _gram_ranks(gram: np.ndarray, groups: np.ndarray, dimensions: np.ndarray) -> None:
    before = 0
    for group in np.unique(groups):
        stop = int(np.searchsorted(groups, group, side="right"))
        values = np.linalg.eigvalsh(gram[:stop, :stop])
        rank = int((values > _GRAM_TOL * len(gram)).sum())
        dimensions[group] += rank - before
        before = rank
