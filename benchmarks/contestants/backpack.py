"""BackPACK: https://docs.backpack.pt"""

from __future__ import annotations

import numpy as np
import torch
from backpack import backpack, extend
from backpack.extensions import BatchGrad, DiagGGNExact, SqrtGGNExact
from backpack.hessianfree.ggnvp import ggn_vector_product
from backpack.utils.convert_parameters import vector_to_parameter_list
from torch import Tensor, nn

from contestants._eigsh import top_of_product

NOT_OFFERED = {"rank": "gives no rank"}


def _loss(model: nn.Module, X: Tensor) -> Tensor:
    """A mean cross-entropy, whose GGN is F whatever the labels."""
    labels = torch.zeros(len(X), dtype=torch.long)
    return extend(nn.CrossEntropyLoss())(extend(model)(X), labels)


def _root(model: nn.Module, X: Tensor) -> Tensor:
    """V with V^T V = F, of K rows a sample."""
    loss = _loss(model, X)
    with backpack(SqrtGGNExact()):
        loss.backward()
    rows = [p.sqrt_ggn_exact.flatten(2).flatten(0, 1) for p in model.parameters()]
    return torch.cat(rows, dim=1)


def spectrum(model: nn.Module, X: Tensor) -> Tensor:
    # Parameter by parameter: the root of each is used once and never concatenated.
    loss = _loss(model, X)
    with backpack(SqrtGGNExact()):
        loss.backward()
    roots = (p.sqrt_ggn_exact.flatten(2).flatten(0, 1) for p in model.parameters())
    return torch.linalg.eigvalsh(sum(V @ V.T for V in roots))


def spectrum_parameter(model: nn.Module, X: Tensor) -> Tensor:
    V = _root(model, X)
    return torch.linalg.eigvalsh(V.T @ V)


def top_eigenvalues(model: nn.Module, X: Tensor) -> np.ndarray:
    outputs = model(X)
    loss = nn.CrossEntropyLoss()(outputs, torch.zeros(len(X), dtype=torch.long))
    parameters = list(model.parameters())

    def product(vector: Tensor) -> Tensor:
        parts = vector_to_parameter_list(vector, parameters)
        return torch.cat([g.flatten() for g in ggn_vector_product(loss, outputs, model, parts)])

    return top_of_product(product, model)


def diagonal(model: nn.Module, X: Tensor) -> Tensor:
    loss = _loss(model, X)
    with backpack(DiagGGNExact()):
        loss.backward()
    return torch.cat([p.diag_ggn_exact.flatten() for p in model.parameters()])


def trace(model: nn.Module, X: Tensor) -> float:
    return float(diagonal(model, X).sum())


def gram(model: nn.Module, X: Tensor) -> Tensor:
    extend(model)
    n, k = len(X), model(X[:1]).shape[-1]
    J = torch.empty(n, k, sum(p.numel() for p in model.parameters()), dtype=X.dtype)
    for output in range(k):
        model.zero_grad()
        with backpack(BatchGrad()):
            model(X)[:, output].sum().backward()
        J[:, output] = torch.cat([p.grad_batch.flatten(1) for p in model.parameters()], dim=1)
    rows = J.flatten(0, 1)
    return rows @ rows.T
