"""Linear networks from their matrices."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skgeo.exceptions import SkgeoError

__all__ = ["linear_network"]


def linear_network(matrices: Sequence[Any]) -> nn.Sequential:
    r"""Linear network :math:`x \mapsto W_L \cdots W_1 x` without biases.

    Parameters
    ----------
    matrices : sequence of array-like of shape (d_l, d_{l-1})
        The matrices W_1, ..., W_L, first layer first.

    Returns
    -------
    torch.nn.Sequential
        L layers ``torch.nn.Linear`` with copies of the matrices as trainable weights. Their dtype
        is the widest floating type among the matrices, float64 for integers.

    Raises
    ------
    SkgeoError
        If there is no matrix, if a matrix is not two-dimensional, empty, not real or not finite,
        or if the shapes of two successive matrices do not agree.

    See Also
    --------
    two_layer_linear : Two linear layers of known Fisher rank.
    skgeo.fiber.LinearFiberStratifier : Strata of the fiber of a linear network.

    Examples
    --------
    >>> import torch
    >>> from skgeo.datasets import linear_network
    >>> net = linear_network([[[1.0, 2.0], [0.0, 1.0]], [[1.0, -1.0]]])
    >>> net(torch.tensor([[3.0, 1.0]], dtype=torch.float64)).tolist()
    [[4.0]]
    """
    if isinstance(matrices, (np.ndarray, Tensor)) and matrices.ndim == 2:
        raise SkgeoError(
            f"Got one matrix of shape {tuple(matrices.shape)}; expected a list of matrices "
            "[W_1, ..., W_L]. Put the matrix in a list."
        )
    weights = [_matrix(matrix, layer) for layer, matrix in enumerate(matrices, start=1)]
    if not weights:
        raise SkgeoError("The list of matrices is empty; expected at least one matrix.")
    for layer, (first, second) in enumerate(pairwise(weights), start=1):
        if first.shape[0] != second.shape[1]:
            raise SkgeoError(
                f"W_{layer} of shape {tuple(first.shape)} and W_{layer + 1} of shape "
                f"{tuple(second.shape)} do not fit together: W_{layer} has {first.shape[0]} "
                f"outputs and W_{layer + 1} has {second.shape[1]} inputs. Matrices are applied "
                "as W @ x, the first layer first."
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
        raise SkgeoError(f"W_{layer} is complex; expected a real matrix.")
    if weight.ndim != 2 or 0 in weight.shape:
        raise SkgeoError(
            f"W_{layer} has shape {tuple(weight.shape)}; expected a non-empty matrix of shape "
            "(outputs, inputs)."
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
    layer = nn.Linear(inputs, outputs, bias=False, dtype=weight.dtype, device="meta")
    layer = layer.to_empty(device="cpu")
    with torch.no_grad():
        layer.weight = nn.Parameter(weight.clone())
    return layer
