"""Samples in memory, as tensors whose leading axis is the sample."""

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

    inputs: what the model is called on; the leading axis of every tensor is the sample.
    targets: one target a sample, in its own dtype (labels may be strings).
    """

    inputs: Inputs
    targets: np.ndarray | Tensor | None = None

    def __len__(self) -> int:
        return next(len(tensor) for _, tensor in leaves(self.inputs))

    def batches(self, size: int) -> Iterator[Inputs]:
        """Consecutive slices of the inputs.

        size: samples in a batch; the last one may hold fewer.
        Returns: Views of `inputs`, of the same kind as `inputs`.
        """
        size = check_integer("batch_size", size)
        for start in range(0, len(self), size):
            yield self.take(start, start + size)

    def take(self, start: int, stop: int) -> Inputs:
        """A slice of the inputs.

        start, stop: of the samples, as in a Python slice.
        Returns: Views of `inputs`, of the same kind as `inputs`.
        """
        return apply(self.inputs, lambda tensor, _: tensor[start:stop])

    def to(
        self,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        keep_integers: bool = False,
    ) -> Samples:
        """The same samples with inputs in another dtype or on another device.

        Returns: Shares every tensor that needs no change, and the targets.
        """
        inputs = cast_inputs(self.inputs, dtype=dtype, device=device, keep_integers=keep_integers)
        return Samples(inputs, self.targets)

    def fingerprint(self) -> str:
        """Hexadecimal digest of the contents: names, dtypes, shapes and bytes.

        Returns: Independent of the device that holds the tensors.
        """
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

    dtype: what floating and integer tensors become; booleans are masks and stay. None keeps all.
    device: where the tensors go. None leaves them where they are.
    keep_integers: leave integer tensors alone: they are indices (tokens, categories) and not
        quantities.
    Returns: Of the same kind as `inputs`; unchanged tensors are shared.
    Raises SkgeoError a value overflows in `dtype`.
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
    """Feed dtype, shape and bytes of a tensor to a :mod:`hashlib` object."""
    digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    if tensor.device.type == "meta":
        return
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    flat = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous().flatten()
    digest.update(flat.view(torch.uint8).numpy())


def hash_array(digest: Any, array: np.ndarray) -> None:
    """Feed dtype, shape and contents of an array to a :mod:`hashlib` object."""
    digest.update(f"{array.dtype.str}{array.shape}".encode())
    # The bytes of an object array are addresses.
    contents = repr(array.tolist()).encode() if array.dtype == object else array.tobytes()
    digest.update(contents)


def leaves(inputs: Inputs) -> Iterator[tuple[str, Tensor]]:
    """The tensors of some inputs, each with the name that messages give it."""
    if isinstance(inputs, Tensor):
        yield "X", inputs
    elif isinstance(inputs, dict):
        yield from ((f"X[{key!r}]", tensor) for key, tensor in inputs.items())
    else:
        yield from ((f"X[{index}]", tensor) for index, tensor in enumerate(inputs))


def apply(inputs: Inputs, function: Callable[[Tensor, str], Tensor]) -> Inputs:
    """Inputs of the same kind, with ``function(tensor, name)`` for each tensor."""
    results = [function(tensor, name) for name, tensor in leaves(inputs)]
    if isinstance(inputs, Tensor):
        return results[0]
    if isinstance(inputs, dict):
        return dict(zip(inputs, results, strict=True))
    return tuple(results)
