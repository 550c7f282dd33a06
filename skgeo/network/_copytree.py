"""Copy of a tree of modules that shares its parameters.

``copy.deepcopy`` duplicates weights and fails for locks and for tensors on a graph. Here only
objects that a forward pass may write to are copied: modules, plain containers and buffers.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import types
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from skgeo.models._kinds import unwrap

Visit = Callable[[Any], Any]

# Backward hooks change gradients but not outputs, and torch.func does not accept them.
_EMPTIED = ("_backward_hooks", "_backward_pre_hooks")
# Types that need no copy, tested first since vocabularies can be long.
_ATOMS = (str, int, float, complex, bytes, type, type(None), torch.dtype, torch.device)


def is_record(value: object) -> bool:
    """Whether an object is a dataclass or namespace, whose attributes may be set."""
    if isinstance(value, type) or not hasattr(value, "__dict__"):
        return False
    return isinstance(value, types.SimpleNamespace) or dataclasses.is_dataclass(value)


def _rebuild_function(value: types.FunctionType, visit: Visit) -> types.FunctionType:
    cells = value.__closure__ or ()
    new_cells = tuple(visit(cell) for cell in cells)
    defaults = None if value.__defaults__ is None else visit(value.__defaults__)
    keywords = None if value.__kwdefaults__ is None else visit(value.__kwdefaults__)
    if (
        all(new is old for new, old in zip(new_cells, cells, strict=True))
        and defaults is value.__defaults__
        and not _differ(keywords, value.__kwdefaults__)
    ):
        return value
    new = types.FunctionType(
        value.__code__, value.__globals__, value.__name__, defaults, new_cells or None
    )
    new.__kwdefaults__ = keywords
    new.__dict__.update(value.__dict__)
    return new


def _differ(new: dict[str, Any] | None, old: dict[str, Any] | None) -> bool:
    return any(new[key] is not old[key] for key in old) if new and old else False


def _rebuild(value: Any, visit: Visit) -> Any:
    """Rebuild an immutable value with `visit` applied to its parts; itself if unchanged."""
    if isinstance(value, tuple):
        items = [visit(item) for item in value]
        if all(new is old for new, old in zip(items, value, strict=True)):
            return value
        if hasattr(value, "_fields"):
            return type(value)._make(items)  # type: ignore[attr-defined]
        return type(value)(items)
    if isinstance(value, (set, frozenset)):
        pairs = [(visit(item), item) for item in value]
        # A set is copied even when unchanged, since a forward pass may add to it.
        changed = type(value) is set or any(new is not old for new, old in pairs)
        return type(value)(new for new, _ in pairs) if changed else value
    if isinstance(value, functools.partial):
        func, args = visit(value.func), visit(value.args)
        keywords = {key: visit(item) for key, item in value.keywords.items()}
        if func is value.func and args is value.args and not _differ(keywords, value.keywords):
            return value
        return type(value)(func, *args, **keywords)
    if isinstance(value, types.MethodType):
        owner = visit(value.__self__)
        return value if owner is value.__self__ else types.MethodType(value.__func__, owner)
    if isinstance(value, types.FunctionType):
        return _rebuild_function(value, visit)
    if isinstance(value, types.CellType):
        try:
            content = value.cell_contents
        except ValueError:
            return value
        new = visit(content)
        return value if new is content else types.CellType(new)
    if type(value) is weakref.ref:
        target = value()
        new = None if target is None else visit(target)
        return value if new is target else weakref.ref(new)
    return value


def substitute(value: Any, tensors: dict[int, Tensor]) -> Any:
    """Replace tensors inside nested tuples, partials, closures and weak references.

    Returns `value` itself if it holds none of them. Lists, dicts and modules are not searched.

    tensors: new tensors by the ``id`` of the tensors they replace.
    """
    entered: set[int] = set()

    def visit(item: Any) -> Any:
        if id(item) in tensors:
            return tensors[id(item)]
        # A function may be its own free variable.
        if isinstance(item, (list, dict, nn.Module, Tensor)) or id(item) in entered:
            return item
        entered.add(id(item))
        try:
            return _rebuild(item, visit)
        finally:
            entered.discard(id(item))

    return visit(value)


def address(tensor: Tensor) -> int:
    """Where the memory of a tensor begins; 0 for tensors without any."""
    if tensor.layout != torch.strided or is_lazy(tensor) or not tensor.numel():
        return 0
    return tensor.untyped_storage().data_ptr()


class TreeCopy:
    """Copy of a module tree in which every reference to the tree refers to the copy.

    root: not changed. Wrappers around it or inside it are left out of the copy.
    device: of parameters and buffers; by default it does not change.

    Attributes
    ----------
    root : torch.nn.Module
        The copy, in eval mode.
    modules : list of torch.nn.Module
        All copied modules, including those outside the registered tree.
    sources : dict of int to torch.nn.Parameter
        The user's parameter by the ``id`` of its copy.
    derived : list of (str, Tensor)
        Copies of tensors that the user's module computed from its parameters and keeps, with the
        name of the attribute. Derivatives do not pass through them.
    misplaced : list of str
        Tensors that are neither parameters nor buffers and are not on `device`.

    Parameters become new ``nn.Parameter`` objects over the same memory (a copy on another device).
    Buffers, tensor attributes, lists, dicts, sets and deques are copied, since a forward pass may
    write to them. Bound methods, partials, closures, weak references and dataclasses are rebuilt
    where they hold a copied object; all other objects, locks among them, are shared.
    """

    def __init__(self, root: nn.Module, device: torch.device | None = None) -> None:
        root = unwrap(root)
        self.modules: list[nn.Module] = []
        self.sources: dict[int, nn.Parameter] = {}
        self.misplaced: list[str] = []
        self.derived: list[tuple[str, Tensor]] = []
        self._memory = {address(p) for p in root.parameters()} - {0}
        self._device = device
        # Keeps the old objects alive: an id is only unique while its object exists.
        self._memo: dict[int, tuple[Any, Any]] = {}
        self._names = {id(m): name for name, m in root.named_modules()}
        self._buffers = {id(b) for b in root.buffers()}
        self._where = ""
        with torch.inference_mode(False), torch.no_grad():
            self.root: nn.Module = self.visit(root)

    def visit(self, value: Any) -> Any:
        """Counterpart of an object in the copy; the object itself if it is shared."""
        if isinstance(value, _ATOMS):
            return value
        if id(value) in self._memo:
            return self._memo[id(value)][1]
        if isinstance(value, nn.Module):
            return self._copy_module(value)
        if isinstance(value, Tensor):
            return self._remember(value, self._copy_tensor(value))
        if isinstance(value, (list, dict, deque)):
            return self._copy_container(value)
        if isinstance(value, np.ndarray):
            return self._remember(value, value.copy())
        if is_record(value):
            return self._copy_record(value)
        if isinstance(value, types.FunctionType):
            if hasattr(value, "_torchdynamo_orig_callable"):
                return self.visit(value._torchdynamo_orig_callable)
            self._remember(value, value)  # a function may be its own free variable
        new = _rebuild(value, self.visit)
        return value if new is value else self._remember(value, new)

    def _remember(self, old: Any, new: Any) -> Any:
        self._memo[id(old)] = (old, new)
        return new

    def _copy_module(self, wrapped: nn.Module) -> nn.Module:
        module = unwrap(wrapped)
        if module is not wrapped:
            return cast(nn.Module, self._remember(wrapped, self.visit(module)))
        if isinstance(module, torch.jit.ScriptModule):
            return module
        new: nn.Module = self._remember(module, object.__new__(type(module)))
        self.modules.append(new)
        self._buffers.update(id(b) for b in module._buffers.values() if b is not None)
        name, before = self._names.get(id(module), type(module).__name__), self._where
        attributes = vars(new)
        for key, value in list(vars(module).items()):
            self._where = f"{name}.{key}" if name else key
            attributes[key] = OrderedDict() if key in _EMPTIED else self.visit(value)
        self._where = before
        # Set directly: users override train() and eval(), some to merge weights in place.
        attributes["training"] = False
        attributes["_compiled_call_impl"] = None
        return new

    def _copy_tensor(self, tensor: Tensor) -> Tensor:
        if is_lazy(tensor):
            return tensor
        if isinstance(tensor, nn.Parameter):
            data = tensor.detach()
            if self._device is not None:
                data = data.to(self._device)
            if data.is_inference():
                data = data.clone()
            new = nn.Parameter(data, requires_grad=False)
            vars(new).update(vars(tensor))
            self.sources[id(new)] = tensor
            return new
        if self._device is not None and id(tensor) in self._buffers:
            return tensor.detach().to(self._device, copy=True)
        if self._device is not None and tensor.device != self._device and tensor.dim() > 0:
            self.misplaced.append(f"{self._where} on {tensor.device}")
        copied = tensor.detach().clone()
        if tensor.grad_fn is not None or address(tensor) in self._memory:
            self.derived.append((self._where, copied))
        return copied

    def _copy_container(self, value: Any) -> Any:
        if type(value) is defaultdict:
            new: Any = defaultdict(value.default_factory)
        elif type(value) in (list, dict, OrderedDict):
            new = type(value)()
        elif type(value) is deque:
            new = deque(maxlen=value.maxlen)
        else:
            return self._copy_subclass(value)
        self._remember(value, new)
        if isinstance(value, dict):
            for key, item in list(value.items()):
                new[self.visit(key) if isinstance(key, (nn.Module, Tensor)) else key] = self.visit(
                    item
                )
        else:
            new.extend(self.visit(item) for item in list(value))
        return new

    def _copy_subclass(self, value: Any) -> Any:
        """A Counter or its like; its items are set by the base class."""
        try:
            new = copy.copy(value)
        except Exception:  # what cannot be copied is shared
            return value
        if type(new) is not type(value) or new is value:
            return value
        self._remember(value, new)
        if isinstance(value, dict):
            for key, item in list(value.items()):
                dict.__setitem__(new, key, self.visit(item))
        else:
            base = list if isinstance(value, list) else deque
            for place, item in enumerate(list(value)):
                base.__setitem__(new, place, self.visit(item))
        return new

    def _copy_record(self, value: Any) -> Any:
        new = self._remember(value, copy.copy(value))
        # Through the dict, since the record may be frozen.
        vars(new).update({key: self.visit(item) for key, item in list(vars(value).items())})
        return new
