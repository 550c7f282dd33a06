"""Convolutions in one, two and three dimensions: linear layers on patches."""

from __future__ import annotations

import itertools
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd

from skgeo.jacobian._rules.affine import AffineRule
from skgeo.jacobian._rules.rule import LayerGradients


class ConvolutionRule(AffineRule):
    """Rule of ``nn.Conv1d``, ``nn.Conv2d`` and ``nn.Conv3d``, with all their options."""

    def features(self, module: nn.Module) -> int:
        return 1 + len(cast(_ConvNd, module).kernel_size)

    def affine(self, call: LayerGradients) -> tuple[Tensor, Tensor]:
        module = cast(_ConvNd, call.module)
        groups, own = module.groups, self.features(module)
        b, m = call.gradients.shape[:2]
        # Axes between samples and channels, such as frames, join the positions.
        maps = call.inputs.flatten(0, -own - 1) if call.inputs.dim() > own else call.inputs
        patches = _patches(module, maps)
        a = torch.unflatten(patches, 0, (b, -1)).movedim(2, 1).flatten(2, 3)
        g = call.gradients.flatten(1 - own) if own > 2 else call.gradients
        g = torch.unflatten(g.reshape(b, m, -1, *g.shape[-2:]), 3, (groups, -1))
        g = g.permute(0, 1, 3, 2, 5, 4).flatten(3, 4)
        return a, g


def _patches(module: _ConvNd, x: Tensor) -> Tensor:
    """Patches at each position: (b, channels, ...) to (b, groups, positions, patch)."""
    dimension = len(module.kernel_size)
    x = _padded(module, x)
    for axis, (size, step, gap) in enumerate(
        zip(module.kernel_size, module.stride, module.dilation, strict=True)
    ):
        windows = x.unfold(2 + axis, gap * (size - 1) + 1, step)
        x = windows[..., ::gap]
    # (b, channels, *positions, *kernel)
    x = torch.unflatten(x, 1, (module.groups, -1))
    places = range(3, 3 + dimension)
    kernel = range(3 + dimension, 3 + 2 * dimension)
    x = x.permute(0, 1, *places, 2, *kernel)
    return x.flatten(2 + dimension).flatten(2, 1 + dimension)


def _padded(module: _ConvNd, x: Tensor) -> Tensor:
    widths = []
    for axis, (size, gap) in enumerate(zip(module.kernel_size, module.dilation, strict=True)):
        if module.padding == "valid":
            widths.append((0, 0))
        elif module.padding == "same":
            whole = gap * (size - 1)
            widths.append((whole // 2, whole - whole // 2))
        else:
            width = int(module.padding[axis])
            widths.append((width, width))
    # torch counts axes from the last.
    flat = list(itertools.chain.from_iterable(reversed(widths)))
    if not any(flat):
        return x
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    with torch.no_grad():
        return F.pad(x, flat, mode=mode)
