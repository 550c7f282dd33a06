"""Jacobian chains: skgeo, torch.func, and the floor, in one run.

    python benchmarks/chain.py

CPU seconds in one thread, the best of some calls; read the ratios, which are of one run on one
machine.
"""

from __future__ import annotations

import argparse
import itertools
import os

for setting in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[setting] = "1"

import torch  # noqa: E402  (the settings above are read when it is imported)
from timing import seconds, show  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.func import jacrev, vmap  # noqa: E402

from skgeo.chain import chain_profile  # noqa: E402
from skgeo.chain._moments import ElementwiseGram  # noqa: E402
from skgeo.chain._topk import leading_singular_values  # noqa: E402
from skgeo.jacobian import Layers  # noqa: E402
from skgeo.linalg import single_blas_thread  # noqa: E402
from skgeo.linalg._products import product_log_singular_values  # noqa: E402
from skgeo.network import replica  # noqa: E402

WIDTHS = [784, *[512] * 8, 10]
LAYERS = [*(str(2 * index + 1) for index in range(8)), "16"]


def tanh_network(widths: list[int]) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def local_moments(repeat: int, samples: int = 256, few: int = 2) -> None:
    """Moments and log-volumes of every layer's own Jacobian."""
    net, X = tanh_network(WIDTHS), torch.randn(samples, WIDTHS[0])
    layers = Layers(replica(net, parameters=None), X, LAYERS)
    seen = layers.record(X, root=True)
    elementwise = [seen.elementwise(layer) for layer in layers.layers]

    def from_slopes() -> None:
        for link in elementwise:
            slopes = torch.ones(samples, 10) if link.slopes is None else link.slopes
            ElementwiseGram(link.weight).quantities(slopes)

    def with_forward() -> None:
        recorded = layers.record(X, root=True)
        for layer in layers.layers:
            link = recorded.elementwise(layer)
            slopes = torch.ones(samples, 10) if link.slopes is None else link.slopes
            ElementwiseGram(link.weight).quantities(slopes)

    blocks = [net[index : index + 2] for index in range(0, 16, 2)] + [net[16:]]

    def one_by_one() -> None:
        h = X[:few]
        for block in blocks:
            jacobians = vmap(jacrev(block))(h).detach()
            torch.linalg.svdvals(jacobians.double())
            h = block(h).detach()

    show(
        f"Local moments and log-volume, 9 layers of 784-512x8-10, N={samples}",
        [
            ("skgeo, from the slopes", seconds(from_slopes, repeat)),
            ("skgeo, with forward pass and self-check", seconds(with_forward, repeat)),
            (
                f"vmap(jacrev) and SVD (timed on {few} samples)",
                seconds(one_by_one, 1) * samples / few,
            ),
        ],
        "skgeo, with forward pass and self-check",
    )


def from_input(repeat: int, samples: int = 16) -> None:
    """Jacobians from the input to all layers."""
    net, X = tanh_network(WIDTHS), torch.randn(samples, WIDTHS[0])
    layers = Layers(replica(net, parameters=None), X, LAYERS)
    weights = [m.weight.detach() for m in net if isinstance(m, nn.Linear)]

    def floor() -> None:
        columns = weights[0].T.repeat(samples, 1, 1).reshape(-1, WIDTHS[1])
        for weight in weights[1:]:
            columns = columns @ weight.T

    def layer_by_layer() -> None:
        for name in LAYERS:
            vmap(jacrev(net[: int(name) + 1]))(X)

    show(
        f"Jacobians input -> layer, all 9 layers of 784-512x8-10, N={samples}, float32",
        [
            ("matrix products alone", seconds(floor, repeat)),
            ("skgeo", seconds(lambda: layers.record(X, root=True).root_jacobians(), repeat)),
            ("vmap(jacrev), layer by layer", seconds(layer_by_layer, 1)),
        ],
        "matrix products alone",
    )


def leading(repeat: int) -> None:
    """Products that the ten largest singular values take."""
    net, X = tanh_network(WIDTHS).double(), torch.randn(1, WIDTHS[0]).double()
    layers = Layers(replica(net, parameters=None), X, LAYERS)
    seen = layers.record(X, root=True)
    last = layers.layers[7]
    jacobian = seen.root_jacobians()[last.name]
    exact = torch.linalg.svdvals(jacobian)[:, :10]
    operator = seen.operator(last, layers.root)
    shape = (1, last.dim, layers.root.dim)
    print("\nTen leading singular values of a 512 x 784 product of eight tanh layers")
    for steps in (20, 30, 40, 45):
        found, _ = leading_singular_values(operator.push, operator.pull, shape, 10, n_steps=steps)
        error = float(((found - exact) / exact).abs().max())
        print(f"  {steps:3d} pairs of products   largest relative error {error:.1e}")

    def subspace(steps: int) -> Tensor:
        v = torch.linalg.qr(torch.randn(784, 10).double())[0].unsqueeze(0)
        for _ in range(steps):
            v = torch.linalg.qr(jacobian.mT @ (jacobian @ v))[0]
        return torch.linalg.svdvals(jacobian @ v)

    for steps in (4, 17):
        error = float(((subspace(steps) - exact) / exact).abs().max())
        print(f"  {10 * steps:3d} pairs, subspace iteration {error:18.1e}")
    show(
        "The same, in time",
        [
            (
                "skgeo, 45 pairs",
                seconds(
                    lambda: leading_singular_values(operator.push, operator.pull, shape, 10), repeat
                ),
            ),
            (
                "SVD of the formed product alone",
                seconds(lambda: torch.linalg.svdvals(jacobian), repeat),
            ),
        ],
        "skgeo, 45 pairs",
    )


def growth(repeat: int) -> None:
    """How time grows: of long products with depth and width, of a whole profile with depth."""
    print("\nGrowth, N=4, float64                            seconds   for twice the size")
    for name, sizes, make in (
        ("singular values of a product, width 32, depth", (50, 100, 200), lambda d: (d, 32)),
        ("singular values of a product, depth 50, width", (32, 64, 128), lambda n: (50, n)),
    ):
        before = None
        for size in sizes:
            depth, width = make(size)
            torch.manual_seed(0)
            factors = torch.randn(depth, 4, width, width, dtype=torch.float64)
            value = seconds(lambda f=factors: product_log_singular_values(f), repeat)
            ratio = "" if before is None else f"{value / before:10.1f} x"
            print(f"  {name} {size:4d} {value:9.4f} {ratio}")
            before = value
    before = None
    for depth in (10, 20, 40):
        net, X = tanh_network([24] * (depth + 1)).double(), torch.randn(4, 24).double()
        value = seconds(lambda n=net, x=X: chain_profile(n, x), min(repeat, 2))
        ratio = "" if before is None else f"{value / before:10.1f} x"
        print(f"  profile from the input, width 24, depth        {depth:4d} {value:9.4f} {ratio}")
        before = value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=5, help="calls, of which the best counts")
    repeat = parser.parse_args().repeat
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread")
    with single_blas_thread():
        local_moments(repeat)
        from_input(repeat)
        leading(repeat)
        growth(min(repeat, 3))


if __name__ == "__main__":
    main()
