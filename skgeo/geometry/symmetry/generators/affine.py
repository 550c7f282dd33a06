"""The affine functions that rectifier units of a layer can trade with one another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from skgeo.geometry.symmetry.generators.candidate import Candidate
from skgeo.geometry.symmetry.generators.duplicates import incoming_rows
from skgeo.geometry.symmetry.generators.hidden import HiddenLayer, hidden_layers
from skgeo.geometry.symmetry.generators.network import SymmetryNetwork
from skgeo.geometry.symmetry.grouping import group_rows

__all__ = ["affine"]

_TOL = 1e-12
_MOST_ENTRIES = 4_000_000


def affine(network: SymmetryNetwork) -> Iterator[Candidate]:
    r"""Trades among units that are on for all samples, pairs of opposite units, and biases.

    The derivative of a rectifier is :math:`\alpha + \beta s_H(x)`, with :math:`s_H` the indicator
    of one side of its boundary H. What a parameter does to the next layer is, to first order, a
    combination of the functions :math:`x_j` and :math:`s_H x_j`. A boundary with units on one side
    only has no part in :math:`x_j` alone; those with units on both sides have, and so have units
    whose boundary no sample crosses, and the biases of the next layer. The null space of the
    matrix of all their combinations is flat.

    Parameters
    ----------
    network : SymmetryNetwork

    Yields
    ------
    Candidate
        A basis of that null space, which holds the scalings and duplicates of these units too.
    """
    for hidden in hidden_layers(network):
        if hidden.activation not in ("relu", "leaky_relu") or not hidden.is_dense:
            continue
        special = _special_units(hidden)
        if special:
            yield from _null_space(hidden, special)


def _special_units(hidden: HiddenLayer) -> list[tuple[int, float, float, int]]:
    """Units that reach affine functions: unit, alpha, beta, number of the boundary (0 for none)."""
    outputs = hidden.network.seen[hidden.name].outputs
    found = []
    for unit in (outputs.low > 0).nonzero().reshape(-1).tolist():
        found.append((unit, 1.0, 0.0, 0))
    if hidden.slope != 0.0:
        for unit in (outputs.high <= 0).nonzero().reshape(-1).tolist():
            found.append((unit, hidden.slope, 0.0, 0))
    crossed = ((outputs.low <= 0) & (outputs.high > 0)).nonzero().reshape(-1)
    rows = incoming_rows(hidden)[crossed]
    if len(crossed) < 2:
        return found
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(rows.shape[1], generator=generator, dtype=torch.float64)
    signs = (rows @ direction).sign()
    unit_rows = rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    labels, _ = group_rows(unit_rows * signs[:, None], _TOL)
    number = 0
    for label in (torch.bincount(labels) > 1).nonzero().reshape(-1).tolist():
        members = (labels == label).nonzero().reshape(-1).tolist()
        if len({float(signs[member]) for member in members}) < 2:
            continue
        number += 1
        for member in members:
            unit = int(crossed[member])
            if signs[member] > 0:
                found.append((unit, hidden.slope, 1.0 - hidden.slope, number))
            else:
                found.append((unit, 1.0, hidden.slope - 1.0, number))
    return found


def _null_space(
    hidden: HiddenLayer, special: list[tuple[int, float, float, int]]
) -> Iterator[Candidate]:
    network = hidden.network
    rows = incoming_rows(hidden)
    width = rows.shape[1]
    n_outputs = len(hidden.outgoing(0))
    n_boundaries = 1 + max(number for *_, number in special)
    n_columns = len(special) * (width + n_outputs) + n_outputs
    if n_boundaries * width * n_outputs * n_columns > _MOST_ENTRIES:
        network.skipped.append(
            f"affine at {hidden.name!r}: {len(special)} units that share affine functions"
        )
        return
    identity = torch.eye(n_outputs, dtype=torch.float64)
    if hidden.meets_softmax:  # which sees differences of logits
        identity -= 1.0 / n_outputs
    columns: list[Tensor] = []
    places: list[int] = []

    def effect() -> Tensor:
        return torch.zeros(n_boundaries, width, n_outputs, dtype=torch.float64)

    def keep(parameter: Any, where: Any, function: Tensor) -> None:
        if parameter is not None and network.trains(parameter):
            columns.append((function @ identity).reshape(-1))
            places.append(int(network.places(parameter)[where]))

    weight, bias = hidden.layer.weight, hidden.layer.bias
    for unit, alpha, beta, number in special:
        outgoing = hidden.outgoing(unit).cpu()
        for place in range(width):
            function = effect()
            function[0, place] += alpha * outgoing
            function[number, place] += beta * outgoing
            last = place == width - 1
            keep(bias if last else weight, unit if last else (unit, place), function)
        start = 0
        for consumer in hidden.consumers:
            for row in range(consumer.layer.weight.shape[0]):
                function = effect()
                function[0, :, start + row] += alpha * rows[unit]
                function[number, :, start + row] += beta * rows[unit]
                keep(consumer.layer.weight, (row, unit), function)
            start += consumer.layer.weight.shape[0]
    start = 0
    for consumer in hidden.consumers:
        for row in range(consumer.layer.weight.shape[0]):
            function = effect()
            function[0, width - 1, start + row] = 1.0
            keep(consumer.layer.bias, row, function)
        start += consumer.layer.weight.shape[0]
    units = tuple(unit for unit, *_ in special)
    yield from _candidates(hidden, torch.stack(columns, dim=1), places, units)


def _candidates(
    hidden: HiddenLayer, matrix: Tensor, places: list[int], units: tuple[int, ...]
) -> Iterator[Candidate]:
    sizes = torch.linalg.vector_norm(matrix, dim=0)
    sizes = torch.where(sizes > 0, sizes, torch.ones_like(sizes))
    _, values, right = torch.linalg.svd(matrix / sizes)
    rank = int((values > _TOL * values[0]).sum())
    index = torch.tensor(places)
    for vector in right[rank:] / sizes:
        kept = vector.abs() > 1e-14 * vector.abs().max()
        order = index[kept].argsort()
        yield Candidate(
            "affine",
            hidden.name,
            units,
            index[kept][order].numpy(),
            vector[kept][order].numpy(),
            "data",
            hidden.meets_softmax,
        )
