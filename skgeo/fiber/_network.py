"""A linear network in two layouts: one matrix per layer, and the parameters of its module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skgeo._cached import cached_property
from skgeo.exceptions import SkgeoError
from skgeo.fiber._chain import as_parameters, from_parameters


@dataclass(frozen=True)
class LinearNetwork:
    """The matrices of a linear network, and how its module lays out their entries.

    A bias of the first layer is a last column of W_1, which multiplies a constant input 1.

    Attributes
    ----------
    weights : tuple of Tensor, shapes (d_l, d_{l-1})
        W_1, ..., W_L, in the dtype of the module.
    has_bias : bool
        Whether the last input is the constant.
    flattens : bool
        Whether the module flattens each sample before the first matrix.
    """

    weights: tuple[Tensor, ...]
    has_bias: bool
    flattens: bool

    @property
    def widths(self) -> tuple[int, ...]:
        """d_0, ..., d_L, the constant input included."""
        return (self.weights[0].shape[1], *(weight.shape[0] for weight in self.weights))

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the module's parameters, in their order."""
        shapes: list[tuple[int, ...]] = [tuple(weight.shape) for weight in self.weights]
        if self.has_bias:
            outputs, inputs = shapes[0]
            shapes[:1] = [(outputs, inputs - 1), (outputs,)]
        return tuple(shapes)

    @cached_property
    def _order(self) -> np.ndarray:
        """Index of each parameter among the entries of the matrices."""
        places = np.arange(sum(weight.numel() for weight in self.weights))
        if self.has_bias:
            first = places[: self.weights[0].numel()].reshape(self.weights[0].shape)
            places = np.concatenate([first[:, :-1].ravel(), first[:, -1], places[first.size :]])
        return places

    def to_parameters(self, matrices: Sequence[np.ndarray]) -> np.ndarray:
        """Changes of the matrices as vectors in the order of ``named_parameters()``."""
        # -> (..., P)
        return self.reorder(as_parameters(matrices))

    def reorder(self, rows: np.ndarray) -> np.ndarray:
        """Vectors in the order of :func:`as_parameters`, reordered to ``named_parameters()``."""
        # rows (..., P) -> (..., P)
        return rows[..., self._order] if self.has_bias else rows

    def to_matrices(self, vector: np.ndarray) -> list[np.ndarray]:
        """The inverse of :meth:`to_parameters`."""
        # vector (..., P)
        inverse = np.empty_like(self._order)
        inverse[self._order] = np.arange(len(inverse))
        return from_parameters(vector[..., inverse], self.widths)

    def split(self, matrices: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Matrices as one array per parameter, in the shapes of the parameters."""
        if not self.has_bias:
            return list(matrices)
        first, *rest = matrices
        return [first[:, :-1], first[:, -1], *rest]

    def map_change(self, change: Any, function: Callable[[list[np.ndarray]], Any]) -> Any:
        """Apply a linear function of the matrices to changes of the parameters.

        change: vectors (..., P) in the order of ``named_parameters()``, or an array per parameter.
        function: from matrices, one per layer, to matrices of the same shapes.
        Raises SkgeoError if the shapes are not those of the parameters.
        """
        if isinstance(change, (list, tuple)) and any(getattr(part, "ndim", 0) for part in change):
            parts = [_as_numbers(part) for part in change]
            if [part.shape for part in parts] != list(self.shapes):
                raise SkgeoError(
                    f"A list of arrays of shapes {[part.shape for part in parts]} was given; "
                    f"expected those of the parameters, {list(self.shapes)}. Stack vectors into "
                    "one array first."
                )
            vector = np.concatenate([part.ravel() for part in parts])
            return self.split(self.to_matrices(self.map_change(vector, function)))
        vectors = _as_numbers(change)
        n_parameters = len(self._order)
        if vectors.ndim == 0 or vectors.shape[-1] != n_parameters:
            raise SkgeoError(
                f"A change of the weights of shape {vectors.shape} was given; expected "
                f"(..., {n_parameters}), one entry per parameter, or a list of arrays of shapes "
                f"{list(self.shapes)}."
            )
        mapped = np.empty_like(vectors)
        for place in np.ndindex(vectors.shape[:-1]):
            mapped[place] = self.to_parameters(function(self.to_matrices(vectors[place])))
        return mapped

    def inputs(self, inputs: Any) -> np.ndarray:
        """Samples as rows of d_0 numbers in float64, the constant appended where there is one.

        Raises SkgeoError if the samples do not fit the first matrix.
        """
        # inputs (n_samples, ...) -> (n_samples, d_0)
        if not isinstance(inputs, Tensor):
            raise SkgeoError(
                f"X is a {type(inputs).__name__} of tensors; a linear network takes one array."
            )
        rows = inputs.detach().to("cpu", torch.float64)
        if self.flattens:
            rows = rows.reshape(len(rows), -1)
        wanted = self.widths[0] - self.has_bias
        if rows.ndim != 2 or rows.shape[1] != wanted:
            raise SkgeoError(
                f"X has shape {tuple(inputs.shape)}, but the first matrix is expecting {wanted} "
                "features as input, one row per sample."
            )
        if self.has_bias:
            rows = torch.cat([rows, torch.ones(len(rows), 1, dtype=torch.float64)], dim=1)
        return rows.numpy()


def _as_numbers(values: Any) -> np.ndarray:
    if isinstance(values, Tensor):
        values = values.detach().to("cpu", torch.float64).numpy()
    return np.asarray(values, dtype=np.float64)
