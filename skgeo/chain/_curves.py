"""Curves of inputs, given by points and derivatives or as a function of time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from skgeo.data import as_samples
from skgeo.exceptions import SkgeoError
from skgeo.jacobian._directional import push


@dataclass(frozen=True)
class Curve:
    """Points of a curve with its first two derivatives there.

    Attributes
    ----------
    points : array, Tensor, dict, ...
        Samples in any form that the network takes.
    velocity, acceleration : Tensor or None
        One row per sample. None for an acceleration of zero.
    """

    points: Any
    velocity: Tensor | None
    acceleration: Tensor | None

    def at(self, x: Tensor, n_samples: int) -> tuple[Tensor, Tensor | None]:
        """Derivatives as rows, in the dtype of the points x.

        Raises SkgeoError for other shapes, or a velocity of zero.
        """
        # x (N, n_0) -> (N, n_0)
        assert self.velocity is not None
        velocity = _shaped("velocity", self.velocity, x)
        still = ~velocity.any(1)
        if bool(still.any()):
            raise SkgeoError(
                f"The velocity of sample {int(still.nonzero()[0])} is zero: a curve with zero "
                "velocity has no curvature. Give a velocity that is not zero."
            )
        if self.acceleration is None:
            return velocity, None
        return velocity, _shaped("acceleration", self.acceleration, x)


def read_curve(X: Any, t: Any, velocity: Any, acceleration: Any, *, needed: bool) -> Curve:
    """Curve from a function of time t, or from samples with derivatives.

    needed: whether derivatives are required.
    Raises SkgeoError if the arguments do not define a curve.
    """
    # t (m,)
    if callable(X):
        if velocity is not None or acceleration is not None:
            raise SkgeoError(
                "X is a function of time, which has its own velocity and acceleration: do not "
                "pass velocity or acceleration with it."
            )
        return _from_function(X, t)
    if t is not None:
        raise SkgeoError(
            "The argument t was given with samples in X; it belongs to a curve that is a "
            "function. Omit t."
        )
    if not needed:
        if velocity is not None or acceleration is not None:
            raise SkgeoError(
                "A velocity or an acceleration was given without a curve: use kind='curve'."
            )
        return Curve(X, None, None)
    if velocity is None:
        raise SkgeoError(
            "A curve needs a velocity at every sample. Pass velocity=... of the shape of X, or the "
            "curve as a function of time with t=[...]."
        )
    return Curve(X, _tensor(velocity), None if acceleration is None else _tensor(acceleration))


def _from_function(X: Any, t: Any) -> Curve:
    if t is None:
        raise SkgeoError("X is a function of time; pass t=[...], at which times to evaluate it.")
    times = _tensor(t).to(torch.float64)
    if times.dim() != 1:
        raise SkgeoError(f"The argument t has shape {tuple(times.shape)}; expected one axis, (m,).")
    shape: list[torch.Size] = []

    def run(column: Tensor) -> Tensor:
        points = X(column.squeeze(1))
        if not isinstance(points, Tensor) or points.dim() < 2 or len(points) != len(times):
            raise SkgeoError(
                f"The curve returned {_shown(points)} for {len(times)} times; expected a tensor of "
                "inputs, one for each time."
            )
        shape.append(points.shape)
        return points.reshape(len(points), -1)

    one = torch.ones(len(times), 1, dtype=torch.float64)
    points, velocity, acceleration = push(run, times.unsqueeze(1), one, one)
    for name, value in (("points", points), ("derivatives", velocity + acceleration)):
        if not bool(torch.isfinite(value).all()):
            raise SkgeoError(
                f"The {name} of the curve are NaN or infinite; expected finite values."
            )
    return Curve(points.reshape(shape[0]), velocity, acceleration)


def _tensor(value: Any) -> Tensor:
    inputs = as_samples(value).inputs
    if not isinstance(inputs, Tensor):
        raise SkgeoError(
            "One of velocity, acceleration and t holds several arrays; expected a single one."
        )
    return inputs


def _shaped(name: str, value: Tensor, x: Tensor) -> Tensor:
    if len(value) != len(x) or value.numel() != x.numel():
        raise SkgeoError(
            f"The {name} has shape {tuple(value.shape)}; expected {len(x)} samples of {x.shape[1]} "
            "coordinates, like the points."
        )
    return value.reshape(len(x), -1).to(x)


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"shape {tuple(value.shape)}"
    return f"an object of type {type(value).__name__}"
