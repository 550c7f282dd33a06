"""Samples in memory, as tensors whose first axis is that of the samples."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from skgeo._arguments import check_integer
from skgeo.exceptions import SkgeoError

Inputs: TypeAlias = Tensor | dict[str, Tensor] | tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples held in memory as tensors, in a fixed order.

    inputs: inputs of the model.
    targets: one target per sample, in their own dtype; labels may be strings.
    """

    inputs: Inputs
    targets: np.ndarray | Tensor | None = None

    def __len__(self) -> int:
        return next(len(tensor) for _, tensor in leaves(self.inputs))

    def batches(self, size: int) -> Iterator[Inputs]:
        """Yield views of consecutive samples, `size` at a time; the last may be shorter."""
        size = check_integer("batch_size", size)
        for start in range(0, len(self), size):
            yield self.take(start, start + size)

    def take(self, start: int, stop: int) -> Inputs:
        """View of the inputs of the samples from `start` to `stop`."""
        return apply(self.inputs, lambda tensor, _: tensor[start:stop])

    def to(
        self,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        keep_integers: bool = False,
    ) -> Samples:
        """The same samples with inputs in another dtype or on another device.

        Tensors that do not change are shared, and so are the targets.
        """
        inputs = cast_inputs(self.inputs, dtype=dtype, device=device, keep_integers=keep_integers)
        return Samples(inputs, self.targets)

    def fingerprint(self) -> str:
        """Hexadecimal digest of names, dtypes, shapes and bytes; independent of the device."""
        digest = hashlib.blake2b(digest_size=20)
        digest.update(type(self.inputs).__name__.encode())
        for name, tensor in leaves(self.inputs):
            digest.update(name.encode() + b"\0")
            hash_tensor(digest, tensor)
        if isinstance(self.targets, Tensor):
            hash_tensor(digest, self.targets)
        elif self.targets is not None:
            hash_array(digest, self.targets)
        return digest.hexdigest()


def cast_inputs(
    inputs: Inputs,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    keep_integers: bool = False,
) -> Inputs:
    """Inputs in another floating dtype or on another device.

    dtype: new dtype of floating and integer tensors; booleans do not change. By default none does.
    device: by default that of each tensor.
    keep_integers: whether integer tensors are indices, which do not change.
    Raises SkgeoError if a value overflows in `dtype`.
    """

    def cast(tensor: Tensor, name: str) -> Tensor:
        integer = not tensor.is_floating_point()
        keep = dtype is None or tensor.dtype == torch.bool or (integer and keep_integers)
        result = tensor.to(device=device, dtype=None if keep else dtype)
        if result.dtype != tensor.dtype and not bool(torch.isfinite(result).all()):
            raise SkgeoError(
                f"{name} holds values that overflow in {result.dtype}, the dtype of the model's "
                f"parameters. Rescale the data, or convert the model with .double()."
            )
        return result

    return apply(inputs, cast)


def hash_tensor(digest: Any, tensor: Tensor) -> None:
    """Update a :mod:`hashlib` object with dtype, shape and bytes of a tensor."""
    digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    if tensor.device.type == "meta":
        return
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    flat = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous().flatten()
    digest.update(flat.view(torch.uint8).numpy())


def hash_array(digest: Any, array: np.ndarray) -> None:
    """Update a :mod:`hashlib` object with dtype, shape and contents of an array."""
    digest.update(f"{array.dtype.str}{array.shape}".encode())
    # The bytes of an object array are addresses.
    contents = repr(array.tolist()).encode() if array.dtype == object else array.tobytes()
    digest.update(contents)


def leaves(inputs: Inputs) -> Iterator[tuple[str, Tensor]]:
    """The tensors of inputs, with their names in messages."""
    if isinstance(inputs, Tensor):
        yield "X", inputs
    elif isinstance(inputs, dict):
        yield from ((f"X[{key!r}]", tensor) for key, tensor in inputs.items())
    else:
        yield from ((f"X[{index}]", tensor) for index, tensor in enumerate(inputs))


def apply(inputs: Inputs, function: Callable[[Tensor, str], Tensor]) -> Inputs:
    """Apply ``function(tensor, name)`` to each tensor of inputs."""
    results = [function(tensor, name) for name, tensor in leaves(inputs)]
    if isinstance(inputs, Tensor):
        return results[0]
    if isinstance(inputs, dict):
        return dict(zip(inputs, results, strict=True))
    return tuple(results)
