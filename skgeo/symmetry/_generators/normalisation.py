"""LayerNorm and RMSNorm: invariances of their input, and constraints on their output."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from skgeo.network._flow import FlowNode
from skgeo.symmetry._generators.attention import projections
from skgeo.symmetry._generators.candidate import Candidate, Change, rowwise
from skgeo.symmetry._network import SymmetryNetwork

# Steps that keep the features of a position together.
_ALONG = ("identity", "add", "mean", "select")
_STRAIGHT = ("identity", "mean", "select")


@dataclass(frozen=True, eq=False)
class _Reader:
    """A matrix that reads the features of a normalisation layer, with its bias."""

    weight: Tensor
    bias: Tensor | None
    start: int
    bias_start: int
    n_rows: int

    @property
    def rows(self) -> slice:
        return slice(self.start, self.start + self.n_rows)

    @property
    def bias_rows(self) -> slice:
        return slice(self.bias_start, self.bias_start + self.n_rows)


def norm_shift(network: SymmetryNetwork) -> Iterator[Candidate]:
    """A constant added to one column of a layer that only LayerNorm layers read.

    n + 1 directions for ``nn.Linear(n, w)`` before a LayerNorm, directly or through a residual
    stream; one per row of an embedding. Exact for any epsilon.
    """
    for node, layer in network.layers("linear", "embedding", "attention"):
        ends, _ = network.flow.readers(node, _ALONG)
        if not ends or any(end.kind != "layernorm" for end in ends):
            continue
        source = layer.out_proj if node.kind == "attention" else layer
        if node.kind == "embedding":
            for row in range(len(source.weight)):
                change = Change(network).add(source.weight, row, 1.0)
                yield from change.candidate("norm_shift", node.module, [row])
        else:
            rows = [(row, 1.0) for row in range(len(source.weight))]
            yield from rowwise(network, source, rows, "norm_shift", node.module)


def norm_scale(network: SymmetryNetwork) -> Iterator[Candidate]:
    """Scaling of all weights and biases of a layer before LayerNorm or RMSNorm.

    Exact for epsilon zero only. For other values it fails the check, unless the activations are
    very large.
    """
    for node, layer in network.layers("linear"):
        ends, _ = network.flow.readers(node, _STRAIGHT)
        if not ends or any(end.kind not in ("layernorm", "rmsnorm") for end in ends):
            continue
        change = Change(network).add(layer.weight, ..., layer.weight)
        if layer.bias is not None:
            change.add(layer.bias, ..., layer.bias)
        yield from change.candidate("norm_scale", node.module)


def norm_hyperplane(network: SymmetryNetwork) -> Iterator[Candidate]:
    r"""One direction in each row of a layer that reads a LayerNorm.

    Normalised features sum to zero: :math:`\sum_j (y_j - \beta_j) / \gamma_j = 0`.
    """
    for node, norm in network.layers("layernorm"):
        if len(norm.normalized_shape) != 1:
            continue
        width = norm.normalized_shape[0]
        gamma = torch.ones(width, dtype=torch.float64)
        beta = torch.zeros(width, dtype=torch.float64)
        if norm.weight is not None:
            gamma = norm.weight.detach().cpu()
        if norm.bias is not None:
            beta = norm.bias.detach().cpu()
        lost = gamma == 0  # these features are the constant beta
        normals = torch.eye(width, dtype=torch.float64)[lost]
        if not bool(lost.any()):
            normals = ((1 / gamma) / torch.linalg.vector_norm(1 / gamma))[None]
        for _, matrix in _readers(network, node, width):
            for row in range(matrix.n_rows):
                for normal in normals:
                    change = Change(network)
                    change.add(matrix.weight, matrix.start + row, normal)
                    shift = float(normal @ beta)
                    if abs(shift) > 1e-15 * float(normal.abs() @ beta.abs()):
                        change.add(matrix.bias, matrix.bias_start + row, -shift)
                    yield from change.candidate("norm_hyperplane", node.module, [row])


def norm_gain(network: SymmetryNetwork) -> Iterator[Candidate]:
    """Gains of a normalisation layer, compensated by columns, and shifts, compensated by biases.

    2 w directions for LayerNorm of w features if the next layers have biases, w for RMSNorm.
    """
    for node, norm in network.layers("layernorm", "rmsnorm", "batchnorm"):
        shape = getattr(norm, "normalized_shape", (getattr(norm, "num_features", 0),))
        if norm.weight is None or len(shape) != 1:
            continue
        ends, _ = network.flow.readers(node, _STRAIGHT)
        found = _readers(network, node, shape[0])
        if not ends or {end.name for end in ends} != {end.name for end, _ in found}:
            continue
        bias = getattr(norm, "bias", None)
        for unit in range(shape[0]):
            change = Change(network).add(norm.weight, unit, norm.weight[unit].detach())
            if bias is not None:
                change.add(bias, unit, bias[unit].detach())
            for _, matrix in found:
                where = (matrix.rows, unit)
                change.add(matrix.weight, where, -matrix.weight[where].detach())
            yield from change.candidate("norm_gain", node.module, [unit])
            if bias is None:
                continue
            change = Change(network).add(bias, unit, 1.0)
            for _, matrix in found:
                columns = matrix.weight[matrix.rows, unit].detach()
                sums = columns.reshape(matrix.n_rows, -1).sum(1)
                change.add(matrix.bias, matrix.bias_rows, -sums)
            yield from change.candidate("norm_gain", node.module, [unit])


def _readers(
    network: SymmetryNetwork, node: FlowNode, width: int
) -> list[tuple[FlowNode, _Reader]]:
    """Matrices that read the features of a step and nothing else."""
    found = []
    for end in network.flow.readers(node, _STRAIGHT)[0]:
        if not network.flow.is_single(end):
            continue
        layer: Any = network.flow.layer(end)
        if end.kind in ("linear", "conv") and layer.weight.shape[1] == width:
            n_rows = layer.weight.shape[0]
            found.append((end, _Reader(layer.weight, layer.bias, 0, 0, n_rows)))
        elif end.kind == "attention":
            parts = projections(layer)
            matrices = zip(end.parents, parts.weights, parts.biases, strict=False)
            for parent, (weight, start), (bias, first) in matrices:
                if parent == node.name and weight.shape[1] == width:
                    found.append((end, _Reader(weight, bias, start, first, layer.embed_dim)))
    return found
