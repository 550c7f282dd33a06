"""Functions of one number, with their derivatives and the positions where these jump."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from skgeo._arguments import check_number
from skgeo.exceptions import SkgeoError
from skgeo.network import Activation, activation, activation_call, read_activation


@dataclass(frozen=True)
class ScalarFunction:
    r"""A function applied to each unit separately.

    Attributes
    ----------
    name : str
    function : callable
        Maps a float64 tensor to one of the same shape.
    breaks : tuple of float
        Positions where the first or the second derivative jumps, ascending. Everywhere else the
        function has two continuous derivatives.
    """

    name: str
    function: Callable[[Tensor], Tensor]
    breaks: tuple[float, ...] = ()

    def values(self, x: np.ndarray) -> np.ndarray:
        r"""Values of :math:`\phi`."""
        with torch.no_grad():
            return self.function(torch.as_tensor(x, dtype=torch.float64).clone()).numpy()

    def derivatives(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        r"""Values of :math:`\phi, \phi', \phi''`, the last without the contribution of breaks."""
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
        r"""Position of each break, with :math:`\phi` and the jump of :math:`\phi'` there."""
        found = []
        for place in self.breaks:
            step = 1e-12 * max(1.0, abs(place))
            phi, first, _ = self.derivatives(np.array([place, place - step, place + step]))
            jump = float(first[2] - first[1])
            # If only the second derivative jumps, the difference is rounding.
            found.append((place, float(phi[0]), jump if abs(jump) > 1e-9 else 0.0))
        return tuple(found)


def scalar_function(
    given: str | nn.Module | Activation | Callable[[Tensor], Tensor],
    breaks: Sequence[float] | None = None,
) -> ScalarFunction:
    """Function of one number from a name, a module or a function of a tensor.

    breaks: positions where a derivative jumps; known for activations of torch.
    Raises SkgeoError if it mixes entries, jumps, or is not known.
    """
    known = given if isinstance(given, Activation) else _known(given)
    if known is not None:
        if known.per_unit:
            raise SkgeoError(
                f"{known.name} has a slope for each unit, but mean-field theory needs one "
                "activation for all units. Use an activation without parameters per unit."
            )
        if known.steps:
            raise SkgeoError(
                f"{known} jumps, so its derivative does not describe it. Use a continuous one."
            )
        places = known.breaks if breaks is None else breaks
        return ScalarFunction(str(known), known, _sorted(places))
    if isinstance(given, nn.Module):
        name, function = type(given).__name__, _frozen(given)
    elif callable(given):
        name, function = getattr(given, "__name__", type(given).__name__), given
    else:
        raise SkgeoError(f"Got activation={given!r}; expected a name, a module or a function.")
    _check_elementwise(name, function)
    return ScalarFunction(name, function, _sorted(breaks or ()))


def _known(given: object) -> Activation | None:
    """The activation of torch that was given, or None if it is not one."""
    if isinstance(given, str):
        return activation(given)
    if isinstance(given, nn.Module):
        return read_activation(given)
    return activation_call(given, (), {})


def _sorted(places: Sequence[float]) -> tuple[float, ...]:
    if isinstance(places, str) or not isinstance(places, Iterable):
        raise SkgeoError(f"Got kinks={places!r}; expected a list of numbers, or None.")
    return tuple(sorted(check_number("kink", place) for place in places))


def _frozen(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """Function that applies a copy of a module, in eval mode."""
    if list(module.parameters()):
        raise SkgeoError(
            f"{type(module).__name__} has parameters of its own; expected an activation "
            "without parameters."
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
            raise SkgeoError(f"{name} is not a function of single numbers: {error}") from error
    if together.shape != x.shape or not torch.allclose(together.flatten(), alone, rtol=1e-12):
        raise SkgeoError(
            f"{name} mixes the entries of its input, but mean-field theory needs an elementwise "
            "activation."
        )
