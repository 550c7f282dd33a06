"""How the cost of a Fisher measurement grows with samples, parameters and outputs.

    python benchmarks/growth.py

CPU seconds of one thread, best of three, written to docs/growth.csv with the exponent between
neighbouring rows. Run it on a quiet machine.
"""

from __future__ import annotations

import csv
import math
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from skgeo import fisher_diagonal, fisher_rank, fisher_spectrum, fisher_trace

OUT = Path(__file__).parent.parent / "docs" / "growth.csv"
gram = partial(fisher_spectrum, solver="gram")
parameter = partial(fisher_spectrum, solver="parameter")
lanczos = partial(fisher_spectrum, solver="lanczos", n_components=5)
rank = partial(fisher_rank, solver="gram")

# What grows; the work; function; and (samples, hidden width, outputs) of each row.
Row = tuple[str, str, Callable[..., Any], list[tuple[int, int, int]]]
TABLE: list[Row] = [
    ("N", "gram, P = 50,550, K = 10", gram, [(n, 190, 10) for n in (50, 100, 200)]),
    ("N", "parameter, P = 1,482, K = 10", parameter, [(n, 16, 10) for n in (1000, 2000, 4000)]),
    ("N", "diagonal, P = 8,970, K = 10", fisher_diagonal, [(n, 64, 10) for n in (2000, 4000)]),
    ("N", "trace, P = 8,970, K = 10", fisher_trace, [(n, 64, 10) for n in (2000, 4000)]),
    ("P", "gram, N = 100, K = 10", gram, [(100, w, 10) for w in (64, 128, 256)]),
    ("P", "parameter, N = 2,000, K = 10", parameter, [(2000, w, 10) for w in (8, 16, 24)]),
    ("P", "lanczos, 5 pairs, N = 1,000, K = 10", lanczos, [(1000, w, 10) for w in (64, 128, 256)]),
    ("K", "gram, N = 100, width 64", gram, [(100, 64, k) for k in (5, 10, 20)]),
    ("K", "rank alone, gram, N = 100, width 64", rank, [(100, 64, k) for k in (5, 10, 20)]),
    ("K", "parameter, N = 2,000, width 16", parameter, [(2000, 16, k) for k in (5, 10, 20)]),
]


def network(width: int, outputs: int) -> nn.Module:
    torch.manual_seed(0)
    hidden = (nn.Linear(64, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh())
    return nn.Sequential(*hidden, nn.Linear(width, outputs)).double()


def seconds(work: Callable[[], Any]) -> float:
    work()
    times = []
    for _ in range(3):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def measured() -> Iterator[list[str]]:
    for grows, what, function, sizes in TABLE:
        last: tuple[int, float] | None = None
        for samples, width, outputs in sizes:
            net = network(width, outputs)
            generator = torch.Generator().manual_seed(0)
            X = torch.rand(samples, 64, generator=generator, dtype=torch.float64)
            spent = seconds(partial(function, net, X, likelihood="categorical"))
            count = sum(p.numel() for p in net.parameters())
            value = {"N": samples, "P": count, "K": outputs}[grows]
            exponent = ""
            if last is not None:
                exponent = f"{math.log(spent / last[1]) / math.log(value / last[0]):.1f}"
            yield [grows, what, f"{value:,}", f"{spent:.3f}", exponent]
            last = value, spent


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # random networks have spectra without a gap
    with OUT.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["grows", "work", "value", "CPU seconds", "exponent"])
        for row in measured():
            writer.writerow(row)
            print("  ".join(row), flush=True)


if __name__ == "__main__":
    main()
