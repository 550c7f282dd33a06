"""Rules of normalisation layers, which scale and shift normalised values."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from skgeo.jacobian._rules.rule import LayerGradients, StructureRule


class _ChannelRule(StructureRule):
    """One scale and one shift per channel, on axis 1; all axes after it are positions."""

    quick_products = True

    def normalised(self, module: nn.Module, x: Tensor) -> Tensor:
        """The layer's result before scale and shift."""
        raise NotImplementedError

    def rows(self, call: LayerGradients) -> dict[str, Tensor]:
        b, m, channels = call.gradients.shape[:3]
        g = call.gradients.reshape(b, m, channels, -1)
        found = {}
        for local in call.names:
            if local == "weight":
                x = self.normalised(call.module, call.inputs).to(g.dtype).reshape(b, channels, -1)
                found[local] = torch.einsum("bmcs,bcs->bmc", g, x)
            else:
                found[local] = g.sum(3)
        return found


class BatchNormRule(_ChannelRule):
    """Rule of ``nn.BatchNorm1d``, ``2d`` and ``3d`` with running statistics, taken as constants."""

    def covers(self, module: nn.Module) -> bool:
        layer = cast(_BatchNorm, module)
        return layer.running_mean is not None and layer.running_var is not None

    def normalised(self, module: nn.Module, x: Tensor) -> Tensor:
        return _by_statistics(cast(_BatchNorm, module), x)


class InstanceNormRule(_ChannelRule):
    """Rule of ``nn.InstanceNorm1d``, ``2d`` and ``3d`` with a scale and shift."""

    def normalised(self, module: nn.Module, x: Tensor) -> Tensor:
        layer = cast(_InstanceNorm, module)
        if layer.running_mean is not None:
            return _by_statistics(layer, x)
        return F.instance_norm(x, eps=layer.eps)


class GroupNormRule(_ChannelRule):
    """Rule of ``nn.GroupNorm``."""

    def normalised(self, module: nn.Module, x: Tensor) -> Tensor:
        layer = cast(nn.GroupNorm, module)
        return F.group_norm(x, layer.num_groups, eps=layer.eps)


class LayerNormRule(StructureRule):
    """Rule of ``nn.LayerNorm``: all axes before the normalised ones are positions."""

    quick_products = True

    def features(self, module: nn.Module) -> int:
        return len(cast(nn.LayerNorm, module).normalized_shape)

    def normalised(self, module: nn.Module, x: Tensor) -> Tensor:
        """The layer's result before scale and shift."""
        layer = cast(nn.LayerNorm, module)
        return F.layer_norm(x, layer.normalized_shape, eps=layer.eps)

    def rows(self, call: LayerGradients) -> dict[str, Tensor]:
        b, m = call.gradients.shape[:2]
        width = call.gradients.shape[-self.features(call.module) :].numel()
        g = call.gradients.reshape(b, m, -1, width)
        found = {}
        for local in call.names:
            if local == "weight":
                x = self.normalised(call.module, call.inputs).to(g.dtype).reshape(b, -1, width)
                each = torch.einsum("bmtd,btd->bmd", g, x)
            else:
                each = g.sum(2)
            found[local] = each.reshape(b, m, *call.parameter(local).shape)
        return found


class RMSNormRule(LayerNormRule):
    """Rule of ``nn.RMSNorm``."""

    names = ("weight",)

    def normalised(self, module: nn.Module, x: Tensor) -> Tensor:
        layer = cast(nn.RMSNorm, module)
        eps = layer.eps
        if eps is None:
            # The default for the dtype of the network, even if x was converted to float64.
            eps = torch.finfo(cast(Tensor, layer.weight).dtype).eps
        return F.rms_norm(x, layer.normalized_shape, eps=eps)


def _by_statistics(layer: _BatchNorm | _InstanceNorm, x: Tensor) -> Tensor:
    assert layer.running_mean is not None
    assert layer.running_var is not None
    shape = (-1, *[1] * (x.dim() - 2))
    mean, variance = (t.to(x.dtype).reshape(shape) for t in (layer.running_mean, layer.running_var))
    return (x - mean) * (variance + layer.eps).rsqrt()
