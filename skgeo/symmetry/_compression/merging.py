"""Removal of redundant units of one hidden layer, as a function of the layer before."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from skgeo.symmetry._compression.minimal_width import minimal_width
from skgeo.symmetry._hidden_layer import HiddenLayer, has_hinges
from skgeo.symmetry._units import Interval, reading_shares, unit_boundaries


def merge_units(layer: HiddenLayer, *, interval: Interval | None, tol: float) -> HiddenLayer:
    """Drop units without effect, add constant units to the bias, and merge equal units.

    The remaining rows are not changed.

    interval: (d,) each, bounds of the pre-activations on the domain. Units that are constant there
        are added to the bias.
    """
    w, b, q = layer.weights, layer.biases, layer.outputs
    if layer.n_units == 0:
        return layer
    homogeneous = layer.activation.scales == "positive"
    size = torch.hypot(torch.linalg.vector_norm(w, dim=1), b)
    read = reading_shares(size, q, layer.activation) > tol
    # A step function may jump within any distance of a constant argument.
    near = 0.0 if layer.activation.steps else tol
    constant = torch.linalg.vector_norm(w, dim=1) <= near * size
    values = layer.activation(b)
    if interval is not None:
        low, high = layer.activation.image(*interval)
        still = (low == high) & ~constant
        constant, values = constant | still, torch.where(still, low, values)
    shift = layer.shift + q[:, constant] @ values[constant]
    layer = replace(layer, shift=shift).keep(read & ~constant)
    if layer.n_units == 0:
        return layer
    w, q = layer.weights, layer.outputs
    label, side, _ = unit_boundaries(w, layer.biases, layer.activation, tol)
    one = torch.ones(len(side), dtype=torch.float64)
    if layer.activation.scales == "sign":
        place, sign = label, side.double()
    elif homogeneous and layer.activation.is_even:
        place, sign = label, one
    else:
        place, sign = 2 * label + (side > 0).long(), one
    _, place = torch.unique(place, return_inverse=True)
    number = torch.arange(layer.n_units)
    first = torch.full((int(place.max()) + 1,), layer.n_units, dtype=torch.int64)
    first = first.scatter_reduce(0, place, number, "amin")
    head = first[place]
    factor = sign * sign[head]
    if homogeneous:
        norms = torch.linalg.vector_norm(w, dim=1)
        factor = factor * norms / norms[head]
    scaled = q * factor
    summed = torch.zeros_like(q).index_add_(1, head, scaled)
    gross = torch.zeros_like(q).index_add_(1, head, scaled.abs())
    left = (summed.abs() > tol * gross).any(0) & (head == number)
    merged = replace(layer, outputs=summed, units=layer.followed(head))
    return merged.keep(left)


def fold_affine(
    layer: HiddenLayer, *, interval: Interval | None
) -> tuple[HiddenLayer, Tensor, Tensor]:
    """Remove the units of a rectifier that are affine on the domain.

    Returns layer: the other units, with the constants added to the shift; linear (k, n): the linear
        part of the removed units; units: their indices.
    """
    # interval (d,)
    zero = layer.weights.new_zeros((len(layer.outputs), layer.weights.shape[1]))
    if interval is None or not layer.activation.is_rectifier:
        return layer, zero, torch.zeros(0, dtype=torch.int64)
    positive, negative = interval[0] >= 0, interval[1] <= 0
    affine = positive | negative
    # torch.where on two numbers would round the slope to float32.
    factor = torch.full_like(layer.biases, layer.activation.slope).masked_fill(positive, 1.0)[
        affine
    ]
    outputs = layer.outputs[:, affine] * factor
    shift = layer.shift + outputs @ layer.biases[affine]
    linear = outputs @ layer.weights[affine]
    return replace(layer, shift=shift).keep(~affine), linear, affine.nonzero()[:, 0]


def _masses(layer: HiddenLayer) -> Tensor:
    """Sum of |q_i| |(w_i, b_i)| for each output, 1 where it is zero: (k,)."""
    size = torch.hypot(torch.linalg.vector_norm(layer.weights, dim=1), layer.biases)
    masses = layer.outputs.abs() @ size
    return torch.where(masses > 0, masses, 1.0)


def narrow_linear(layer: HiddenLayer, *, tol: float) -> HiddenLayer:
    """Rewrite units without an activation as as many as the rank of what they compute."""
    product = layer.outputs @ layer.weights
    left, values, right = torch.linalg.svd(product, full_matrices=False)
    gross = torch.linalg.matrix_norm(layer.outputs.abs() @ layer.weights.abs())
    some = values > tol * gross
    if int(some.sum()) >= layer.n_units:
        return layer
    root = values[some].sqrt()
    return replace(
        layer,
        weights=root[:, None] * right[some],
        biases=root.new_zeros(len(root)),
        outputs=left[:, some] * root,
        shift=layer.shift + layer.outputs @ layer.biases,
        units=layer.followed(torch.full((layer.n_units,), -1)),
    )


def narrow_units(
    layer: HiddenLayer,
    *,
    interval: Interval | None,
    ball: tuple[Tensor, float] | None,
    tol: float,
) -> tuple[HiddenLayer, bool]:
    """Rewrite a layer of rectifiers with fewer units, if possible.

    layer: result of :func:`merge_units`.
    ball: centre (n,) and radius of a ball that contains the domain.
    Returns layer: the given layer if fewer units were not found; optimal: whether no fewer units
        compute the same function.
    """
    # interval (d,)
    if not layer.activation.is_rectifier or layer.n_units == 0:
        return layer, layer.n_units == 0
    rest, linear, affine = fold_affine(layer, interval=interval if ball is not None else None)
    if has_hinges(layer.activation):
        # The tolerance is relative to all outputs together, so each is scaled to size 1.
        scale = _masses(layer)
        network = HiddenLayer(
            rest.weights,
            rest.biases,
            rest.outputs / scale[:, None],
            rest.shift / scale,
            linear / scale[:, None] if len(affine) else None,
            layer.activation,
        )
        found = minimal_width(network, tol=tol, ball=ball)
        if found.width >= layer.n_units:
            return layer, found.optimal and found.width == layer.n_units
        narrow = replace(
            found.network,
            outputs=found.network.outputs * scale[:, None],
            shift=found.network.shift * scale,
            units=rest.followed(found.units),
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
