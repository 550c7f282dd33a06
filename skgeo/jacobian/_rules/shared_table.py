r"""A table of embeddings that is also the weight of a linear layer.

With tokens :math:`i_{nt}` and gradients :math:`e_{nkt}` where the table is looked up, and inputs
:math:`a_{ns}` and gradients :math:`g_{nks}` where it multiplies, row v of the derivative is
:math:`\sum_t [i_{nt} = v]\, e_{nkt} + \sum_s (g_{nks})_v\, a_{ns}`. Products need the cross terms

.. math:: \sum_{ts} (e_{nkt} \cdot a_{n's})\, (g_{n'k's})_{i_{nt}} ,

for which only the gradients at the tokens that occur are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from skgeo.jacobian._rules.embedding import EmbeddingRule
from skgeo.jacobian._rules.linear import LinearRule
from skgeo.jacobian._rules.rule import LayerGradients, StructureRule, sample_slices

# Tokens are kept beside activations, where float32 has integers up to this.
MOST_TOKENS = 2**24
_TABLE, _LINEAR = EmbeddingRule(), LinearRule()


class SharedTable(nn.Module):
    """Stand-in for an embedding of `n_tokens` and a linear layer at `n_positions` of each sample.

    It has no forward pass.
    """

    def __init__(
        self, table: nn.Embedding, linear: nn.Linear, n_tokens: int, n_positions: int
    ) -> None:
        super().__init__()
        self.weight = table.weight
        self.parts = (table, linear)  # not registered: these stay modules of the network
        self.n_tokens, self.n_positions = n_tokens, n_positions


def packed(table: LayerGradients, linear: LayerGradients) -> LayerGradients:
    """One call that stands for both, inputs and gradients one after another."""
    b = table.n_samples
    tokens, a = table.inputs.reshape(b, -1), linear.inputs.reshape(b, -1)
    a = a.to(torch.promote_types(a.dtype, torch.float32))
    width = table.gradients.shape[-1]
    module = SharedTable(
        cast(nn.Embedding, table.module),
        cast(nn.Linear, linear.module),
        tokens.shape[1],
        a.shape[1] // width,
    )
    gradients = torch.cat([table.gradients.flatten(2), linear.gradients.flatten(2)], 2)
    return LayerGradients(module, torch.cat([tokens.to(a), a], 1), gradients, table.names)


def unpacked(call: LayerGradients) -> tuple[LayerGradients, LayerGradients]:
    """The calls of the embedding and of the linear layer."""
    module = cast(SharedTable, call.module)
    (b, m), (count, width) = call.gradients.shape[:2], module.weight.shape
    t, s = module.n_tokens, module.n_positions
    tokens, a = call.inputs[:, :t], call.inputs[:, t:]
    e, g = call.gradients[..., : t * width], call.gradients[..., t * width :]
    table, linear = module.parts
    return (
        LayerGradients(table, tokens.long(), e.reshape(b, m, t, width), call.names),
        LayerGradients(linear, a.reshape(b, s, width), g.reshape(b, m, s, count), call.names),
    )


class SharedTableRule(StructureRule):
    """Rule of :class:`SharedTable`."""

    names = ("weight",)

    def rows(self, call: LayerGradients) -> dict[str, Tensor]:
        table, linear = unpacked(call)
        return {"weight": _TABLE.rows(table)["weight"] + _LINEAR.rows(linear)["weight"]}

    def total(self, call: LayerGradients) -> dict[str, Tensor]:
        table, linear = unpacked(call)
        return {"weight": _TABLE.total(table)["weight"] + _LINEAR.total(linear)["weight"]}

    def add_gram(self, total: Tensor, left: LayerGradients, right: LayerGradients) -> None:
        mine = unpacked(left.to(total.dtype))
        other = mine if left is right else unpacked(right.to(total.dtype))
        for rule, one, two in zip((_TABLE, _LINEAR), mine, other, strict=True):
            rule.add_gram(total, one, two)
        _add_cross_gram(total, mine[0], other[1])
        _add_cross_gram(total.T, other[0], mine[1])

    def diagonal(self, call: LayerGradients) -> dict[str, Tensor]:
        table, linear = unpacked(call)
        found = _TABLE.diagonal(table)["weight"] + _LINEAR.diagonal(linear)["weight"]
        for tokens, e, a, g in _parts(call):
            cross = e * torch.einsum("bmst,bsd->bmtd", g, a)
            found.index_add_(0, tokens.flatten(), 2 * cross.sum(1).flatten(0, 1))
        return {"weight": found}

    def trace(self, call: LayerGradients) -> Tensor:
        table, linear = unpacked(call)
        found = _TABLE.trace(table) + _LINEAR.trace(linear)
        for _, e, a, g in _parts(call):
            found = found + 2 * torch.sum(torch.einsum("bmtd,bsd->bmst", e, a) * g)
        return found

    def push(self, call: LayerGradients, vectors: Mapping[str, Tensor]) -> Tensor:
        table, linear = unpacked(call)
        moved = vectors["weight"][:, table.inputs]  # (w, b, T, d)
        looked_up = torch.einsum("wbtd,bmtd->bmw", moved, _looked_up(table))
        return looked_up + _LINEAR.push(linear, vectors)

    def pull(self, call: LayerGradients, weights: Tensor) -> dict[str, Tensor]:
        table, linear = unpacked(call)
        found = _LINEAR.pull(linear, weights)["weight"]
        mixed = torch.einsum("bmw,bmtd->wbtd", weights, _looked_up(table))
        found.index_add_(1, table.inputs.flatten(), mixed.flatten(1, 2))
        return {"weight": found}


def _looked_up(table: LayerGradients) -> Tensor:
    """Gradients at the tokens, zero where the row of the table is a constant: (b, m, T, d)."""
    padding = cast(nn.Embedding, table.module).padding_idx
    if padding is None:
        return table.gradients
    left_out = (table.inputs == padding)[:, None, :, None]
    return table.gradients.masked_fill(left_out, 0.0)


def _parts(call: LayerGradients) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Tokens (b, T), e (b, m, T, d), a (b, S, d), and g at the tokens (b, m, S, T), in float64."""
    t, s = (cast(SharedTable, call.module).n_tokens, cast(SharedTable, call.module).n_positions)
    width = cast(SharedTable, call.module).weight.shape[1]
    per_sample = 16 * call.n_directions * (s * t + t * width)
    for samples in sample_slices(call.n_samples, per_sample):
        table, linear = unpacked(call.take(samples))
        tokens = table.inputs
        where = tokens[:, None, None].expand(*linear.gradients.shape[:3], t)
        g = linear.gradients.gather(3, where).double()
        yield tokens, _looked_up(table).double(), linear.inputs.double(), g


def _add_cross_gram(total: Tensor, table: LayerGradients, linear: LayerGradients) -> None:
    """Add the inner products of what is looked up on the left and multiplied on the right."""
    # total (b * m, c * k), changed in place
    e, a, m = _looked_up(table), linear.inputs, table.n_directions
    c, k, s = linear.gradients.shape[:3]
    for n, tokens in enumerate(table.inputs):
        for some in sample_slices(c, 8 * (m + k) * s * len(tokens)):
            among = torch.einsum("mtd,csd->cmst", e[n], a[some]).flatten(2)
            g = linear.gradients[some][..., tokens].flatten(2)  # (c, k, S * T)
            block = torch.bmm(among, g.mT).transpose(0, 1).flatten(1)
            total[n * m : (n + 1) * m, some.start * k : some.stop * k] += block
