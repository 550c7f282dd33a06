"""Lanczos for contestants that offer matrix-vector products and no eigensolver of their own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn
from works import N_TOP

# The error of an eigenvalue is of the order of the squared residual, so this is far below the
# tolerance at which answers are compared.
RESIDUAL = 1e-4


def top_of_operator(operator: LinearOperator) -> np.ndarray:
    """The largest eigenvalues of a symmetric scipy operator, from one fixed starting vector."""
    start = np.random.default_rng(0).standard_normal(operator.shape[0]).astype(operator.dtype)
    values = eigsh(operator, k=N_TOP, which="LA", tol=RESIDUAL, v0=start, return_eigenvectors=False)
    return values


def top_of_product(product: Callable[[Tensor], Tensor], model: nn.Module) -> np.ndarray:
    """The same for a function from a flat vector of parameters to another."""
    first = next(model.parameters())
    size = sum(p.numel() for p in model.parameters())
    dtype = torch.empty(0, dtype=first.dtype).numpy().dtype

    def matvec(vector: np.ndarray) -> np.ndarray:
        flat = torch.as_tensor(np.ascontiguousarray(vector.reshape(-1)), dtype=first.dtype)
        return product(flat).detach().numpy()

    return top_of_operator(LinearOperator((size, size), matvec=matvec, dtype=dtype))
