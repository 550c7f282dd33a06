"""What it costs to look before measuring: the watched first run, and the judgement of batches.

    python benchmarks/guard.py

Both happen once in a measurement. Whole batches are run again, in another order and in part, to see
that outputs are a fixed function of each sample; the first run is watched for what it writes to.
Their seconds are part of those of the other benchmarks.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from timing import seconds, show
from works import WORKS, Work

from skgeo import FisherRankEstimator, fisher_trace
from skgeo.network import BoundNetwork, bind

REPEAT = 20


def rows(model: torch.nn.Module, X: torch.Tensor, whole: tuple[str, object]):
    """Seconds of each part, and of a measurement that contains them."""

    def bound() -> BoundNetwork:
        return bind(model, X, likelihood="categorical")

    def copied() -> BoundNetwork:
        network = bound()
        _ = network.replica
        return network

    def watched() -> BoundNetwork:
        network = copied()
        network._judged = True  # leaves the batches out
        _ = network.first_run
        return network

    def judged() -> None:
        _ = copied().first_run

    copy, first, both = (seconds(work, REPEAT) for work in (copied, watched, judged))
    name, measurement = whole
    return [
        ("private copy of the module", copy),
        ("guard: watched first run", first - copy),
        ("guard: whole batches in other orders", both - first),
        (name, seconds(measurement, 3)),
    ]


def of_work(work: Work) -> None:
    model, X = work.build()
    name = "fisher_trace, guard included"
    trace = (name, lambda: fisher_trace(model, X, likelihood="categorical"))
    show(work.description, rows(model, X, trace), name)


def of_a_small_fit() -> None:
    torch.manual_seed(0)
    layers = torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3)
    model, X = torch.nn.Sequential(*layers).double(), torch.randn(12, 4).double()
    name = "FisherRankEstimator.fit, guard included"
    fit = (name, lambda: FisherRankEstimator(model, likelihood="categorical").fit(X))
    show("4-6-3, 12 samples", rows(model, X, fit), name)


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    of_a_small_fit()
    for name in ("trace", "diagonal", "gram-conv"):
        of_work(WORKS[name])


if __name__ == "__main__":
    main()
