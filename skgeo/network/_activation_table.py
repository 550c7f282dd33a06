r"""Table of activations: each function with its options and its properties."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from scipy.optimize import brentq
from torch import Tensor
from torch.nn import functional as F

_INF = math.inf
# A jump of this relative size is below the rounding of float32 and is not a kink.
_NEGLIGIBLE = 1e-7


@dataclass(frozen=True)
class Facts:
    """Properties of a function of one variable."""

    limits: tuple[float, float]  # at -inf and +inf
    kinks: tuple[float, ...] = ()  # where the value or the first derivative jumps
    steps: tuple[float, ...] = ()  # those of them where the value jumps
    bends: tuple[float, ...] = ()  # where only the second derivative jumps
    turns: tuple[float, ...] = ()  # where monotonicity may change
    period: float = _INF  # with which the turns repeat
    odd: bool = False
    falls: bool = False  # whether it decreases somewhere
    slopes: tuple[float, float] | None = None  # left and right of zero, if linear on either side
    clamp: tuple[float, float] | None = None  # bounds, if it is a clamp
    polynomial: bool = False  # piecewise: flat parts have derivative zero


@dataclass(frozen=True)
class Kind:
    """One row of the table: a function, its properties, and torch's default options."""

    function: Callable[..., Tensor]
    facts: Callable[..., Facts]
    defaults: Mapping[str, Any]


# Functions that torch does not have in this form.


def _prelu(x: Tensor, weight: tuple[float, ...]) -> Tensor:
    slopes = torch.tensor(weight, dtype=x.dtype, device=x.device)
    if len(weight) > 1 and x.dim() > 1:
        slopes = slopes.reshape(-1, *[1] * (x.dim() - 2))
    return torch.where(x > 0, x, slopes * x)


def _leaky(x: Tensor, negative_slope: float) -> Tensor:
    return F.leaky_relu(x, negative_slope)


def _clamp(x: Tensor, min: float, max: float) -> Tensor:
    return torch.clamp(x, min, max)


# Derivatives of the functions with a minimum, without torch: properties may be needed inside an
# operation of torch, where autograd records nothing.


def _silu_slope(x: float) -> float:
    s = 1.0 / (1.0 + math.exp(-x))
    return s * (1.0 + x * (1.0 - s))


def _mish_slope(x: float) -> float:
    t = math.tanh(math.log1p(math.exp(x)))
    return t + x * (1.0 - t * t) / (1.0 + math.exp(-x))


def _gelu_slope(x: float) -> float:
    density = math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    return 0.5 * (1.0 + math.erf(x / math.sqrt(2.0))) + x * density


def _gelu_tanh_slope(x: float) -> float:
    root = math.sqrt(2 / math.pi)
    t = math.tanh(root * (x + 0.044715 * x**3))
    return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * root * (1.0 + 3 * 0.044715 * x * x)


@cache
def _minimum(slope: Callable[[float], float]) -> float:
    """The only minimum of the function with this derivative."""
    return float(brentq(slope, -3.0, -0.1, xtol=1e-15))


def elu_coefficients(name: str, options: Mapping[str, Any]) -> tuple[float, float, float]:
    r"""a, s, c of :math:`s x` for x > 0 and :math:`s a (e^{c x} - 1)` for x < 0."""
    if name == "selu":
        return 1.6732632423543772848170429916717, 1.0507009873554804934193349852946, 1.0
    alpha = float(options.get("alpha", 1.0))
    if name == "celu":
        return alpha, 1.0, 1.0 / alpha
    return alpha, float(options.get("scale", 1.0)), float(options.get("input_scale", 1.0))


# Properties.


def _two_slopes(below: float, above: float = 1.0) -> Facts:
    def at_infinity(slope: float, sign: int) -> float:
        return 0.0 if slope == 0.0 else sign * math.copysign(_INF, slope)

    return Facts(
        limits=(at_infinity(below, -1), at_infinity(above, 1)),
        kinks=() if below == above else (0.0,),
        turns=(0.0,),
        odd=below == above,
        falls=min(below, above) < 0,
        slopes=(below, above),
        polynomial=True,
    )


def _prelu_facts(weight: tuple[float, ...]) -> Facts:
    if len(weight) == 1:
        return _two_slopes(weight[0])
    # Evaluation at -inf gives the limit, unless the slope is zero.
    return Facts((0.0, _INF), (0.0,), turns=(0.0,), falls=min(weight) < 0, polynomial=True)


def _bounded(low: float, high: float) -> Facts:
    """A clamp to [low, high]."""
    if low == -_INF and high == _INF:
        return _two_slopes(1.0)
    if low == 0.0 and high == _INF:
        return _two_slopes(0.0)
    if low == -_INF and high == 0.0:
        return _two_slopes(1.0, 0.0)
    low = min(low, high)  # torch.clamp uses the upper bound if it is below the lower one
    places = tuple(end for end in (low, high) if math.isfinite(end)) if low < high else ()
    return Facts(
        limits=(low, high),
        kinks=places,
        turns=places,
        odd=low == -high,
        polynomial=True,
        clamp=(low, high),
    )


