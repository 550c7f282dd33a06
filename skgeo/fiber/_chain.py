"""The weights of a linear network: what is accepted, and how parameters are laid out."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch

from skgeo.exceptions import SkgeoError


def precision(weights: Sequence[object]) -> float:
    """Machine epsilon of the least precise floating type among the matrices.

    Returns: That of float64 for integers.
    """
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

    Parameters
    ----------
    weights : sequence of arrays or tensors
        W_1, ..., W_L, first layer first, W_l of shape (d_l, d_{l-1}).

    Returns
    -------
    list of ndarray
        Arrays of the caller that are float64 already are not copied; nothing writes to them.

    Raises
    ------
    SkgeoError
        If there is no matrix, one is not two-dimensional, is empty, complex or not finite, or two
        neighbours do not fit together.
    """
    if isinstance(weights, (np.ndarray, torch.Tensor)) and weights.ndim == 2:
        raise SkgeoError(
            "A linear network is given as the list of its matrices [W_1, ..., W_L]; got one "
            f"matrix of shape {tuple(weights.shape)}. Put it in a list."
        )
    chain = [_as_matrix(weight, layer) for layer, weight in enumerate(weights, start=1)]
    if not chain:
        raise SkgeoError("A linear network has at least one weight matrix; the list is empty.")
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
            raise SkgeoError(f"W_{layer} is complex; real matrices are needed.")
        matrix = weight.detach().to("cpu", torch.float64).numpy()
    else:
        try:
            raw = np.asarray(weight)
            if np.iscomplexobj(raw):
                raise SkgeoError(f"W_{layer} is complex; real matrices are needed.")
            matrix = raw.astype(np.float64, copy=False)
        except (TypeError, ValueError) as error:
            if isinstance(error, SkgeoError):
                raise
            raise SkgeoError(f"W_{layer} is not a matrix of numbers: {error}") from error
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise SkgeoError(
            f"W_{layer} has shape {matrix.shape}; a non-empty matrix (outputs, inputs) is needed."
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
    matrices : sequence of ndarray
        One for each layer; leading axes that all share are kept.

    Returns
    -------
    ndarray, shape (..., P)
    """
    flat = [m.reshape(*m.shape[:-2], m.shape[-2] * m.shape[-1]) for m in matrices]
    return np.concatenate(flat, axis=-1)


def from_parameters(vector: np.ndarray, widths: Sequence[int]) -> list[np.ndarray]:
    """The matrices of a vector of all weights: the inverse of :func:`as_parameters`.

    Parameters
    ----------
    vector : ndarray, shape (..., P)
    widths : sequence of int
        d_0, ..., d_L.

    Returns
    -------
    list of ndarray, shapes (..., d_l, d_{l-1})

    Raises
    ------
    SkgeoError
        If the vector has another length.
    """
    shapes = [(b, a) for a, b in itertools.pairwise(widths)]
    sizes = [a * b for a, b in shapes]
    if vector.shape[-1] != sum(sizes):
        raise SkgeoError(
            f"A network of widths {tuple(widths)} has {sum(sizes)} weights; got a vector of "
            f"{vector.shape[-1]}."
        )
    parts = np.split(vector, np.cumsum(sizes)[:-1], axis=-1)
    lead = vector.shape[:-1]
    return [part.reshape(*lead, *shape) for part, shape in zip(parts, shapes, strict=True)]
