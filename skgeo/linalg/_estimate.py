"""Numbers known up to chance, and how their errors follow from repetitions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor

from skgeo._results import Result, shown

_V = TypeVar("_V", float, Tensor)


@dataclass(frozen=True, repr=False)
class Estimate(Result, Generic[_V]):
    """A number, or a tensor of numbers, with its standard error.

    Attributes
    ----------
    value : float or Tensor
    standard_error : float or Tensor
        Standard deviation of `value` over repetitions with other random numbers, at fixed data. 0
        for what is exact.

    Examples
    --------
    >>> Estimate(3.25, 0.5)
    Estimate(3.25 +- 0.5)
    >>> float(Estimate(3.25, 0.5))
    3.25
    """

    value: _V
    standard_error: _V

    def _line(self) -> str:
        return f"{shown(self.value)} +- {shown(self.standard_error)}"

    def __float__(self) -> float:
        return float(self.value)


def mean_of(values: Tensor) -> Estimate[float]:
    """The mean of independent repetitions.

    values: (m,), at least two.

    >>> mean_of(Tensor([1.0, 3.0]))
    Estimate(2 +- 1)
    """
    return Estimate(float(values.mean()), float(values.std() / len(values) ** 0.5))


def jackknifed(whole: float, without: Tensor) -> Estimate[float]:
    """A statistic of m repetitions without its bias of order 1/m.

    without: (m,), the statistic without each of the repetitions.

    B. Efron, "The jackknife, the bootstrap and other resampling plans", SIAM 1982, eq. (2.8) for
    the bias and (3.1) for the error.
    """
    m, mean = len(without), float(without.mean())
    spread = float((without - mean).square().sum()) * (m - 1) / m
    return Estimate(m * whole - (m - 1) * mean, spread**0.5)
