"""Domains of a function, followed through the layers of a chain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from skgeo._arguments import check_option
from skgeo.network._activation import Activation
from skgeo.network._stack import Stack
from skgeo.symmetry._units import Interval, box_interval, data_interval

_POINTS = 1000
# Width of the box of points outside the domain, relative to the domain.
_WIDER = 4.0


@dataclass(frozen=True, eq=False)
class Domain:
    """Domain of the inputs of a layer: all of space, a box, or samples.

    Attributes
    ----------
    kind : {None, "box", "data"}
        Kind of the domain of the network.
    low, high : Tensor of shape (n,)
        Box around the inputs of this layer, infinite where there is no bound.
    samples : Tensor of shape (N, n)
        Inputs of this layer at the samples.
    activations : tuple of Activation
    """

    kind: Literal["box", "data"] | None
    low: Tensor
    high: Tensor
    samples: Tensor
    activations: tuple[Activation, ...]

    def at(self, weights: Sequence[Tensor], biases: Sequence[Tensor], layer: int) -> Domain:
        """Domain of the inputs of a hidden layer."""
        low, high, samples = self.low, self.high, self.samples
        for i in range(layer):
            activation = self.activations[i]
            samples = activation(samples @ weights[i].T + biases[i])
            low, high = activation.image(*box_interval(weights[i], biases[i], low, high))
        return replace(self, low=low, high=high, samples=samples)

    def interval(self, weights: Tensor, biases: Tensor) -> Interval:
        """Bounds of the pre-activations of a layer that reads these inputs."""
        if self.kind == "data" and len(self.samples):
            return data_interval(weights, biases, self.samples)
        return box_interval(weights, biases, self.low, self.high)

    def ball(self) -> tuple[Tensor, float] | None:
        """Centre and radius of a ball around these inputs; None if they are unbounded."""
        if self.kind == "data" and len(self.samples):
            centre = self.samples.mean(0)
            return centre, float(torch.linalg.vector_norm(self.samples - centre, dim=1).max())
        if not bool(torch.isfinite(self._width()).all()):
            return None
        return (self.low + self.high) / 2, float(torch.linalg.vector_norm(self._width())) / 2

    def _width(self) -> Tensor:
        return self.high - self.low

    def is_solid(self) -> bool:
        """Whether the box has an interior."""
        return bool((self._width() > 0).all())

    def radius(self) -> float:
        """Largest norm of an input; 0 for all of space."""
        if self.kind is None:
            return 0.0
        return float(torch.linalg.vector_norm(torch.maximum(self.low.abs(), self.high.abs())))

    def inside(self) -> Tensor:
        """Points of the domain: the samples, and random points unless the domain is the data."""
        if self.kind == "data":
            return self.samples
        n = self.samples.shape[1]
        if self.kind is None:
            return torch.cat([self.samples, 3 * _normal(_POINTS, n)])
        return torch.cat([self.samples, self.low + _uniform(_POINTS, n) * self._width()])

    def outside(self) -> Tensor | None:
        """Random points outside the domain, in a box four times as wide; None for all of space."""
        if self.kind is None:
            return None
        n = len(self.low)
        middle, width = (self.low + self.high) / 2, self._width()
        width = torch.where(width > 0, width, 1.0)
        points = middle + _WIDER * (_uniform(_POINTS, n) - 0.5) * width
        beyond = ((points < self.low) | (points > self.high)).any(1)
        if bool(beyond.any()):
            return points[beyond]
        return middle + _WIDER * width * torch.ones((1, n), dtype=torch.float64)


def read_domain(stack: Stack, kind: Literal["box", "data"] | None, inputs: Tensor | None) -> Domain:
    """The domain of a network's inputs.

    Raises SkgeoError if `kind` is not one of these.
    """
    # inputs (N, ...)
    check_option("domain", kind, (None, "box", "data"))
    n = stack.widths[0]
    if inputs is None:
        samples = torch.zeros((0, n), dtype=torch.float64)
    else:
        samples = inputs.reshape(len(inputs), n)
    low = torch.full((n,), -torch.inf, dtype=torch.float64)
    high = -low
    if kind is not None:
        low, high = samples.amin(0), samples.amax(0)
    return Domain(kind, low, high, samples, stack.activations)


def _normal(count: int, n: int) -> Tensor:
    generator = torch.Generator().manual_seed(17)
    return torch.randn(count, n, generator=generator, dtype=torch.float64)


def _uniform(count: int, n: int) -> Tensor:
    generator = torch.Generator().manual_seed(19)
    return torch.rand(count, n, generator=generator, dtype=torch.float64)
