"""Matching of the units of two chains in normal form, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from skgeo.symmetry._equivalence.layerwise import LayerForm

# Projections in which neighbours are searched: enough to tell different rows apart.
_KEYS = 8


@dataclass(frozen=True, eq=False)
class Correspondence:
    """Result of matching two normal forms.

    Attributes
    ----------
    residual : float
        Largest distance of two matched rows (w, b), relative to their norm, over all layers up to
        the first that could not be matched; inf if it could not be for another reason than
        distance.
    layer : int or None
        The first layer that could not be matched, counted in the chain; None if all were.
    reason : str
        Why it could not be matched; empty if all were.
    partners : tuple of Tensor
        int64, one tensor per matched hidden layer: the unit of form a for each unit of form b.
    signs : tuple of Tensor
        Sign of each partner. It is -1 only under odd activations, where rounding decides the sign
        of a row whose projection is close to zero.
    """

    residual: float
    layer: int | None
    reason: str
    partners: tuple[Tensor, ...]
    signs: tuple[Tensor, ...]


def match_forms(a: LayerForm, b: LayerForm, *, tol: float) -> Correspondence:
    """Match the units of two normal forms.

    a, b: of chains with the same inputs and outputs.
    tol: largest distance of two rows (w, b), relative to their norm, that are matched.

    Units are matched by nearest neighbours and not by rank, since rounding may swap two units whose
    keys almost agree.
    """
    for what in ("activations", "widths"):
        ours, theirs = getattr(a, what), getattr(b, what)
        if ours != theirs:
            shown = [f"[{', '.join(map(str, each))}]" for each in (ours, theirs)]
            reason = f"in normal form the {what} are {shown[0]} and {shown[1]}"
            return Correspondence(float("inf"), 0, reason, (), ())
    partners: list[Tensor] = []
    signs: list[Tensor] = []
    residual = 0.0
    for index, activation in enumerate((*a.activations, None)):
        number = (
            a.layers[index] if activation is not None else (a.layers[-1] + 1 if a.layers else 0)
        )
        rows_a, rows_b = _rows(a, index), _rows(b, index)
        if rows_a.shape != rows_b.shape:
            reason = f"the weights of layer {number} differ in shape"
            return Correspondence(float("inf"), number, reason, tuple(partners), tuple(signs))
        if index:
            rows_b = _aligned(rows_b, b.weights[index].shape, partners[-1], signs[-1])
        if activation is None:
            found = torch.arange(len(rows_b))
            sign = torch.ones(len(rows_b), dtype=torch.float64)
        else:
            found, sign = _nearest(rows_a, rows_b, either=activation.scales == "sign")
        if len(torch.unique(found)) < len(found):
            reason = f"some units of layer {number} have no partner"
            return Correspondence(float("inf"), number, reason, tuple(partners), tuple(signs))
        residual = max(residual, relative_distance(sign[:, None] * rows_a[found], rows_b))
        if residual > tol:
            reason = f"rows of layer {number} differ by {residual:.1e}"
            return Correspondence(residual, number, reason, tuple(partners), tuple(signs))
        if activation is not None:
            partners.append(found)
            signs.append(sign)
    return Correspondence(residual, None, "", tuple(partners), tuple(signs))


def relative_distance(ours: Tensor, theirs: Tensor) -> float:
    """Largest distance of two rows relative to the larger of their norms.

    Zero for rows that are both zero.
    """
    # ours, theirs (n, m)
    norm = torch.linalg.vector_norm
    size = torch.maximum(norm(ours, dim=1), norm(theirs, dim=1))
    apart = norm(ours - theirs, dim=1)
    return float((apart / size.clamp(min=torch.finfo(size.dtype).tiny)).max()) if len(size) else 0.0


def _rows(form: LayerForm, index: int) -> Tensor:
    return torch.cat([form.weights[index].flatten(1), form.biases[index][:, None]], dim=1)


def _aligned(rows: Tensor, shape: torch.Size, partners: Tensor, signs: Tensor) -> Tensor:
    """Rows of b with their columns in the order and sign of the units of a."""
    weight = rows[:, :-1].reshape(shape) * signs[None, :, None]
    moved = torch.empty_like(weight)
    moved[:, partners] = weight
    return torch.cat([moved.flatten(1), rows[:, -1:]], dim=1)


def _nearest(ours: Tensor, theirs: Tensor, *, either: bool) -> tuple[Tensor, Tensor]:
    """For each row of b the nearest row of a, up to sign if `either`, and the sign."""
    count = len(ours)
    if not count:
        return torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.float64)
    generator = np.random.default_rng(ours.shape[1])
    keys = torch.from_numpy(generator.normal(size=(ours.shape[1], _KEYS)))
    placed = (ours @ keys).numpy()
    if either:
        placed = np.concatenate([placed, -placed])
    _, found = KDTree(placed).query((theirs @ keys).numpy())
    chosen = torch.from_numpy(np.atleast_1d(found))
    return chosen % count, torch.where(chosen < count, 1.0, -1.0).double()
