r"""Linear systems :math:`V e = y` in unknowns that are 0 or 1: vector subset sums.

The real solutions form an affine space. In its reduced echelon basis the free unknowns are entries
of e, so r of them leave at most :math:`2^r` candidates, whatever the number of columns. The basis
also splits into blocks that can be solved separately.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse.csgraph import connected_components
from torch import Tensor

# Most columns of a singular value decomposition, and of a meet-in-the-middle search.
_DENSE = 512
_HALVES = 32
# Most entries of the table of partial solutions, and solutions of one block.
_TABLE = 2**20
_SOLUTIONS = 4096
_LINKED = 1e-7


@dataclass(frozen=True, eq=False)
class Block:
    """Unknowns that constrain each other, and their solutions.

    Attributes
    ----------
    columns : Tensor of shape (m,)
        int64.
    solutions : Tensor of shape (n_solutions, m)
        bool, without the zero solution of a homogeneous block.
    complete : bool
        Whether all solutions were found.
    """

    columns: Tensor
    solutions: Tensor
    complete: bool


def binary_blocks(vectors: Tensor, target: Tensor | None, tol: float) -> list[Block] | None:
    """Solve ``vectors @ e = target`` for e in {0, 1}, block by block.

    vectors: (p, d), nonzero columns, float64.
    target: (p,). If None or zero, all nontrivial solutions of the homogeneous system are returned,
        as blocks whose solutions combine freely. Otherwise the one block that contains the target
        is returned; the unknowns outside it may be zero.
    tol: residuals up to `tol` times the sum of the norms of the added columns count as zero.
    Returns an empty list if there are no solutions, and None if there are too many columns.

    Exact if numerical ranks are unambiguous: candidates come from a numerical null space, and each
    of them is checked. Costs a singular value decomposition of d columns (for more than 512 columns
    only their independence is decided, by a Cholesky factor), and :math:`2^r` steps per block with
    pruning, or :math:`2^{m/2}` for the m <= 32 columns of a block.

    >>> blocks = binary_blocks(torch.tensor([[1.0, 2.0, -3.0]], dtype=torch.float64), None, 1e-9)
    >>> blocks[0].solutions
    tensor([[True, True, True]])
    """
    if target is not None and float(target.abs().sum()) == 0:
        target = None
    forced = target is not None
    table = vectors if target is None else torch.cat([vectors, -target[:, None]], dim=1)
    if table.shape[1] == 0:
        return []
    sizes = torch.linalg.vector_norm(table, dim=0)
    scaled = table / sizes
    generator = torch.Generator().manual_seed(3)
    p, d = scaled.shape
    if p > d + 16:
        mix = torch.randn(d + 16, p, generator=generator, dtype=torch.float64)
        scaled = mix @ scaled / (d + 16) ** 0.5
    if d > _DENSE:
        return _independent(scaled)
    _, values, rows = torch.linalg.svd(scaled, full_matrices=True)
    rank = int((values > 10 * max(tol, 1e-12) * values[0]).sum())
    basis = _echelon(rows[rank:] / sizes)
    integral = min(1e-2, max(1e-6, 1e3 * tol))
    blocks = []
    for lines, columns in _components(basis):
        wanted = bool(forced and d - 1 in columns.tolist())
        if forced and not wanted:
            continue
        own = table[:, columns]
        found = _enumerate(basis[lines][:, columns], integral, wanted)
        if found is None and len(columns) <= _HALVES + wanted:
            found = _meet(own, tol, wanted)
        complete = found is not None
        if found is None:
            found = torch.zeros((0, len(columns)), dtype=torch.bool)
        found = found[_holds(own, found, tol)]
        if len(found) > _SOLUTIONS:
            found, complete = found[:_SOLUTIONS], False
        if wanted:
            return [Block(columns[:-1], found[:, :-1], complete)]
        blocks.append(Block(columns, found[found.any(1)], complete))
    return blocks


def _independent(scaled: Tensor) -> list[Block] | None:
    d = scaled.shape[1]
    if scaled.shape[0] < d or d > 4 * _DENSE:
        return None
    gram = scaled.T @ scaled
    gram.diagonal().sub_(1e-9)
    return [] if int(torch.linalg.cholesky_ex(gram).info) == 0 else None


def _echelon(basis: Tensor) -> Tensor:
    """Combinations of the rows that each have a column of their own with entry 1."""
    basis = basis.clone()
    used = torch.zeros(basis.shape[1], dtype=torch.bool)
    for i in range(len(basis)):
        rest = basis[i:].abs().masked_fill(used, -1.0)
        line, column = divmod(int(rest.argmax()), basis.shape[1])
        basis[[i, i + line]] = basis[[i + line, i]]
        basis[i] /= basis[i, column].clone()
        factor = basis[:, column].clone()
        factor[i] = 0
        basis -= factor[:, None] * basis[i]
        used[column] = True
    return basis


def _components(basis: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Rows and columns of each block of a matrix that is block diagonal up to order."""
    linked = basis.abs() > _LINKED
    r = len(basis)
    if r == 0:
        return []
    together = (linked.double() @ linked.double().T > 0).numpy()
    count, labels = connected_components(np.asarray(together), directed=False)
    of_line = torch.from_numpy(labels.astype(np.int64))
    found = []
    for label in range(count):
        lines = (of_line == label).nonzero()[:, 0]
        found.append((lines, linked[lines].any(0).nonzero()[:, 0]))
    return found


