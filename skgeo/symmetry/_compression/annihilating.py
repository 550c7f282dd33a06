r"""Reversible sets of ReLU units: those whose weights annihilate, :math:`\sum_E q_i w_i^T = 0`.

Flipping the sign of (w, b) of all units of such a set E leaves the function unchanged, up to
:math:`\sum_E q_i b_i` in the output bias, because :math:`\mathrm{relu}(-s) = \mathrm{relu}(s) - s`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from skgeo._arguments import check_number, check_option
from skgeo._results import Result
from skgeo.exceptions import SkgeoError
from skgeo.symmetry._compression.binary import binary_blocks
from skgeo.symmetry._hidden_layer import unit_arrays

# Most pairs of units in a search for sets of four, and most sets found.
_PAIRS = 2**20
_FOUND = 4096
# Most units for which the null space is computed.
_COLUMNS = 2048


@dataclass(frozen=True, repr=False)
class AnnihilatingSets(Result):
    """Minimal sets of units whose weights annihilate.

    Attributes
    ----------
    minimal : tuple of tuple of int
        Sets that contain no smaller one, ordered by size. Any annihilating set is a disjoint
        union of these.
    size : int
        All minimal sets of up to this many units were found.
    complete : bool
        Whether all minimal sets were found.

    See Also
    --------
    skgeo.symmetry.annihilating_sets : Finds them.
    """

    minimal: tuple[tuple[int, ...], ...]
    size: int
    complete: bool

    def _line(self) -> str:
        shown = ", ".join(map(str, self.minimal[:5])) or "none"
        more = f" and {len(self.minimal) - 5} more" if len(self.minimal) > 5 else ""
        which = "all" if self.complete else f"all of up to {self.size} units"
        return f"{shown}{more}; {which}"

    def unions(self, most: int = 4096) -> tuple[tuple[int, ...], ...]:
        """All annihilating sets: disjoint unions of minimal sets, ordered by size.

        Parameters
        ----------
        most : int, default=4096
            Largest number of sets.

        Returns
        -------
        tuple of tuple of int
            Indices of units, in increasing order.

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
    r"""Minimal sets E of units with :math:`\sum_{i \in E} q_i w_i^T = 0`.

    Under ReLU the units of such a set can be sign-flipped together without changing the function,
    up to a constant.

    Parameters
    ----------
    weights : Tensor of shape (d, n)
        Incoming weights w_i, float64.
    outputs : Tensor of shape (k, d)
        Outgoing weights q_i, float64. Units without incoming or outgoing weights are ignored.
    tol : float, default=1e-10
        Tolerance relative to the sum of the norms of the terms.
    max_size : {2, 3, 4}, default=4
        Largest size of the sets that are searched where not all sets can be found.

    Returns
    -------
    AnnihilatingSets
        Minimal sets, and whether they are all.

    See Also
    --------
    skgeo.symmetry.apply_symmetry : Flip the units of such a set.
    skgeo.symmetry.classify_units : Classes of units; "reversible" ones are in such a set.

    Notes
    -----
    All sets are found if the null space of the :math:`kn \times d` matrix of the
    :math:`q_i w_i^T` splits into blocks of few dimensions. This holds for up to about 500 units in
    general position, and for up to 2000 units if :math:`k n \ge d` and the null space is zero.
    Otherwise pairs of units, or pairs of pairs, are matched by sorting, up to `max_size` (sets of
    two only, for more than about 1400 units).

    Examples
    --------
    ``relu(x1-1) + relu(x2-1) + relu(-x1-1) + relu(-x2-1)``:

    >>> w = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]], dtype=torch.float64)
    >>> found = annihilating_sets(w, torch.ones(1, 4, dtype=torch.float64))
    >>> found.minimal, found.complete
    (((0, 2), (1, 3)), True)
    """
    weights, outputs = unit_arrays(weights=weights, outputs=outputs)
    check_number("tol", tol, least=0, below=1)
    check_option("max_size", max_size, (2, 3, 4))
    if weights.ndim != 2 or outputs.ndim != 2 or outputs.shape[1] != len(weights):
        raise SkgeoError(
            f"Got weights of shape {tuple(weights.shape)} and outputs of shape "
            f"{tuple(outputs.shape)}; expected (d, n) and (k, d)."
        )
    masses = torch.linalg.vector_norm(weights, dim=1) * torch.linalg.vector_norm(outputs, dim=0)
    units = (masses > 0).nonzero()[:, 0]
    w, q = weights[units], outputs[:, units]
    d, n, k = len(units), weights.shape[1], len(outputs)
    if d < 2:
        return AnnihilatingSets((), len(weights), True)
    generator = torch.Generator().manual_seed(13)

    def functionals(count: int) -> Tensor:
        """Values of random functionals of rank one at each q_i w_i^T."""
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
    # With a coarse tolerance, matches by chance could fill the memory.
    counts = counts.clamp(max=64)
    those = torch.repeat_interleave(torch.arange(len(right)), counts)
    offset = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    these = order[start[those] + torch.arange(len(those)) - offset]
    close = ((left[these] + right[those]).abs() <= slack).all(1)
    sets = torch.cat([names[these[close]], others[those[close]]], dim=1).sort(1).values
    distinct = (sets.diff(dim=1) > 0).all(1)
    return list(torch.unique(sets[distinct], dim=0)[:_FOUND])
