"""Affine functions that the rectifier units of a layer can exchange."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from skgeo.network._hidden import HiddenUnits
from skgeo.symmetry._generators.candidate import Candidate
from skgeo.symmetry._generators.duplicates import common_rows, side_slopes
from skgeo.symmetry._network import SymmetryNetwork

_TOL = 1e-12
_MOST_ENTRIES = 4_000_000


class _Unit(NamedTuple):
    r"""A unit whose derivative is :math:`\alpha + \beta s_H`, where H is its boundary."""

    number: int
    alpha: float
    beta: float
    boundary: int  # 0 if all samples are on one side


def affine(network: SymmetryNetwork) -> Iterator[Candidate]:
    r"""Exchanges between always-active units, pairs of opposite units, and biases.

    The derivative of a rectifier is :math:`\alpha + \beta s_H(x)`, where :math:`s_H` is the
    indicator of one side of its boundary H. To first order, the effect of a parameter on the next
    layer is a combination of the functions :math:`x_j` and :math:`s_H x_j`. Units of a boundary
    with units on one side only do not reach :math:`x_j` itself. Units of a boundary with units on
    both sides do, and so do units with all samples on one side of their boundary, and the biases of
    the next layer. The null space of the matrix of all their effects is flat. It also contains the
    scalings and duplicates of these units.
    """
    for hidden in network.hidden:
        if hidden.is_rectified and hidden.is_dense:
            special = _special_units(network, hidden)
            if special:
                yield from _null_space(network, hidden, special)


def _special_units(network: SymmetryNetwork, hidden: HiddenUnits) -> list[_Unit]:
    """Units that reach affine functions."""
    low, high = network.ranges[hidden.name].outputs
    below, above = (slopes.tolist() for slopes in side_slopes(hidden))
    labels, factors = (part.tolist() for part in common_rows(hidden, _TOL))
    found = []
    crossed = defaultdict(list)
    for unit in range(hidden.width):
        if low[unit] > 0 or high[unit] <= 0:
            slope = above[unit] if low[unit] > 0 else below[unit]
            if slope != 0.0:
                found.append(_Unit(unit, slope, 0.0, 0))
        else:
            crossed[labels[unit]].append(unit)
    number = 0
    for units in crossed.values():
        if len({(factors[unit] > 0, below[unit]) for unit in units}) == 1:
            continue
        number += 1
        for unit in units:
            ends = (below[unit], above[unit])
            first, second = ends if factors[unit] > 0 else ends[::-1]
            found.append(_Unit(unit, first, second - first, number))
    return found


def _null_space(
    network: SymmetryNetwork, hidden: HiddenUnits, special: list[_Unit]
) -> Iterator[Candidate]:
    rows = torch.cat([hidden.incoming[0], hidden.incoming[1][:, None]], dim=1)
    outgoing = hidden.outgoing
    width, n_outputs = rows.shape[1], len(outgoing)
    n_boundaries = 1 + max(unit.boundary for unit in special)
    n_columns = len(special) * (width + n_outputs) + n_outputs
    if n_boundaries * width * n_outputs * n_columns > _MOST_ENTRIES:
        network.skipped.append(
            f"affine at {hidden.name!r}: {len(special)} units share affine functions, too many"
        )
        return
    inputs = torch.eye(width, dtype=torch.float64)
    outputs = torch.eye(n_outputs, dtype=torch.float64)
    if hidden.meets_softmax:  # only differences of logits matter
        outputs = outputs - 1.0 / n_outputs
    columns: list[Tensor] = []  # (n_boundaries * width * n_outputs, entries of a parameter)
    places: list[Tensor] = []

    def keep(parameter: Any, where: Any, side: Tensor, by_input: Tensor, by_output: Tensor) -> None:
        """Effect of some entries: a product of (n_boundaries,), (., width) and (., n_outputs)."""
        if parameter is not None and network.trains(parameter):
            places.append(network.places(parameter)[where].reshape(-1))
            effect = torch.einsum("b,mi,mk->bikm", side, by_input, by_output @ outputs)
            columns.append(effect.flatten(0, 2))

    sides = torch.zeros(len(special), n_boundaries, dtype=torch.float64)
    for side, unit in zip(sides, special, strict=True):
        side[0] += unit.alpha
        side[unit.boundary] += unit.beta
        column = outgoing[:, unit.number].expand(width, -1)
        keep(hidden.layer.weight, unit.number, side, inputs[:-1], column[:-1])
        keep(hidden.layer.bias, unit.number, side, inputs[-1:], column[-1:])
    first = torch.eye(n_boundaries, dtype=torch.float64)[0]
    start = 0
    for consumer in hidden.consumers:
        ends = outputs.new_zeros(len(consumer.layer.weight), n_outputs)
        ends[:, start : start + len(ends)] = torch.eye(len(ends), dtype=torch.float64)
        start += len(ends)
        for side, unit in zip(sides, special, strict=True):
            row = rows[unit.number].expand(len(ends), -1)
            keep(consumer.layer.weight, (slice(None), unit.number), side, row, ends)
        keep(consumer.layer.bias, slice(None), first, inputs[-1:].expand(len(ends), -1), ends)
    if columns:
        units = tuple(unit.number for unit in special)
        yield from _candidates(hidden, torch.cat(columns, dim=1), torch.cat(places), units)


def _candidates(
    hidden: HiddenUnits, matrix: Tensor, places: Tensor, units: tuple[int, ...]
) -> Iterator[Candidate]:
    sizes = torch.linalg.vector_norm(matrix, dim=0)
    sizes = torch.where(sizes > 0, sizes, torch.ones_like(sizes))
    _, values, right = torch.linalg.svd(matrix / sizes)
    rank = int((values > _TOL * values[0]).sum())
    for vector in right[rank:] / sizes:
        kept = vector.abs() > 1e-14 * vector.abs().max()
        order = places[kept].argsort()
        yield Candidate(
            "affine",
            hidden.name,
            units,
            places[kept][order].numpy(),
            vector[kept][order].numpy(),
            "data",
            hidden.meets_softmax,
        )
