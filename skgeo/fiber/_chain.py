"""The weights of a linear network: accepted forms, and the order of parameters in a vector."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch

from skgeo.exceptions import SkgeoError


def precision(weights: Sequence[object]) -> float:
    """Machine epsilon of the least precise dtype among the matrices; integers count as float64."""
    worst = float(np.finfo(np.float64).eps)
    for weight in weights:
        if isinstance(weight, torch.Tensor):
            if weight.dtype.is_floating_point:
                worst = max(worst, float(torch.finfo(weight.dtype).eps))
        else:
            dtype = np.asarray(weight).dtype
            if np.issubdtype(dtype, np.floating):
                worst = max(worst, float(np.finfo(dtype).eps))
    return worst


def as_chain(weights: Sequence[object]) -> list[np.ndarray]:
    """Weight matrices as float64 arrays, if they form a linear network.

    weights: arrays or tensors W_1, ..., W_L, first layer first, W_l of shape (d_l, d_{l-1}). Those
        that are float64 arrays already are not copied, so nothing may write to the result.
    Raises SkgeoError if there is no matrix, if one is not two-dimensional, is empty, complex or not
        finite, or if the shapes of two neighbours do not match.
    """
    if isinstance(weights, (np.ndarray, torch.Tensor)) and weights.ndim == 2:
        raise SkgeoError(
            "A linear network is given as the list of its matrices [W_1, ..., W_L]; got one "
            f"matrix of shape {tuple(weights.shape)}. Put it in a list."
        )
    chain = [_as_matrix(weight, layer) for layer, weight in enumerate(weights, start=1)]
    if not chain:
        raise SkgeoError("A linear network has at least one weight matrix, but the list is empty.")
    for layer, (first, second) in enumerate(itertools.pairwise(chain), start=1):
        if first.shape[0] != second.shape[1]:
            raise SkgeoError(
                f"The chain breaks between W_{layer} of shape {first.shape} and W_{layer + 1} of "
                f"shape {second.shape}: W_{layer} returns {first.shape[0]} numbers and "
                f"W_{layer + 1} takes {second.shape[1]}. Matrices are applied as W @ x, the "
                "first layer first."
            )
    return chain


def _as_matrix(weight: object, layer: int) -> np.ndarray:
    if isinstance(weight, torch.Tensor):
        if weight.is_complex():
            raise SkgeoError(f"W_{layer} is complex; expected a real matrix.")
        matrix = weight.detach().to("cpu", torch.float64).numpy()
    else:
        try:
            raw = np.asarray(weight)
            if np.iscomplexobj(raw):
                raise SkgeoError(f"W_{layer} is complex; expected a real matrix.")
            matrix = raw.astype(np.float64, copy=False)
        except (TypeError, ValueError) as error:
            if isinstance(error, SkgeoError):
                raise
            raise SkgeoError(f"W_{layer} is not a matrix of numbers ({error}).") from error
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise SkgeoError(
            f"W_{layer} has shape {matrix.shape}; expected a non-empty matrix of shape (outputs, "
            "inputs)."
        )
    if not np.isfinite(matrix).all():
        raise SkgeoError(
            f"W_{layer} has {int((~np.isfinite(matrix)).sum())} entries that are NaN or infinite."
        )
    return matrix


def as_parameters(matrices: Sequence[np.ndarray]) -> np.ndarray:
    """One vector of all weights: layer by layer, each matrix row by row.

    This is the order of ``named_parameters()`` of a torch chain without biases.

    Parameters
    ----------
    matrices : sequence of ndarray, shapes (..., d_l, d_{l-1})
        One per layer, all with the same leading axes.

    Returns
    -------
    ndarray, shape (..., P)

    See Also
    --------
    skgeo.fiber.from_parameters : The inverse.

    Examples
    --------
    >>> as_parameters([np.array([[1, 2], [3, 4]]), np.array([[5, 6]])])
    array([1, 2, 3, 4, 5, 6])
    """
    flat = [m.reshape(*m.shape[:-2], m.shape[-2] * m.shape[-1]) for m in matrices]
    return np.concatenate(flat, axis=-1)


def from_parameters(vector: np.ndarray, widths: Sequence[int]) -> list[np.ndarray]:
    """The matrices of a vector of all weights.

    Parameters
    ----------
    vector : ndarray, shape (..., P)
        Layer by layer, each matrix row by row.
    widths : sequence of int
        d_0, ..., d_L.

    Returns
    -------
    list of ndarray, shapes (..., d_l, d_{l-1})

    Raises
    ------
    SkgeoError
        If P is not the number of weights of a network of these widths.

    See Also
    --------
    skgeo.fiber.as_parameters : The inverse.

    Examples
    --------
    >>> from_parameters(np.array([1, 2, 3, 4, 5, 6]), [2, 2, 1])
    [array([[1, 2],
           [3, 4]]), array([[5, 6]])]
    """
    shapes = [(b, a) for a, b in itertools.pairwise(widths)]
    sizes = [a * b for a, b in shapes]
    if vector.shape[-1] != sum(sizes):
        raise SkgeoError(
            f"A network of widths {tuple(widths)} has {sum(sizes)} weights; got a vector of "
            f"{vector.shape[-1]} numbers."
        )
    parts = np.split(vector, np.cumsum(sizes)[:-1], axis=-1)
    lead = vector.shape[:-1]
    return [part.reshape(*lead, *shape) for part, shape in zip(parts, shapes, strict=True)]
