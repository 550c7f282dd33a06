"""Elementwise activations with their derivatives and kinks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skgeo.exceptions import SkgeoError

__all__ = ["Activation", "as_activation"]

_NAMED: dict[str, Callable[[Tensor], Tensor]] = {
    "erf": torch.erf,
    "gelu": nn.GELU(),
    "identity": lambda x: x,
    "relu": nn.ReLU(),
    "sigmoid": torch.sigmoid,
    "silu": nn.SiLU(),
    "sin": torch.sin,
    "softplus": nn.Softplus(),
    "tanh": torch.tanh,
}
# Where the first or the second derivative jumps.
_KINKS: dict[type[nn.Module], Callable[[Any], Sequence[float]]] = {
    nn.CELU: lambda m: (0.0,),
    nn.ELU: lambda m: (0.0,),
    nn.Hardsigmoid: lambda m: (-3.0, 3.0),
    nn.Hardswish: lambda m: (-3.0, 3.0),
    nn.Hardtanh: lambda m: (float(m.min_val), float(m.max_val)),
    nn.LeakyReLU: lambda m: (0.0,),
    nn.PReLU: lambda m: (0.0,),
    nn.RReLU: lambda m: (0.0,),
    nn.ReLU: lambda m: (0.0,),
    nn.ReLU6: lambda m: (0.0, 6.0),
    nn.SELU: lambda m: (0.0,),
    nn.Softshrink: lambda m: (-float(m.lambd), float(m.lambd)),
    nn.Softsign: lambda m: (0.0,),
}
_STEPS = (nn.Hardshrink, nn.Threshold)


@dataclass(frozen=True)
class Activation:
    r"""A function applied to every unit alone.

    Attributes
    ----------
    name : str
    function : callable
        From a float64 tensor to one of its shape.
    kinks : tuple of float
        Where the first or the second derivative jumps, ascending. Everywhere else the function
        has two continuous derivatives.
    """

    name: str
    function: Callable[[Tensor], Tensor]
    kinks: tuple[float, ...] = ()

    def values(self, x: np.ndarray) -> np.ndarray:
        r"""Values of :math:`\phi`."""
        with torch.no_grad():
            return self.function(torch.as_tensor(x, dtype=torch.float64).clone()).numpy()

    def derivatives(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        r"""Values of :math:`\phi, \phi', \phi''`, the last without what kinks add to it.

        Parameters
        ----------
        x : ndarray

        Returns
        -------
        three ndarrays of the shape of `x`
        """
        with torch.enable_grad():
            at = torch.as_tensor(x, dtype=torch.float64).clone().requires_grad_(True)
            value = self.function(at)
            found = [value]
            for _ in range(2):
                if value.requires_grad:
                    (value,) = torch.autograd.grad(
                        value.sum(),
                        at,
                        create_graph=True,
                        allow_unused=True,
                        materialize_grads=True,
                    )
                else:
                    value = torch.zeros_like(at)
                found.append(value)
        phi, first, second = (v.detach().numpy() for v in found)
        return phi, first, second

    def jumps(self) -> tuple[tuple[float, float, float], ...]:
        r"""For each kink its place, :math:`\phi` there, and how much :math:`\phi'` jumps."""
        found = []
        for kink in self.kinks:
            step = 1e-12 * max(1.0, abs(kink))
            phi, first, _ = self.derivatives(np.array([kink, kink - step, kink + step]))
            jump = float(first[2] - first[1])
            # A jump of the second derivative alone shows as rounding.
            found.append((kink, float(phi[0]), jump if abs(jump) > 1e-9 else 0.0))
        return tuple(found)


def as_activation(
    activation: str | nn.Module | Callable[[Tensor], Tensor], kinks: Sequence[float] | None = None
) -> Activation:
    """Read an activation, and check that it acts on single numbers.

    Parameters
    ----------
    activation : str, nn.Module or callable
        A name, a module of torch, or a function of a tensor.
    kinks : sequence of float, optional
        Where a derivative jumps; known for torch's own modules.

    Returns
    -------
    Activation

    Raises
    ------
    SkgeoError
        If it mixes entries, jumps, or is not known.
    """
    function: Callable[[Tensor], Tensor]
    if isinstance(activation, str):
        if activation not in _NAMED:
            raise SkgeoError(
                f"activation={activation!r} is not known; expected one of {', '.join(_NAMED)}, a "
                "module such as torch.nn.ELU(), or a function of a tensor."
            )
        name, function = activation, _NAMED[activation]
    elif isinstance(activation, nn.Module):
        name = type(activation).__name__
        function = _frozen(activation)
    elif callable(activation):
        name, function = getattr(activation, "__name__", type(activation).__name__), activation
    else:
        raise SkgeoError(f"activation={activation!r}: expected a name, a module or a function.")
    module: Any = activation if isinstance(activation, nn.Module) else function
    if isinstance(module, _STEPS):
        raise SkgeoError(f"{name} jumps, so that its derivative says nothing about its values.")
    if kinks is None:
        known = _KINKS.get(type(module))
        kinks = () if known is None else known(module)
    _check_elementwise(name, function)
    return Activation(name, function, tuple(sorted(float(kink) for kink in kinks)))


def _frozen(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """A module as a function in float64 that never touches it."""
    if isinstance(module, nn.PReLU):
        if module.weight.numel() != 1:
            raise SkgeoError("PReLU with a slope for each channel is not one activation.")
        slope = module.weight.detach().double()
        return lambda x: nn.functional.prelu(x, slope)
    if list(module.parameters()):
        raise SkgeoError(
            f"{type(module).__name__} has parameters, and only PReLU is known as an activation "
            "that has."
        )
    return copy.deepcopy(module).eval()


def _check_elementwise(name: str, function: Callable[[Tensor], Tensor]) -> None:
    x = torch.linspace(-2.3, 2.9, 12, dtype=torch.float64).reshape(3, 4)
    with torch.no_grad():
        try:
            together = function(x.clone())
            alone = torch.stack(
                [function(row.reshape(1, 1).clone()).reshape(()) for row in x.flatten()]
            )
        except (RuntimeError, IndexError, ValueError) as error:
            raise SkgeoError(f"{name} is no function of single numbers: {error}") from error
    if together.shape != x.shape or not torch.allclose(together.flatten(), alone, rtol=1e-12):
        raise SkgeoError(
            f"{name} mixes the entries of its input, so that it is no activation in the sense of "
            "mean-field theory."
        )
