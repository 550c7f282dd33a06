"""Linear layers, with any number of axes between samples and features."""

from __future__ import annotations

from torch import Tensor, nn

from skgeo.autodiff.structure.affine import AffineRule
from skgeo.autodiff.structure.rule import LayerGradients

__all__ = ["LinearRule"]


class LinearRule(AffineRule):
    """Rule of ``nn.Linear``: every axis between samples and features is one of positions."""

    def features(self, module: nn.Module) -> int:
        return 1

    def affine(self, call: LayerGradients) -> tuple[Tensor, Tensor]:
        b, m = call.gradients.shape[:2]
        a = call.inputs.reshape(b, 1, -1, call.inputs.shape[-1])
        return a, call.gradients.reshape(b, m, 1, -1, call.gradients.shape[-1])
