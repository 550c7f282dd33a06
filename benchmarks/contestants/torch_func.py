"""What one writes by hand with torch.func: per-sample Jacobians, a product, a dense eigensolver."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, jvp, vjp, vmap

from contestants._eigsh import top_of_product

NOT_OFFERED: dict[str, str] = {}
BATCH = 64  # samples whose Jacobians are held at once where only sums are wanted


def _jacobians(model: nn.Module, X: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Outputs (N, K) and, for each parameter, Jacobians (N, K, *shape)."""
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def call(values: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        z = functional_call(model, values, (x.unsqueeze(0),)).squeeze(0)
        return z, z

    J, z = vmap(jacrev(call, has_aux=True), (None, 0))(parameters, X)
    return z, J


def _rows(model: nn.Module, X: Tensor) -> Tensor:
    """A with A^T A = N F, of K - 1 rows a sample."""
    z, J = _jacobians(model, X)
    p = z.softmax(-1)
    weights, directions = torch.linalg.eigh(torch.diag_embed(p) - p[:, :, None] * p[:, None, :])
    root = directions[:, :, 1:] * weights[:, None, 1:].clamp(min=0).sqrt()  # the first is zero
    flat = torch.cat([j.flatten(2) for j in J.values()], dim=2)
    return (root.mT @ flat).flatten(0, 1)


def spectrum(model: nn.Module, X: Tensor) -> Tensor:
    A = _rows(model, X)
    return torch.linalg.eigvalsh(A @ A.T / len(X))


def spectrum_parameter(model: nn.Module, X: Tensor) -> Tensor:
    A = _rows(model, X)
    return torch.linalg.eigvalsh(A.T @ A / len(X))


def rank(model: nn.Module, X: Tensor) -> float:
    A = _rows(model, X)
    tolerance = max(A.shape) * torch.finfo(A.dtype).eps
    return float(torch.linalg.matrix_rank(A @ A.T, hermitian=True, rtol=tolerance))


def top_eigenvalues(model: nn.Module, X: Tensor) -> np.ndarray:
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    shapes = {name: p.shape for name, p in parameters.items()}
    sizes = [p.numel() for p in parameters.values()]

    def call(values: dict[str, Tensor]) -> Tensor:
        return functional_call(model, values, (X,))

    z, pull = vjp(call, parameters)
    p = z.softmax(-1)

    def product(vector: Tensor) -> Tensor:
        parts = vector.split(sizes)
        tangents = {
            name: part.view(shape)
            for (name, shape), part in zip(shapes.items(), parts, strict=True)
        }
        _, Jv = jvp(call, (parameters,), (tangents,))
        weighted = p * (Jv - (p * Jv).sum(-1, keepdim=True))
        (gradients,) = pull(weighted)
        return torch.cat([gradients[name].flatten() for name in shapes]) / len(X)

    return top_of_product(product, model)


def diagonal(model: nn.Module, X: Tensor) -> Tensor:
    return sum(_rows(model, batch).square().sum(0) for batch in X.split(BATCH)) / len(X)


def trace(model: nn.Module, X: Tensor) -> float:
    return sum(float(_rows(model, batch).square().sum()) for batch in X.split(BATCH)) / len(X)


def gram(model: nn.Module, X: Tensor) -> Tensor:
    # Parameter by parameter, as in PyTorch's tutorial on tangent kernels.
    _, J = _jacobians(model, X)
    rows = [j.flatten(2).flatten(0, 1) for j in J.values()]
    return sum(row @ row.T for row in rows)
