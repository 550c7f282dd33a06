"""The first floating tensor in the result of a layer, its replacement, and what outputs may be."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from skgeo._arguments import described
from skgeo.exceptions import SkgeoError

_WRAP = (
    "Say how the outputs are to be read: "
    "WrappedModel(module, forward=lambda module, inputs: module(inputs){})."
)


def first_tensor(value: Any) -> Tensor | None:
    """The first floating tensor in a nested result of a layer."""
    if isinstance(value, Tensor):
        return value if value.is_floating_point() else None
    for _, item in _items(value):
        found = first_tensor(item)
        if found is not None:
            return found
    return None


def with_first_tensor(value: Any, tensor: Tensor) -> Any:
    """The result with another tensor in place of the first floating one.

    Tuples and frozen dataclasses are rebuilt. Other containers are changed in place, so subclasses
    such as ``ModelOutput`` keep all their attributes.
    """
    if isinstance(value, Tensor):
        return tensor
    key, item = next((k, v) for k, v in _items(value) if first_tensor(v) is not None)
    new = with_first_tensor(item, tensor)
    if isinstance(value, tuple):
        items = [new if place == key else old for place, old in enumerate(value)]
        kind: Any = type(value)
        return kind._make(items) if hasattr(kind, "_fields") else kind(items)
    if isinstance(value, (list, dict)):
        value[key] = new
        return value
    try:
        setattr(value, key, new)
    except dataclasses.FrozenInstanceError:
        return dataclasses.replace(value, **{key: new})
    return value


def checked_outputs(outputs: object, size: int) -> Tensor:
    """The outputs of a forward pass on `size` samples.

    Raises SkgeoError, with the WrappedModel to write, unless they are one dense real floating
    tensor, samples first.
    """
    if not isinstance(outputs, Tensor):
        raise SkgeoError(
            f"The forward pass returned {described(outputs)}; expected one tensor of outputs, "
            f"samples first. {_wrap(outputs)}"
        )
    if outputs.layout != torch.strided:
        raise SkgeoError(
            "The forward pass returned a sparse tensor; expected a dense one. "
            + _WRAP.format(".to_dense()")
        )
    if not outputs.is_floating_point():
        raise SkgeoError(
            f"The forward pass returned a tensor of dtype {outputs.dtype}; expected real floating "
            f"outputs such as logits or means. {_wrap(outputs)}"
        )
    if outputs.dim() == 0 or outputs.shape[0] != size:
        raise SkgeoError(
            f"The forward pass returned shape {tuple(outputs.shape)} for a batch of {size}; "
            f"expected ({size}, ...), samples first. If it squeezes or reduces the batch axis, or "
            f"puts another axis first, undo that in a WrappedModel. {_wrap(outputs)}"
        )
    if not outputs.numel():
        raise SkgeoError(
            f"The forward pass returned shape {tuple(outputs.shape)}, which holds no outputs; "
            "expected at least one output per sample."
        )
    return outputs


def _wrap(outputs: object) -> str:
    """The line that reads these outputs."""
    for key, item in _items(outputs):
        if isinstance(item, Tensor) and item.is_floating_point():
            plain = isinstance(outputs, (Mapping, list, tuple))
            return _WRAP.format(f"[{key!r}]" if plain else f".{key}")
    return _WRAP.format(".logits")


def _items(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, dict):
        return list(value.items())
    if isinstance(value, (list, tuple)):
        return list(enumerate(value))
    if dataclasses.is_dataclass(value):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    return []
