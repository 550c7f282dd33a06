"""Speed of the linear fiber, as ratios within one run and on one thread.

Run it alone: ``python benchmarks/fiber.py``. It prints a table, and exits with 1 if a bound is
missed.

- ranks of a chain of depth 8 and width 256: at most twice one float64 SVD a layer
- the time of the ranks is linear in depth: per layer, depth 16 takes what depth 4 takes
- the 20,994 strata of widths 8^9 and rank 6: within two seconds
- a fiber with too many strata is refused, with their number, in the time of a count
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
from scipy.linalg import svd
from threadpoolctl import threadpool_limits

from skgeo import SkgeoError
from skgeo.fiber import staircase, strata

WIDTH, DEPTH = 256, 8


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def interleaved(*functions: Callable[[], object], repeats: int = 7) -> list[float]:
    """Median seconds of each, measured in turns: a busy machine slows all of them alike."""
    for function in functions:
        function()
    runs = [[seconds(function) for function in functions] for _ in range(repeats)]
    return [statistics.median(column) for column in zip(*runs, strict=True)]


def chain(depth: int, rank: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Random matrices of one rank; at full rank nothing is ever dropped."""
    shape = (WIDTH, rank)
    return [rng.normal(size=shape) @ rng.normal(size=shape).T / WIDTH for _ in range(depth)]


def main() -> int:
    rng = np.random.default_rng(0)
    rows: list[tuple[str, float, float, str]] = []
    for rank in (WIDTH, WIDTH // 2):
        weights = chain(DEPTH, rank, rng)
        ranks, full, values = interleaved(
            lambda weights=weights: staircase(weights),
            lambda weights=weights: [svd(weight) for weight in weights],
            lambda weights=weights: [svd(weight, compute_uv=False) for weight in weights],
        )
        name = f"ranks, depth {DEPTH}, width {WIDTH}, matrices of rank {rank}"
        rows.append((f"{name}: over one SVD a layer", ranks / full, 2.0, f"{ranks:.3f} s"))
        rows.append((f"{name}: over singular values only", ranks / values, np.inf, ""))
    short, long = chain(4, WIDTH, rng), chain(16, WIDTH, rng)
    few, many = interleaved(lambda: staircase(short), lambda: staircase(long), repeats=5)
    rows.append(("ranks a layer, depth 16 over depth 4", many / few / 4, 1.5, f"{many:.3f} s"))
    found = []
    listing = seconds(lambda: found.extend(strata([8] * 9, 6)))
    rows.append((f"seconds for {len(found):,} strata of widths 8^9, rank 6", listing, 2.0, ""))
    messages = []

    def refused() -> None:
        try:
            strata([8] * 9, 0)
        except SkgeoError as error:
            messages.append(str(error))

    refusing = seconds(refused)
    rows.append(("seconds to refuse widths 8^9, rank 0", refusing, 2.0, messages[0][:90]))
    missed = 0
    for name, value, bound, note in rows:
        verdict = "" if value <= bound else "  MISSED"
        missed += value > bound
        limit = f"(at most {bound:g})" if np.isfinite(bound) else "(for comparison)"
        print(f"{name:<76}{value:7.2f}  {limit:<18}{note}{verdict}")
    return int(missed > 0 or len(found) != 20_994)


if __name__ == "__main__":
    with threadpool_limits(1):
        sys.exit(main())
