"""NNGeometry's matrices and PyTorch's eigenvalues, without the vectors that its own method adds."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from contestants.nngeometry import fisher, fisher_gram

_ONCE = "measured once, under nngeometry"
NOT_OFFERED = {
    "rank": "gives no rank",
    "top_eigenvalues": _ONCE,
    "trace": _ONCE,
    "diagonal": _ONCE,
    "gram": _ONCE,
}


def spectrum(model: nn.Module, X: Tensor) -> Tensor:
    K = fisher_gram(model, X).to_torch()
    n = K.shape[0] * K.shape[1]
    return torch.linalg.eigvalsh(K.reshape(n, n)) / len(X)


def spectrum_parameter(model: nn.Module, X: Tensor) -> Tensor:
    return torch.linalg.eigvalsh(fisher(model, X).to_torch())