def _elu_facts(name: str) -> Callable[..., Facts]:
    def facts(**options: Any) -> Facts:
        alpha, scale, inner = elu_coefficients(name, options)
        if alpha * inner == 0.0:
            return _two_slopes(0.0, scale)
        # alpha * (1 / alpha) may differ from 1 by rounding.
        smooth = abs(alpha * inner - 1.0) < 1e-15
        return Facts(
            limits=(-scale * alpha if inner > 0 else scale * alpha * _INF, scale * _INF),
            kinks=() if smooth else (0.0,),
            bends=(0.0,),
            turns=(0.0,),
            falls=alpha * inner < 0,
        )

    return facts


def _gelu_facts(approximate: str) -> Facts:
    least = _minimum(_gelu_tanh_slope if approximate == "tanh" else _gelu_slope)
    return Facts((0.0, _INF), turns=(least,), falls=True)


def _shrink_facts(lambd: float, *, hard: bool) -> Facts:
    if lambd <= 0:
        return _two_slopes(1.0)
    places = (-lambd, lambd)
    steps = places if hard else ()
    return Facts((-_INF, _INF), places, steps, turns=places, odd=True, polynomial=True)


def _threshold_facts(threshold: float, value: float) -> Facts:
    if threshold == -_INF:
        return _two_slopes(1.0)
    if value == threshold:
        return _bounded(threshold, _INF)
    place = (threshold,)
    falls = value > threshold
    return Facts((value, _INF), place, place, turns=place, falls=falls, polynomial=True)


def _softplus_facts(beta: float, threshold: float) -> Facts:
    if threshold == -_INF:
        return _two_slopes(1.0)
    # Above the threshold torch returns x itself: a step down by log(1 + e^-threshold) / beta.
    place = (threshold / beta,)
    step = math.log1p(math.exp(-threshold)) if threshold > -700 else -threshold
    real = place if step > _NEGLIGIBLE * max(1.0, abs(threshold)) else ()
    limits = (0.0, _INF) if beta > 0 else (-_INF, 0.0)
    return Facts(limits, real, real, turns=place, falls=bool(real))


KINDS: dict[str, Kind] = {
    "identity": Kind(lambda x: x, lambda: _two_slopes(1.0), {}),
    "relu": Kind(torch.relu, lambda: _two_slopes(0.0), {}),
    "leaky_relu": Kind(
        _leaky, lambda negative_slope: _two_slopes(negative_slope), {"negative_slope": 0.01}
    ),
    "prelu": Kind(_prelu, _prelu_facts, {"weight": (0.25,)}),
    "abs": Kind(torch.abs, lambda: _two_slopes(-1.0), {}),
    "relu6": Kind(F.relu6, lambda: _bounded(0.0, 6.0), {}),
    "hardtanh": Kind(
        F.hardtanh,
        lambda min_val, max_val: _bounded(min_val, max_val),
        {"min_val": -1.0, "max_val": 1.0},
    ),
    "clamp": Kind(_clamp, lambda min, max: _bounded(min, max), {"min": -_INF, "max": _INF}),
    "hardsigmoid": Kind(F.hardsigmoid, lambda: Facts((0.0, 1.0), (-3.0, 3.0), polynomial=True), {}),
    "hardswish": Kind(
        F.hardswish,
        lambda: Facts((0.0, _INF), (-3.0, 3.0), turns=(-3.0, -1.5), falls=True, polynomial=True),
        {},
    ),
    "hardshrink": Kind(F.hardshrink, lambda lambd: _shrink_facts(lambd, hard=True), {"lambd": 0.5}),
    "softshrink": Kind(
        F.softshrink, lambda lambd: _shrink_facts(lambd, hard=False), {"lambd": 0.5}
    ),
    "threshold": Kind(F.threshold, _threshold_facts, {"threshold": 0.0, "value": 0.0}),
    "elu": Kind(
        lambda x, alpha, scale, input_scale: torch.ops.aten.elu(x, alpha, scale, input_scale),
        _elu_facts("elu"),
        {"alpha": 1.0, "scale": 1.0, "input_scale": 1.0},
    ),
    "selu": Kind(F.selu, _elu_facts("selu"), {}),
    "celu": Kind(F.celu, _elu_facts("celu"), {"alpha": 1.0}),
    "gelu": Kind(F.gelu, _gelu_facts, {"approximate": "none"}),
    "silu": Kind(
        F.silu, lambda: Facts((0.0, _INF), turns=(_minimum(_silu_slope),), falls=True), {}
    ),
    "mish": Kind(
        F.mish, lambda: Facts((0.0, _INF), turns=(_minimum(_mish_slope),), falls=True), {}
    ),
    "softplus": Kind(F.softplus, _softplus_facts, {"beta": 1.0, "threshold": 20.0}),
    "logsigmoid": Kind(F.logsigmoid, lambda: Facts((-_INF, 0.0)), {}),
    "sigmoid": Kind(torch.sigmoid, lambda: Facts((0.0, 1.0)), {}),
    "tanh": Kind(torch.tanh, lambda: Facts((-1.0, 1.0), odd=True), {}),
    "softsign": Kind(F.softsign, lambda: Facts((-1.0, 1.0), bends=(0.0,), odd=True), {}),
    "tanhshrink": Kind(F.tanhshrink, lambda: Facts((-_INF, _INF), odd=True), {}),
    "erf": Kind(torch.erf, lambda: Facts((-1.0, 1.0), odd=True), {}),
    "sin": Kind(
        torch.sin,
        lambda: Facts(
            (0.0, 0.0), turns=(-math.pi / 2, math.pi / 2), period=2 * math.pi, odd=True, falls=True
        ),
        {},
    ),
}
