"""Outputs as a likelihood reads them: classes last, and nothing at positions left out."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from skgeo.exceptions import SkgeoError
from skgeo.network._batch import Inputs

# Names beside which no user has an input of the same name.
_MASK = "skgeo: positions that count"
_WHOLE = "skgeo: the input"
_PART = "skgeo: input "


def with_mask(inputs: Inputs, mask: Tensor | None) -> Inputs:
    """Inputs that carry which of their positions count, wherever batches are taken of them.

    mask: (b, n_positions), boolean.
    """
    if mask is None:
        return inputs
    if isinstance(inputs, Tensor):
        return {_WHOLE: inputs, _MASK: mask}
    if isinstance(inputs, dict):
        return {**inputs, _MASK: mask}
    return {**{f"{_PART}{i}": part for i, part in enumerate(inputs)}, _MASK: mask}


def without_mask(inputs: Inputs) -> tuple[Inputs, Tensor | None]:
    """The inputs as the user gave them, and the mask that they carry."""
    if not isinstance(inputs, dict) or _MASK not in inputs:
        return inputs, None
    rest = {key: value for key, value in inputs.items() if key != _MASK}
    if _WHOLE in rest:
        return rest[_WHOLE], inputs[_MASK]
    if all(key.startswith(_PART) for key in rest):
        return tuple(rest.values()), inputs[_MASK]
    return rest, inputs[_MASK]


def arranged(outputs: Tensor, class_axis: int | None, mask: Tensor | None) -> Tensor:
    """Outputs with their classes on the last axis, and zeros at positions that do not count.

    What is constant has no derivative: the rows of such a position are zero in every Jacobian.
    class_axis: of a batch of outputs; None for the last.
    """
    # (b, ..., K, ...) -> (b, ..., K)
    if class_axis is not None and outputs.ndim > 1:
        outputs = outputs.movedim(class_axis, -1)
    if mask is None:
        return outputs
    shape = outputs.shape[:-1] if outputs.ndim > 1 else outputs.shape
    left_out = ~mask.reshape(shape)
    return outputs.masked_fill(left_out.unsqueeze(-1) if outputs.ndim > 1 else left_out, 0.0)


def checked_mask(found: Any, size: int, n_positions: int) -> Tensor:
    """The result of a user's mask function on a batch, as booleans.

    Raises SkgeoError unless it holds true or false, or 1 or 0, for each position.
    """
    # -> (b, n_positions)
    expected = f"true or false for each of {n_positions} positions of {size} samples"
    if not isinstance(found, Tensor):
        raise SkgeoError(
            f"mask= of the WrappedModel returned {type(found).__name__}; expected a tensor of "
            f"{expected}."
        )
    if found.numel() != size * n_positions or len(found) != size:
        raise SkgeoError(
            f"mask= of the WrappedModel returned shape {tuple(found.shape)}; expected {expected}, "
            "the axes of the outputs without that of the classes."
        )
    mask = found.detach().reshape(size, n_positions) != 0
    if not bool((mask.to(found.dtype) == found.reshape(size, n_positions)).all()):
        raise SkgeoError(
            f"mask= of the WrappedModel returned values other than 0 and 1; expected {expected}."
        )
    return mask
