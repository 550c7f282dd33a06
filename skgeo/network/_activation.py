r"""Activations: functions that act on each unit separately, with their options.

Every property of an activation (kinks, oddness, homogeneity, range) is computed from
the function and its options: the slope of a leaky rectifier, the bounds of a clamp, the
:math:`\beta` of a softplus. :mod:`skgeo.network._activation_reading` reads one from a module, a
call or an operation of torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from skgeo._cached import cached_property
from skgeo.exceptions import SkgeoError
from skgeo.network._activation_table import KINDS, Facts, elu_coefficients

# Scalings that commute with an activation: all a > 0, both signs, all invertible matrices, none, or
# (with one slope per unit) unknown.
Scales = Literal["positive", "sign", "linear", "none", "unknown"]

_INF = math.inf
# A unit of a smooth activation responds where its derivative exceeds this threshold.
_NEARLY_ZERO = 1e-3


@dataclass(frozen=True, eq=False)
class Activation:
    r"""Function :math:`\phi` that acts on each unit separately, with its options.

    Two activations are equal if they are the same function, as ``relu6`` and ``hardtanh(0, 6)``.

    Attributes
    ----------
    name : str
        Name of the function in torch: ``"relu"``, ``"leaky_relu"``, ``"tanh"``, ...
    options : tuple of (str, value)
        All options of the function, including defaults.
    """

    name: str
    options: tuple[tuple[str, Any], ...] = ()

    def __call__(self, x: Tensor) -> Tensor:
        r"""Values :math:`\phi(x)`; units on the last axis of 1 or 2, or on axis 1 of more."""
        return KINDS[self.name].function(x, **dict(self.options))

    def derivative(self, x: Tensor) -> Tensor:
        r"""Values :math:`\phi'(x)`; at a kink, torch's choice."""
        with torch.enable_grad():
            at = x.detach().clone().requires_grad_(True)
            value = self(at)
            if not value.requires_grad:
                return torch.zeros_like(x)
            (found,) = torch.autograd.grad(value.sum(), at)
        return found

    def image(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        r"""Bounds of :math:`\phi` on the intervals [low, high], attained or approached.

        Parameters
        ----------
        low, high : Tensor of one shape, float64
            May be infinite. Units as in a call.

        Returns
        -------
        tuple of two Tensors of that shape
        """
        period = self._facts.period
        if math.isfinite(period):  # one period takes all values
            low = torch.where(low == -_INF, high.clamp(max=2 * period) - 2 * period, low)
            high = torch.where(high == _INF, low + 2 * period, high)
        ends = [self._at(low), self._at(high)]
        lowest, highest = torch.minimum(*ends), torch.maximum(*ends)
        for turn in self._facts.turns:
            place = torch.full_like(low, turn)
            if math.isfinite(period):
                place = turn + torch.ceil((low - turn) / period) * period
            # The value may jump there, so both sides are evaluated.
            step = 4 * torch.finfo(low.dtype).eps * max(abs(turn), 1e-300)
            for at in (place - step, place, place + step):
                inside = (low <= at) & (at <= high)
                value = self._at(at)
                lowest = torch.where(inside, torch.minimum(lowest, value), lowest)
                highest = torch.where(inside, torch.maximum(highest, value), highest)
        return lowest, highest

    def _at(self, x: Tensor) -> Tensor:
        """Values, with the limits at infinity where arithmetic gives NaN."""
        below, above = self._facts.limits
        value = self(x)
        limit = torch.where(x > 0, above, below).to(value)
        return torch.where(torch.isnan(value) & torch.isinf(x), limit, value)

    def responds(self, x: Tensor) -> Tensor:
        """Whether the value responds to a small change of the argument, by entry.

        True where the derivative is not zero; for functions that only approach a constant, such as
        tanh, where its modulus exceeds 1e-3.
        """
        return self.derivative(x).abs() > (0.0 if self._facts.polynomial else _NEARLY_ZERO)

    @property
    def range(self) -> tuple[float, float]:
        """Infimum and supremum over all arguments."""
        ends = torch.tensor([-_INF, _INF], dtype=torch.float64)
        low, high = self.image(ends[:1], ends[1:])
        return float(low.min()), float(high.max())

    @property
    def kinks(self) -> tuple[float, ...]:
        """Where the value or the first derivative jumps, ascending."""
        return self._facts.kinks

    @property
    def steps(self) -> tuple[float, ...]:
        """Where the value jumps, ascending."""
        return self._facts.steps

    @property
    def breaks(self) -> tuple[float, ...]:
        """Where the value, the first or the second derivative jumps, ascending."""
        return tuple(sorted({*self._facts.kinks, *self._facts.bends}))

    @property
    def is_odd(self) -> bool:
        r"""Whether :math:`\phi(-x) = -\phi(x)`."""
        return self._facts.odd

    @property
    def is_even(self) -> bool:
        r"""Whether it is linear on either side of zero and :math:`\phi(-x) = \phi(x)`."""
        slopes = self._facts.slopes
        return slopes is not None and slopes[0] == -slopes[1]

    @property
    def is_homogeneous(self) -> bool:
        r"""Whether :math:`\phi(a x) = a \phi(x)` for all a > 0."""
        return self.per_unit or self._facts.slopes is not None

    @property
    def is_monotone(self) -> bool:
        """Whether it decreases nowhere by more than the rounding of float32."""
        return not self._facts.falls

    @property
    def is_identity(self) -> bool:
        """Whether it is the identity."""
        return self._facts.slopes == (1.0, 1.0)

    @property
    def is_rectifier(self) -> bool:
        """Whether it is linear on either side of zero, with slope 1 above and a kink at zero."""
        slopes = self._facts.slopes
        return slopes is not None and slopes[1] == 1.0 and slopes[0] != 1.0

    @property
    def slopes(self) -> tuple[float, float] | None:
        """Slopes left and right of zero if it is linear on either side; otherwise None."""
        return self._facts.slopes

    @property
    def slope(self) -> float:
        """Slope of a rectifier or the identity for negative arguments; otherwise NaN."""
        slopes = self._facts.slopes
        return slopes[0] if slopes is not None and slopes[1] == 1.0 else math.nan

    @property
    def per_unit(self) -> bool:
        """Whether every unit has its own slope."""
        weight = dict(self.options).get("weight", ())
        return len(weight) > 1

    @property
    def scales(self) -> Scales:
        """Scalings of a unit that commute with it."""
        if self.per_unit:
            return "unknown"
        if self.is_identity:
            return "linear"
        if self.is_homogeneous:
            return "positive"
        return "sign" if self.is_odd else "none"

    @property
    def _facts(self) -> Facts:
        return _facts(self.name, self.options)

    @cached_property
    def _key(self) -> tuple[Any, ...]:
        """The same for all representations of one function."""
        facts = self._facts
        if facts.slopes is not None:
            return ("slopes", *facts.slopes)
        options = dict(self.options)
        if facts.clamp is not None:
            return ("clamp", *facts.clamp)
        if self.name in ("elu", "selu", "celu"):
            return ("elu", *elu_coefficients(self.name, options))
        return (self.name, *options.values())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Activation) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __str__(self) -> str:
        if self.per_unit:
            return f"{self.name}({len(dict(self.options)['weight'])} slopes)"
        defaults = KINDS[self.name].defaults
        changed = [
            f"{k}={v:g}" if isinstance(v, float) else f"{k}={v!r}"
            for k, v in self.options
            if k not in defaults or defaults[k] != v
        ]
        return f"{self.name}({', '.join(changed)})" if changed else self.name


