"""One contestant at one work, in this process alone: seconds, memory and the answer.

`run.py` starts this file once for each pair, so that no contestant pays for another's imports, nor
profits from memory that another left. It writes `RESULT.json` and `RESULT.npy`.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import resource
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from outcomes import (
    FAILED,
    MEASURED,
    NOT_AVAILABLE,
    NOT_OFFERED,
    NotAvailableYet,
    NotOffered,
    in_words,
)
from works import WORKS

GIGABYTE = 1e9
SHORT = 1.0  # second


class PeakMemory:
    """The largest resident size inside the block, above the size at its beginning, in bytes."""

    def __enter__(self) -> PeakMemory:
        gc.collect()
        try:
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
            self._resettable = True
            self._before = self._status("VmRSS")
        except OSError:
            self._resettable = False
            self._before = self._maxrss()
        return self

    def __exit__(self, *_: object) -> None:
        after = self._status("VmHWM") if self._resettable else self._maxrss()
        self.bytes = max(after - self._before, 0)

    @staticmethod
    def _status(field: str) -> int:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024
        raise OSError(field)

    @staticmethod
    def _maxrss() -> int:
        size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return size if sys.platform == "darwin" else size * 1024


def limit_memory(gigabytes: float) -> None:
    """Make larger allocations fail instead of taking the machine's memory."""
    if sys.platform == "linux":
        size = int(gigabytes * GIGABYTE)
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))


def cpu_seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of all threads of this process during the call, and its result."""
    gc.collect()
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


def as_answer(quantity: str, result: Any) -> np.ndarray:
    """An array that can be compared: spectra descending."""
    array = result.detach().numpy() if isinstance(result, torch.Tensor) else np.asarray(result)
    array = np.atleast_1d(array)
    ordered = quantity.startswith("spectrum") or quantity == "top_eigenvalues"
    return np.sort(array)[::-1] if ordered else array


def measure(
    function: Callable[..., Any], work: Any, repeat: int, budget: float
) -> tuple[dict[str, Any], np.ndarray]:
    """Peak memory of a first full call, then the best time of several as the budget allows."""
    function(*work.tiny().build())
    model, X = work.build()
    with PeakMemory() as memory:
        first, result = cpu_seconds(lambda: function(model, X))
    answer = as_answer(work.quantity, result)
    del result
    calls = repeat if first * repeat <= budget else int(budget // first)
    if first * repeat < SHORT:  # the best of a few short calls is mostly noise
        calls = min(10 * repeat, int(SHORT / first))
    times = [cpu_seconds(lambda: function(model, X))[0] for _ in range(calls)]
    record = {
        "outcome": MEASURED,
        "seconds": min(times, default=first),
        "repeats": len(times),
        "peak_bytes": memory.bytes,
    }
    return record, answer


def arithmetic_rates() -> dict[str, float]:
    """What this machine's dense arithmetic does with one thread: the yardstick of the table."""
    rates = {}
    for dtype, name in ((torch.float32, "gemm float32"), (torch.float64, "gemm float64")):
        a = torch.randn(2048, 2048, dtype=dtype)
        a @ a
        seconds = min(cpu_seconds(lambda a=a: a @ a)[0] for _ in range(3))
        rates[f"{name}, GF/s"] = 2 * 2048**3 / seconds / 1e9
    a = torch.randn(2700, 2700, dtype=torch.float64)
    a = a + a.T
    torch.linalg.eigvalsh(a[:200, :200])
    rates["eigvalsh float64 n=2,700, s"] = min(
        cpu_seconds(lambda: torch.linalg.eigvalsh(a))[0] for _ in range(2)
    )
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--result", type=Path, required=True)
    parser.add_argument("--rates", action="store_true")
    parser.add_argument("--work", choices=list(WORKS))
    parser.add_argument("--contestant")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--budget", type=float, default=30.0)
    parser.add_argument("--memory", type=float, default=12.0)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    limit_memory(arguments.memory)
    answer = None
    record: dict[str, Any]
    if arguments.rates:
        record = arithmetic_rates()
    else:
        work = WORKS[arguments.work]
        if arguments.quick:
            work = work.smaller()
        # Several peers build constants in the default precision, whatever that of the network.
        torch.set_default_dtype(work.dtype)
        try:
            contestant = importlib.import_module(f"contestants.{arguments.contestant}")
            function = getattr(contestant, work.quantity, None)
            if function is None:
                raise NotOffered(contestant.NOT_OFFERED[work.quantity])
            record, answer = measure(function, work, arguments.repeat, arguments.budget)
            record["estimate"] = work.quantity in getattr(contestant, "ESTIMATES", ())
        except NotOffered as error:
            record = {"outcome": NOT_OFFERED, "reason": str(error)}
        except NotAvailableYet as error:
            record = {"outcome": NOT_AVAILABLE, "reason": str(error)}
        except Exception as error:  # whatever stops a peer is part of the table
            record = {"outcome": FAILED, "reason": in_words(error, arguments.memory)}
    arguments.result.with_suffix(".json").write_text(json.dumps(record))
    if answer is not None:
        np.save(arguments.result.with_suffix(".npy"), answer)


if __name__ == "__main__":
    main()
