"""Errors and warnings of the package.

A message says what was given, what was expected, and what to do about it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = [
    "GeometryWarning",
    "NoGapWarning",
    "NonSmoothWarning",
    "NotAModelError",
    "RankAmbiguityWarning",
    "SkgeoError",
]

# Characters of another library's message; some of torch's fill a page.
_MOST_SAID = 300


class SkgeoError(ValueError):
    """Base class of all errors: the measurement is not possible with this input."""


class NotAModelError(SkgeoError, TypeError):
    """Error for an object that is not a model of a supported kind."""


class GeometryWarning(UserWarning):
    """Base class of all warnings: the result needs care in its interpretation."""


class RankAmbiguityWarning(GeometryWarning):
    """Warning for a rank that depends on the tolerance, or on the number of samples."""


class NoGapWarning(RankAmbiguityWarning):
    """Warning for a rank decided where the spectrum has no clear gap.

    This is the usual case for trained networks, so it is given once per process. Each rank comes
    with its gap and its path.
    """


class NonSmoothWarning(GeometryWarning):
    """Warning for a derivative at a point where the function is not differentiable."""


# Categories that were emitted.
_given: set[type[Warning]] = set()


def said(error: BaseException) -> str:
    """The message of an error of another library, in one line that ends with a full stop."""
    text = " ".join(str(error).split())
    if isinstance(error, KeyError):
        text = f"there is no {text}"
    if not text:
        text = type(error).__name__
    if len(text) > _MOST_SAID:
        text = text[:_MOST_SAID].rsplit(" ", 1)[0] + " ..."
    return text if text[-1] in ".!?" else f"{text}."


def raised(error: BaseException) -> str:
    """What code of the user raised: the kind of error, unless it is a plain one, and its text."""
    plain = type(error) in (RuntimeError, ValueError, NotImplementedError)
    return said(error) if plain else f"{type(error).__name__}: {said(error)}"


# A context variable gives each thread its own list; `warnings.catch_warnings` would change a table
# that all threads share.
_collected: ContextVar[list[tuple[type[Warning], str]] | None] = ContextVar(
    "skgeo_collected_warnings", default=None
)


def warn(message: str, category: type[Warning] = GeometryWarning, *, stacklevel: int = 3) -> None:
    """Emit a warning, or pass it to the collector that is active in this thread.

    A :class:`NoGapWarning` is emitted once per process.

    Parameters
    ----------
    message : str
        Text of the warning.
    category : type, default=GeometryWarning
        A subclass of :class:`GeometryWarning`.
    stacklevel : int, default=3
        As in :func:`warnings.warn`.
    """
    collected = _collected.get()
    if collected is not None:
        collected.append((category, message))
    elif not (issubclass(category, NoGapWarning) and category in _given):
        _given.add(category)
        warnings.warn(message, category, stacklevel=stacklevel)


@contextmanager
def collect_warnings() -> Iterator[list[tuple[type[Warning], str]]]:
    """Collect the package's warnings of this thread instead of emitting them.

    A table of pairs uses it to report each kind of warning once, with the rows concerned.

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
