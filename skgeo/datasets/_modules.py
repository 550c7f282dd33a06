"""Fully connected networks drawn from a local generator."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import nn


def seeded_linear(
    n_inputs: int,
    n_outputs: int,
    generator: torch.Generator,
    *,
    bias: bool = True,
    dtype: torch.dtype = torch.float64,
) -> nn.Linear:
    """Linear layer with weights of variance ``1 / n_inputs`` and biases of variance ``1 / 4``.

    Unlike ``nn.Linear``, it does not draw from the global random state.
    """
    layer = nn.Linear(n_inputs, n_outputs, bias=bias, dtype=dtype, device="meta")
    layer = layer.to_empty(device="cpu")
    scales = {"weight": 1 / math.sqrt(n_inputs), "bias": 0.5}
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            # Always drawn in float64, so a float32 network is the rounded float64 network of the
            # same seed.
            draw = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(scales[name] * draw)
    return layer


def seeded_mlp(
    widths: Sequence[int],
    activation: Callable[[], nn.Module] | None,
    generator: torch.Generator,
    *,
    bias: bool = True,
    dtype: torch.dtype = torch.float64,
) -> nn.Sequential:
    """Network of seeded linear layers with an activation between successive layers.

    widths: from the inputs to the outputs.
    activation: makes one activation module; None for no activation.
    """
    layers: list[nn.Module] = []
    for i, (n_inputs, n_outputs) in enumerate(pairwise(widths)):
        if i > 0 and activation is not None:
            layers.append(activation())
        layers.append(seeded_linear(n_inputs, n_outputs, generator, bias=bias, dtype=dtype))
    return nn.Sequential(*layers)
