"""A device that is not there: tensors claim it, and their values are computed on the CPU.

It keeps the rule of a real one, that an operation takes tensors of one device, and so finds tensors
left on the CPU on machines without another device. Unlike torch's fake tensors its tensors have
values: whole measurements run, with every decision that they take.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

# Autograd knows this device in builds of torch without CUDA; it never sees it as empty here.
DEVICE = "meta"
_aten = torch.ops.aten
# Operations that take tensors of two devices: transfers, and indices that are moved.
_BETWEEN = {
    _aten.copy_,
    _aten._to_copy,
    _aten.index,
    _aten.index_put,
    _aten.index_put_,
    _aten._index_put_impl_,
}
# Products of matrices, which sum in another order there, as other devices do.
_PRODUCTS = {
    _aten.mm.default,
    _aten.bmm.default,
    _aten.addmm.default,
    _aten.baddbmm.default,
}


class WrongDevice(AssertionError):
    """An operation got tensors of both devices."""


class _There(Tensor):
    """A tensor that claims to be on the device, and the one on the CPU that it stands for."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> _There:
        made = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
        )
        made.held = held
        return made

    def tolist(self) -> Any:
        """Numbers, which torch gives of its own tensors only."""
        return self.cpu().tolist()

    def new_tensor(self, data: Any, dtype: torch.dtype | None = None) -> Tensor:
        """Numbers as a tensor of this device."""
        return torch.tensor(data, dtype=dtype or self.dtype).to(DEVICE)

    def _set(self, other: _There) -> None:
        torch._C.TensorBase.data.__set__(self, other)
        self.held = other.held

    data = property(Tensor.detach, _set)  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        return _run(func, args, kwargs or {})


@contextmanager
def elsewhere() -> Iterator[str]:
    """In this block there is one more device, whose name is given."""
    with _Numbers(), _Dispatch():
        yield DEVICE


class _Numbers(TorchFunctionMode):
    """Tensors that are made of numbers do not pass through dispatch."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        made = func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None
        if made and torch.device(kwargs["device"]).type == DEVICE:
            return func(*args, **{**kwargs, "device": "cpu"}).to(DEVICE)
        return func(*args, **kwargs)


class _Dispatch(TorchDispatchMode):
    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = any(isinstance(tensor, _There) for tensor in tensors)
    here = [t for t in tensors if not isinstance(t, _There) and t.dim() > 0]
    if there and here and func.overloadpacket not in _BETWEEN:
        shapes = [(type(t).__name__, tuple(t.shape)) for t in tensors]
        raise WrongDevice(f"{func} got tensors of two devices: {shapes}.")
    target = kwargs.get("device")
    if target is not None:
        there = torch.device(target).type == DEVICE
        if there and kwargs.get("generator") is not None:
            raise WrongDevice(f"{func} draws on the device from a generator of the CPU.")
        kwargs = {**kwargs, "device": torch.device("cpu")}
    elif func.overloadpacket is _aten.copy_:
        there = isinstance(args[0], _There)
    held_args, held_kwargs = tree_map(_held, (tuple(args), kwargs))
    if there and func in _PRODUCTS:
        held_args = [*held_args[:-2], held_args[-2].flip(-1), held_args[-1].flip(-2)]
    found = func(*held_args, **held_kwargs)
    if not there:
        return found
    found = tree_map(lambda t: _There(t) if isinstance(t, Tensor) else t, found)
    if target is not None and not tensors:
        return found
    return return_and_correct_aliasing(func, tuple(args), kwargs, found)


def _held(value: Any) -> Any:
    return value.held if isinstance(value, _There) else value
