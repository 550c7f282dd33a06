r"""Normal form of a deep stack of layers, unit by unit and layer by layer.

A unit may be scaled by any a > 0 under a rectifier, and by -1 under an odd activation: its incoming
weights and bias are multiplied by a, its outgoing weights are divided by a. The units of every
layer may be permuted. The normal form fixes this freedom from the first layer to the last: rows
(w, b) get norm 1 or a fixed sign, the scale moves to the columns of the next layer, and rows are
sorted by a random key. Redundant units are removed first: units without outgoing weights, units
without incoming weights (their constant is added to the next bias), and copies of other units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skgeo._results import Result
from skgeo.exceptions import SkgeoError
from skgeo.network._activation import Activation, as_activation
from skgeo.symmetry._grouping import group_rows

_TINY = torch.finfo(torch.float64).tiny


@dataclass(frozen=True, eq=False, repr=False)
class LayerForm(Result):
    """A chain in normal form, and the units of the chain it was made from.

    Attributes
    ----------
    weights : tuple of Tensor of shape (n_out, n_in, m)
        float64. m > 1 for kernels of convolutions, and for a linear layer that reads m positions
        of each channel.
    biases : tuple of Tensor of shape (n_out,)
    activations : tuple of Activation
        One per remaining hidden layer; layers without an activation are multiplied together.
    layers : tuple of int
        Number of each of these hidden layers in the chain.
    units : tuple of Tensor
        int64, one tensor per remaining hidden layer: the unit of the chain that each unit
        represents.
    scales : tuple of Tensor
        Factor that the incoming weights and bias of that unit were divided by; negative where the
        sign of a unit was flipped.
    groups : tuple of Tensor
        int64, one entry per unit of the chain: the unit it became part of, -1 if it was removed.
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    activations: tuple[Activation, ...]
    layers: tuple[int, ...]
    units: tuple[Tensor, ...]
    scales: tuple[Tensor, ...]
    groups: tuple[Tensor, ...]

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths of the remaining hidden layers."""
        return tuple(len(bias) for bias in self.biases[:-1])

    @property
    def is_whole(self) -> bool:
        """Whether no unit was removed or merged."""
        return all(
            len(units) == len(groups) for units, groups in zip(self.units, self.groups, strict=True)
        )


def layer_blocks(weights: Sequence[Tensor]) -> list[Tensor]:
    """Weights as (out, in, m), where `in` counts the units of the layer before.

    weights: (out, in) for linear layers, (out, in, ...) for kernels. A linear layer after a
        flattened convolution has in = channels times positions, with the positions of one channel
        next to each other.
    Returns float64 views where possible.
    Raises SkgeoError if the sizes of two consecutive layers do not fit.
    """
    blocks: list[Tensor] = []
    for index, weight in enumerate(weights):
        before = blocks[-1].shape[0] if blocks else weight.shape[1]
        if before == weight.shape[1] == 0:  # after a layer without units
            blocks.append(weight.double().reshape(weight.shape[0], 0, 1))
            continue
        if before == 0 or (weight.shape[1:].numel() % before):
            raise SkgeoError(
                f"Layer {index} has weights of shape {tuple(weight.shape)} and follows a layer of "
                f"{before} units, which does not divide its number of inputs."
            )
        spread = weight.shape[1:].numel() // before
        blocks.append(weight.double().reshape(weight.shape[0], before, spread))
    return blocks


def canonical_layers(
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    activations: Sequence[Activation | str],
    *,
    tol: float = 1e-13,
    foldable: Sequence[bool] | None = None,
    drop_off: bool = True,
) -> LayerForm:
    r"""Normal form of a chain under permutations, scales and signs of its hidden units.

    weights: W_1, ..., W_L, as in :func:`layer_blocks`.
    activations: of the L - 1 hidden layers. Units are scaled under rectifiers, sign-flipped under
        odd activations, and only permuted under others.
    tol: tolerance relative to the norm of a row (w, b), up to which rows are treated as equal.
        Outgoing weights that cancel up to this tolerance are set to zero.
    foldable: for each hidden layer whether a constant unit adds a constant to the next layer, which
        is false before a convolution that pads with zeros. By default true where the next layer's
        weights have two axes.
    drop_off: whether to drop ReLU units that are never active because they read nonnegative values
        and have no positive weight or bias.
    Raises SkgeoError if the numbers of layers do not fit, or an activation has a slope per unit.

    Two chains related by these symmetries have the same form, up to rounding. The converse is false
    in general: deep ReLU networks have further symmetries, but general ones of non-increasing
    widths have none [1]_.

    .. [1] M. Phuong and C. H. Lampert, "Functional vs. parametric equivalence of ReLU networks",
       ICLR 2020, Theorem 1.

    ``relu(2 x) + relu(3 x)`` is one unit.

    >>> import torch
    >>> form = canonical_layers(
    ...     [torch.tensor([[2.0], [3.0]]), torch.tensor([[1.0, 1.0]])],
    ...     [torch.zeros(2), torch.zeros(1)],
    ...     ["relu"],
    ... )
    >>> form.widths, form.weights[1].item()
    ((1,), 5.0)
    """
    # biases (out,)
    known = [as_activation(each) for each in activations]
    _check(weights, biases, known)
    work = _Work(weights, biases, known, tol, foldable, drop_off)
    work.multiply_linear()
    # Weights that cancel in one layer may leave earlier units without outgoing weights.
    while work.drop_unread() | work.normalise():
        pass
    return LayerForm(
        weights=tuple(work.weights),
        biases=tuple(work.biases),
        activations=tuple(work.activations),
        layers=tuple(work.layers),
        units=tuple(work.units),
        scales=tuple(work.scales),
        groups=tuple(work.groups),
    )


def _check(
    weights: Sequence[Tensor], biases: Sequence[Tensor | None], activations: Sequence[Activation]
) -> None:
    if not weights or not len(weights) == len(biases) == len(activations) + 1:
        raise SkgeoError(
            f"Got {len(weights)} weights, {len(biases)} biases and {len(activations)} activations; "
            "expected as many biases as weights, and one activation between each two layers."
        )
    unknown = [str(each) for each in activations if each.scales == "unknown"]
    if unknown:
        raise SkgeoError(
            f"The activation {unknown[0]} has a slope of its own for each unit, so units cannot be "
            "permuted. Expected the same activation for all units of a layer."
        )


class _Work:
    """The chain during normalisation: the fields of a LayerForm as lists."""

    def __init__(
        self,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor | None],
        activations: Sequence[Activation],
        tol: float,
        foldable: Sequence[bool] | None,
        drop_off: bool,
    ) -> None:
        # Layers are replaced by new tensors, never written to.
        self.weights = layer_blocks(weights)
        self.biases = [
            weight.new_zeros(len(weight)) if bias is None else bias.double()
            for weight, bias in zip(self.weights, biases, strict=True)
        ]
        self.activations = list(activations)
        self.tol, self.drop_off = tol, drop_off
        depth = len(activations)
        self.foldable = (
            list(foldable) if foldable is not None else [w.dim() == 2 for w in weights[1:]]
        )
        self.dense = [weight.dim() == 2 for weight in weights]
        self.layers = list(range(depth))
        self.units = [torch.arange(len(bias)) for bias in self.biases[:-1]]
        self.groups = [units.clone() for units in self.units]
        self.scales = [torch.ones_like(bias) for bias in self.biases[:-1]]

    def multiply_linear(self) -> None:
        """Multiply linear layers without an activation between them."""
        for index in reversed(range(len(self.activations))):
            after, before = self.weights[index + 1], self.weights[index]
            dense = self.dense[index] and self.dense[index + 1] and after.shape[2] == 1
            if not self.activations[index].is_identity or not dense:
                continue
            matrix = after[:, :, 0]
            shape = (matrix.shape[0], *before.shape[1:])
            self.biases[index + 1] = self.biases[index + 1] + matrix @ self.biases[index]
            self.weights[index + 1] = (matrix @ before.flatten(1)).reshape(shape)
            for field in (
                *(self.weights, self.biases, self.activations, self.foldable),
                *(self.layers, self.units, self.groups, self.scales, self.dense),
            ):
                del field[index]

    def drop_unread(self) -> bool:
        """Remove units without outgoing weights, from the last layer to the first."""
        changed = False
        for index in reversed(range(len(self.activations))):
            read = (self.weights[index + 1] != 0).any(dim=2).any(dim=0)
            if not read.all():
                self._keep(index, torch.nonzero(read)[:, 0])
                changed = True
        return changed

    def normalise(self) -> bool:
        """Fold, scale, merge and sort from the first layer on. Whether units were removed."""
        changed = False
        for index, activation in enumerate(self.activations):
            count = len(self.biases[index])
            self._fold_constant(index)
            if activation.scales in ("positive", "sign"):
                self._scale(index, activation.scales)
            if activation.scales != "linear":
                self._merge(index)
            self._sort(index)
            changed |= len(self.biases[index]) < count
        return changed

    def _rows(self, index: int) -> Tensor:
        weight = self.weights[index]
        return torch.cat([weight.flatten(1), self.biases[index][:, None]], dim=1)

    def _keep(self, index: int, kept: Tensor) -> None:
        """Keep some units of a hidden layer, in this order; the others have no effect."""
        place = torch.full((len(self.biases[index]) + 1,), -1)
        place[kept] = torch.arange(len(kept))
        self.groups[index] = place[self.groups[index]]  # -1 indexes the last entry, which is -1
        self.weights[index] = self.weights[index][kept]
        self.biases[index] = self.biases[index][kept]
        self.weights[index + 1] = self.weights[index + 1][:, kept]
        self.units[index] = self.units[index][kept]
        self.scales[index] = self.scales[index][kept]

    def _fold_constant(self, index: int) -> None:
        """Add constant units to the next bias."""
        weight, bias = self.weights[index], self.biases[index]
        size = torch.linalg.vector_norm(weight.flatten(1), dim=1)
        constant = size <= self.tol * bias.abs()
        if self.drop_off and index and self._is_off_below_zero(index):
            # The pre-activation is never positive, so the unit is never active.
            constant |= (weight.flatten(1) <= 0).all(dim=1) & (bias <= 0)
        if not constant.any():
            return
        value = self.activations[index](bias)
        # relu of a negative constant is zero, so there is nothing to fold.
        gone = constant & ((value == 0) | self.foldable[index])
        following = self.weights[index + 1].sum(dim=2)
        self.biases[index + 1] = self.biases[index + 1] + following[:, gone] @ value[gone]
        self._keep(index, torch.nonzero(~gone)[:, 0])

    def _is_off_below_zero(self, index: int) -> bool:
        """Whether units are zero for negative arguments and read nonnegative values."""
        activation, before = self.activations[index], self.activations[index - 1]
        return activation.is_rectifier and activation.slope == 0.0 and before.range[0] >= 0.0

    def _scale(self, index: int, group: str) -> None:
        rows = self._rows(index)
        if group == "positive":
            scale = torch.linalg.vector_norm(rows, dim=1)
        else:
            # Unlike a single weight, a random projection is not zero for many units.
            scale = torch.where(random_keys(rows, 2) < 0, -1.0, 1.0).double()
        self.weights[index] = self.weights[index] / scale[:, None, None]
        self.biases[index] = self.biases[index] / scale
        self.weights[index + 1] = self.weights[index + 1] * scale[None, :, None]
        self.scales[index] = self.scales[index] * scale

    def _merge(self, index: int) -> None:
        """Merge units with equal rows, and drop them if their outgoing weights cancel."""
        rows = self._rows(index)
        if not len(rows):
            return
        size = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        # Direction and logarithm of the norm, so distances are relative to the norm.
        points = torch.cat([rows / size.clamp(min=_TINY), size.clamp(min=_TINY).log()], dim=1)
        label, first = group_rows(points, self.tol)
        count = len(first)
        if count == len(rows):
            return
        following = self.weights[index + 1]
        shape = (following.shape[0], count, following.shape[2])
        total = following.new_zeros(shape).index_add_(1, label, following)
        gross = following.new_zeros(shape).index_add_(1, label, following.abs())
        total[total.abs() <= self.tol * gross] = 0.0
        self._relabel(index, label, first)
        self.weights[index + 1] = total
        read = (total != 0).any(dim=2).any(dim=0)
        self._keep(index, torch.nonzero(read)[:, 0])

    def _relabel(self, index: int, label: Tensor, first: Tensor) -> None:
        place = torch.cat([label, torch.tensor([-1])])
        self.groups[index] = place[self.groups[index]]
        self.weights[index] = self.weights[index][first]
        self.biases[index] = self.biases[index][first]
        self.units[index] = self.units[index][first]
        self.scales[index] = self.scales[index][first]

    def _sort(self, index: int) -> None:
        order = torch.argsort(random_keys(self._rows(index), 0), stable=True)
        if not torch.equal(order, torch.arange(len(order))):
            self._keep(index, order)


def random_keys(rows: Tensor, seed: int) -> Tensor:
    """One random projection of each row, the same for all networks of this width."""
    # rows (n, m) -> (n,)
    generator = np.random.default_rng((seed, rows.shape[1]))
    return rows @ torch.from_numpy(generator.normal(size=rows.shape[1])).to(rows)
