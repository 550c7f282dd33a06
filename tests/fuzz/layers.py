"""One more layer for what has come so far, by the shape of one sample."""

from __future__ import annotations

import torch
from torch import nn

from fuzz import blocks
from fuzz.activations import activation
from fuzz.draw import Draw

PADDING = ("zeros", "zeros", "reflect", "replicate", "circular")


def next_layer(draw: Draw, kind: str, shape: tuple[int, ...]) -> nn.Module:
    """A layer for samples of this kind and shape; it may turn out not to fit.

    kind: "vector" (d,), "sequence" (T, d), "signal" (C, L) or "image" (C, H, W).
    """
    if draw.chance(0.35):
        return activation(draw, shape[0])
    if draw.chance(0.1):
        return draw.choice((nn.Dropout(0.3), nn.AlphaDropout(0.2)))
    return {
        "vector": _vector, "sequence": _sequence, "signal": _signal, "image": _image
    }[kind](draw, *shape)  # fmt: skip


def _linear(draw: Draw, width: int, out: int) -> nn.Module:
    layer = nn.Linear(width, out, bias=draw.chance(0.8))
    if draw.chance(0.08):
        layer = nn.utils.parametrizations.weight_norm(layer)
    return layer


def _vector(draw: Draw, d: int) -> nn.Module:
    makers = {
        "linear": lambda: _linear(draw, d, draw.integer(1, 7)),
        "batch norm": lambda: _filled(draw, nn.BatchNorm1d(d, affine=draw.chance(0.8))),
        "layer norm": lambda: nn.LayerNorm(d, elementwise_affine=draw.chance(0.8)),
        "rms norm": lambda: nn.RMSNorm(d),
        "group norm": lambda: nn.GroupNorm(_divisor(draw, d), d),
        "residual": lambda: blocks.Residual(
            nn.Sequential(_linear(draw, d, d), activation(draw, d))
        ),
        "gate": lambda: blocks.Gate(_linear(draw, d, d)),
        "branches": lambda: blocks.Branches(
            nn.Identity(), nn.Sequential(_linear(draw, d, 2), activation(draw, 2))
        ),
        "tied": lambda: blocks.Tied(d, draw.integer(1, 4)),
        "bare": lambda: blocks.Bare(d),
        "shared": lambda: blocks.Shared(nn.Linear(d, d), activation(draw, d)),
        "signal": lambda: nn.Unflatten(1, (1, d)),
    }
    return makers[draw.weighted(dict.fromkeys(makers, 1.0) | {"linear": 6.0})]()


def _sequence(draw: Draw, t: int, d: int) -> nn.Module:
    def recurrent():
        kind = draw.choice((nn.RNN, nn.LSTM, nn.GRU))
        options = {"batch_first": draw.chance(0.6), "bidirectional": draw.chance(0.2)}
        if kind is nn.RNN:
            options["nonlinearity"] = draw.choice(("tanh", "relu"))
        return blocks.Recurrent(kind(d, draw.integer(1, 3), **options))

    makers = {
        "linear": lambda: _linear(draw, d, draw.integer(1, 5)),
        "layer norm": lambda: nn.LayerNorm(d, bias=draw.chance(0.7)),
        "recurrent": recurrent,
        "attention": lambda: blocks.Attention(d, _divisor(draw, d), draw.chance(0.5)),
        "encoder": lambda: nn.TransformerEncoderLayer(
            d, _divisor(draw, d), draw.integer(1, 3), batch_first=True,
            norm_first=draw.chance(0.5), activation=draw.choice(("relu", "gelu")),
        ),
        "residual": lambda: blocks.Residual(
            nn.Sequential(nn.LayerNorm(d), _linear(draw, d, d), activation(draw, t))
        ),
        "pool": lambda: blocks.Pool(draw.choice(("last", "mean", "max"))),
        "transpose": lambda: blocks.Transpose(),
        "flatten": lambda: nn.Flatten(),
    }  # fmt: skip
    return makers[draw.weighted(dict.fromkeys(makers, 1.0) | {"recurrent": 2.0})]()


def _convolution(draw: Draw, kind: type[nn.Module], channels: int, size: int) -> nn.Module:
    groups = _divisor(draw, channels)
    options = {
        "stride": draw.integer(1, 2), "padding": draw.integer(0, 2), "groups": groups,
        "dilation": draw.choice((1, 1, 2)), "bias": draw.chance(0.7),
        "padding_mode": draw.choice(PADDING),
    }  # fmt: skip
    if draw.chance(0.15):
        options |= {"padding": "same", "stride": 1}
    out = groups * draw.integer(1, 2)
    return kind(channels, out, draw.integer(1, min(3, size)), **options)


def _signal(draw: Draw, c: int, length: int) -> nn.Module:
    makers = {
        "convolution": lambda: _convolution(draw, nn.Conv1d, c, length),
        "transposed": lambda: nn.ConvTranspose1d(c, draw.integer(1, 2), 2, stride=2),
        "batch norm": lambda: _filled(draw, nn.BatchNorm1d(c, affine=draw.chance(0.8))),
        "instance norm": lambda: nn.InstanceNorm1d(c, affine=draw.chance(0.6)),
        "group norm": lambda: nn.GroupNorm(_divisor(draw, c), c),
        "pool": lambda: draw.choice((nn.MaxPool1d, nn.AvgPool1d))(2, draw.integer(1, 2)),
        "adaptive": lambda: nn.AdaptiveAvgPool1d(draw.integer(1, 2)),
        "residual": lambda: blocks.Residual(nn.Conv1d(c, c, 3, padding=1)),
        "linear": lambda: _linear(draw, length, draw.integer(1, 4)),
        "flatten": lambda: nn.Flatten(),
    }
    return makers[draw.weighted(dict.fromkeys(makers, 1.0) | {"convolution": 4.0})]()


def _image(draw: Draw, c: int, height: int, width: int) -> nn.Module:
    side = min(height, width)
    makers = {
        "convolution": lambda: _convolution(draw, nn.Conv2d, c, side),
        "transposed": lambda: nn.ConvTranspose2d(c, draw.integer(1, 2), 2),
        "batch norm": lambda: _filled(draw, nn.BatchNorm2d(c, affine=draw.chance(0.8))),
        "instance norm": lambda: nn.InstanceNorm2d(c, affine=draw.chance(0.6)),
        "group norm": lambda: nn.GroupNorm(_divisor(draw, c), c),
        "pool": lambda: draw.choice((nn.MaxPool2d, nn.AvgPool2d))(2, draw.integer(1, 2)),
        "adaptive": lambda: nn.AdaptiveAvgPool2d(draw.integer(1, 2)),
        "residual": lambda: blocks.Residual(nn.Conv2d(c, c, 3, padding=1)),
        "flatten": lambda: nn.Flatten(draw.choice((1, 2))),
    }
    return makers[draw.weighted(dict.fromkeys(makers, 1.0) | {"convolution": 4.0})]()


def _divisor(draw: Draw, number: int) -> int:
    return draw.choice([k for k in range(1, number + 1) if number % k == 0])


def _filled(draw: Draw, norm: nn.Module) -> nn.Module:
    """Running statistics as after training."""
    with torch.no_grad():
        norm.running_mean.copy_(draw.normal(norm.num_features))
        norm.running_var.copy_(draw.normal(norm.num_features).square() + 0.1)
    return norm
