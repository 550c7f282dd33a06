r"""Reversible sets of ReLU units: those whose weights annihilate, :math:`\sum_E q_i w_i^T = 0`.

Turning the sign of (w, b) of all units of such a set E leaves the function as it is, up to
:math:`\sum_E q_i b_i` in the output bias, because :math:`\mathrm{relu}(-s) = \mathrm{relu}(s) - s`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from skgeo.symmetry._compression.binary import binary_blocks

# Pairs of units that a search for sets of four holds.
_PAIRS = 2**20
_FOUND = 4096
# Units whose null space is looked at.
_COLUMNS = 2048


@dataclass(frozen=True)
class AnnihilatingSets:
    """Minimal sets of units whose weights annihilate.

    Attributes
    ----------
    minimal : tuple of tuple of int
        Sets that contain no smaller one, ordered by size. Any annihilating set is a disjoint
        union of these.
    size : int
        All minimal sets of up to this many units were found.
    complete : bool
        Whether these are all minimal sets.
    """

    minimal: tuple[tuple[int, ...], ...]
    size: int
    complete: bool

    def unions(self, most: int = 4096) -> tuple[tuple[int, ...], ...]:
        """All annihilating sets: disjoint unions of minimal ones, ordered by size.

        Parameters
        ----------
        most : int, default=4096
            Stop at this many.

        Returns
        -------
        tuple of tuple of int

        Examples
        --------
        >>> AnnihilatingSets(((0, 2), (1, 3)), 4, True).unions()
        ((0, 2), (1, 3), (0, 1, 2, 3))
        """
        found: dict[frozenset[int], None] = {}
        for count in range(1, len(self.minimal) + 1):
            before = len(found)
            for chosen in combinations(self.minimal, count):
                union = frozenset().union(*chosen)
                if len(union) == sum(map(len, chosen)):
                    found.setdefault(union)
                if len(found) >= most:
                    break
            if len(found) == before or len(found) >= most:
                break
        return tuple(sorted((tuple(sorted(s)) for s in found), key=lambda s: (len(s), s)))


def annihilating_sets(
    weights: Tensor, outputs: Tensor, *, tol: float = 1e-10, max_size: int = 4
) -> AnnihilatingSets:
    r"""Find the minimal sets E of units with :math:`\sum_{i \in E} q_i w_i^T = 0`.

    Parameters
    ----------
    weights : Tensor of shape (d, n)
    outputs : Tensor of shape (k, d)
        Outgoing weights. Units without incoming or outgoing weights are passed over.
    tol : float, default=1e-10
        Relative to the sum of the norms of the terms.
    max_size : {2, 3, 4}, default=4
        Size up to which sets are looked for where not all can be.

    Returns
    -------
    AnnihilatingSets

    Notes
    -----
    All sets are found where the null space of the :math:`kn \times d` matrix of the
    :math:`q_i w_i^T` falls into blocks of few dimensions (see `binary`),
    as it does for up to some 500 units in general position, or 2000 with
    :math:`k n \ge d` where there is none. Otherwise pairs of units, or of pairs, are matched by
    sorting, up to `max_size` (sets of two only, for more than some 1400 units).

    Examples
    --------
    ``relu(x1-1) + relu(x2-1) + relu(-x1-1) + relu(-x2-1)``:

    >>> w = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]], dtype=torch.float64)
    >>> found = annihilating_sets(w, torch.ones(1, 4, dtype=torch.float64))
    >>> found.minimal, found.complete
    (((0, 2), (1, 3)), True)
    """
    masses = torch.linalg.vector_norm(weights, dim=1) * torch.linalg.vector_norm(outputs, dim=0)
    units = (masses > 0).nonzero()[:, 0]
    w, q = weights[units], outputs[:, units]
    d, n, k = len(units), weights.shape[1], len(outputs)
    if d < 2:
        return AnnihilatingSets((), len(weights), True)
    generator = torch.Generator().manual_seed(13)

    def functionals(count: int) -> Tensor:
        """Values of random functionals of rank one on every q w^T."""
        left = torch.randn(count, k, generator=generator, dtype=torch.float64)
        right = torch.randn(count, n, generator=generator, dtype=torch.float64)
        return (left @ q) * (right @ w.T)

    few = k * n <= d + 16
    vectors = (q[:, None] * w.T[None]).reshape(k * n, d) if few else functionals(d + 16)
    blocks = binary_blocks(vectors, None, max(tol, 1e-14)) if d <= _COLUMNS else None
    found: list[Tensor] = []
    complete = blocks is not None
    for block in blocks or ():
        complete = complete and block.complete
        found += [block.columns[row] for row in block.solutions]
    size = len(weights)
    if not complete:
        size = max_size if d * (d - 1) // 2 <= _PAIRS else 2
        found += _small_sets(functionals(4), size, tol)
    sets = {tuple(sorted(s.tolist())) for s in found}
    checked = [s for s in sets if _annihilates(w, q, list(s), tol)]
    minimal = _minimal(checked)
    named = tuple(tuple(int(units[i]) for i in s) for s in minimal)
    return AnnihilatingSets(named, size, complete)


def _annihilates(w: Tensor, q: Tensor, units: list[int], tol: float) -> bool:
    sizes = torch.linalg.vector_norm(w[units], dim=1) * torch.linalg.vector_norm(q[:, units], dim=0)
    left_over = torch.linalg.matrix_norm(q[:, units] @ w[units])
    return bool(left_over <= tol * sizes.sum())


def _minimal(sets: Iterable[tuple[int, ...]]) -> list[tuple[int, ...]]:
    kept: list[tuple[int, frozenset[int], tuple[int, ...]]] = []
    for candidate in sorted(sets, key=lambda s: (len(s), s)):
        members = frozenset(candidate)
        if not any(smaller <= members for _, smaller, _ in kept):
            kept.append((len(members), members, candidate))
    return [candidate for _, _, candidate in kept]


def _small_sets(keys: Tensor, size: int, tol: float) -> list[Tensor]:
    """Sets of two, three or four columns that sum to zero, from values of functionals (p, d)."""
    d = keys.shape[1]
    singles = torch.arange(d)[:, None]
    found = _matches(keys.T, singles, keys.T, singles, tol)
    if size > 2:
        pairs = torch.combinations(torch.arange(d), 2)
        sums = keys.T[pairs[:, 0]] + keys.T[pairs[:, 1]]
        found += _matches(sums, pairs, keys.T, singles, tol)
        if size > 3:
            found += _matches(sums, pairs, sums, pairs, tol)
    return found


def _matches(
    left: Tensor, names: Tensor, right: Tensor, others: Tensor, tol: float
) -> list[Tensor]:
    """Disjoint sets of columns of two lists whose values cancel."""
    slack = max(tol, 1e-14) * 4 * float(left.abs().max() + right.abs().max())
    values, order = left[:, 0].sort(stable=True)
    wanted = -right[:, 0]
    start = torch.searchsorted(values, (wanted - slack).contiguous())
    stop = torch.searchsorted(values, (wanted + slack).contiguous(), right=True)
    counts = stop - start
    # With a coarse tolerance chance matches could fill the memory; those left out are the last.
    counts = counts.clamp(max=64)
    those = torch.repeat_interleave(torch.arange(len(right)), counts)
    offset = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    these = order[start[those] + torch.arange(len(those)) - offset]
    close = ((left[these] + right[those]).abs() <= slack).all(1)
    sets = torch.cat([names[these[close]], others[those[close]]], dim=1).sort(1).values
    distinct = (sets.diff(dim=1) > 0).all(1)
    return list(sets[distinct].unique(dim=0)[:_FOUND])
