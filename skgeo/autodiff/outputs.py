"""The first floating tensor of whatever a layer returns, and how to put another in its place."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

__all__ = ["agreement_tolerance", "first_tensor", "with_first_tensor"]


def first_tensor(value: Any) -> Tensor | None:
    """Find the first floating tensor of a layer's output.

    Parameters
    ----------
    value : Tensor, tuple, list, dict or dataclass, nested or not

    Returns
    -------
    Tensor or None
    """
    if isinstance(value, Tensor):
        return value if value.is_floating_point() else None
    for _, item in _items(value):
        found = first_tensor(item)
        if found is not None:
            return found
    return None


def with_first_tensor(value: Any, tensor: Tensor) -> Any:
    """Put a tensor in the place of the first floating one.

    Parameters
    ----------
    value : Tensor, tuple, list, dict or dataclass, nested or not
        Something in which :func:`first_tensor` finds a tensor.
    tensor : Tensor

    Returns
    -------
    object
        Of the type of `value`. Tuples and frozen dataclasses are rebuilt; what can be written to
        is changed in place, so that subclasses (a ``ModelOutput``) keep all they hold.
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


def agreement_tolerance(dtype: torch.dtype, scale: float) -> float:
    """How far two computations of one number may be apart before they count as different.

    Halfway between rounding and a real difference, on the scale of the largest number. Where
    everything cancels, as in a product of matrices that is zero, that scale is rounding itself:
    below ``eps^0.75`` nothing is held against a network.

    Parameters
    ----------
    dtype : torch.dtype
    scale : float

    Returns
    -------
    float
    """
    eps = float(torch.finfo(dtype).eps)
    return 4 * eps**0.5 * scale + eps**0.75
