"""Activations with options, as torch spells them."""

from __future__ import annotations

import torch
from torch import nn

from fuzz.draw import Draw


class Function(nn.Module):
    """A function of torch that has no module of its own."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x):
        return getattr(torch, self.name)(x)

    def extra_repr(self) -> str:
        return self.name


class Clamp(nn.Module):
    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, x):
        return x.clamp(self.low, self.high)

    def extra_repr(self) -> str:
        return f"{self.low}, {self.high}"


PLAIN = (
    nn.ReLU, nn.ReLU6, nn.Hardsigmoid, nn.Hardswish, nn.SELU, nn.SiLU, nn.Mish, nn.LogSigmoid,
    nn.Sigmoid, nn.Tanh, nn.Softsign, nn.Tanhshrink, nn.Identity,
)  # fmt: skip


def activation(draw: Draw, channels: int) -> nn.Module:
    """Any activation; `channels` is the size of axis 1, for PReLU."""
    some = draw.uniform
    makers = {
        "plain": lambda: draw.choice(PLAIN)(),
        "in place": lambda: draw.choice((nn.ReLU, nn.SiLU, nn.Hardswish))(inplace=True),
        "leaky": lambda: nn.LeakyReLU(some(-0.5, 1.0)),
        "prelu": lambda: nn.PReLU(draw.choice((1, channels)), some(0.05, 0.9)),
        "hardtanh": lambda: nn.Hardtanh(some(-2, -0.1), some(0.1, 2)),
        "hardshrink": lambda: nn.Hardshrink(some(0.05, 0.8)),
        "softshrink": lambda: nn.Softshrink(some(0.05, 0.8)),
        "threshold": lambda: nn.Threshold(some(-0.5, 0.5), some(-0.5, 0.5)),
        "elu": lambda: nn.ELU(some(0.3, 2)),
        "celu": lambda: nn.CELU(some(0.3, 2)),
        "gelu": lambda: nn.GELU(draw.choice(("none", "tanh"))),
        "softplus": lambda: nn.Softplus(some(0.3, 3), draw.choice((20.0, 20.0, 2.0))),
        "function": lambda: Function(draw.choice(("erf", "sin", "abs", "cos", "square"))),
        "clamp": lambda: Clamp(some(-2, -0.1), some(0.1, 2)),
        "softmax": lambda: nn.Softmax(-1),
        "rrelu": lambda: nn.RReLU(),
        "glu": lambda: nn.Softmin(-1),
    }
    weights = dict.fromkeys(makers, 1.0) | {"plain": 6.0, "softmax": 0.3, "glu": 0.2}
    return makers[draw.weighted(weights)]()
