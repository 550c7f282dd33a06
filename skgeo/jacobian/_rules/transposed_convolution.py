r"""Transposed convolutions: linear layers whose gradients, not inputs, come in patches.

With strides s, paddings p and dilations d, input q meets result :math:`sq - p + dk` through entry k
of the kernel, so the gradient of its weight is :math:`\sum_q x_{nq} \otimes g_n[sq - p + dk]`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvTransposeNd

from skgeo.jacobian._rules.affine import AffineRule
from skgeo.jacobian._rules.rule import LayerGradients, StructureRule


class TransposedConvolutionRule(StructureRule):
    """Rule of ``nn.ConvTranspose1d``, ``2d`` and ``3d``, with all their options."""

    def features(self, module: nn.Module) -> int:
        return _features(module)

    def rows(self, call: LayerGradients) -> dict[str, Tensor]:
        return {k: v for rule, part in _split(call) for k, v in rule.rows(part).items()}

    def total(self, call: LayerGradients) -> dict[str, Tensor]:
        return {k: v for rule, part in _split(call) for k, v in rule.total(part).items()}

    def add_gram(self, total: Tensor, left: LayerGradients, right: LayerGradients) -> None:
        for (rule, mine), (_, other) in zip(_split(left), _split(right), strict=True):
            rule.add_gram(total, mine, mine if left is right else other)

    def diagonal(self, call: LayerGradients) -> dict[str, Tensor]:
        return {k: v for rule, part in _split(call) for k, v in rule.diagonal(part).items()}

    def trace(self, call: LayerGradients) -> Tensor:
        return torch.stack([rule.trace(part) for rule, part in _split(call)]).sum()


class _WeightRule(AffineRule):
    """The weight alone."""

    transposed = True

    def affine(self, call: LayerGradients) -> tuple[Tensor, Tensor]:
        module = cast(_ConvTransposeNd, call.module)
        own, b, m = _features(module), *call.gradients.shape[:2]
        # Axes between samples and channels join the positions.
        maps = call.inputs.reshape(b, -1, *call.inputs.shape[-own:])
        a = torch.unflatten(maps.flatten(3), 2, (module.groups, -1))
        g = call.gradients.reshape(-1, *call.gradients.shape[-own:])
        patches = _patches(module, g, maps.shape[3:])
        patches = torch.unflatten(patches, 0, (b, m, -1))
        a = a.permute(0, 2, 1, 4, 3).flatten(2, 3)
        return a, patches.transpose(2, 3).flatten(3, 4)


class _BiasRule(StructureRule):
    """The bias alone, which is added at every position of the result."""

    names = ("bias",)

    def rows(self, call: LayerGradients) -> dict[str, Tensor]:
        own = _features(call.module)
        g = call.gradients.reshape(*call.gradients.shape[:2], -1, *call.gradients.shape[-own:])
        return {"bias": g.flatten(4).sum((2, 4))}


_PARTS: dict[str, StructureRule] = {"weight": _WeightRule(), "bias": _BiasRule()}


def _split(call: LayerGradients) -> Iterator[tuple[StructureRule, LayerGradients]]:
    """Rule and call of each parameter."""
    for local, name in call.names.items():
        yield _PARTS[local], replace(call, names={local: name})


def _features(module: nn.Module) -> int:
    return 1 + len(cast(_ConvTransposeNd, module).kernel_size)


def _patches(module: _ConvTransposeNd, g: Tensor, sides: torch.Size) -> Tensor:
    """What each position of the input contributes to, zero beyond the edges.

    sides: of the input.
    """
    # (n, channels, *out) -> (n, groups, positions, patch)
    dimension = len(sides)
    reaches, widths = [], []
    for axis, side in enumerate(sides):
        step, before = module.stride[axis], int(module.padding[axis])
        reach = module.dilation[axis] * (module.kernel_size[axis] - 1) + 1
        reaches.append(reach)
        widths.append((before, (side - 1) * step + reach - before - g.shape[2 + axis]))
    # torch counts axes from the last.
    g = F.pad(g, list(itertools.chain.from_iterable(reversed(widths))))
    for axis, reach in enumerate(reaches):
        windows = g.unfold(2 + axis, reach, module.stride[axis])
        g = windows[..., :: module.dilation[axis]]
    g = torch.unflatten(g, 1, (module.groups, -1))
    places, kernel = range(3, 3 + dimension), range(3 + dimension, 3 + 2 * dimension)
    g = g.permute(0, 1, *places, 2, *kernel)
    return g.flatten(2 + dimension).flatten(2, 1 + dimension)
