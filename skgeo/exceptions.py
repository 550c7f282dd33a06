"""Errors and warnings of the package, and the one way to emit a warning.

A message says what was given, what was expected, and what to do about it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = [
    "GeometryWarning",
    "NonSmoothWarning",
    "NotAModelError",
    "RankAmbiguityWarning",
    "SkgeoError",
]


class SkgeoError(ValueError):
    """A measurement that cannot be made from what was given."""


class NotAModelError(SkgeoError, TypeError):
    """An object that is none of the kinds of model that skgeo reads."""


class GeometryWarning(UserWarning):
    """A measurement that was made, with something its reader should know."""


class RankAmbiguityWarning(GeometryWarning):
    """A rank decided where the spectrum shows no clear gap."""


class NonSmoothWarning(GeometryWarning):
    """A derivative asked of a function that is not differentiable there."""


# Threads must not share one list: a context variable gives each its own, where
# `warnings.catch_warnings` would swap a table that all threads read.
_collected: ContextVar[list[tuple[type[Warning], str]] | None] = ContextVar(
    "skgeo_collected_warnings", default=None
)


def warn(message: str, category: type[Warning] = GeometryWarning, *, stacklevel: int = 3) -> None:
    """Emit a warning, or hand it to the collector that is active in this thread.

    Parameters
    ----------
    message : str
        What the reader of the number should know.
    category : type, default=GeometryWarning
        A subclass of :class:`GeometryWarning`.
    stacklevel : int, default=3
        As in :func:`warnings.warn`.
    """
    collected = _collected.get()
    if collected is None:
        warnings.warn(message, category, stacklevel=stacklevel)
    else:
        collected.append((category, message))


@contextmanager
def collect_warnings() -> Iterator[list[tuple[type[Warning], str]]]:
    """Collect the package's warnings of this thread instead of emitting them.

    A table of pairs uses it to report each kind of warning once, with the rows it concerns.

    Yields
    ------
    list of (category, message)
        Filled while the block runs.
    """
    collected: list[tuple[type[Warning], str]] = []
    token = _collected.set(collected)
    try:
        yield collected
    finally:
        _collected.reset(token)
