"""Groups of rows of a matrix that agree within a tolerance, by sorting random projections."""

from __future__ import annotations

import torch
from torch import Tensor

_KEYS = 4


def group_rows(rows: Tensor, tol: float, *, chains: bool = False) -> tuple[Tensor, Tensor]:
    r"""Labels of rows such that rows with the same label are within `tol` of the first of them.

    tol: largest Euclidean distance of a row from the first of its group.
    chains: whether to join rows that are linked by a chain of steps within `tol` in every
        projection. Rows within `tol` then always have the same label, but rows with the same label
        may be further apart.
    Returns labels (m,): int64, numbered in the order of a fixed random projection, so permuted rows
        get the same labels; first (n_groups,): index of the row that each group was compared with.

    The projections of rows within `tol` on a vector g differ by at most
    :math:`\mathrm{tol}\,|g|`. Sorting by one projection cuts the rows into runs, further ones cut
    the runs again, and the rows of the remaining runs are compared. Costs
    :math:`O(m p + m \log m)`.

    >>> rows = torch.tensor([[1.0, 2.0], [3.0, 0.0], [1.0, 2.0]], dtype=torch.float64)
    >>> labels, first = group_rows(rows, 1e-12)
    >>> bool(labels[0] == labels[2]), len(first)
    (True, 2)
    """
    # rows (m, p)
    m, p = rows.shape
    if m == 0:
        empty = torch.empty(0, dtype=torch.int64)
        return empty, empty
    generator = torch.Generator().manual_seed(20_217)
    projections = torch.randn(p, _KEYS, generator=generator, dtype=torch.float64)
    projections /= torch.linalg.vector_norm(projections, dim=0)
    keys = rows @ projections
    # The tolerance, and rounding errors of the projections.
    slack = tol + 1e-15 * float(keys.abs().max()) * p**0.5
    main, order = keys[:, 0].sort(stable=True)
    run = torch.zeros(m, dtype=torch.int64)
    run[1:] = (main.diff() > slack).cumsum(0)
    for j in range(1, _KEYS):
        order, run = _cut(order, run, keys[:, j], slack)
    if chains:
        reference = torch.empty_like(order)
        reference[order] = order[torch.searchsorted(run, run)]
    else:
        reference = _compare(rows, order, run, tol)
    first = order[reference[order] == order]  # still ascending in the first projection, run by run
    first = first[keys[first, 0].argsort(stable=True)]
    number = torch.empty(m, dtype=torch.int64)
    number[first] = torch.arange(len(first))
    return number[reference], first


def _cut(order: Tensor, run: Tensor, key: Tensor, slack: float) -> tuple[Tensor, Tensor]:
    """Sort every run of more than one row by another key and cut it where this key jumps."""
    sizes = torch.bincount(run)
    crowded = sizes[run] > 1
    if not bool(crowded.any()):
        return order, run
    members, of = order[crowded], run[crowded]
    by_key = key[members].argsort(stable=True)
    by_run = by_key[of[by_key].argsort(stable=True)]
    members, of = members[by_run], of[by_run]
    order = order.clone()
    order[crowded] = members
    starts = torch.ones(len(order), dtype=torch.bool)
    starts[1:] = run.diff() != 0
    jumps = torch.zeros(len(members), dtype=torch.bool)
    jumps[1:] = (of.diff() == 0) & (key[members].diff() > slack)
    starts[crowded] |= jumps
    return order, starts.cumsum(0) - 1


def _compare(rows: Tensor, order: Tensor, run: Tensor, tol: float) -> Tensor:
    """For every row the first row of its run within `tol`."""
    reference = torch.arange(len(rows))
    crowded = torch.bincount(run)[run] > 1
    members, of = order[crowded], run[crowded]
    while len(members):
        starts = torch.ones(len(members), dtype=torch.bool)
        starts[1:] = of.diff() != 0
        heads = members[starts][starts.cumsum(0) - 1]
        distance = torch.linalg.vector_norm(rows[members] - rows[heads], dim=1)
        same = distance <= tol
        reference[members[same]] = heads[same]
        members, of = members[~same], of[~same]
    return reference
