"""Derivatives of pointwise activations by name, and where they have kinks."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["KINKS", "derivative", "responds"]

KINKS: dict[str, tuple[float, ...]] = {
    "relu": (0.0,),
    "leaky_relu": (0.0,),
    "prelu": (0.0,),
    "relu6": (0.0, 6.0),
    "hardtanh": (-1.0, 1.0),
    "hardsigmoid": (-3.0, 3.0),
    "hardswish": (-3.0, 3.0),
}
_NEARLY_ZERO = 1e-3


def derivative(name: str, slope: float, values: Tensor) -> Tensor | None:
    """Derivative of an activation, entry by entry.

    Parameters
    ----------
    name : str
        As :class:`~skgeo.network.vocabulary.Step` has it.
    slope : float
        Of a leaky rectifier for negative arguments.
    values : Tensor
        Arguments.

    Returns
    -------
    Tensor of the shape of `values`, or None
        None where the function, with its parameters, is not known.

    Examples
    --------
    >>> derivative("leaky_relu", 0.5, torch.tensor([-1.0, 2.0]))
    tensor([0.5000, 1.0000])
    """
    if name == "identity":
        return torch.ones_like(values)
    function = getattr(F, name, None) or getattr(torch, name, None)
    if name == "prelu" or function is None:
        return None
    with torch.enable_grad():
        arguments = values.detach().clone().requires_grad_(True)
        results = F.leaky_relu(arguments, slope) if name == "leaky_relu" else function(arguments)
        (found,) = torch.autograd.grad(results.sum(), arguments)
    return found


def responds(name: str, slope: float, values: Tensor) -> Tensor:
    """Whether an activation passes on a small change of its argument, entry by entry.

    Parameters
    ----------
    name, slope, values
        As in :func:`derivative`.

    Returns
    -------
    Tensor of bool
        Of activations with kinks, where the derivative is not zero; of smooth ones, where it
        exceeds 1e-3 in modulus. All True for functions that are not known, such as PReLU.
    """
    found = derivative(name, slope, values)
    if found is None:
        return torch.ones_like(values, dtype=torch.bool)
    return found.abs() > (0.0 if name in KINKS else _NEARLY_ZERO)
