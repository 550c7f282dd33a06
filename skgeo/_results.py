"""Results that print as one line."""

from __future__ import annotations

import dataclasses
from typing import Any


class Result:
    """Base class of result dataclasses, which are declared with ``repr=False``.

    A subclass defines the text in :meth:`_line`; by default it lists every field, with the shapes
    of arrays.
    """

    def _line(self) -> str:
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return ", ".join(f"{f.name}={shown(getattr(self, f.name))}" for f in fields if f.repr)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._line()})"


def shown(value: Any) -> str:
    """Short text of a value: shapes of arrays, four digits of numbers, lengths of sequences."""
    if value is None or isinstance(value, (bool, int, str)):
        return repr(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"{value:.4g}" if shape == () else f"<{' x '.join(map(str, shape))}>"
    if isinstance(value, (tuple, list, dict, set, frozenset)):
        short = repr(value)
        return short if len(short) <= 40 and "\n" not in short else f"<{len(value)}>"
    if isinstance(value, Result):
        return repr(value)
    return f"<{type(value).__name__}>"