def _enumerate(basis: Tensor, slack: float, forced: bool) -> Tensor | None:
    """0/1 combinations of the rows whose entries are all 0 or 1; None if the table overflows."""
    r, m = basis.shape
    low = basis.clamp(max=0).flip(0).cumsum(0).flip(0)
    high = basis.clamp(min=0).flip(0).cumsum(0).flip(0)
    zero = basis.new_zeros((1, m))
    low, high = torch.cat([low[1:], zero]), torch.cat([high[1:], zero])
    partial = zero
    for i in range(r):
        partial = torch.cat([partial, partial + basis[i]])
        least, most = partial + low[i] - slack, partial + high[i] + slack
        one = (least <= 1) & (most >= 1)
        fits = one | ((least <= 0) & (most >= 0))
        if forced:
            fits[:, -1] = one[:, -1]
        partial = partial[fits.all(1)]
        if partial.numel() * 2 > _TABLE:
            return None
    return partial.round().bool()


def _meet(vectors: Tensor, tol: float, forced: bool) -> Tensor | None:
    """Subsets of the columns that sum to zero, by a meet in the middle; None if too many."""
    generator = torch.Generator().manual_seed(5)
    probes = torch.randn(3, len(vectors), generator=generator, dtype=torch.float64)
    keys = (probes @ vectors).T
    offset = keys[-1] if forced else torch.zeros(3, dtype=torch.float64)
    free = keys[:-1] if forced else keys
    half = len(free) // 2
    left, right = _subset_sums(free[:half]), -(_subset_sums(free[half:]) + offset)
    sizes = torch.linalg.vector_norm(vectors, dim=0)
    slack = (tol + 1e-14) * float(sizes.sum()) * float(probes.norm(dim=1).max())
    order = left[:, 0].argsort(stable=True)
    values = left[order, 0].contiguous()
    start = torch.searchsorted(values, (right[:, 0] - slack).contiguous())
    stop = torch.searchsorted(values, (right[:, 0] + slack).contiguous(), right=True)
    counts = stop - start
    total = int(counts.sum())
    if total > 64 * _SOLUTIONS:
        return None
    those = torch.repeat_interleave(torch.arange(len(right)), counts)
    within = torch.arange(total) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    these = order[start[those] + within]
    close = ((left[these] - right[those]).abs() <= slack).all(1)
    masks = [
        ((these[close][:, None] >> torch.arange(half)) & 1).bool(),
        ((those[close][:, None] >> torch.arange(len(free) - half)) & 1).bool(),
    ]
    if forced:
        masks.append(torch.ones((int(close.sum()), 1), dtype=torch.bool))
    return torch.cat(masks, dim=1)


def _subset_sums(rows: Tensor) -> Tensor:
    """Sums of all subsets of rows; bit i of the index of a subset tells whether it has row i."""
    sums = rows.new_zeros((1, rows.shape[1]))
    for row in rows:
        sums = torch.cat([sums, sums + row])
    return sums


def _holds(vectors: Tensor, solutions: Tensor, tol: float) -> Tensor:
    chosen = solutions.double()
    sizes = torch.linalg.vector_norm(vectors, dim=0)
    left_over = torch.linalg.vector_norm(chosen @ vectors.T, dim=1)
    holds: Tensor = left_over <= tol * (chosen @ sizes)
    return holds
