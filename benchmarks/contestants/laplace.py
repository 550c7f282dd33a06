"""laplace-torch, with its default backend: https://aleximmer.github.io/Laplace"""

from __future__ import annotations

import torch
from laplace import Laplace
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

NOT_OFFERED = {
    "rank": "gives no rank",
    "top_eigenvalues": "gives the whole matrix or Kronecker factors of it",
    "gram": "gives no Gram matrix over all outputs",
}
BATCH = 128


def _precision(model: nn.Module, X: Tensor, structure: str) -> Tensor:
    """N F, whatever the labels."""
    data = TensorDataset(X, torch.zeros(len(X), dtype=torch.long))
    la = Laplace(model, "classification", subset_of_weights="all", hessian_structure=structure)
    la.fit(DataLoader(data, batch_size=BATCH))
    return la.H


def spectrum(model: nn.Module, X: Tensor) -> Tensor:
    return torch.linalg.eigvalsh(_precision(model, X, "full") / len(X))


spectrum_parameter = spectrum


def diagonal(model: nn.Module, X: Tensor) -> Tensor:
    return _precision(model, X, "diag") / len(X)


def trace(model: nn.Module, X: Tensor) -> float:
    return float(diagonal(model, X).sum())
