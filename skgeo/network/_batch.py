"""Batches of inputs: a tensor, or a dict or tuple of tensors."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from skgeo.exceptions import SkgeoError

Inputs = Tensor | dict[str, Tensor] | tuple[Tensor, ...]


def tensors_of(inputs: Inputs) -> list[Tensor]:
    """The tensors of a batch, in order."""
    if isinstance(inputs, Tensor):
        return [inputs]
    values = list(inputs.values()) if isinstance(inputs, dict) else list(inputs)
    return [value for value in values if isinstance(value, Tensor)]


def floating_inputs(inputs: Inputs) -> list[str]:
    """Names of the floating tensors of a batch, in order."""
    if isinstance(inputs, Tensor):
        return ["input"] if inputs.is_floating_point() else []
    pairs = inputs.items() if isinstance(inputs, dict) else enumerate(inputs)
    return [
        str(key) for key, value in pairs if isinstance(value, Tensor) and value.is_floating_point()
    ]


def map_inputs(function: Callable[[Tensor], Tensor], inputs: Inputs) -> Inputs:
    """Apply a function to every tensor of a batch."""
    if isinstance(inputs, Tensor):
        return function(inputs)
    if isinstance(inputs, dict):
        return {
            key: function(value) if isinstance(value, Tensor) else value
            for key, value in inputs.items()
        }
    return tuple(function(value) if isinstance(value, Tensor) else value for value in inputs)


def batch_size(inputs: Inputs) -> int:
    """Number of samples of a batch, the common length of the first axes."""
    sizes = {tuple(tensor.shape[:1]) for tensor in tensors_of(inputs)}
    if len(sizes) != 1 or () in sizes:
        shapes = [tuple(tensor.shape) for tensor in tensors_of(inputs)]
        raise SkgeoError(
            f"Got tensors of shapes {shapes}; expected the same number of samples on the first "
            "axis of each. Put the samples first in every tensor."
        )
    (size,) = sizes.pop()
    return int(size)


def take(inputs: Inputs, where: slice) -> Inputs:
    """A slice of the samples of a batch."""
    return map_inputs(lambda tensor: tensor[where], inputs)


def pick(inputs: Inputs, rows: Tensor) -> Inputs:
    """Samples of a batch by their numbers."""
    return map_inputs(lambda tensor: tensor[rows.to(tensor.device)], inputs)


def plain(tensor: Tensor) -> Tensor:
    """A tensor without its graph; a copy only if it was made in inference mode."""
    return tensor.clone() if tensor.is_inference() else tensor.detach()
