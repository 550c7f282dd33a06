"""Terms of divergences and distances in forms that do not cancel, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

# |x| below which expm1(x) - x is summed as a series: 17 terms reach the last digit there.
_SERIES = 0.5


def excess(log_weight: Tensor, x: Tensor) -> Tensor:
    """``exp(log_weight) (exp(x) - 1 - x)``, never negative."""
    series = torch.ones_like(x)
    for k in range(17, 2, -1):
        series = 1.0 + x / k * series
    small = log_weight.exp() * x.square() / 2 * series
    # exp(log_weight + x) stays finite where one factor overflows and the other vanishes.
    plain = (log_weight + x).exp() - log_weight.exp() * (1.0 + x)
    return torch.where(x.abs() < _SERIES, small, plain.clamp_min(0.0))


def root_step(z: Tensor, step: Tensor) -> Tensor:
    """``|exp((z + step) / 2) - exp(z / 2)|``."""
    return (torch.maximum(z, z + step) / 2).exp() * -(-step.abs() / 2).expm1()


def _difference(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """``a - b`` as a rounded number and its rounding: the sum of both is exact."""
    found = a - b
    back = found - a
    return found, (a - (found - back)) - (b + back)


def softmax_step(outputs: Tensor, others: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Logarithms of p, those of q over p, and the divergence of q from p.

    With the mean :math:`c = \sum_i p_i \delta_i` of the differences of logits and
    :math:`e = \delta - c` the divergence is :math:`\log \sum_i p_i e^{e_i}`, which equals
    :math:`\log(1 + \sum_i p_i (e^{e_i} - 1 - e_i))`: a sum without a negative term.
    """
    # (..., K) twice -> (..., K), (..., K), (...)
    z, w = outputs.double(), others.double()
    log_p = z.log_softmax(-1)
    # Relative to the likeliest category, and with the rounding of the difference itself: neither
    # a step far below the logits nor what all logits share costs digits.
    delta, rounding = _difference(w, z)
    at = z.argmax(-1, keepdim=True)
    delta = (delta - delta.gather(-1, at)) + (rounding - rounding.gather(-1, at))
    e = delta - (log_p.exp() * delta).sum(-1, keepdim=True)
    gathered = excess(log_p, e).sum(-1)
    divergence = torch.where(gathered < 1.0, gathered.log1p(), (log_p + e).logsumexp(-1))
    return log_p, e - divergence.unsqueeze(-1), divergence
