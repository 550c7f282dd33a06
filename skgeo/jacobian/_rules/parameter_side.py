r"""Blocks of ``sum_n J_n^T J_n``, with the directions summed before the outer products.

Where the gradient of sample n in direction k is an outer product :math:`g_{nk} a_n^T`,

.. math:: \sum_{nk} (g_{nk} \otimes a_n)(g'_{nk} \otimes a'_n)^T
          = \sum_n \Big(\sum_k g_{nk} g'^T_{nk}\Big) \otimes a_n a'^T_n ,

one product of two matrices with b rows each. Within a layer both factors are symmetric, so a
quarter of the entries determines the rest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from skgeo.jacobian._rules.rule import LayerGradients, sample_slices


@dataclasses.dataclass(frozen=True, eq=False)
class Columns:
    """Columns of a Jacobian as outer products; dense columns have ``i = 1`` and ones for a.

    Attributes
    ----------
    a : Tensor of shape (b, i)
    g : Tensor of shape (b, m, o)
        Together the columns (o, i) of row (n, k): ``g[n, k, :, None] * a[n, None, :]``.
    pieces : tuple of (slice, slice, slice)
        Along o, along i, and the place of these columns among the parameters.
    """

    a: Tensor
    g: Tensor
    pieces: tuple[tuple[slice, slice, slice], ...]

    @classmethod
    def of_layer(
        cls, call: LayerGradients, a: Tensor, g: Tensor, places: Mapping[str, slice]
    ) -> Columns:
        """Columns of a layer; its bias belongs to the last input."""
        every, i = slice(0, g.shape[2]), a.shape[1]
        pieces = []
        for local in call.names:
            if local == "weight":
                last = i - 1 if "bias" in call.names else i
                pieces.append((every, slice(0, last), places[local]))
            else:
                pieces.append((every, slice(i - 1, i), places[local]))
        return cls(a, g, tuple(pieces))

    @classmethod
    def of_rows(cls, rows: Tensor, places: Mapping[str, slice]) -> Columns:
        """Dense columns, in the order of `places`."""
        pieces, start = [], 0
        for place in places.values():
            stop = start + place.stop - place.start
            pieces.append((slice(start, stop), slice(0, 1), place))
            start = stop
        return cls(rows.new_ones(len(rows), 1), rows, tuple(pieces))


def add_block(total: Tensor, left: Columns, right: Columns) -> None:
    """Add the products of two sets of columns to a matrix, on and below its diagonal.

    left, right: if they are the same object, each pair is added once.
    """
    # total (P, P)
    if not all(t.numel() for t in (left.a, left.g, right.a, right.g)):
        return  # a layer without units
    if left is right and left.a.shape[1] > 1:
        _add_within(total, left)
        return
    block = parameter_block((left.a, left.g), (right.a, right.g))
    for o, i, rows in left.pieces:
        for p, j, columns in right.pieces:
            part = block[o, i, p, j]
            if rows.start >= columns.start:
                _view(total, rows, columns, part.shape).add_(part)
            elif left is not right:
                part = part.permute(2, 3, 0, 1)
                _view(total, columns, rows, part.shape).add_(part)


def _view(total: Tensor, rows: slice, columns: slice, shape: Sequence[int]) -> Tensor:
    """View of part of a matrix with axes o, i, p and j."""
    part = torch.unflatten(total[rows, columns], 1, shape[2:])
    return torch.unflatten(part, 0, shape[:2])


def parameter_block(left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor]) -> Tensor:
    """Sum over samples and directions of products of outer-product gradients of two layers.

    left: factors of the gradients, as :meth:`StructureRule.outer` gives them.
    """
    # -> (o, i, p, j)
    (a, g), (c, h) = left, right
    b, i, j = len(a), a.shape[1], c.shape[1]
    m, o, p = g.shape[1], g.shape[2], h.shape[2]
    if i == j == 1:  # samples need not be kept separate
        block = (g * a.unsqueeze(1)).reshape(b * m, o).T @ (h * c.unsqueeze(1)).reshape(b * m, p)
        return block.reshape(o, 1, p, 1)
    total = a.new_zeros(o * p, i * j)
    for samples in sample_slices(b, 8 * (o * p + i * j)):
        among_gradients = torch.bmm(g[samples].mT, h[samples]).flatten(1)
        among_inputs = (a[samples].unsqueeze(2) * c[samples].unsqueeze(1)).flatten(1)
        total.addmm_(among_gradients.T, among_inputs)
    return total.reshape(o, p, i, j).permute(0, 2, 1, 3)


def _add_within(total: Tensor, columns: Columns) -> None:
    """Add the products of a layer's columns with each other, from pairs o <= p and i <= j."""
    a, g = columns.a, columns.g
    b, i, o = len(a), a.shape[1], g.shape[2]
    o_index, i_index = _pair_numbers(o, a.device), _pair_numbers(i, a.device)
    products = a.new_zeros(o * (o + 1) // 2, i * (i + 1) // 2)
    for samples in sample_slices(b, 8 * (2 * o * o + i * i)):
        outer, some = torch.bmm(g[samples].mT, g[samples]), a[samples]
        # Rows of the upper triangle one after another, which is faster than indexing.
        among_gradients = torch.cat([outer[:, k, k:] for k in range(o)], 1)
        among_inputs = torch.cat([some[:, k : k + 1] * some[:, k:] for k in range(i)], 1)
        products.addmm_(among_gradients.T, among_inputs)
    # One output feature at a time, so the block needs no memory next to the matrix.
    for here in range(o):
        part = products[o_index[here]][:, i_index]
        for every, rows_i, rows in columns.pieces:
            for _, columns_i, where in columns.pieces:
                if rows.start >= where.start:
                    shape = (o, rows_i.stop - rows_i.start, o, columns_i.stop - columns_i.start)
                    into = _view(total, rows, where, shape)
                    into[here] += part[every, rows_i, columns_i].permute(1, 0, 2)


def _pair_numbers(n: int, device: torch.device) -> Tensor:
    """Index in the upper triangle of each entry of a symmetric (n, n) matrix."""
    first, second = torch.triu_indices(n, n, device=device)
    numbers = torch.empty(n, n, dtype=torch.long, device=device)
    numbers[first, second] = torch.arange(len(first), device=device)
    numbers[second, first] = numbers[first, second]
    return numbers
