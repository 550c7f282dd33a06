"""Attention heads: linear groups of query-key and value-output, and biases without effect."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from skgeo.symmetry._generators.candidate import Candidate, Change
from skgeo.symmetry._network import SymmetryNetwork


@dataclass(frozen=True, eq=False)
class Projections:
    """Places of the three input matrices of ``nn.MultiheadAttention``."""

    weights: tuple[tuple[Tensor, int], ...]  # parameter and first row for query, key and value
    biases: tuple[tuple[Tensor | None, int], ...]


def projections(layer: nn.MultiheadAttention) -> Projections:
    """The input matrices of an attention layer, in one tensor or in three."""
    width = layer.embed_dim
    starts = (0, width, 2 * width)
    biases = tuple((layer.in_proj_bias, start) for start in starts)
    packed = layer.in_proj_weight
    if packed is not None:
        return Projections(tuple((packed, start) for start in starts), biases)
    apart: Any = (layer.q_proj_weight, layer.k_proj_weight, layer.v_proj_weight)
    return Projections(tuple((weight, 0) for weight in apart), biases)


def attention(network: SymmetryNetwork) -> Iterator[Candidate]:
    """Per head of width d: d^2 directions of query and key, d^2 of value and output, and biases.

    The linear group acts on ``(W_Q, b_Q)`` and inversely on ``(W_K, b_K)``, and on ``(W_V, b_V)``
    and inversely on ``W_O``. A shift of the keys adds the same number to all scores of a query, so
    ``b_K`` has no effect. A shift of the values shifts the result, so ``b_V`` can be exchanged for
    ``b_O``. This gives ``2 d^2 + 2 d`` directions per head with all biases; they are not
    independent if d exceeds the width of the inputs.
    """
    for node, layer in network.layers("attention"):
        found = projections(layer)
        for head in range(layer.num_heads):
            size = layer.head_dim
            rows = range(head * size, (head + 1) * size)
            for a in rows:
                for b in rows:
                    yield from _query_key(network, node.module, layer, found, a, b)
                    yield from _value_output(network, node.module, layer, found, a, b)
                yield from _shifts(network, node.module, layer, found, a)


def _rows(
    change: Change, parameter: tuple[Tensor | None, int], to: int, of: int, sign: float
) -> None:
    tensor, start = parameter
    if tensor is not None:
        change.add(tensor, start + to, sign * tensor[start + of])


def _query_key(
    network: SymmetryNetwork, name: Any, layer: Any, found: Projections, a: int, b: int
) -> Iterator[Candidate]:
    change = Change(network)
    for parts in (found.weights, found.biases):
        _rows(change, parts[0], a, b, 1.0)
        _rows(change, parts[1], b, a, -1.0)
    if layer.bias_k is not None:
        change.add(layer.bias_k, (..., b), -layer.bias_k[..., a])
    yield from change.candidate("query_key", name, sorted({a, b}))


def _value_output(
    network: SymmetryNetwork, name: Any, layer: Any, found: Projections, a: int, b: int
) -> Iterator[Candidate]:
    change = Change(network)
    for parts in (found.weights, found.biases):
        _rows(change, parts[2], a, b, 1.0)
    if layer.bias_v is not None:
        change.add(layer.bias_v, (..., a), layer.bias_v[..., b])
    output = layer.out_proj.weight
    change.add(output, (slice(None), b), -output[:, a])
    yield from change.candidate("value_output", name, sorted({a, b}))


def _shifts(
    network: SymmetryNetwork, name: Any, layer: Any, found: Projections, unit: int
) -> Iterator[Candidate]:
    (keys, first), (values, last) = found.biases[1:]
    if keys is not None:
        change = Change(network).add(keys, first + unit, 1.0)
        if layer.bias_k is not None:
            change.add(layer.bias_k, (..., unit), 1.0)
        yield from change.candidate("key_bias", name, [unit])
    if values is not None:
        output = layer.out_proj
        change = Change(network).add(values, last + unit, 1.0)
        if layer.bias_v is not None:
            change.add(layer.bias_v, (..., unit), 1.0)
        change.add(output.bias, slice(None), -output.weight[:, unit])
        yield from change.candidate("value_bias", name, [unit])
