"""The dense arithmetic that a work cannot avoid by layer structure, on numbers that mean nothing.

It is a yardstick and no contestant: its answers are not compared.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from outcomes import NotOffered
from torch import Tensor, nn
from works import N_OUTPUTS

NOT_OFFERED = {
    "rank": "no floor: it depends on the rank",
    "top_eigenvalues": "no floor: it depends on the number of products",
}


@lru_cache(maxsize=1)
def _symmetric(size: int, dtype: torch.dtype) -> Tensor:
    entries = torch.randn(size, size, dtype=dtype)
    return entries + entries.T


@lru_cache(maxsize=64)
def _dense(rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(rows, columns, dtype=dtype)


def _linear_layers(model: nn.Module) -> list[nn.Linear]:
    if any(isinstance(layer, nn.Conv2d) for layer in model):
        raise NotOffered("no floor is written for convolutions")
    return [layer for layer in model if isinstance(layer, nn.Linear)]


def gram(model: nn.Module, X: Tensor) -> Tensor:
    """Inner products of the output gradients, layer by layer."""
    n = len(X) * N_OUTPUTS
    total = torch.zeros(n, n, dtype=X.dtype)
    for layer in _linear_layers(model):
        g = _dense(n, layer.out_features, X.dtype)
        total.addmm_(g, g.T)
    return total


def spectrum(model: nn.Module, X: Tensor) -> Tensor:
    """The same, then the eigenvalues of the Gram side without its structural zeros."""
    gram(model, X)
    return torch.linalg.eigvalsh(_symmetric(len(X) * (N_OUTPUTS - 1), X.dtype))


def spectrum_parameter(model: nn.Module, X: Tensor) -> Tensor:
    """One product with the outputs summed first, then the eigenvalues."""
    size = sum(p.numel() for p in model.parameters())
    half = _dense(len(X), size, X.dtype)
    half.T @ half
    return torch.linalg.eigvalsh(_symmetric(size, X.dtype))


def trace(model: nn.Module, X: Tensor) -> float:
    """The products of one forward pass and of a backward pass for each output."""
    n = len(X)
    for position, layer in enumerate(_linear_layers(model)):
        a = _dense(n, layer.in_features, X.dtype)
        a @ layer.weight.detach().T
        if position:
            _dense(n * N_OUTPUTS, layer.out_features, X.dtype) @ layer.weight.detach()
    return 0.0


def diagonal(model: nn.Module, X: Tensor) -> float:
    """The same, then squared gradients by squared inputs."""
    trace(model, X)
    for layer in _linear_layers(model):
        g = _dense(len(X), layer.out_features, X.dtype)
        g.T @ _dense(len(X), layer.in_features, X.dtype)
    return 0.0
