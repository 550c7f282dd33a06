"""At which steps of a training a network is recorded."""

from __future__ import annotations

from collections.abc import Callable, Collection
from numbers import Integral
from typing import Any

from skgeo.exceptions import SkgeoError

Schedule = Callable[[int], bool]


def schedule(steps: Any) -> Schedule:
    """Read a schedule.

    steps: "log" for 0, 1, 2, 5, 10, 20, 50, ...; a positive integer k for every k-th step from 0;
        a collection of steps; or a function of the step.

    >>> [step for step in range(120) if schedule("log")(step)]
    [0, 1, 2, 5, 10, 20, 50, 100]
    """
    if isinstance(steps, str) and steps == "log":
        return _logarithmic
    if _is_step(steps) and steps > 0:
        every = int(steps)
        return lambda step: step % every == 0
    if callable(steps):
        return lambda step: bool(steps(step))
    if isinstance(steps, (Collection, range)) and not isinstance(steps, (str, bytes)):
        chosen = list(steps)
        if chosen and all(_is_step(step) for step in chosen):
            return frozenset(map(int, chosen)).__contains__
    raise SkgeoError(
        f"Got steps={steps!r}; expected 'log' (0, 1, 2, 5, 10, 20, 50, ...), a positive "
        f"integer k for "
        "every k-th step, a list of steps, none negative, or a function of the step."
    )


def check_step(step: Any) -> int:
    """A step as an int; raises SkgeoError unless it is an integer of at least 0."""
    if not _is_step(step):
        raise SkgeoError(
            f"Got step={step!r}; expected a number of steps, an integer of at least 0."
        )
    return int(step)


def _is_step(step: Any) -> bool:
    return isinstance(step, Integral) and not isinstance(step, bool) and int(step) >= 0


def _logarithmic(step: int) -> bool:
    digits = str(step)
    return step == 0 or (digits[0] in "125" and not digits[1:].strip("0"))
