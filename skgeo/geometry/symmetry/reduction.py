"""The weights of a plain chain with the hidden units taken out that it does not need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from skgeo.exceptions import SkgeoError
from skgeo.geometry.symmetry.domains import Domain
from skgeo.geometry.symmetry.hidden_layer import HiddenLayer
from skgeo.geometry.symmetry.merging import merge_units, narrow_units
from skgeo.network.activation import RELU, TANH, Activation
from skgeo.network.stack import Stack

__all__ = ["Reduction", "check_same_function", "hidden_layers_of", "reduce_stack"]

_SWEEPS = 8
# How many times a bound on rounding a difference may be.
_SLACK = 8.0


@dataclass(frozen=True, eq=False)
class Reduction:
    """A smaller chain of the same function on a domain.

    Attributes
    ----------
    layers : tuple of HiddenLayer
        The hidden layers, each with where its units came from.
    weights : tuple of Tensor
    biases : tuple of Tensor or None
        None where the chain had none and needs none.
    optimal : bool
        Whether it is proved that no chain of one hidden layer with fewer units agrees on the
        domain, up to the tolerance.
    """

    layers: tuple[HiddenLayer, ...]
    weights: tuple[Tensor, ...]
    biases: tuple[Tensor | None, ...]
    optimal: bool

    @property
    def widths(self) -> tuple[int, ...]:
        """Units that are left in each hidden layer."""
        return tuple(layer.n_units for layer in self.layers)


def reduce_stack(stack: Stack, region: Domain, *, tol: float) -> Reduction:
    """Take out the hidden units that a chain does not need on a domain.

    Parameters
    ----------
    stack : Stack
        Of linear layers.
    region : Domain
        Of its inputs.
    tol : float
        Relative.

    Returns
    -------
    Reduction

    Raises
    ------
    SkgeoError
        If outputs at points of the domain differ by more than `tol` and rounding explain.
    """
    layers = hidden_layers_of(stack)
    weights = list(stack.weights)
    biases = [_bias(stack, i) for i in range(stack.depth)]
    proved = False
    for _ in range(_SWEEPS):
        before = [len(weight) for weight in weights]
        for i in reversed(range(len(layers))):
            layers[i] = replace(
                layers[i],
                weights=weights[i],
                biases=biases[i],
                outputs=weights[i + 1],
                shift=biases[i + 1],
            )
            if layers[i].activation.is_identity or layers[i].activation.per_unit:
                continue
            here = region.at(weights, biases, i)
            layers[i], proved = _reduced(layers[i], here, tol)
            weights[i], biases[i] = layers[i].weights, layers[i].biases
            weights[i + 1], biases[i + 1] = layers[i].outputs, layers[i].shift
        if before == [len(weight) for weight in weights]:
            break
    given = tuple(
        bias if had is not None or bool((bias != 0).any()) else None
        for bias, had in zip(biases, stack.biases, strict=True)
    )
    found = Reduction(tuple(layers), tuple(weights), given, _is_optimal(stack, region, proved))
    check_same_function(
        stack, found, region, stack.outputs, lambda x: stack.outputs(x, weights, given), tol
    )
    return found


def hidden_layers_of(stack: Stack) -> list[HiddenLayer]:
    """The hidden layers of a chain of linear layers as they are."""
    return [
        HiddenLayer(
            stack.weights[i],
            _bias(stack, i),
            stack.weights[i + 1],
            _bias(stack, i + 1),
            activation=stack.activations[i],
            precision=torch.finfo(stack.dtype).eps,
            units=torch.arange(len(stack.weights[i])),
        )
        for i in range(stack.depth - 1)
    ]


def _bias(stack: Stack, i: int) -> Tensor:
    bias = stack.biases[i]
    return torch.zeros(len(stack.weights[i]), dtype=torch.float64) if bias is None else bias


def _reduced(layer: HiddenLayer, here: Domain, tol: float) -> tuple[HiddenLayer, bool]:
    """One hidden layer with fewer units, and whether no fewer do."""
    layer = merge_units(layer, interval=here.interval(layer.weights, layer.biases), tol=tol)
    interval = here.interval(layer.weights, layer.biases)
    narrow, proved = narrow_units(layer, interval=interval, ball=here.ball(), tol=tol)
    # Sussmann (1992), Theorem 1: units of tanh that are apart cannot be fewer.
    return narrow, proved or layer.activation == TANH


def _is_optimal(stack: Stack, region: Domain, proved: bool) -> bool:
    """Whether the proof for the one hidden layer covers the domain."""
    if stack.depth == 1:
        return True
    if stack.depth > 2 or region.kind == "data" or not proved:
        return False
    return region.kind is None or (stack.activations[0] == RELU and region.is_solid())


def check_same_function(
    stack: Stack,
    reduced: Reduction,
    region: Domain,
    first: Callable[[Tensor], Tensor],
    second: Callable[[Tensor], Tensor],
    tol: float,
) -> float:
    """Largest difference of the two at points of the domain, refused where it is an error.

    `first` and `second` compute the outputs of the chain and of what it was reduced to.
    """
    points = region.inside()
    if not len(points):
        return 0.0
    difference = (first(points) - second(points)).abs()
    level = tol + 4 * torch.finfo(stack.dtype).eps
    bound = _rounding(stack, stack.weights, stack.biases, points, level)
    bound = bound + _rounding(stack, reduced.weights, reduced.biases, points, level)
    excess = difference / (_SLACK * bound).clamp(min=1e-300)
    if bool((excess > 1).any()):
        row = int(excess.amax(1).argmax())
        raise SkgeoError(
            f"The smaller network differs from the one given by {float(difference[row].max()):.2g} "
            f"at a point of the domain, and rounding explains {float(bound[row].max()):.2g}: the "
            "reduction went wrong. Pass a smaller tol, and report this network."
        )
    return float(difference.max())


def _rounding(
    stack: Stack,
    weights: tuple[Tensor, ...],
    biases: tuple[Tensor | None, ...],
    points: Tensor,
    level: float,
) -> Tensor:
    """What weights that are off by a relative `level` do to each output, to first order: (N, k).

    A unit's argument is off by |W| e + level |(w, b)| (1 + |h|) where its inputs h are off by e,
    and its value by that times the steepest slope of the activation.
    """
    h, off = points, torch.zeros_like(points)
    for index, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        size = torch.linalg.vector_norm(weight, dim=1)
        size = size if bias is None else torch.hypot(size, bias)
        reach = 1.0 + torch.linalg.vector_norm(h, dim=1, keepdim=True)
        off = off @ weight.abs().T + level * reach * size
        h = torch.nn.functional.linear(h, weight, bias)
        if index < len(stack.activations):
            off = off * _steepest(stack.activations[index])
            h = stack.activations[index](h)
    return off


def _steepest(of: Activation) -> float:
    """Largest slope; infinite where the value jumps."""
    if of.steps:
        return float("inf")
    grid = torch.linspace(-20.0, 20.0, 8001, dtype=torch.float64)
    if of.per_unit:
        return max(1.0, *(abs(slope) for slope in dict(of.options)["weight"]))
    return 1.01 * float(of.derivative(grid).abs().max())
