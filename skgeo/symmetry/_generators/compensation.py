"""Changes of a unit and the compensating changes of the layers that read it."""

from __future__ import annotations

from typing import Any

from skgeo.network._hidden import Consumer
from skgeo.symmetry._generators.candidate import Change


def grow(change: Change, layer: Any, unit: int, origin: float = 0.0) -> None:
    """Scale the argument of a unit about an origin."""
    change.add(layer.weight, unit, layer.weight[unit])
    change.add(layer.bias, unit, (0.0 if layer.bias is None else layer.bias[unit]) - origin)


def shrink(change: Change, consumer: Consumer, unit: int) -> None:
    """Compensate in a layer that reads a unit for the scaling of its value."""
    layer, where = consumer.layer, consumer.where(unit)
    change.add(layer.weight, where, -layer.weight[where])
    if consumer.node.kind == "batchnorm":  # it subtracts a mean that is not scaled
        change.add(layer.bias, unit, -layer.running_mean[unit] * _gain(layer, unit))


def absorb(change: Change, consumer: Consumer, unit: int, rise: float) -> None:
    """Compensate in a layer that reads a unit for a constant added to its value."""
    layer = consumer.layer
    if consumer.node.kind == "batchnorm":
        change.add(layer.bias, unit, -rise * _gain(layer, unit))
    else:
        change.add(layer.bias, slice(None), -rise * consumer.weights[unit].sum(1))


def _gain(norm: Any, unit: int) -> Any:
    return norm.weight[unit] / (norm.running_var[unit] + norm.eps).sqrt()
