"""CPU seconds of a piece of work, and a table of them: for the benchmarks without peers."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any


def seconds(work: Callable[[], Any], repeat: int) -> float:
    """CPU seconds of the fastest call."""
    found = []
    for _ in range(repeat):
        gc.collect()
        begin = time.process_time()
        work()
        found.append(time.process_time() - begin)
    return min(found)


def show(title: str, rows: list[tuple[str, float]], base: str) -> None:
    """Print seconds, and their ratio to those of one row."""
    scale = dict(rows)[base]
    print(f"\n{title}")
    for name, value in rows:
        print(f"  {name:<52}{value:9.4f} s {value / scale:9.2f} x")
