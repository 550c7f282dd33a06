"""Fully connected networks drawn from a local generator."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils import skip_init


def seeded_linear(
    n_inputs: int,
    n_outputs: int,
    generator: torch.Generator,
    *,
    bias: bool = True,
    dtype: torch.dtype = torch.float64,
) -> nn.Linear:
    """Draw a linear layer: weights of variance ``1 / n_inputs``, biases of variance ``1 / 4``.

    The usual constructor draws from the global random state; this one leaves it alone.
    """
    layer = skip_init(nn.Linear, n_inputs, n_outputs, bias=bias, dtype=dtype)
    assert isinstance(layer, nn.Linear)
    scales = {"weight": 1 / math.sqrt(n_inputs), "bias": 0.5}
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            # Drawn in float64 whatever the dtype: a float32 network is then the rounded copy of
            # the float64 one with the same seed.
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
    """Draw a network of linear layers with an activation between each two of them.

    Parameters
    ----------
    widths : sequence of int
        Sizes from the inputs to the outputs.
    activation : callable or None
        Makes one activation module; None stacks the linear layers directly.
    generator : torch.Generator
        The only source of randomness.
    bias : bool, default=True
        Whether the layers have biases.
    dtype : torch.dtype, default=torch.float64
        Type of the parameters.

    Returns
    -------
    torch.nn.Sequential
    """
    layers: list[nn.Module] = []
    for i, (n_inputs, n_outputs) in enumerate(pairwise(widths)):
        if i > 0 and activation is not None:
            layers.append(activation())
        layers.append(seeded_linear(n_inputs, n_outputs, generator, bias=bias, dtype=dtype))
    return nn.Sequential(*layers)
