"""Linear layers, with any number of axes between samples and features."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from skgeo.jacobian._rules.affine import AffineRule
from skgeo.jacobian._rules.rule import LayerGradients


class LinearRule(AffineRule):
    """Rule of ``nn.Linear``: all axes between samples and features are positions."""

    quick_products = True

    def features(self, module: nn.Module) -> int:
        return 1

    def affine(self, call: LayerGradients) -> tuple[Tensor, Tensor]:
        b, m = call.gradients.shape[:2]
        positions = math.prod(call.inputs.shape[1:-1])  # not -1: a layer may have no features
        a = call.inputs.reshape(b, 1, positions, call.inputs.shape[-1])
        return a, call.gradients.reshape(b, m, 1, positions, call.gradients.shape[-1])

    def push(self, call: LayerGradients, vectors: Mapping[str, Tensor]) -> Tensor:
        a, g = self._flat(call)
        b, positions = a.shape[:2]
        w, o = next(iter(vectors.values())).shape[:2]
        bias = vectors["bias"].flatten() if "bias" in call.names else a.new_zeros(w * o)
        if "weight" in call.names:
            weight = vectors["weight"].flatten(0, 1)
            moved = torch.addmm(bias, a.flatten(0, 1), weight.T).view(b, positions, w, o)
        else:
            moved = bias.view(w, o).expand(b, positions, w, o)
        # (b, T, w, o) and (b, m, T, o) contracted in one product per sample; this order is faster.
        return torch.bmm(moved.transpose(1, 2).flatten(2), g.flatten(2).mT).mT

    def pull(self, call: LayerGradients, weights: Tensor) -> dict[str, Tensor]:
        a, g = self._flat(call)
        mixed = torch.bmm(weights.mT, g.flatten(2))
        mixed = torch.unflatten(mixed, 2, g.shape[2:]).transpose(1, 2)
        found = {}
        if "weight" in call.names:
            w, o = mixed.shape[2:]
            product = mixed.flatten(2).flatten(0, 1).T @ a.flatten(0, 1)
            found["weight"] = torch.unflatten(product, 0, (w, o))
        if "bias" in call.names:
            found["bias"] = mixed.sum((0, 1))
        return found

    def _flat(self, call: LayerGradients) -> tuple[Tensor, Tensor]:
        """Inputs (b, T, i) and gradients (b, m, T, o)."""
        a, g = self.affine(call)
        return a[:, 0].to(g.dtype), g[:, :, 0]
