"""Tolerance up to which weights are treated as equal."""

from __future__ import annotations

from typing import Any

from skgeo._arguments import check_number
from skgeo.exceptions import warn

# A tolerance above this may merge units that are different.
_COARSE = 1e-3


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
                f"The weights have half precision, so units closer than {found:.1g} are treated as "
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