@lru_cache(maxsize=1024)
def _facts(name: str, options: tuple[tuple[str, Any], ...]) -> Facts:
    """Properties of a function with its options, cached."""
    return KINDS[name].facts(**dict(options))


ACTIVATION_NAMES = tuple(KINDS)
IDENTITY, RELU, TANH = Activation("identity"), Activation("relu"), Activation("tanh")


def activation(name: str, **options: Any) -> Activation:
    """Activation by name, with torch's defaults for options that are not given.

    Raises
    ------
    SkgeoError
        If the name or an option is unknown, or torch does not accept the value of an option.

    Examples
    --------
    >>> activation("leaky_relu", negative_slope=0.0) == activation("relu")
    True
    """
    kind = KINDS.get(name)
    if kind is None:
        raise SkgeoError(
            f"The activation {name!r} is not known; expected one of {', '.join(KINDS)}."
        )
    unknown = sorted(set(options) - set(kind.defaults))
    if unknown:
        raise SkgeoError(
            f"The activation {name!r} has no option {', '.join(unknown)}; it has "
            f"{', '.join(kind.defaults) or 'none'}."
        )
    values = {key: options.get(key, default) for key, default in kind.defaults.items()}
    found = Activation(name, tuple((key, _plain(value)) for key, value in values.items()))
    reason = _fault(found.name, found.options)
    if reason:
        raise SkgeoError(f"{found} is not a function: {reason}. Change its options.")
    return found


def as_activation(value: str | Activation) -> Activation:
    """An activation itself, or the one of a name with torch's default options.

    Raises
    ------
    SkgeoError
        If the name is unknown, or `value` is neither.

    Examples
    --------
    >>> str(as_activation("leaky_relu")), as_activation("leaky_relu").slope
    ('leaky_relu', 0.01)
    """
    if isinstance(value, Activation):
        return value
    if isinstance(value, str):
        return activation(value)
    raise SkgeoError(
        f"Got {value!r} as an activation; expected a name such as 'relu', or an Activation "
        "(skgeo.network._activation makes one with options)."
    )


@lru_cache(maxsize=1024)
def _fault(name: str, options: tuple[tuple[str, Any], ...]) -> str:
    """Why torch cannot compute this function; empty if it can."""
    if any(isinstance(value, float) and math.isnan(value) for _, value in options):
        return "an option is NaN"
    try:
        value = Activation(name, options)(torch.zeros(1, dtype=torch.float64))
    except (RuntimeError, ValueError, TypeError, ZeroDivisionError) as error:
        return str(error).split("\n")[0].rstrip(".")
    return "" if bool(torch.isfinite(value).all()) else f"its value at 0 is {float(value[0])}"


def _plain(value: Any) -> Any:
    if isinstance(value, bool | int | float):
        return float(value)
    if isinstance(value, tuple | list):
        return tuple(float(v) for v in value)
    return value
