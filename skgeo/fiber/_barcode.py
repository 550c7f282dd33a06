"""The bars of a deep linear network and its rank list, either of which names a stratum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from skgeo._cached import cached_property
from skgeo._results import Result
from skgeo.exceptions import SkgeoError

Bar = tuple[int, int]
"""A bar [birth, death]: one dimension that appears at layer `birth` and is lost after `death`."""

BarCopy = tuple[int, int, int]
"""One of the equal bars: birth, death, and its number among them, from 0."""


def extends(first: Bar, second: Bar) -> bool:
    """Whether Ext of two bars is not zero: [a, b], [c, e] with a < c <= b + 1 <= e.

    These are the ordered pairs that an up-move can join or cross, and those that constrain the
    tangent space of an orbit.
    """
    (a, b), (c, e) = first, second
    return a < c <= b + 1 <= e


@dataclass(frozen=True, repr=False)
class Barcode(Result):
    r"""The multiset of bars (intervals) that a deep linear network splits into.

    With :math:`r_{ji}` the rank of :math:`W_{j\sim i} = W_j \cdots W_{i+1}`, the multiplicity of
    the bar [i, j] is

    .. math:: \omega_{ji} = r_{ji} - r_{j,i-1} - r_{j+1,i} + r_{j+1,i-1},

    ranks with an index outside 0..L being zero. It counts the dimensions that enter at layer i and
    die after layer j. Bars and rank list determine each other. Either names one stratum of the
    fiber of :math:`W = W_L \cdots W_1`, which the properties describe.

    Parameters
    ----------
    depth : int
        L, the number of weight matrices, at least 1.
    bars : iterable of (birth, death, multiplicity)
        Layers count from 0 (the input) to L (the output). The attribute is a sorted tuple in which
        equal bars are merged and multiplicities of zero are dropped.

    Raises
    ------
    SkgeoError
        If a bar leaves 0..L, a multiplicity is negative, or no bar contains some layer.

    References
    ----------
    Shewchuk and Bhattacharya, "The Geometry of the Set of Equivalent Linear Neural Networks",
    arXiv:2404.14855.

    Examples
    --------
    >>> code = Barcode(2, [(0, 0, 2), (0, 2, 1), (1, 1, 1), (2, 2, 2)])
    >>> code.widths, code.rank
    ((3, 2, 3), 1)
    >>> code.rank_list()
    array([[3, 0, 0],
           [1, 2, 0],
           [1, 1, 3]])

    Of the 12 weights of such a network, 3 can move within its stratum:

    >>> code.n_parameters, code.dimension, code.codimension
    (12, 3, 9)
    >>> code.is_smooth, code.is_maximal, code.is_closed
    (False, False, True)
    """

    depth: int
    bars: tuple[tuple[int, int, int], ...]

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise SkgeoError(f"A barcode needs a depth of at least 1; got {self.depth}.")
        counts: dict[Bar, int] = {}
        for birth, death, multiplicity in self.bars:
            if not 0 <= birth <= death <= self.depth:
                raise SkgeoError(
                    f"The bar [{birth}, {death}] does not satisfy 0 <= birth <= death <= "
                    f"{self.depth}, the depth."
                )
            if multiplicity < 0:
                raise SkgeoError(
                    f"The bar [{birth}, {death}] has multiplicity {multiplicity}; "
                    "multiplicities count dimensions and cannot be negative."
                )
            key = (int(birth), int(death))
            counts[key] = counts.get(key, 0) + int(multiplicity)
        object.__setattr__(self, "bars", _canonical(counts))
        if 0 in self.widths:
            layer = self.widths.index(0)
            raise SkgeoError(
                f"No bar contains layer {layer}, which would have width 0; every layer needs one."
            )

    def _line(self) -> str:
        return f"{self.depth}, {list(self.bars)}"

    def _in_short(self) -> str:
        """Widths, rank and number of bars, for the one line of other results."""
        widths = "-".join(map(str, self.widths))
        n_bars = sum(self.multiplicities.values())
        return f"widths {widths}, rank {self.rank}, {n_bars} bars"

    @classmethod
    def _of(cls, depth: int, counts: Mapping[Bar, int]) -> Barcode:
        """A barcode from multiplicities that are known to be valid, without checks."""
        self = object.__new__(cls)
        object.__setattr__(self, "depth", depth)
        object.__setattr__(self, "bars", _canonical(counts))
        return self

    @cached_property
    def multiplicities(self) -> dict[Bar, int]:
        """Number of copies of each bar that is present, keyed by (birth, death)."""
        return {(birth, death): count for birth, death, count in self.bars}

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Widths d_0, ..., d_L: the number of bars that contain each layer."""
        widths = [0] * (self.depth + 1)
        for birth, death, count in self.bars:
            for layer in range(birth, death + 1):
                widths[layer] += count
        return tuple(widths)

    @property
    def rank(self) -> int:
        """Rank of the product W, the multiplicity of the bar [0, L]."""
        return self.multiplicities.get((0, self.depth), 0)

    @property
    def n_parameters(self) -> int:
        """Number of entries of all weight matrices."""
        return sum(a * b for a, b in zip(self.widths, self.widths[1:], strict=False))

    @property
    def orbit_codimension(self) -> int:
        r"""Codimension in parameter space of all networks with the same ranks.

        .. math:: \sum_{a < c \le b+1 \le e} \omega_{[a,b]}\,\omega_{[c,e]}
        """
        return sum(
            m * n for a, b, m in self.bars for c, e, n in self.bars if extends((a, b), (c, e))
        )

    @property
    def orbit_dimension(self) -> int:
        """Dimension of all networks with the same ranks: one orbit of the GL of every layer."""
        return self.n_parameters - self.orbit_codimension

    @property
    def codimension(self) -> int:
        """Codimension in parameter space of the stratum: same ranks and same product."""
        # The matrices of rank r have dimension r (d_0 + d_L - r).
        r = self.rank
        return self.orbit_codimension + r * (self.widths[0] + self.widths[-1] - r)

    @property
    def dimension(self) -> int:
        r"""Dimension of the stratum, :math:`\dim \mathrm{orbit} - r(d_0 + d_L - r)`."""
        return self.n_parameters - self.codimension

    @property
    def is_smooth(self) -> bool:
        """Whether the fiber is a manifold near the points of this stratum.

        It is one where the rank of the differential of the product map equals the local
        codimension of the fiber; elsewhere the rank is smaller.
        """
        from skgeo.fiber._dimensions import differential_rank
        from skgeo.fiber._local import local_codimension

        return differential_rank(self) == local_codimension(self)

    @property
    def is_maximal(self) -> bool:
        """Whether the stratum is open in the fiber: its codimension is the rank of dmu.

        A maximal stratum is smooth; a smooth stratum need not be maximal.
        """
        from skgeo.fiber._dimensions import differential_rank

        return self.codimension == differential_rank(self)

    @property
    def is_closed(self) -> bool:
        """Whether the stratum is the closed one of its fiber, in the closure of all others."""
        ends = (0, self.depth)
        return all(birth == death or (birth, death) == ends for birth, death, _ in self.bars)

    def copies(self) -> tuple[BarCopy, ...]:
        """Every bar as often as it occurs.

        Returns
        -------
        tuple of (birth, death, number)
            In the order of ``bars``; equal bars are numbered from 0.
        """
        return tuple((b, e, copy) for b, e, count in self.bars for copy in range(count))

    def rank_list(self) -> np.ndarray:
        """Ranks of all partial products.

        Returns
        -------
        ndarray of int64, shape (L + 1, L + 1)
            Entry (j, i) is the rank of W_j ... W_{i+1} for j > i and the width d_i for j = i;
            zero above the diagonal.
        """
        ranks = np.zeros((self.depth + 1, self.depth + 1), dtype=np.int64)
        for birth, death, count in self.bars:
            for end in range(birth, death + 1):
                ranks[end, birth : end + 1] += count
        return ranks

    def transpose(self) -> Barcode:
        """Barcode of the transposed network.

        Returns
        -------
        Barcode
            Each bar [i, j] becomes [L - j, L - i].
        """
        top = self.depth
        return Barcode._of(top, {(top - e, top - b): count for b, e, count in self.bars})


