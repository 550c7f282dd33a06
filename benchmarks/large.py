"""Large networks: products, traces and their errors, in CPU seconds and peak memory.

    python benchmarks/large.py            # all, each in a process of its own
    python benchmarks/large.py gpt2

One thread. curvlinops is measured beside where it is installed (`benchmarks/requirements.txt`); its
GGN of a mean cross-entropy is the Fisher matrix of the logits. Exact values stand beside estimates
where a formula or an affordable computation gives them.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import large_networks
from works import mlp

from skgeo.fisher import FisherOperator, fisher_spectrum, fisher_trace

REPEAT = 3


def peak() -> float:
    """Largest resident size so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def timed(what: str, work: Callable[[], Any], repeat: int = 1) -> Any:
    """Run, and print CPU seconds of the fastest call and the peak memory after it."""
    seconds, found = [], None
    for _ in range(repeat):
        begin = time.process_time()
        found = work()
        seconds.append(time.process_time() - begin)
    print(f"  {what:<58}{min(seconds):9.2f} s   peak {peak():5.2f} GiB", flush=True)
    return found


def ggn(model: nn.Module, X: Any, labels: Tensor) -> Any:
    """The operator of curvlinops, or None where it is not installed."""
    try:
        from curvlinops import GGNLinearOperator
    except ImportError:
        print("  curvlinops is not installed")
        return None
    return GGNLinearOperator(
        model,
        nn.CrossEntropyLoss(),
        list(model.parameters()),
        [(X, labels)],
        check_deterministic=False,
    )


def beside(G: FisherOperator, peer: Any) -> None:
    """A product of each, and the largest difference."""
    v = torch.randn(G.shape[0], generator=torch.Generator().manual_seed(0)).to(G.dtype)
    mine = timed("product", lambda: G @ v, REPEAT)
    if peer is not None:
        theirs = timed("product of curvlinops", lambda: peer @ v, REPEAT)
        off = float((mine - theirs).abs().max() / mine.abs().max())
        print(f"  largest difference of the products: {off:.1e} of the largest entry")


def digits() -> None:
    from sklearn.datasets import load_digits

    torch.manual_seed(0)
    X = torch.from_numpy(load_digits().data[:1000] / 16).float()
    model = mlp(64)
    G = FisherOperator(model, X, likelihood="categorical")
    beside(G, ggn(model, X, torch.zeros(len(X), dtype=torch.long)))
    exact = timed("exact trace", lambda: fisher_trace(model, X, likelihood="categorical"))
    print(f"  trace: {timed('trace, 32 probes', G.trace)}, exact {exact:.6g}")


def minilm() -> None:
    model, inputs = large_networks.minilm()
    from skgeo import WrappedModel

    wrapped = WrappedModel(model, large_networks.pooled)
    G = FisherOperator(wrapped, inputs, likelihood="gaussian")
    v = torch.randn(G.shape[0], generator=torch.Generator().manual_seed(0))
    timed("product", lambda: G @ v, REPEAT)
    found = timed("trace, 8 probes", lambda: G.trace(8))
    exact = timed(
        "exact trace, all outputs", lambda: fisher_trace(wrapped, inputs, likelihood="gaussian")
    )
    print(f"  trace {found}: {100 * found.standard_error / found.value:.2f} %, exact {exact:.6g}")
    table = G.layer_traces(8).groupby("layer")["trace"].sum().nlargest(5)
    print("  " + ", ".join(f"{layer} {value:.3g}" for layer, value in table.items()))


def resnet18() -> None:
    model, X = large_networks.resnet18()
    G = FisherOperator(model, X, likelihood="categorical")
    found = timed("trace, 16 probes", lambda: G.trace(16))
    print(f"  trace {found}: {100 * found.standard_error / found.value:.2f} %")
    table = G.layer_traces(16).groupby("layer")["trace"].sum().nlargest(5)
    print("  " + ", ".join(f"{layer} {value:.3g}" for layer, value in table.items()))
    beside(G, ggn(model, X, torch.zeros(len(X), dtype=torch.long)))


def bert() -> None:
    model, inputs = large_networks.bert()
    spectrum = timed(
        "leading 5 eigenvalues",
        lambda: fisher_spectrum(model, inputs, likelihood="categorical", solver="gram"),
    )
    print(f"  {[round(float(value), 4) for value in spectrum.eigenvalues[:5]]}")
    G = FisherOperator(model, inputs, likelihood="categorical")
    print(f"  trace {timed('trace, 8 probes', lambda: G.trace(8))}, exact {spectrum.trace:.6g}")


def gpt2() -> None:
    model, tokens = large_networks.gpt2()
    print(f"  loaded: {peak():.2f} GiB")
    G = FisherOperator(model, tokens, likelihood="categorical", batch_size=1)
    found = timed("trace, 8 probes", lambda: G.trace(8))
    print(f"  trace {found}: {100 * found.standard_error / found.value:.2f} %")
    table = G.layer_traces(8).set_index("parameter")
    for name, exact in last_norm(model, tokens).items():
        row = table.loc[name]
        off = (row["trace"] - exact) / row["standard_error"]
        print(
            f"  {name}: {row['trace']:.4g} +- {row['standard_error']:.2g}, "
            f"exact {exact:.4g}, {off:+.1f} errors"
        )
    v = torch.randn(G.shape[0], generator=torch.Generator().manual_seed(0))
    timed("product", lambda: G @ v)


@torch.no_grad()
def last_norm(model: nn.Module, tokens: Tensor) -> dict[str, float]:
    """Exact traces of the last normalisation, whose logits are linear in it.

    With logits W (w * x + b), x the normalised state of a position and F its metric, the traces
    are the sums over j of x_j^2 (W^T F W)_jj and of (W^T F W)_jj, summed over positions.
    """
    seen: list[Tensor] = []
    handle = model.ln_f.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    logits = model(tokens)
    handle.remove()
    (state,) = seen
    x = nn.functional.layer_norm(state, state.shape[-1:], eps=model.ln_f.eps).double()
    W, p = model.head.weight.double(), logits.double().softmax(-1)
    squares, means = p @ W.square(), p @ W
    metric = squares - means.square()  # the diagonal of W^T (diag p - p p^T) W
    n = len(tokens)
    return {
        "ln_f.weight": float((x.square() * metric).sum()) / n,
        "ln_f.bias": float(metric.sum()) / n,
    }


RUNS = {each.__name__: each for each in (digits, minilm, resnet18, bert, gpt2)}


def main() -> None:
    if len(sys.argv) > 1:
        torch.set_num_threads(1)
        RUNS[sys.argv[1]]()
        return
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    for name in RUNS:
        print(name, flush=True)
        command = [sys.executable, __file__, name]
        subprocess.run(command, check=False, env={**os.environ, **threads})


if __name__ == "__main__":
    main()
