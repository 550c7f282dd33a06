"""What units do to the layers that read them, and what makes up for it there."""

from __future__ import annotations

from typing import Any

from skgeo.network._hidden import Consumer
from skgeo.symmetry._generators.candidate import Change


def grow(change: Change, layer: Any, unit: int, origin: float = 0.0) -> None:
    """Let a unit grow in proportion to its distance from an origin."""
    change.add(layer.weight, unit, layer.weight[unit])
    change.add(layer.bias, unit, (0.0 if layer.bias is None else layer.bias[unit]) - origin)


def shrink(change: Change, consumer: Consumer, unit: int) -> None:
    """Make up for the growth of a unit in proportion."""
    layer, where = consumer.layer, consumer.where(unit)
    change.add(layer.weight, where, -layer.weight[where])
    if consumer.node.kind == "batchnorm":  # which subtracts a mean that does not grow
        change.add(layer.bias, unit, -layer.running_mean[unit] * _gain(layer, unit))


def absorb(change: Change, consumer: Consumer, unit: int, rise: float) -> None:
    """Make up for the rise of a unit by one number everywhere."""
    layer = consumer.layer
    if consumer.node.kind == "batchnorm":
        change.add(layer.bias, unit, -rise * _gain(layer, unit))
    else:
        change.add(layer.bias, slice(None), -rise * consumer.weights[unit].sum(1))


def _gain(norm: Any, unit: int) -> Any:
    return norm.weight[unit] / (norm.running_var[unit] + norm.eps).sqrt()
