"""The order of strata by closure, and the moves up in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from skgeo._results import Result
from skgeo.exceptions import SkgeoError
from skgeo.fiber._barcode import Bar, Barcode, extends


@dataclass(frozen=True, repr=False)
class Move(Result):
    """A step up between strata of one fiber: bars [a, b], [c, e] become [a, e], [c, b].

    The bars satisfy a < c <= b + 1 <= e. With c = b + 1 the bar [c, b] is empty: the move
    *connects* two bars into one. Otherwise it *swaps* their ends.

    Attributes
    ----------
    first : (int, int)
        The bar [a, b].
    second : (int, int)
        The bar [c, e].
    """

    first: Bar
    second: Bar

    def __post_init__(self) -> None:
        if not extends(self.first, self.second):
            raise SkgeoError(
                f"The bars {list(self.first)} and {list(self.second)} do not make a move: a move "
                "needs [a, b] and [c, e] with a < c <= b + 1 <= e."
            )

    def _line(self) -> str:
        return f"{self.kind} {list(self.first)} and {list(self.second)}"

    @property
    def kind(self) -> Literal["connecting", "swapping"]:
        """Whether the move joins its bars ("connecting") or swaps their ends ("swapping")."""
        return "connecting" if self.second[0] == self.first[1] + 1 else "swapping"

    @property
    def layers(self) -> range:
        """Layers l whose matrix W_l realises the move by itself."""
        return range(max(1, self.second[0]), min(self.first[1] + 1, self.second[1]) + 1)


def up_moves(barcode: Barcode) -> list[Move]:
    """All moves up from a stratum that stay in its fiber.

    Moves of a bar [0, b] and a bar [c, L] are left out, as they would change the product W.

    Parameters
    ----------
    barcode : Barcode

    Returns
    -------
    list of Move
        Empty exactly for maximal strata, those open in the fiber.

    Examples
    --------
    >>> for move in up_moves(Barcode(2, [(0, 0, 1), (1, 1, 1), (2, 2, 1)])):
    ...     print(move.first, move.second, move.kind)
    (0, 0) (1, 1) connecting
    (1, 1) (2, 2) connecting
    """
    depth = barcode.depth
    bars = [(birth, death) for birth, death, _ in barcode.bars]
    return [
        Move(first, second)
        for first in bars
        for second in bars
        if extends(first, second) and not (first[0] == 0 and second[1] == depth)
    ]


def apply_move(barcode: Barcode, move: Move) -> Barcode:
    """Barcode after a move.

    Parameters
    ----------
    barcode : Barcode
    move : Move
        One of ``up_moves(barcode)``.

    Returns
    -------
    Barcode

    Raises
    ------
    SkgeoError
        If the barcode lacks one of the two bars, or the move leaves the fiber.

    Examples
    --------
    >>> apply_move(Barcode(2, [(0, 0, 1), (1, 1, 1), (2, 2, 1)]), Move((0, 0), (1, 1)))
    Barcode(2, [(0, 1, 1), (2, 2, 1)])
    """
    (a, b), (c, e) = move.first, move.second
    counts = dict(barcode.multiplicities)
    for bar in (move.first, move.second):
        if not counts.get(bar):
            raise SkgeoError(
                f"The move needs a bar {list(bar)}, which this stratum lacks; its bars are "
                f"{[[birth, death] for birth, death, _ in barcode.bars]}."
            )
        counts[bar] -= 1
    if a == 0 and e == barcode.depth:
        raise SkgeoError(
            f"Moving {list(move.first)} and {list(move.second)} would raise the rank of the "
            "product W and leave the fiber; `up_moves` lists the moves that stay in it."
        )
    counts[a, e] = counts.get((a, e), 0) + 1
    if c <= b:
        counts[c, b] = counts.get((c, b), 0) + 1
    return Barcode._of(barcode.depth, counts)


def is_cover(barcode: Barcode, move: Move) -> bool:
    """Whether no stratum lies strictly between the two ends of a move.

    This holds exactly when no bar [x, y] with a <= x <= c and b <= y <= e is present, except the
    corners [a, b], [c, e], [a, e] and [c, b].

    Parameters
    ----------
    barcode : Barcode
        Before the move.
    move : Move
        One of ``up_moves(barcode)``.

    Returns
    -------
    bool

    Examples
    --------
    A move of [0, 1] and [2, 3] passes over strata in which the bar [1, 2] has moved:

    >>> code = Barcode(4, [(0, 1, 1), (1, 2, 1), (2, 3, 1), (4, 4, 1)])
    >>> is_cover(code, Move((0, 1), (1, 2))), is_cover(code, Move((0, 1), (2, 3)))
    (True, False)
    """
    (a, b), (c, e) = move.first, move.second
    return all(
        (x in (a, c) and y in (b, e)) or not (a <= x <= c and b <= y <= e)
        for x, y, _ in barcode.bars
    )


def up_covers(barcode: Barcode) -> list[Barcode]:
    """Strata directly above a stratum in its fiber.

    Parameters
    ----------
    barcode : Barcode

    Returns
    -------
    list of Barcode
        Empty exactly for maximal strata.

    See Also
    --------
    skgeo.fiber.hasse_diagram : The covers of all strata of a fiber.

    Examples
    --------
    >>> up_covers(Barcode(2, [(0, 0, 1), (1, 1, 1), (2, 2, 1)]))
    [Barcode(2, [(0, 1, 1), (2, 2, 1)]), Barcode(2, [(0, 0, 1), (1, 2, 1)])]
    """
    return [apply_move(barcode, move) for move in up_moves(barcode) if is_cover(barcode, move)]


def in_closure(lower: Barcode, upper: Barcode) -> bool:
    """Whether a stratum lies in the closure of another one of the same fiber.

    It does exactly when none of its ranks exceeds that of the other.

    Parameters
    ----------
    lower, upper : Barcode
        Of the same widths and the same rank.

    Returns
    -------
    bool
        True for equal barcodes.

    Raises
    ------
    SkgeoError
        If the two are strata of different fibers.

    Examples
    --------
    The crossing of the two lines w_2 w_1 = 0 is in the closure of either, and neither line in that
    of the other:

    >>> crossing = Barcode(2, [(0, 0, 1), (1, 1, 1), (2, 2, 1)])
    >>> first, second = up_covers(crossing)
    >>> in_closure(crossing, first), in_closure(crossing, second), in_closure(first, second)
    (True, True, False)
    """
    if lower.widths != upper.widths or lower.rank != upper.rank:
        raise SkgeoError(
            "Only strata of one fiber can be compared. Got widths "
            f"{lower.widths} with rank {lower.rank}, and {upper.widths} with rank {upper.rank}."
        )
    return bool((lower.rank_list() <= upper.rank_list()).all())
