"""Invertible matrices that map one chain of linear layers to another of the same function."""

from __future__ import annotations

import torch
from torch import Tensor

from skgeo.network._stack import Stack
from skgeo.symmetry._equivalence.apply import transform_layers
from skgeo.symmetry._equivalence.correspondence import relative_distance


def linear_maps(a: Stack, b: Stack, tol: float) -> tuple[tuple[Tensor, ...], float] | None:
    """Matrices M_l with b = M a, one per hidden layer, and the largest distance of two rows.

    M_l (W_l, b_l) M_(l-1)^-1 are the weights and bias of b. None if there are no such matrices or
    they are not found: the widths differ, or a hidden bias was moved to a later one.
    """
    if a.widths != b.widths or 0 in a.widths:
        return None
    maps: list[Tensor] = []
    for index, width in enumerate(a.widths[1:-1]):
        ours, theirs = (_rows(net, index) for net in (a, b))
        if maps:
            ours = torch.cat(
                [torch.linalg.solve(maps[-1].T, ours[:, :-1].T).T, ours[:, -1:]], dim=1
            )
        inverse = torch.linalg.pinv(ours)
        found = theirs @ inverse
        # What the rows do not reach is settled by the next weights, as far as they read it.
        free = torch.eye(width, dtype=torch.float64) - ours @ inverse
        if bool((free.abs() > tol).any()):
            after, left = b.weights[index + 1], torch.eye(width, dtype=torch.float64)
            if index + 2 == a.depth:
                back = torch.linalg.pinv(after)
                found = found + back @ (a.weights[index + 1] - after @ found) @ free
                left = left - back @ after
            found = found + left @ free
        if torch.linalg.matrix_rank(found) < width:
            return None
        maps.append(found)
    scales = tuple(each if len(each) > 1 else each[0] for each in maps)
    none = [None] * len(scales)
    moved = transform_layers(
        a.weights, a.biases, a.activations, permutation=none, scales=scales, flips=none
    )
    residual = max(
        relative_distance(_joined(weight, bias), _rows(b, index))
        for index, (weight, bias) in enumerate(zip(*moved, strict=True))
    )
    return (scales, residual) if residual <= tol else None


def _rows(stack: Stack, index: int) -> Tensor:
    return _joined(stack.weights[index], stack.biases[index])


def _joined(weight: Tensor, bias: Tensor | None) -> Tensor:
    column = weight.new_zeros(len(weight)) if bias is None else bias
    return torch.cat([weight, column[:, None]], dim=1)
