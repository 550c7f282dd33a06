"""Tolerance up to which weights are treated as equal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from skgeo._arguments import check_number
from skgeo.exceptions import warn

# A tolerance above this may merge units that are different.
_COARSE = 1e-3
# The tolerance at which such units are told from copies, and most units that a warning names.
FINE = 1e-10
_MOST_NAMED = 12


def resolve_tolerance(tol: Any, precision: float) -> float:
    """Relative tolerance for weights of a given machine epsilon.

    precision: machine epsilon of the dtype of the weights. ``"auto"`` is 1e-10 for float64 and 16
        machine epsilons, 2e-6, for float32.
    Raises SkgeoError if `tol` is not a positive number below 1.

    >>> resolve_tolerance("auto", 2.220446049250313e-16)
    1e-10
    """
    if isinstance(tol, str) and tol == "auto":
        found = max(1e-10, 16 * precision)
        if found > _COARSE:
            warn(
                f"The weights have half precision, so units closer than {found:.2g} are treated as "
                "equal. Set tol to change this."
            )
        return found
    given: float = check_number("tol", tol, above=0, below=1, also="'auto'")
    if given < precision:
        warn(
            f"The tolerance tol={given:.1e} is below the precision of the weights, "
            f"{precision:.1e}, so copies "
            "that differ by rounding only are not recognised. Choose a larger tol."
        )
    return given


def is_coarse(asked: Any, tol: float) -> bool:
    """Whether "auto" gave a tolerance at which units with other weights may count as equal."""
    return isinstance(asked, str) and tol > _COARSE


def warn_merged(names: Sequence[Any], tol: float) -> None:
    """Warn of the units that count as equal or without effect up to a coarse tolerance only."""
    if not names:
        return
    shown = ", ".join(map(str, names[:_MOST_NAMED]))
    more = len(names) - _MOST_NAMED
    warn(
        f"At the tolerance {tol:.2g} for half precision, and not at {FINE:.0e}, these units are "
        f"equal to others or have no effect: {shown}{f' and {more} more' if more > 0 else ''}. The "
        "answer is that of a network near the one given. Set tol to tell them apart."
    )
