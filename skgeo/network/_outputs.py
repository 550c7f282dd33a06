"""The first floating tensor in the result of a layer, and its replacement."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor


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


def _items(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, dict):
        return list(value.items())
    if isinstance(value, (list, tuple)):
        return list(enumerate(value))
    if dataclasses.is_dataclass(value):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    return []
