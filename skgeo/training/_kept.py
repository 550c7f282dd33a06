"""Rows that are kept on disk by the content of what they are measured on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import joblib

from skgeo._version import __version__
from skgeo.base import cached_row
from skgeo.models import ResolvedModel
from skgeo.pairs import PairRow


def kept_row(
    memory: joblib.Memory | None,
    words: tuple[str, ...],
    contents: Callable[[], Sequence[tuple[str, list[str]]]],
    model: ResolvedModel,
    X: Any,
    y: Any,
    compute: Callable[[], PairRow],
    uncached: Callable[[list[str]], None] = lambda lost: None,
) -> PairRow:
    """The row of a model on data, computed unless it is kept.

    words: what is measured, and its options.
    contents: digests of models and functions, each with what of its code cannot be followed.
    uncached: told of the latter, for which the row is not kept.
    """
    if memory is None:
        return compute()
    found = contents()
    lost = [name for _, names in found for name in names]
    if lost:
        uncached(list(dict.fromkeys(lost)))
        return compute()
    data = None if X is None else model.read(X, y).fingerprint()
    key = (__version__, *words, *(digest for digest, _ in found), data)
    return cached_row(memory, key, compute)
