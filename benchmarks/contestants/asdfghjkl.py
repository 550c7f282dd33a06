"""asdfghjkl, imported as asdl: https://github.com/kazukiosawa/asdl"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from asdl.fisher import FisherConfig, FisherMaker, get_fisher_maker
from asdl.grad_maker import LOSS_CROSS_ENTROPY
from asdl.gradient import batch_gradient
from asdl.matrices import FISHER_EXACT, SHAPE_DIAG, SHAPE_FULL
from torch import Tensor, nn
from works import N_OUTPUTS, N_TOP

NOT_OFFERED = {"rank": "gives no rank"}


def _maker(model: nn.Module, X: Tensor, shape: str) -> FisherMaker:
    config = FisherConfig(
        fisher_type=FISHER_EXACT,
        fisher_shapes=[shape],
        loss_type=LOSS_CROSS_ENTROPY,
        data_size=len(X),
    )
    maker = get_fisher_maker(model, config)
    maker.setup_model_call(model, X)
    return maker


def spectrum(model: nn.Module, X: Tensor) -> Tensor:
    _maker(model, X, SHAPE_FULL).forward_and_backward()
    return torch.linalg.eigvalsh(model.fisher.data)


spectrum_parameter = spectrum


def top_eigenvalues(model: nn.Module, X: Tensor) -> np.ndarray:
    # Its own power method with deflation, at its default tolerance and number of iterations.
    torch.manual_seed(0)
    values, _ = _maker(model, X, SHAPE_FULL).fisher_eig(top_n=N_TOP)
    return np.array(values)


def diagonal(model: nn.Module, X: Tensor) -> Tensor:
    _maker(model, X, SHAPE_DIAG).forward_and_backward()
    layers = [m for m in model.modules() if hasattr(m, "weight")]
    parts = [part for m in layers for part in (m.fisher.diag.weight, m.fisher.diag.bias)]
    return torch.cat([part.flatten() for part in parts])


def trace(model: nn.Module, X: Tensor) -> float:
    return float(diagonal(model, X).sum())


def gram(model: nn.Module, X: Tensor) -> Tensor:
    # From its per-sample gradients: its own empirical_direct_ntk fails in this version.
    def output(k: int) -> Callable[[], Tensor]:
        def closure() -> Tensor:
            model.zero_grad()
            z = model(X)
            z[:, k].sum().backward()
            return z

        return closure

    J = torch.stack([batch_gradient(model, output(k)) for k in range(N_OUTPUTS)], dim=1)
    rows = J.flatten(0, 1)
    return rows @ rows.T