def _canonical(counts: Mapping[Bar, int]) -> tuple[tuple[int, int, int], ...]:
    return tuple(sorted((b, e, count) for (b, e), count in counts.items() if count))


def barcode_from_rank_list(ranks: Sequence[Sequence[int]] | np.ndarray) -> Barcode:
    """Barcode with a given rank list.

    The inverse of :meth:`Barcode.rank_list`.

    Parameters
    ----------
    ranks : array of int, shape (L + 1, L + 1)
        Entry (j, i) is the rank of W_j ... W_{i+1} for j > i and the width d_i for j = i. Entries
        above the diagonal are ignored.

    Returns
    -------
    Barcode

    Raises
    ------
    SkgeoError
        If the array is not square or not of integers, or if no network has these ranks: some
        multiplicity would be negative.

    Examples
    --------
    >>> barcode_from_rank_list([[1, 0, 0], [1, 1, 0], [0, 0, 1]]).bars
    ((0, 1, 1), (2, 2, 1))
    """
    table = np.asarray(ranks)
    if table.ndim != 2 or table.shape[0] != table.shape[1] or table.shape[0] < 2:
        raise SkgeoError(
            "A rank list is a square array of side L + 1 with L >= 1; got an array of shape "
            f"{table.shape}."
        )
    if not np.issubdtype(table.dtype, np.integer):
        raise SkgeoError(f"A rank list holds integers; got an array of {table.dtype}.")
    depth = table.shape[0] - 1

    def rank(j: int, i: int) -> int:
        return int(table[j, i]) if 0 <= i and j <= depth else 0

    counts: dict[Bar, int] = {}
    for i in range(depth + 1):
        for j in range(i, depth + 1):
            count = rank(j, i) - rank(j, i - 1) - rank(j + 1, i) + rank(j + 1, i - 1)
            if count < 0:
                raise SkgeoError(
                    f"No network has this rank list: omega[{j}, {i}], the number of bars "
                    f"[{i}, {j}], would be r[{j},{i}] - r[{j},{i - 1}] - r[{j + 1},{i}] + "
                    f"r[{j + 1},{i - 1}] = {count} (ranks outside 0..{depth} are 0). "
                    "Correct the ranks so that every omega is at least 0."
                )
            counts[i, j] = count
    return Barcode(depth, tuple((i, j, count) for (i, j), count in counts.items()))
