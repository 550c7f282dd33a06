"""What units do to the layers that read them, and what makes up for it there."""

from __future__ import annotations

from typing import Any

from skgeo.geometry.symmetry.generators.candidate import Change
from skgeo.network.hidden import Consumer

__all__ = ["absorb", "grow", "shrink"]


def grow(change: Change, layer: Any, unit: int) -> None:
    """Let all that goes into a unit grow in proportion."""
    change.add(layer.weight, unit, layer.weight[unit])
    if layer.bias is not None:
        change.add(layer.bias, unit, layer.bias[unit])


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
