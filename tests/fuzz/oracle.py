"""Dense float64 answers for a network, and how far rounding may move them.

Nothing of skgeo is imported here.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel


@dataclass
class Derivatives:
    """Outputs and their derivatives, in float64, positions of a sample flattened.

    outputs: (N, T, K).
    parameters: (N, T, K, P).
    layers: by call, (N, T, K, n): derivative of the outputs with respect to its result.
    inputs: (N, T, K, n) or None.
    """

    outputs: np.ndarray
    parameters: np.ndarray
    layers: dict[str, np.ndarray] = field(default_factory=dict)
    inputs: np.ndarray | None = None


def calls(module: nn.Sequential) -> list[str]:
    """Names of the calls of a Sequential, in their order: ``0``, ``1``, ``0#1``."""
    names: dict[int, str] = {}
    counts: dict[int, int] = {}
    found = []
    for name, child in module._modules.items():
        own = names.setdefault(id(child), name)
        number = counts.get(id(child), 0)
        counts[id(child)] = number + 1
        found.append(own if number == 0 else f"{own}#{number}")
    return found


class _Shrink(torch.autograd.Function):
    """x - tanh x, with the derivative tanh^2 x, and as torch rounds it: 1 - (1 - tanh^2 x).

    The second loses all digits of the first at small x, in any dtype; the oracle must not.
    """

    @staticmethod
    def forward(ctx, x: Tensor, rounding: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.rounding = rounding
        return nn.functional.tanhshrink(x)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        slope = torch.tanh(ctx.saved_tensors[0]) ** 2
        make = torch.Generator().manual_seed(0)
        off = torch.randn(slope.shape, generator=make, dtype=slope.dtype)
        return gradient * (slope + ctx.rounding * (1 - slope) * off), None


class Tanhshrink(nn.Module):
    """With a derivative of all digits, or rounded as torch rounds it, by units of `rounding`."""

    def __init__(self, rounding: float) -> None:
        super().__init__()
        self.rounding = rounding

    def forward(self, x: Tensor) -> Tensor:
        return _Shrink.apply(x, self.rounding)


def cast(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy that computes the same function in another dtype.

    Without an ``eps`` of its own, RMSNorm adds the unit of rounding of the dtype in which it
    computes, float32 in half precision: with the same weights in another dtype it is another
    function, whose derivative along its input, over one number nothing but that unit, is another.
    """
    net = copy.deepcopy(module)
    for part in net.modules():
        if isinstance(part, nn.RMSNorm) and part.eps is None:
            given = torch.promote_types(next(module.parameters()).dtype, torch.float32)
            part.eps = torch.finfo(given).eps
    return net.to(dtype)


def _replace_shrinks(net: nn.Module, rounding: float) -> None:
    exact: dict[int, nn.Module] = {}  # one that is called twice stays one
    for part in list(net.modules()):
        for name, child in list(part._modules.items()):
            if isinstance(child, nn.Tanhshrink):
                part._modules[name] = exact.setdefault(id(child), Tanhshrink(rounding))


def derive(
    module: nn.Sequential, inputs: Tensor, dtype: torch.dtype, rounding: float = 0.0
) -> Derivatives:
    """All derivatives by one backward pass per sample and output.

    rounding: relative size of noise that multiplies what each layer gives, and its gradient.
    """
    make = torch.Generator().manual_seed(0)

    def rounded(h: Tensor) -> Tensor:
        if not rounding or not h.is_floating_point():
            return h * 1
        return h * (1 + rounding * torch.randn(h.shape, generator=make, dtype=h.dtype))

    net = cast(module, dtype).eval()
    if dtype == torch.float64:
        _replace_shrinks(net, rounding)
    wanted = [p for p in net.parameters() if p.requires_grad]
    names = calls(net)
    inputs = inputs.to(dtype) if inputs.is_floating_point() else inputs
    outputs, rows = [], []
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        for n in range(len(inputs)):
            x = inputs[n : n + 1].clone()
            leaf = x.requires_grad_(x.is_floating_point())
            h, places = leaf * 1 if leaf.requires_grad else leaf, []
            with sdpa_kernel(SDPBackend.MATH):
                for child in net._modules.values():
                    h = rounded(child(h))  # a later layer may write into what it is given
                    # Before it there may be neither a trained weight nor a number.
                    h = h if h.requires_grad else h.requires_grad_()
                    places.append(h)
                    h = rounded(h)
            outputs.append(h.detach().reshape(-1, h.shape[-1]))
            places = [leaf, *places] if leaf.requires_grad else places
            for value in h.reshape(-1):
                found = torch.autograd.grad(
                    value, [*wanted, *places], retain_graph=True, allow_unused=True,
                    materialize_grads=True,
                )  # fmt: skip
                flat = [g.reshape(-1) for g in found[: len(wanted)]]
                rows.append([torch.cat(flat), *found[len(wanted) :]])
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
    z = torch.stack(outputs).double().numpy()

    def gathered(index: int) -> np.ndarray:
        return (
            torch.stack([row[index].reshape(-1) for row in rows])
            .double()
            .reshape(*z.shape, -1)
            .numpy()
        )

    first = 1 + inputs.is_floating_point()
    layers = {name: gathered(first + k) for k, name in enumerate(names)}
    return Derivatives(z, gathered(0), layers, gathered(1) if first == 2 else None)


def weighted(likelihood: str, outputs: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rows whose Gram matrix is the pullback of the output family's metric.

    outputs (..., K), rows (..., K, P) -> (..., k, P). For a softmax the metric is written as
    ``v^T F v = sum_{i<j} p_i p_j (v_i - v_j)^2``, which does not cancel.
    """
    k = outputs.shape[-1]
    if likelihood == "categorical":
        shifted = outputs - outputs.max(-1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
        pairs = [(i, j) for i in range(k) for j in range(i + 1, k)]
        return np.stack(
            [
                np.exp((log_p[..., i] + log_p[..., j]) / 2)[..., None]
                * (rows[..., i, :] - rows[..., j, :])
                for i, j in pairs
            ],
            -2,
        )
    if likelihood == "bernoulli":
        size = np.abs(outputs)
        root = np.exp(-size / 2) / (1 + np.exp(-size))
    elif likelihood == "gaussian":
        root = np.ones_like(outputs)
    elif likelihood == "poisson":
        root = np.exp(outputs / 2)
    else:
        log_scale = outputs[..., k // 2 :]
        root = np.concatenate([np.exp(-log_scale), np.full_like(log_scale, 2.0**0.5)], -1)
    return root[..., None] * rows


@dataclass(frozen=True)
class Answer:
    """Singular values of rows, with how far those of another arithmetic are from them."""

    rows: np.ndarray  # (m, P)
    noise: float  # relative to the largest singular value
    finite: bool
    eigenvalues: np.ndarray

    def count(self, relative: float) -> int:
        """Eigenvalues above a tolerance relative to the largest."""
        return int((self.eigenvalues > relative * self.eigenvalues[:1]).sum())


def answer(exact: np.ndarray, *others: np.ndarray) -> Answer:
    """The spectrum of the rows, and their largest distance from those in other dtypes."""
    if not np.isfinite(exact).all() or not exact.size:
        return Answer(exact, np.inf, False, np.zeros(0))
    with np.errstate(all="ignore"):
        values = np.linalg.svd(exact, compute_uv=False)
        size = float(values[0]) if len(values) else 0.0
        noise = max((np.linalg.norm(exact - other) for other in others), default=0.0)
        finite = bool(np.isfinite(values**2).all()) and (size == 0.0 or size > 1e-140)
    noise = float(noise) / size if size > 0 else (0.0 if noise == 0 else np.inf)
    return Answer(exact, noise if np.isfinite(noise) else np.inf, finite, values**2)


def perturbed(module: nn.Module, inputs: Tensor, seed: int) -> tuple[nn.Module, Tensor]:
    """The network and its data in float64, each number off by a unit of rounding of its dtype."""
    make = torch.Generator().manual_seed(seed)
    eps = torch.finfo(next(module.parameters()).dtype).eps

    def moved(tensor: Tensor) -> Tensor:
        noise = torch.randn(tensor.shape, generator=make, dtype=torch.float64)
        return tensor.double() * (1 + eps * noise)

    net = cast(module, torch.float64)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(moved(parameter))
    return net, moved(inputs) if inputs.is_floating_point() else inputs
