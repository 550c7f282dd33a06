"""Whether two modules run the same code with the same settings."""

from __future__ import annotations

import functools
import types
from collections.abc import Mapping
from typing import Any
from weakref import ReferenceType

import joblib
import numpy as np
import torch
from torch import Tensor, nn

# Counters without effect in eval mode.
IDLE = "num_batches_tracked"
# What every module has. Children, parameters and buffers are compared one by one.
_BOOKKEEPING = frozenset(vars(nn.Module())) | {"_compiled_call_impl"}


def different_setting(a: nn.Module, b: nn.Module) -> str | None:
    """The first place where two networks differ in more than the values of their weights.

    Plain data, containers, configuration objects, partial functions and closures are compared by
    value. Returns None if there is no such place.
    """
    ours, theirs = dict(a.named_modules()), dict(b.named_modules())
    if ours.keys() != theirs.keys():
        return "modules"
    if any(m._forward_hooks or m._forward_pre_hooks for m in (*a.modules(), *b.modules())):
        return "hooks"
    pairs: dict[int, Any] = {}
    for name, module in ours.items():
        pairs[id(module)] = theirs[name]
        for kind in ("_parameters", "_buffers"):
            mine, other = getattr(module, kind), getattr(theirs[name], kind)
            if _shapes(mine) != _shapes(other):
                return f"{name}: shapes"
            pairs.update((id(mine[key]), other[key]) for key in mine if mine[key] is not None)
    for name, module in ours.items():
        other = theirs[name]
        if type(module) is not type(other):
            return f"{name}: class"
        mine, other = _own(module), _own(other)
        for key in sorted({*mine, *other}):
            if key not in mine or key not in other or not alike(mine[key], other[key], pairs):
                return f"{name}: {key}"
    return None


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    """Whether two networks of one code have equal parameters and buffers."""
    theirs = dict(b.named_modules())
    return all(
        tensor is None or key == IDLE or torch.equal(tensor, getattr(theirs[name], key))
        for name, module in a.named_modules()
        for key, tensor in (*module._parameters.items(), *module._buffers.items())
    )


def _own(module: nn.Module) -> dict[str, Any]:
    return {key: value for key, value in vars(module).items() if key not in _BOOKKEEPING}


def _shapes(tensors: Mapping[str, Tensor | None]) -> dict[str, Any]:
    return {k: None if t is None else (t.shape, t.dtype) for k, t in tensors.items()}


def alike(x: Any, y: Any, pairs: Mapping[int, Any]) -> bool:
    """Whether two values are equal, by value where they have one.

    pairs: for identities of modules and tensors of one network, those of the other in their place.
    """
    return _Comparison(pairs).alike(x, y)


class _Comparison:
    """One comparison; pairs that are being compared count as equal, so it ends on cycles."""

    def __init__(self, pairs: Mapping[int, Any]) -> None:
        self.pairs = pairs
        # The objects are kept, since an id is unique only while its object exists.
        self.open: dict[tuple[int, int], Any] = {}

    def alike(self, x: Any, y: Any) -> bool:
        if id(x) in self.pairs:
            return self.pairs[id(x)] is y
        if x is y or (id(x), id(y)) in self.open:
            return True
        if type(x) is not type(y) or isinstance(x, type | types.ModuleType):
            return False
        self.open[id(x), id(y)] = (x, y)
        return self._by_value(x, y)

    def _all(self, x: Any, y: Any) -> bool:
        return len(x) == len(y) and all(map(self.alike, x, y))

    def _by_value(self, x: Any, y: Any) -> bool:
        if isinstance(x, Tensor):
            return _same_array(x.shape, y.shape, x.dtype, y.dtype) and torch.equal(x, y)
        if isinstance(x, np.ndarray):
            return _same_array(x.shape, y.shape, x.dtype, y.dtype) and self.alike(
                x.tolist(), y.tolist()
            )
        if isinstance(x, float):
            return bool(x == y or (x != x and y != y))
        if isinstance(x, ReferenceType):
            return True  # recurrent layers refer to their parameters, of the original in a copy
        if isinstance(x, types.FunctionType):
            return x.__globals__ is y.__globals__ and self._all(_function(x), _function(y))
        if isinstance(x, types.CodeType):
            return bool(x == y)
        if isinstance(x, types.CellType):
            return self._all(_content(x), _content(y))
        if isinstance(x, types.MethodType):
            return self._all((x.__func__, x.__self__), (y.__func__, y.__self__))
        if isinstance(x, functools.partial):
            return self._all((x.func, x.args, x.keywords), (y.func, y.args, y.keywords))
        if isinstance(x, dict):
            same = self._all(list(x), list(y)) and self._all(list(x.values()), list(y.values()))
        elif isinstance(x, list | tuple):
            same = self._all(x, y)
        else:
            return self._object(x, y)
        return same and (not hasattr(x, "__dict__") or self.alike(vars(x), vars(y)))

    def _object(self, x: Any, y: Any) -> bool:
        kind: Any = type(x)
        usual = (kind.__reduce_ex__, kind.__reduce__) == (object.__reduce_ex__, object.__reduce__)
        if usual and hasattr(x, "__dict__") and not hasattr(kind, "__slots__"):
            return self.alike(vars(x), vars(y))
        try:
            equal = kind.__eq__ is not object.__eq__ and bool(x == y)
            return equal or bool(joblib.hash(x) == joblib.hash(y))
        except Exception:  # an object raises what it likes when it is compared or pickled
            return False


def _same_array(*facts: Any) -> bool:
    return bool(facts[0] == facts[1] and facts[2] == facts[3])


def _function(function: types.FunctionType) -> tuple[Any, ...]:
    given = (function.__defaults__, function.__kwdefaults__, function.__dict__)
    return (function.__code__, *given, function.__closure__)


def _content(cell: types.CellType) -> tuple[Any, ...]:
    try:
        return (cell.cell_contents,)
    except ValueError:  # an empty cell
        return ()
