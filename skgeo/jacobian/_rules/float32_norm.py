"""Normalisation layers of transformers that compute in float32 whatever their dtype."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from skgeo.jacobian._rules.normalisation import LayerNormRule


class Float32NormRule(LayerNormRule):
    """Rule of ``LlamaRMSNorm`` and its like: ``weight * x / rms(x)`` on the last axis."""

    names = ("weight",)

    def covers(self, module: nn.Module) -> bool:
        weight = module._parameters.get("weight")
        return weight is not None and weight.dim() == 1 and hasattr(module, "variance_epsilon")

    def features(self, module: nn.Module) -> int:
        return 1

    def normalised(self, module: nn.Module, x: Tensor) -> Tensor:
        eps = float(cast(Any, module).variance_epsilon)
        h = x.to(torch.float32)
        return (h * torch.rsqrt(h.square().mean(-1, keepdim=True) + eps)).to(x.dtype)
