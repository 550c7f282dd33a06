"""NNGeometry: https://nngeometry.readthedocs.io"""

from __future__ import annotations

import numpy as np
from nngeometry import GramMatrix
from nngeometry.metrics import FIM
from nngeometry.object import FMatDense, PMatDense, PMatDiag, PMatImplicit, PVector
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from contestants._eigsh import top_of_product

NOT_OFFERED = {"rank": "gives no rank"}


def _loader(X: Tensor) -> DataLoader:
    return DataLoader(TensorDataset(X), batch_size=len(X))


def fisher_gram(model: nn.Module, X: Tensor) -> FMatDense:
    """The Gram side of N F, of K - 1 rows a sample."""
    return FIM(model, _loader(X), FMatDense, variant="classif_logits")


def fisher(model: nn.Module, X: Tensor) -> PMatDense:
    """F itself."""
    return FIM(model, _loader(X), PMatDense, variant="classif_logits")


def spectrum(model: nn.Module, X: Tensor) -> Tensor:
    K = fisher_gram(model, X)
    K.compute_eigendecomposition()
    values, _ = K.get_eigendecomposition()
    return values / len(X)


def spectrum_parameter(model: nn.Module, X: Tensor) -> Tensor:
    F = fisher(model, X)
    F.compute_eigendecomposition()
    values, _ = F.get_eigendecomposition()
    return values


def top_eigenvalues(model: nn.Module, X: Tensor) -> np.ndarray:
    F = FIM(model, _loader(X), PMatImplicit, variant="classif_logits")
    layers = F.generator.layer_collection

    def product(vector: Tensor) -> Tensor:
        return F.mv(PVector(layers, vector_repr=vector)).to_torch()

    return top_of_product(product, model)


def trace(model: nn.Module, X: Tensor) -> float:
    return float(FIM(model, _loader(X), PMatImplicit, variant="classif_logits").trace())


def diagonal(model: nn.Module, X: Tensor) -> Tensor:
    return FIM(model, _loader(X), PMatDiag, variant="classif_logits").get_diag()


def gram(model: nn.Module, X: Tensor) -> Tensor:
    K = GramMatrix(model, _loader(X)).to_torch()  # (outputs, samples, outputs, samples)
    n = K.shape[0] * K.shape[1]
    return K.permute(1, 0, 3, 2).reshape(n, n)
