"""Canonical forms of wide and deep networks beside sorting, and beside linear assignment.

    python benchmarks/symmetry.py

CPU seconds in one thread, the best of some calls; read the ratios, which are of one run on one
machine. "A sort of the rows" is what ordering the hidden units by one number each takes: the
projection of the d rows (w, b), of n + 1 numbers in float64, on a vector, the sort of the d
projections, and the rows gathered in that order.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time

for setting in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[setting] = "1"

import numpy as np  # noqa: E402  (the settings above are read when it is imported)
import torch  # noqa: E402
from scipy.optimize import linear_sum_assignment  # noqa: E402
from timing import seconds  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from skgeo.symmetry import apply_symmetry, canonical_form, equivalent  # noqa: E402

INPUTS, OUTPUTS = 64, 10
WIDTHS = (1_000, 10_000, 100_000, 1_000_000)
ASSIGNED = (500, 1_000, 2_000, 4_000)
DEEP = (784, 4096, 4096, 4096, 10)


def network(*widths: int, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1]).to(dtype)


def disguised(net: nn.Sequential, seed: int = 0) -> nn.Module:
    """A copy with all hidden units permuted, and scaled by 1e-3 to 1e3."""
    generator = torch.Generator().manual_seed(seed)
    widths = [len(layer.weight) for layer in list(net)[:-1:2]]
    return apply_symmetry(
        net,
        permutation=[torch.randperm(width, generator=generator) for width in widths],
        scales=[
            10 ** (6 * torch.rand(width, generator=generator, dtype=torch.float64) - 3)
            for width in widths
        ],
    )


def rows(net: nn.Sequential) -> Tensor:
    return torch.cat([net[0].weight.detach(), net[0].bias.detach()[:, None]], dim=1)


def exponent(sizes: list[int], times: list[float]) -> float:
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])


def wide(repeat: int) -> None:
    print(f"\nOne hidden layer of d ReLU units, n={INPUTS}, k={OUTPUTS}, float64")
    print("          d   canonical form   ten sorts of the rows    ratio   equivalent(copy)")
    forms, sorts = [], []
    for width in WIDTHS:
        calls = repeat if width < 1_000_000 else 1
        net = network(INPUTS, width, OUTPUTS)
        probe = torch.randn(INPUTS + 1, dtype=torch.float64)

        def sort(net: nn.Sequential = net, probe: Tensor = probe) -> None:
            matrix = rows(net)
            for _ in range(10):
                matrix[torch.argsort(matrix @ probe)]

        forms.append(seconds(lambda net=net: canonical_form(net), calls))
        sorts.append(seconds(sort, calls))
        line = (
            f"  {width:>9,}{forms[-1]:>14.3f} s{sorts[-1]:>21.3f} s{forms[-1] / sorts[-1]:>10.2f}"
        )
        if width <= 100_000:
            copy = disguised(net)
            begin = time.process_time()
            assert equivalent(net, copy).verdict == "equivalent"
            line += f"{time.process_time() - begin:>17.2f} s"
        print(line)
    print(
        f"  grows as d^{exponent(list(WIDTHS), forms):.2f}, "
        f"from 1e5 to 1e6 as d^{exponent(list(WIDTHS[2:]), forms[2:]):.2f}; "
        f"the sorts as d^{exponent(list(WIDTHS), sorts):.2f}"
    )


def assignment() -> None:
    print("\nUnits matched by linear assignment of raw weights (w, b, q)")
    print("          d      assignment   canonical form   found under scales of 1e-3 to 1e3")
    times = []
    for width in ASSIGNED:
        net = network(INPUTS, width, OUTPUTS)
        copy = disguised(net)
        ours, theirs = (
            torch.cat([rows(some), some[2].weight.detach().T], dim=1)  # type: ignore[index]
            for some in (net, copy)
        )
        begin = time.process_time()
        _, found = linear_sum_assignment((theirs @ ours.T).numpy(), maximize=True)
        times.append(time.process_time() - begin)
        form = seconds(lambda net=net: canonical_form(net), 3)
        planted = equivalent(net, copy).permutation
        assert planted is not None
        share = float((torch.from_numpy(found) == planted[0]).double().mean())
        print(f"  {width:>9,}{times[-1]:>14.3f} s{form:>14.4f} s{share:>25.0%}")
    print(f"  assignment grows as d^{exponent(list(ASSIGNED), times):.2f}")


def deep(repeat: int) -> None:
    net = network(*DEEP, dtype=torch.float32)
    size = sum(parameter.numel() for parameter in net.parameters())
    copy = disguised(net)
    print(f"\nA ReLU network of {size / 1e6:.0f} million parameters, {'-'.join(map(str, DEEP))}")
    print(f"  canonical form{seconds(lambda: canonical_form(net), min(repeat, 2)):>26.2f} s")
    begin = time.process_time()
    report = equivalent(net, copy)
    print(f"  equivalent to a disguised copy{time.process_time() - begin:>10.2f} s: {report}")
    with torch.no_grad():
        copy[2].weight[5] *= 1.001  # type: ignore[index]
    begin = time.process_time()
    report = equivalent(net, copy)
    print(f"  one of its units changed{time.process_time() - begin:>16.2f} s: {report.verdict}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=3, help="calls, of which the best counts")
    repeat = parser.parse_args().repeat
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread")
    wide(repeat)
    assignment()
    deep(repeat)


if __name__ == "__main__":
    main()
