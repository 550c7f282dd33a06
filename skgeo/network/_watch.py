"""One forward pass, watched: its arithmetic, and the tensors that it writes to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from skgeo.network._copytree import address


class WritesTo(Exception):
    """The forward pass is about to write to a tensor that is not its own."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(*names)
        self.names = names


class Reads(Exception):
    """The forward pass is about to use a tensor that must not be used."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call, unused-ignore]
    """Note the dtypes of results; stop before a guarded tensor is written, or a stale one read.

    guarded, stale: tensors and their names; views of their memory count as well.

    Attributes
    ----------
    coarsest : torch.dtype or None
        Of the floating results, the one with the largest rounding.
    """

    def __init__(self, guarded: Mapping[str, Tensor], stale: Iterable[tuple[str, Tensor]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self.coarsest: torch.dtype | None = None
        self._stale = {address(tensor): name for name, tensor in stale}
        self._names: defaultdict[int, list[str]] = defaultdict(list)
        for name, tensor in guarded.items():
            self._names[address(tensor)].append(name)
        for known in (self._stale, self._names):  # tensors without memory of their own
            known.pop(0, None)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        written = [
            name
            for value in _written(func, args, kwargs)
            for name in self._names.get(address(value), [])
        ]
        if written:
            raise WritesTo(written)
        if self._stale:
            for value in tree_leaves((args, kwargs)):
                if isinstance(value, Tensor) and address(value) in self._stale:
                    raise Reads(self._stale[address(value)])
        result = func(*args, **kwargs)
        for leaf in tree_leaves(result):
            floating = isinstance(leaf, Tensor) and leaf.is_floating_point()
            if floating and (self.coarsest is None or _eps(leaf.dtype) > _eps(self.coarsest)):
                self.coarsest = leaf.dtype
        return result


def _eps(dtype: torch.dtype) -> float:
    return float(torch.finfo(dtype).eps)


def _written(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """The tensors among the arguments of an operation that it writes to, by its schema."""
    found: list[Tensor] = []
    schema = func._schema
    if not schema.is_mutable:
        return found
    for place, argument in enumerate(schema.arguments):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        value = args[place] if place < len(args) else kwargs.get(argument.name)
        found += [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
    return found
