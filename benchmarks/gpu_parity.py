"""Every measurement on the CPU and on a CUDA device: do they agree?

    python benchmarks/gpu_parity.py

Prints a table (measurement, precision, largest relative difference, seconds on the device) and
exits with 1 if a difference is above 1e-9 in float64 or 1e-4 in float32, or if a measurement
fails. Without a CUDA device it says so and exits with 0. Takes less than four minutes.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from helpers import architectures  # noqa: E402
from helpers.measurements import (  # noqa: E402
    ESTIMATORS,
    MEASUREMENTS,
    difference,
    network_for,
    quietly,
)

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
LIMIT = 230.0  # seconds


def works(dtype: torch.dtype):
    """Name, measurement, network and inputs of every row."""
    for name, measure in MEASUREMENTS.items():
        yield name, measure, *network_for(name, dtype)
    for architecture in architectures.NETWORKS:
        net, X = architectures.build(architecture, n=4, dtype=dtype)
        for name, measure in ESTIMATORS.items():
            yield f"{name}, {architecture}", measure, net, X


def main(device: str = "cuda") -> int:
    if device == "cuda" and not torch.cuda.is_available():
        print("There is no CUDA device here: nothing was compared.")
        return 0
    begin = time.monotonic()
    wrong = []
    print(f"{'measurement':<52}{'dtype':<10}{'difference':>12}{'seconds':>9}")
    for dtype, tolerance in TOLERANCE.items():
        precision = str(dtype).removeprefix("torch.")
        for name, measure, net, X in works(dtype):
            if time.monotonic() - begin > LIMIT:
                print(f"Stopped after {LIMIT:.0f} s; what follows was not compared.")
                return 1
            start = time.monotonic()
            try:
                found = quietly(lambda m=measure, n=net, x=X: m(n, x, device=device))
                seconds = time.monotonic() - start
                away = difference(found, quietly(lambda m=measure, n=net, x=X: m(n, x)))
                said = f"{away:>12.1e}{seconds:>9.2f}"
            except Exception as error:  # whatever fails is part of the table
                away, said = float("inf"), f"  {type(error).__name__}: {error}"
            mark = "" if away < tolerance else "  (!)"
            print(f"{name:<52}{precision:<10}{said}{mark}", flush=True)
            if mark:
                wrong.append(f"{name} in {precision}")
    print(f"\n{time.monotonic() - begin:.0f} s in all")
    if wrong:
        print(f"{len(wrong)} differ: {', '.join(wrong)}", file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
