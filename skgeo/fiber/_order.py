"""The order of strata by closure, and the moves that climb it."""

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
    first : (a, b)
    second : (c, e)
    """

    first: Bar
    second: Bar

    def __post_init__(self) -> None:
        if not extends(self.first, self.second):
            raise SkgeoError(
                f"The bars {list(self.first)} and {list(self.second)} make no move: a move needs "
                "[a, b] and [c, e] with a < c <= b + 1 <= e."
            )

    def _line(self) -> str:
        return f"{self.kind} {list(self.first)} and {list(self.second)}"

    @property
    def kind(self) -> Literal["connecting", "swapping"]:
        """What the move does to its bars."""
        return "connecting" if self.second[0] == self.first[1] + 1 else "swapping"

    @property
    def layers(self) -> range:
        """Layers l whose matrix W_l realises the move by itself."""
        return range(max(1, self.second[0]), min(self.first[1] + 1, self.second[1]) + 1)


def up_moves(barcode: Barcode) -> list[Move]:
    """All moves up from a stratum that stay in its fiber.

    Joining a bar [0, b] to a bar [c, L] would change the product W, and is left out.

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
    """The barcode after a move.

    Parameters
    ----------
    barcode : Barcode
    move : Move

    Returns
    -------
    Barcode

    Raises
    ------
    SkgeoError
        If the barcode lacks one of the two bars, or the move leaves the fiber.
    """
    (a, b), (c, e) = move.first, move.second
    counts = dict(barcode.multiplicities)
    for bar in (move.first, move.second):
        if not counts.get(bar):
            raise SkgeoError(
                f"The move needs a bar {list(bar)}, which this stratum has not; its bars are "
                f"{[[birth, death] for birth, death, _ in barcode.bars]}."
            )
        counts[bar] -= 1
    if a == 0 and e == barcode.depth:
        raise SkgeoError(
            f"Moving {list(move.first)} and {list(move.second)} would raise the rank of the "
            "product W, and so leave the fiber; `up_moves` lists the moves that stay in it."
        )
    counts[a, e] = counts.get((a, e), 0) + 1
    if c <= b:
        counts[c, b] = counts.get((c, b), 0) + 1
    return Barcode._of(barcode.depth, counts)


def is_cover(barcode: Barcode, move: Move) -> bool:
    """Whether no stratum lies strictly between the two ends of a move.

    So it is when no bar [x, y] with a <= x <= c and b <= y <= e is present, except the corners
    [a, b], [c, e], [a, e] and [c, b].

    Parameters
    ----------
    barcode : Barcode
        Before the move.
    move : Move

    Returns
    -------
    bool
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
    """
    return [apply_move(barcode, move) for move in up_moves(barcode) if is_cover(barcode, move)]


def in_closure(lower: Barcode, upper: Barcode) -> bool:
    """Whether the stratum of one barcode lies in the closure of that of another, over the same W.

    It does exactly when no rank of the first exceeds that of the second.

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
    """
    if lower.widths != upper.widths or lower.rank != upper.rank:
        raise SkgeoError(
            "Only strata of one fiber can be compared; got widths "
            f"{lower.widths} with rank {lower.rank}, and {upper.widths} with rank {upper.rank}."
        )
    return bool((lower.rank_list() <= upper.rank_list()).all())
