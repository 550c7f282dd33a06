"""Linear networks from their matrices."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from skgeo.exceptions import SkgeoError

__all__ = ["linear_network"]


def linear_network(matrices: Sequence[Any]) -> nn.Sequential:
    r"""The network :math:`x \mapsto W_L \cdots W_1 x` as a chain of linear layers without bias.

    Parameters
    ----------
    matrices : sequence of arrays or tensors
        W_1, ..., W_L, first layer first, W_l of shape (d_l, d_{l-1}).

    Returns
    -------
    torch.nn.Sequential
        Of L ``nn.Linear``, with copies of the matrices as trainable weights. The dtype is the
        widest floating type among the matrices, float64 for integers.

    Raises
    ------
    SkgeoError
        If there is no matrix, one is not two-dimensional, is empty, not real or not finite, or
        two neighbours do not fit together.

    Examples
    --------
    >>> import torch
    >>> from skgeo.datasets.linear import linear_network
    >>> net = linear_network([[[1.0, 2.0], [0.0, 1.0]], [[1.0, -1.0]]])
    >>> net(torch.tensor([[3.0, 1.0]], dtype=torch.float64)).tolist()
    [[4.0]]
    """
    if isinstance(matrices, (np.ndarray, Tensor)) and matrices.ndim == 2:
        raise SkgeoError(
            f"got one matrix of shape {tuple(matrices.shape)} where a list of matrices "
            "[W_1, ..., W_L] is expected. Put it in a list."
        )
    weights = [_matrix(matrix, layer) for layer, matrix in enumerate(matrices, start=1)]
    if not weights:
        raise SkgeoError("A linear network has at least one matrix; the list is empty.")
    for layer, (first, second) in enumerate(pairwise(weights), start=1):
        if first.shape[0] != second.shape[1]:
            raise SkgeoError(
                f"The chain breaks between W_{layer} of shape {tuple(first.shape)} and "
                f"W_{layer + 1} of shape {tuple(second.shape)}: W_{layer} returns "
                f"{first.shape[0]} numbers and W_{layer + 1} takes {second.shape[1]}. Matrices "
                "are applied as W @ x, the first layer first."
            )
    dtype = reduce(torch.promote_types, (weight.dtype for weight in weights))
    return nn.Sequential(*(_layer(weight.to(dtype)) for weight in weights))


def _matrix(matrix: Any, layer: int) -> Tensor:
    if isinstance(matrix, Tensor):
        weight = matrix.detach()
    else:
        try:
            weight = torch.as_tensor(np.asarray(matrix))
        except (TypeError, ValueError) as error:
            raise SkgeoError(f"W_{layer} is not a matrix of numbers: {error}") from error
    if weight.is_complex():
        raise SkgeoError(f"W_{layer} is complex; real matrices are needed.")
    if weight.ndim != 2 or 0 in weight.shape:
        raise SkgeoError(
            f"W_{layer} has shape {tuple(weight.shape)}; a non-empty matrix (outputs, inputs) is "
            "needed."
        )
    if not weight.is_floating_point():
        weight = weight.double()
    bad = int((~torch.isfinite(weight)).sum())
    if bad:
        raise SkgeoError(f"W_{layer} has {bad} entries that are NaN or infinite.")
    return weight


def _layer(weight: Tensor) -> nn.Linear:
    outputs, inputs = weight.shape
    # The usual constructor would draw from the global random state.
    layer = skip_init(nn.Linear, inputs, outputs, bias=False, dtype=weight.dtype)
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        layer.weight = nn.Parameter(weight.clone())
    return layer
