"""Embedding layers."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from skgeo.jacobian._rules import affine
from skgeo.jacobian._rules.rule import LayerGradients, StructureRule, sample_slices


class EmbeddingRule(StructureRule):
    """Rule of ``nn.Embedding``: a linear layer whose inputs are indicators of the index.

    Memory is needed only for the entries of the table that a batch looks up. The row of
    `padding_idx` is a constant, as in training.
    """

    names = ("weight",)

    def covers(self, module: nn.Module) -> bool:
        layer = cast(nn.Embedding, module)
        # These options change the table in the forward pass, or scale the gradient.
        return layer.max_norm is None and not layer.scale_grad_by_freq and not layer.sparse

    def features(self, module: nn.Module) -> int:
        return 0

    def rows(self, call: LayerGradients) -> dict[str, Tensor]:
        used, compact = self._compact(call, call)
        weight = call.parameter("weight")
        found = call.gradients.new_zeros(*call.gradients.shape[:2], *weight.shape)
        found[:, :, used] = self._compact_rows(*compact)
        return {"weight": found}

    def total(self, call: LayerGradients) -> dict[str, Tensor]:
        weight = call.parameter("weight")
        found = torch.zeros(weight.shape, dtype=call.gradients.dtype, device=weight.device)
        g = call.gradients.sum(1).reshape(-1, weight.shape[1])
        found.index_add_(0, call.inputs.reshape(-1), g)
        padding = cast(nn.Embedding, call.module).padding_idx
        if padding is not None:
            found[padding] = 0
        return {"weight": found}

    def add_gram(self, total: Tensor, left: LayerGradients, right: LayerGradients) -> None:
        _, mine = self._compact(left.to(total.dtype), right)
        other = mine if left is right else self._compact(right.to(total.dtype), left)[1]
        affine.add_gram(total, mine, other, weight=True, bias=False)

    def diagonal(self, call: LayerGradients) -> dict[str, Tensor]:
        weight = call.parameter("weight")
        found = torch.zeros(weight.shape, dtype=torch.float64, device=weight.device)
        per_sample = 16 * call.n_directions * call.gradients[0, 0].numel()
        for samples in sample_slices(call.n_samples, per_sample):
            used, (a, g) = self._compact(call.take(samples).double(), call.take(samples))
            found[used] += affine.diagonal(a, g)[0].T
        return {"weight": found}

    def trace(self, call: LayerGradients) -> Tensor:
        parts = []
        per_sample = 8 * call.inputs[0].numel() ** 2
        for samples in sample_slices(call.n_samples, per_sample):
            _, (a, g) = self._compact(call.take(samples).double(), call.take(samples))
            parts.append(affine.trace(a, g))
        return torch.stack(parts).sum()

    def _compact(
        self, call: LayerGradients, other: LayerGradients
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Indices that occur in either call, and this call as a linear layer on them."""
        tokens = call.inputs.reshape(call.n_samples, 1, -1)
        used = torch.unique(torch.cat([call.inputs.reshape(-1), other.inputs.reshape(-1)]))
        padding = cast(nn.Embedding, call.module).padding_idx
        if padding is not None:
            used = used[used != padding]
        a = (tokens.unsqueeze(3) == used).to(call.gradients.dtype)
        b, m = call.gradients.shape[:2]
        return used, (a, call.gradients.reshape(b, m, 1, -1, call.gradients.shape[-1]))

    def _compact_rows(self, a: Tensor, g: Tensor) -> Tensor:
        return affine.rows(a, g)[:, :, 0].mT
