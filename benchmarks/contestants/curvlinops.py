"""curvlinops: https://curvlinops.readthedocs.io"""

from __future__ import annotations

import numpy as np
import torch
from curvlinops import GGNLinearOperator, JacobianLinearOperator, xtrace
from torch import Tensor, nn

from contestants._eigsh import top_of_operator

NOT_OFFERED = {
    "rank": "gives no rank",
    "diagonal": "estimates it only (Hutchinson, XDiag)",
}
ESTIMATES = ("trace",)
COLUMNS = 128  # of the identity that are multiplied at once
TRACE_PRODUCTS = 100


def _ggn(model: nn.Module, X: Tensor) -> GGNLinearOperator:
    """The GGN of a mean cross-entropy, which is F whatever the labels."""
    labels = torch.zeros(len(X), dtype=torch.long)
    return GGNLinearOperator(
        model,
        nn.CrossEntropyLoss(),
        list(model.parameters()),
        [(X, labels)],
        check_deterministic=False,
    )


def _dense(operator: object, size: int, dtype: torch.dtype) -> Tensor:
    identity = torch.eye(size, dtype=dtype)
    return torch.cat([operator @ columns for columns in identity.split(COLUMNS, dim=1)], dim=1)


def spectrum(model: nn.Module, X: Tensor) -> Tensor:
    F = _ggn(model, X)
    return torch.linalg.eigvalsh(_dense(F, F.shape[0], X.dtype))


spectrum_parameter = spectrum


def top_eigenvalues(model: nn.Module, X: Tensor) -> np.ndarray:
    dtype = torch.empty(0, dtype=X.dtype).numpy().dtype
    return top_of_operator(_ggn(model, X).to_scipy(dtype=dtype))


def trace(model: nn.Module, X: Tensor) -> float:
    torch.manual_seed(0)
    return float(xtrace(_ggn(model, X), TRACE_PRODUCTS))


def gram(model: nn.Module, X: Tensor) -> Tensor:
    labels = torch.zeros(len(X), dtype=torch.long)
    J = JacobianLinearOperator(
        model, list(model.parameters()), [(X, labels)], check_deterministic=False
    )
    return _dense(J @ J.adjoint(), J.shape[0], X.dtype)
