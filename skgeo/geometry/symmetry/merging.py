"""One hidden layer with its superfluous units taken out, as a function of the layer before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from skgeo.geometry.symmetry.minimal_width import minimal_width
from skgeo.geometry.symmetry.one_hidden import OneHidden
from skgeo.geometry.symmetry.units import Interval, unit_boundaries

__all__ = ["LayerUnits", "fold_affine", "merge_units", "narrow_units"]

_POINTWISE: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "softplus": F.softplus,
}


@dataclass(frozen=True, eq=False)
class LayerUnits:
    """A hidden layer :math:`c + \\sum_i q_i \\phi(w_i^T h + b_i)` and where its units came from.

    Attributes
    ----------
    weights : Tensor of shape (d, n)
    biases : Tensor of shape (d,)
    outputs : Tensor of shape (k, d)
    shift : Tensor of shape (k,)
    activation : str
    slope : float
        Of a rectifier for negative arguments.
    units : Tensor of shape (d_before,)
        int64; for each unit there once was, the one it has become part of, -1 where it is gone or
        in the biases.
    """

    weights: Tensor
    biases: Tensor
    outputs: Tensor
    shift: Tensor
    activation: str
    slope: float
    units: Tensor

    @property
    def width(self) -> int:
        """Number of units."""
        return len(self.weights)

    @property
    def rectifier(self) -> bool:
        """Whether the activation is linear on either side of zero."""
        return self.activation in ("relu", "leaky_relu")

    def constant(self, values: Tensor) -> Tensor | None:
        """The activation at some values; None for one that is not known here."""
        if self.activation == "leaky_relu":
            return F.leaky_relu(values, self.slope)
        function = _POINTWISE.get(self.activation)
        return None if function is None else function(values)

    def keep(self, which: Tensor) -> LayerUnits:
        """Only some units, given by a mask."""
        number = torch.full((self.width + 1,), -1, dtype=torch.int64)
        number[:-1][which] = torch.arange(int(which.sum()))
        return replace(
            self,
            weights=self.weights[which],
            biases=self.biases[which],
            outputs=self.outputs[:, which],
            units=number[self.units],
        )


def merge_units(layer: LayerUnits, *, interval: Interval | None, tol: float) -> LayerUnits:
    """Drop units without effect, put constant ones into the bias, and merge equal ones.

    Rows that stay are left as they are, number by number.

    Parameters
    ----------
    layer : LayerUnits
    interval : tuple of two Tensors of shape (d,), optional
        Bounds of the pre-activations on the domain; ReLU units that are never positive go.
    tol : float
        Relative.

    Returns
    -------
    LayerUnits
    """
    w, b, q = layer.weights, layer.biases, layer.outputs
    size = torch.hypot(torch.linalg.vector_norm(w, dim=1), b)
    masses = torch.linalg.vector_norm(q, dim=0) * (size if layer.rectifier else 1.0)
    read = masses > tol * (masses.mean() if len(masses) else 1.0)
    flat = torch.linalg.vector_norm(w, dim=1) <= tol * size
    values = layer.constant(b)
    shift = layer.shift
    if values is None:
        flat = torch.zeros_like(flat)
    else:
        shift = shift + q[:, flat] @ values[flat]
    dead = torch.zeros_like(flat)
    if interval is not None and layer.activation == "relu":
        dead = interval[1] <= 0
    layer = replace(layer, shift=shift).keep(read & ~flat & ~dead)
    if layer.width == 0:
        return layer
    w, q = layer.weights, layer.outputs
    label, side, _ = unit_boundaries(w, layer.biases, layer.activation, tol)
    if layer.activation == "tanh":
        place, sign = label, side.double()
    else:
        place, sign = 2 * label + (side > 0).long(), torch.ones(len(side), dtype=torch.float64)
    _, place = place.unique(return_inverse=True)
    number = torch.arange(layer.width)
    first = torch.full((int(place.max()) + 1,), layer.width, dtype=torch.int64)
    first = first.scatter_reduce(0, place, number, "amin")
    head = first[place]
    factor = sign * sign[head]
    if layer.rectifier:
        norms = torch.linalg.vector_norm(w, dim=1)
        factor = factor * norms / norms[head]
    scaled = q * factor
    summed = torch.zeros_like(q).index_add_(1, head, scaled)
    gross = torch.zeros_like(q).index_add_(1, head, scaled.abs())
    left = (summed.abs() > tol * gross).any(0) & (head == number)
    merged = replace(layer, outputs=summed, units=_follow(layer.units, head))
    return merged.keep(left)


def _follow(units: Tensor, then: Tensor) -> Tensor:
    """Compose two maps of units, -1 staying what it is."""
    padded = torch.cat([then, then.new_tensor([-1])])
    return padded[units]


def fold_affine(
    layer: LayerUnits, *, interval: Interval | None
) -> tuple[LayerUnits, Tensor, Tensor]:
    """Take out the units of a rectifier that are affine on the domain.

    Parameters
    ----------
    layer : LayerUnits
    interval : tuple of two Tensors of shape (d,) or None

    Returns
    -------
    layer : LayerUnits
        The other units, with the constants in the shift.
    linear : Tensor of shape (k, n)
        The linear part of those taken out.
    units : Tensor
        Their indices.
    """
    zero = layer.weights.new_zeros((len(layer.outputs), layer.weights.shape[1]))
    if interval is None or not layer.rectifier:
        return layer, zero, torch.zeros(0, dtype=torch.int64)
    positive, negative = interval[0] >= 0, interval[1] <= 0
    affine = positive | negative
    # Not torch.where on two numbers: that rounds the slope to float32.
    factor = torch.full_like(layer.biases, layer.slope).masked_fill(positive, 1.0)[affine]
    outputs = layer.outputs[:, affine] * factor
    shift = layer.shift + outputs @ layer.biases[affine]
    linear = outputs @ layer.weights[affine]
    return replace(layer, shift=shift).keep(~affine), linear, affine.nonzero()[:, 0]


def narrow_units(
    layer: LayerUnits,
    *,
    interval: Interval | None,
    ball: tuple[Tensor, float] | None,
    tol: float,
    precision: float,
) -> tuple[LayerUnits, bool]:
    """Rewrite a layer of rectifiers with fewer units where there is a way to.

    Parameters
    ----------
    layer : LayerUnits
        As :func:`merge_units` gives it.
    interval : tuple of two Tensors of shape (d,) or None
    ball : tuple of a Tensor of shape (n,) and a float, or None
        Holds the domain.
    tol, precision : float

    Returns
    -------
    layer : LayerUnits
        The layer that was given unless fewer units do.
    optimal : bool
        Whether no fewer units can compute the same function.
    """
    if not layer.rectifier:
        return layer, False
    rest, linear, affine = fold_affine(layer, interval=interval if ball is not None else None)
    if layer.activation == "relu":
        skip = linear if len(affine) else None
        network = OneHidden(
            rest.weights, rest.biases, rest.outputs, rest.shift, skip, "relu", precision
        )
        found = minimal_width(network, tol=tol, ball=ball)
        if found.width >= layer.width:
            return layer, found.optimal and found.width == layer.width
        built = found.network
        narrow = LayerUnits(
            built.weights,
            built.biases,
            built.outputs,
            built.shift,
            "relu",
            0.0,
            _follow(rest.units, found.units),
        )
        return narrow, found.optimal
    if ball is None or not len(affine):
        return layer, False
    left, values, right = torch.linalg.svd(linear, full_matrices=False)
    gross = torch.linalg.vector_norm(layer.outputs[:, affine], dim=0)
    gross = gross @ torch.linalg.vector_norm(layer.weights[affine], dim=1)
    some = values > tol * gross
    if int(some.sum()) >= len(affine):
        return layer, False
    rows, columns = right[some], left[:, some] * values[some]
    offsets = 1.1 * ball[1] - rows @ ball[0]
    return (
        replace(
            rest,
            weights=torch.cat([rest.weights, rows]),
            biases=torch.cat([rest.biases, offsets]),
            outputs=torch.cat([rest.outputs, columns], dim=1),
            shift=rest.shift - columns @ offsets,
        ),
        False,
    )
