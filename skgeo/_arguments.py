"""Validation of arguments, with uniform error messages."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

from skgeo.exceptions import SkgeoError


def described(value: Any) -> str:
    """What was given, for a message: its kind, and its shape if it has one.

    >>> described(None), described([1, 2]), described(3)
    ('None', 'a list of 2', 'an object of type int')
    """
    if value is None:
        return "None"
    shape = getattr(value, "shape", None)
    kind = type(value).__name__
    if isinstance(shape, tuple):
        return f"{kind} of shape {tuple(shape)}"
    if isinstance(value, (list, tuple, dict, set)):
        return f"a {kind} of {len(value)}"
    return f"an object of type {kind}"


def check_option(name: str, value: Any, options: Iterable[Any]) -> None:
    """Raise SkgeoError unless the value is one of the options.

    >>> check_option("side", "left", ("left", "right", None))
    """
    known = list(options)
    # Types are compared as well: arrays compare by entry, and 1 == True.
    if not any(type(value) is type(option) and value == option for option in known):
        shown = [repr(option) for option in known]
        raise SkgeoError(f"Got {name}={value!r}; expected {', '.join(shown[:-1])} or {shown[-1]}.")


def check_integer(
    name: str, value: Any, *, least: int = 1, most: float = math.inf, also: str = ""
) -> int:
    """The value as an int within bounds.

    also: what else the caller accepts, for the message.

    >>> check_integer("depth", 3)
    3
    """
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if whole and least <= int(value) <= most:
        return int(value)
    kind = {0: "a non-negative integer", 1: "a positive integer"}.get(least)
    if kind is None or math.isfinite(most):
        kind = f"an integer of at least {least}"
    if math.isfinite(most):
        kind = f"an integer from {least} to {int(most)}"
    raise SkgeoError(f"Got {name}={value!r}; expected {kind}{also and f' or {also}'}.")


def check_tolerance(tol: Any, name: str = "tol") -> None:
    """Raise SkgeoError unless a relative tolerance is "auto" or a number in [0, 1).

    >>> check_tolerance("auto")
    """
    if not (isinstance(tol, str) and tol == "auto"):
        if isinstance(tol, Real) and not isinstance(tol, bool) and 0.0 <= float(tol) < 1.0:
            return
        raise SkgeoError(
            f"Got {name}={tol!r}; expected 'auto' or a number in [0, 1), relative to the largest "
            "eigenvalue."
        )


def check_number(
    name: str,
    value: Any,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    below: float = math.inf,
    also: str = "",
) -> float:
    """The value as a finite float, greater than `above`, at least `least`, less than `below`.

    also: what else the caller accepts, for the message.

    >>> check_number("scale", 2, above=0)
    2.0
    """
    real = isinstance(value, Real) and not isinstance(value, bool)
    number = float(value) if real else math.nan
    if math.isfinite(number) and number > above and number >= least and number < below:
        return number
    bounds = []
    if math.isfinite(above):
        bounds.append(f"greater than {above:g}")
    if math.isfinite(least):
        bounds.append(f"of at least {least:g}")
    if math.isfinite(below):
        bounds.append(f"less than {below:g}")
    kind = " ".join(["a finite number", " and ".join(bounds)]).strip()
    raise SkgeoError(f"Got {name}={value!r}; expected {kind}{also and f' or {also}'}.")
