"""Inputs at which two networks differ by more than rounding of their weights explains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from skgeo.data import Inputs, Samples, as_samples, cast_inputs
from skgeo.exceptions import SkgeoError, raised
from skgeo.models import ResolvedModel
from skgeo.network._batch import map_inputs, take
from skgeo.network._bound import BoundNetwork
from skgeo.network._replica import Replica, replica
from skgeo.network._stack import Stack

_SAMPLES = 64
_SCALES = (1.0, 0.1, 10.0)
_DRAWS = 4
# Ratio of a difference to the observed rounding noise above which it counts.
ROUNDING_FACTOR = 8.0
_MOST_ROWS = 1024
_POOL, _POOL_COST = 2048, 10**9
_POOL_SCALES = (1.0, 10.0, 100.0)
_MOST_PIXELS = 64
# Inputs whose shape is taken from the first layers: layers that are looked at, positions, pixels.
_LAYERS, _LENGTH, _SIZES = 4, 5, (8, 12, 16, 28, 32, 64)


@dataclass(frozen=True, eq=False)
class Witness:
    """An input, and the outputs of two networks there.

    Attributes
    ----------
    input : Tensor, or dict or tuple of Tensor
        One sample, without a batch axis.
    outputs : tuple of two Tensors
        float64.
    excess : float
        Largest difference of the outputs, relative to what rounding explains; above 1.
    """

    input: Any
    outputs: tuple[Tensor, Tensor]
    excess: float


@dataclass(frozen=True, eq=False)
class Outputs:
    """Outputs of a network on several groups of inputs, with their noise.

    Attributes
    ----------
    values : list of Tensor of shape (n, k)
        float64, one per group.
    noise : list of float
        Largest change of an output in each group when all weights are rounded at random.
    """

    values: list[Tensor]
    noise: list[float]

    @property
    def is_finite(self) -> bool:
        """Whether the outputs are finite at one input at least."""
        return any(bool(torch.isfinite(each).all(dim=1).any()) for each in self.values)


def probe_inputs(
    a: ResolvedModel, stacks: Sequence[Stack], X: Any = None, *, near: bool = True
) -> list[Inputs]:
    """Inputs at which to compare networks, in groups of one size.

    a: one of the networks, which determines the shape of the inputs.
    stacks: the networks as chains; empty if they are not chains.
    X: the user's inputs, of which the first 1024 are used.
    near: whether to add points that are chosen by the weights.
    Returns X, random inputs of several sizes, points on and next to activation boundaries of the
        first layers, and points where each hidden unit is most active. Empty if the shape of the
        inputs is not known.
    """
    generator = torch.Generator().manual_seed(0)
    shape: tuple[int, ...] | None = None
    groups: list[Inputs] = []
    if X is not None:
        inputs = as_samples(X).take(0, _MOST_ROWS)
        groups.append(inputs)
        if isinstance(inputs, Tensor) and inputs.is_floating_point():
            shape = tuple(inputs.shape[1:])
    elif stacks:
        shape = _input_shape(a, stacks[0])
    if shape is None or not stacks:
        return groups
    for scale in _SCALES:
        drawn = scale * torch.randn(_SAMPLES, *shape, generator=generator, dtype=torch.float64)
        groups.append(drawn)
    if near and len(shape) == 1 and all(stack.kinds[0] == "linear" for stack in stacks):
        beside = [_next_to(stack, generator) for stack in stacks]
        groups += [points for points in beside if len(points)]
        groups += _activating(stacks[0], generator)
    return groups


def first_inputs(model: ResolvedModel) -> list[Inputs]:
    """Random inputs of a shape that the first layers of a network take; none if none is known."""
    generator = torch.Generator().manual_seed(0)
    for layer in islice((m for m in model.module.modules() if not list(m.children())), _LAYERS):
        for shape, high in _shapes_of(layer):
            if high:
                drawn = torch.randint(high, (_SAMPLES, *shape), generator=generator)
            else:
                drawn = torch.randn(_SAMPLES, *shape, generator=generator, dtype=torch.float64)
            try:
                _runnable(model, drawn)
            except SkgeoError:
                continue  # also where samples would be mixed
            return [drawn]
    return []


def _shapes_of(layer: Any) -> list[tuple[tuple[int, ...], int]]:
    """Shapes of one sample that a layer may read, and the number of indices, 0 for numbers."""
    if isinstance(layer, nn.Linear):
        n = layer.in_features
        return [((n,), 0), ((_LENGTH, n), 0)]
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        axes = len(layer.kernel_size)
        return [((layer.in_channels, *(size,) * axes), 0) for size in _SIZES]
    if isinstance(layer, nn.Embedding):
        return [((length,), layer.num_embeddings) for length in (_LENGTH, 1)]
    if isinstance(layer, nn.LayerNorm | nn.RMSNorm):
        shape = tuple(layer.normalized_shape)
        return [(shape, 0), ((_LENGTH, *shape), 0)]
    if isinstance(layer, nn.BatchNorm1d):
        return [((layer.num_features,), 0), ((layer.num_features, _LENGTH), 0)]
    if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm3d):
        axes = 2 if isinstance(layer, nn.BatchNorm2d) else 3
        return [((layer.num_features, *(size,) * axes), 0) for size in _SIZES]
    if isinstance(layer, nn.RNNBase):
        return [((_LENGTH, layer.input_size), 0)]
    if isinstance(layer, nn.MultiheadAttention):
        return [((_LENGTH, layer.embed_dim), 0)]
    return []


def _next_to(stack: Stack, generator: torch.Generator) -> Tensor:
    """Points on boundaries of the first layer, and a step to either side."""
    weight, bias = stack.weights[0], stack.biases[0]
    chosen = torch.randperm(len(weight), generator=generator)[:_SAMPLES]
    rows = weight[chosen]
    shift = rows.new_zeros(len(rows)) if bias is None else bias[chosen]
    square = rows.square().sum(dim=1).clamp(min=torch.finfo(torch.float64).tiny)
    cloud = torch.randn(rows.shape, generator=generator, dtype=torch.float64)
    foot = cloud - (((cloud * rows).sum(dim=1) + shift) / square)[:, None] * rows
    step = rows / square.sqrt()[:, None]
    points = torch.cat([foot - 0.1 * step, foot, foot + 0.1 * step])
    # A row of tiny weights has its boundary too far away to compute with.
    near = torch.isfinite(points).all(dim=1) & (points.abs().amax(dim=1) < 1e6)
    return torch.cat([cloud, points[near]])


def _activating(stack: Stack, generator: torch.Generator) -> list[Tensor]:
    """For each hidden unit the point of many at which it is most active."""
    if any(kind != "linear" for kind in stack.kinds) or not stack.activations:
        return []
    size = sum(weight.numel() for weight in stack.weights)
    count = max(_SAMPLES, min(_POOL, _POOL_COST // max(size, 1)))
    groups = []
    for scale in _POOL_SCALES:
        x = torch.randn(count, stack.widths[0], generator=generator, dtype=torch.float64)
        x = scale * x / x.norm(dim=1, keepdim=True).clamp(min=1e-300)
        *hidden, _ = stack.arguments(x)
        chosen = [z.argmax(dim=0) for z in hidden]
        best = torch.unique(torch.cat(chosen))
        kept = torch.randperm(len(best), generator=generator)[:_MOST_ROWS]
        if len(best):  # empty if all layers have no units
            groups.append(x[best[kept]])
    return groups


def _input_shape(model: ResolvedModel, stack: Stack) -> tuple[int, ...] | None:
    if stack.kinds[0] == "linear":
        return (stack.widths[0],)
    axes = stack.weights[0].dim() - 2
    copy = replica(model.module, forward=model.forward, parameters="all")
    for size in range(1, _MOST_PIXELS + 1):
        # The smallest size that fits is the cheapest, but at least 8 pixels cover a kernel.
        shape = (stack.widths[0], *(size,) * axes)
        try:
            with torch.no_grad():
                copy(torch.zeros(2, *shape, dtype=copy.dtype, device=copy.device))
        except (RuntimeError, ValueError):
            continue
        if stack.kinds[-1] == "linear" or size >= 8:
            return shape
    return None


def probe_outputs(
    model: ResolvedModel,
    groups: Sequence[Inputs],
    *,
    level: float | None = None,
    draws: int = _DRAWS,
    chain: bool = False,
) -> Outputs:
    """Outputs of a network on some groups of inputs, and their rounding noise.

    model: only read; run in eval mode and in its own dtype.
    level: relative size of the rounding of weights; by default that of their dtype.
    draws: how often weights are rounded; without, the noise is that of the outputs alone.
    chain: whether the network is a chain of known layers, of which nothing has to be checked.
    Raises SkgeoError if the network cannot be run on the inputs.
    """
    copy = _runnable(model, None if chain or not groups else groups[0])
    eps = torch.finfo(copy.dtype).eps
    level = max(eps, level or 0.0)
    generator = torch.Generator().manual_seed(1)
    # A user's forward function decides what integers mean.
    copy.takes_integers |= model.keep_integers
    values = _run_all(copy, {}, groups)
    noise = [eps * float(value.abs().nan_to_num(0, 0, 0).max()) for value in values]
    for _ in range(draws if groups else 0):
        rounded = {
            name: tensor.detach() * (1 + level * _uniform(tensor, generator))
            for name, tensor in copy.parameters.items()
            if tensor.is_floating_point()
        }
        for index, moved in enumerate(_run_all(copy, rounded, groups)):
            apart = (moved - values[index]).abs().nan_to_num(0, 0, 0)
            noise[index] = max(noise[index], float(apart.max()))
    return Outputs(values, noise)


def _runnable(model: ResolvedModel, inputs: Inputs | None) -> Replica:
    """A replica, after a check on some inputs if there are any.

    Raises SkgeoError if it cannot be run, is random, or mixes samples.
    """
    if inputs is None:
        return replica(model.module, forward=model.forward, parameters="all")
    some = Samples(take(inputs, slice(0, _SAMPLES)))
    bound = BoundNetwork(model, some, parameters="all")
    _ = bound.first_run  # also copies what the forward pass writes to
    return bound.replica


def _uniform(tensor: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.rand(tensor.shape, generator=generator, dtype=torch.float32)
    return (2 * drawn - 1).to(tensor)


def _run_all(
    copy: Replica, parameters: Mapping[str, Tensor], groups: Sequence[Inputs]
) -> list[Tensor]:
    """Outputs on each group; groups of the same shape are run together."""
    tensors = [group for group in groups if isinstance(group, Tensor)]
    alike = {(group.shape[1:], group.is_floating_point()) for group in tensors}
    if len(tensors) < len(groups) or len(alike) != 1:
        return [_run(copy, parameters, group) for group in groups]
    joined = torch.cat([group.double() for group in tensors]) if len(groups) > 1 else tensors[0]
    outputs = _run(copy, parameters, joined)
    return list(torch.split(outputs, [len(group) for group in tensors]))


def _run(copy: Replica, parameters: Mapping[str, Tensor], group: Inputs) -> Tensor:
    inputs = cast_inputs(
        group, dtype=copy.dtype, device=copy.device, keep_integers=copy.takes_integers
    )
    inputs = map_inputs(torch.clone, inputs)  # a network may write into what it is given
    try:
        with torch.no_grad():
            outputs = copy.call(parameters, inputs)
    except SkgeoError:
        raise
    except Exception as error:  # forward passes may raise anything
        raise SkgeoError(
            f"The model {type(copy.module).__name__} cannot be run on the inputs: {raised(error)}"
        ) from error
    return outputs.detach().cpu().double().flatten(1)


def find_witness(groups: Sequence[Inputs], a: Outputs, b: Outputs) -> Witness | None:
    """The input at which two networks differ most beyond rounding.

    a, b: outputs on these groups.
    Returns None if they nowhere differ by more than eight times the noise in the same group.
    Raises SkgeoError if the outputs have different shapes.
    """
    best: Witness | None = None
    for index, group in enumerate(groups):
        ours, theirs = a.values[index], b.values[index]
        if ours.shape != theirs.shape:
            raise SkgeoError(
                f"The networks have different interfaces: {ours.shape[1]} and {theirs.shape[1]} "
                "outputs per sample. Only networks with the same inputs and outputs can be "
                "compared."
            )
        floor = ROUNDING_FACTOR * (a.noise[index] + b.noise[index])
        apart = (ours - theirs).abs()
        # Overflow is not evidence.
        apart = torch.where(torch.isfinite(apart), apart, 0.0).amax(dim=1)
        row = int(apart.argmax())
        excess = float(apart[row]) / floor if floor > 0 else float("inf") * bool(apart[row] > 0)
        if apart[row] > floor and (best is None or excess > best.excess):
            best = Witness(sample_of(group, row), (ours[row], theirs[row]), excess)
    return best


def sample_of(inputs: Inputs, row: int) -> Any:
    """One sample, without a batch axis."""
    if isinstance(inputs, Tensor):
        return inputs[row]
    if isinstance(inputs, dict):
        return {key: value[row] for key, value in inputs.items()}
    return tuple(value[row] for value in inputs)
