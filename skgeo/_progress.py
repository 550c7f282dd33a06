"""Progress through a sequence, with the time left."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

_T = TypeVar("_T")


def shown(items: Iterable[_T], total: int, what: str) -> Iterator[_T]:
    """Iterate over items while a bar shows how many are done and the time left.

    A line per item in place of the bar if ``rich`` is not installed.
    """
    try:
        from rich.progress import track
    except ImportError:
        yield from _lines(items, total, what)
    else:
        yield from track(items, description=what, total=total)


def _lines(items: Iterable[_T], total: int, what: str) -> Iterator[_T]:
    start = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        spent = time.monotonic() - start
        left = spent / done * (total - done)
        print(f"{what}: {done} of {total} in {spent:.0f} s, {left:.0f} s left", flush=True)
