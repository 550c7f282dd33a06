"""Removal of the redundant hidden units of a plain chain."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from skgeo.exceptions import SkgeoError
from skgeo.network._activation import TANH
from skgeo.network._stack import Stack
from skgeo.symmetry._compression.domains import Domain
from skgeo.symmetry._compression.merging import merge_units, narrow_linear, narrow_units
from skgeo.symmetry._hidden_layer import HiddenLayer

_SWEEPS = 8
# Largest ratio of a difference to its first-order rounding bound.
_SLACK = 8.0
# Distance to a kink, in roundings of the argument, within which an argument may cross it.
_NEAR = 1e3
# Outputs that are checked: those that differ most.
_MOST_OUTPUTS = 64


@dataclass(frozen=True, eq=False)
class Reduction:
    """A smaller chain that computes the same function on a domain.

    Attributes
    ----------
    layers : tuple of HiddenLayer
        The hidden layers; `units` of each tells where the original units went.
    weights : tuple of Tensor
    biases : tuple of Tensor or None
        None where the original chain had none and the new one needs none.
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
        """Widths of the hidden layers."""
        return tuple(layer.n_units for layer in self.layers)


def reduce_stack(stack: Stack, region: Domain, *, tol: float) -> Reduction:
    """Remove the hidden units of a chain of linear layers that are redundant on a domain.

    Raises SkgeoError if outputs at points of the domain differ by more than `tol` and rounding
        explain.
    """
    layers = hidden_layers_of(stack)
    scales = _scales(stack, region)
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
            if layers[i].activation.per_unit:
                continue
            here = region.at(weights, biases, i)
            layers[i], proved = _reduced(layers[i], here, scales[i], tol)
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
    """The hidden layers of a chain of linear layers."""
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


def _scales(stack: Stack, region: Domain) -> list[float]:
    """Size of the inputs of each hidden layer, a power of two and at least 1 (first layer: 1).

    A unit counts as constant, or equal to another, only if it is so for inputs of this size.
    """
    *arguments, _ = stack.arguments(region.inside())
    found = [1.0]
    for activation, z in zip(stack.activations, arguments, strict=True):
        largest = float(activation(z).abs().max()) if z.numel() else 1.0
        found.append(2.0 ** math.ceil(math.log2(max(largest, 1.0))) if largest < math.inf else 1.0)
    return found


def _reduced(
    layer: HiddenLayer, here: Domain, scale: float, tol: float
) -> tuple[HiddenLayer, bool]:
    """One hidden layer with fewer units, and whether it is proved that no fewer suffice."""
    if layer.activation.is_identity:
        return narrow_linear(layer, tol=tol), True
    interval = here.interval(layer.weights, layer.biases)
    layer = merge_units(replace(layer, weights=layer.weights * scale), interval=interval, tol=tol)
    layer = replace(layer, weights=layer.weights / scale)
    interval = here.interval(layer.weights, layer.biases)
    narrow, proved = narrow_units(layer, interval=interval, ball=here.ball(), tol=tol)
    # Sussmann (1992), Theorem 1: distinct tanh units cannot be fewer.
    return narrow, proved or layer.activation == TANH


def _is_optimal(stack: Stack, region: Domain, proved: bool) -> bool:
    """Whether the proof for one hidden layer covers the domain."""
    if stack.depth == 1:
        return True
    if stack.depth > 2 or region.kind == "data" or not proved:
        return False
    return region.kind is None or (stack.activations[0].is_rectifier and region.is_solid())


def check_same_function(
    stack: Stack,
    reduced: Reduction,
    region: Domain,
    first: Callable[[Tensor], Tensor],
    second: Callable[[Tensor], Tensor],
    tol: float,
) -> float:
    """Largest difference of the outputs at points of the domain.

    first, second: functions that compute the outputs of the original and of the reduced chain.
    Raises SkgeoError if the difference exceeds what `tol` and rounding explain.
    """
    points = region.inside()
    if not len(points):
        return 0.0
    difference = (first(points) - second(points)).abs()
    chosen = difference.amax(0).topk(min(_MOST_OUTPUTS, difference.shape[1])).indices
    level = tol + 4 * torch.finfo(stack.dtype).eps
    bound = _rounding(stack, stack.weights, stack.biases, points, level, chosen)
    bound = bound + _rounding(stack, reduced.weights, reduced.biases, points, level, chosen)
    seen = difference[:, chosen]
    excess = seen / (_SLACK * bound).clamp(min=1e-300)
    if bool((excess > 1).any()):
        row = int(excess.amax(1).argmax())
        raise SkgeoError(
            f"The smaller network differs from the one given by {float(seen[row].max()):.2g} "
            f"at a point of the domain, and rounding explains only {float(bound[row].max()):.2g}, "
            "so the reduction went wrong. Pass a smaller tol, and report this network."
        )
    return float(difference.max())


def _rounding(
    stack: Stack,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    points: Tensor,
    level: float,
    chosen: Tensor,
) -> Tensor:
    """Error (N, c) of chosen outputs from relative errors `level` of the weights, to first order.

    The error of a unit's argument is level |(w, b)| (1 + |h|), where h are its inputs. The error of
    an output is the sum of these errors times its derivatives with respect to the arguments. Where
    an argument may cross a kink, the bound is infinite.
    """
    arguments, off = [], []
    h, judged = points, torch.ones(len(points), dtype=torch.bool)
    with torch.enable_grad():
        for index, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            size = torch.linalg.vector_norm(weight, dim=1)
            size = size if bias is None else torch.hypot(size, bias)
            reach = 1.0 + torch.linalg.vector_norm(h.detach(), dim=1, keepdim=True)
            off.append(level * reach * size)
            z = torch.nn.functional.linear(h, weight, bias)
            z = z if z.requires_grad else z.requires_grad_(True)
            arguments.append(z)
            if index < len(stack.activations):
                for kink in stack.activations[index].kinks:
                    near = (z.detach() - kink).abs() <= _NEAR * off[-1]
                    judged &= ~near.any(1)
                h = stack.activations[index](z)
        columns = []
        for output in chosen.tolist():
            gradients = torch.autograd.grad(
                arguments[-1][:, output].sum(), arguments, retain_graph=True, allow_unused=True
            )
            columns.append(
                sum(
                    (gradient.abs() * each).sum(1)
                    for gradient, each in zip(gradients, off, strict=True)
                    if gradient is not None
                )
            )
    bound = torch.stack([torch.as_tensor(column) for column in columns], dim=1)
    return torch.where(judged[:, None], bound, torch.inf)
