"""Digest of what a model computes, for caches on disk."""

from __future__ import annotations

import enum
import functools
import hashlib
import inspect
import sys
import threading
import types
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from skgeo.data._samples import hash_array, hash_tensor
from skgeo.likelihood import Likelihood
from skgeo.models._checkpoint import Checkpoint
from skgeo.models._kinds import check_model, is_estimator, unwrap
from skgeo.models._resolve import ResolvedModel
from skgeo.models._skorch_models import is_skorch
from skgeo.models._wrapped import WrappedModel

# What every module has, besides its train or eval mode: read by name below, or of no effect.
_BOOKKEEPING = frozenset(vars(nn.Module()))
_HOOKS = ("_forward_pre_hooks", "_forward_hooks")
# Objects without content.
_LOCKS = (type(threading.Lock()), type(threading.RLock()))
_ATOMS = (
    bool | int | float | complex | str | bytes | None | types.EllipsisType | torch.dtype
    | torch.device | torch.layout | torch.memory_format | enum.Enum | range | slice
)  # fmt: skip
# Names in code whose effect is not in the code.
_DYNAMIC = frozenset(
    ["eval", "exec", "globals", "__import__", "import_module", "open", "environ", "getenv"]
)


def fingerprint(model: Any) -> str:
    """Hexadecimal digest of the content of a model.

    Two models with one digest compute the same function and have the same trainable
    parameters. The digest covers classes and their code, the structure, plain attributes and
    forward hooks of a module, names, dtypes, shapes, bytes and `requires_grad` flags of its
    parameters and buffers, and which of them are tied; of a forward function its name, code,
    constants, defaults, closure and the globals it names; of a scikit-learn model its
    parameters and fitted attributes. It does not depend on train or eval mode, gradients,
    device, or on which of several copies is given.

    model: any kind of model, or a likelihood; a Checkpoint is loaded. Of a ResolvedModel, the
        preprocessing is left out.
    Returns 40 hexadecimal digits, the same in every process under the same versions of Python,
    torch and scikit-learn.
    Raises NotAModelError if `model` is not a model.

    The cost is one pass over the weights. Code of installed packages is represented by its name,
    an attribute of unknown type by its pickle. Of a module that code names, what it names of it is
    read.

    >>> import copy, torch
    >>> from skgeo.models import fingerprint
    >>> net = torch.nn.Linear(3, 2)
    >>> fingerprint(net) == fingerprint(copy.deepcopy(net).eval())
    True
    >>> other = torch.nn.Linear(3, 2)
    >>> fingerprint(net) == fingerprint(other)
    False
    """
    return read_content(model)[0]


def read_content(model: Any) -> tuple[str, list[str]]:
    """The fingerprint of a model, and what of its code could not be followed."""
    walk = _Walk()
    if isinstance(model, Likelihood):
        walk.value([type(model), sorted(vars(model).items())])
    elif isinstance(model, ResolvedModel):
        walk.value([model.module, model.forward, model.likelihood, model.keep_integers])
        walk.value([model.class_axis, model.mask])
    else:
        check_model(model)
        walk.model(model)
    return walk.digest.hexdigest(), list(dict.fromkeys(walk.lost))


def read_function(function: Any) -> tuple[str, list[str]]:
    """Digest of the content of a function, as of one that a model holds, and what was lost."""
    walk = _Walk()
    walk.value(function)
    return walk.digest.hexdigest(), list(dict.fromkeys(walk.lost))


class _Walk:
    """One traversal that updates a digest."""

    def __init__(self) -> None:
        self.digest = hashlib.blake2b(digest_size=20)
        # The objects are kept, since an id is unique only while its object exists.
        self.seen: dict[int, tuple[int, Any]] = {}
        self.open: list[int] = []
        # What may change without a change of the digest, in words.
        self.lost: list[str] = []

    def text(self, *words: object) -> None:
        for word in words:
            encoded = str(word).encode("utf-8", "surrogatepass")
            # The length separates a word from the next one.
            self.digest.update(f"{len(encoded)}:".encode() + encoded)

    def first_visit(self, obj: Any) -> bool:
        """Whether an object has not been visited; for objects that keep identity when copied."""
        if id(obj) in self.seen:
            self.text("seen", self.seen[id(obj)][0])
            return False
        self.seen[id(obj)] = (len(self.seen), obj)
        return True

    def model(self, model: Any) -> None:
        if isinstance(model, WrappedModel):
            self.text("wrapped")
            self.value(model.likelihood)
            self.value(model.module)
            self.value(model.forward)
            self.value([model.class_axis, model.mask])
        elif isinstance(model, Checkpoint):
            self.text("checkpoint")
            self.value(model.load())
            self.value([model.forward, model.class_axis])
        elif isinstance(model, nn.Module):
            self.module(model)
        elif isinstance(model, FrozenEstimator):
            self.text("frozen")
            self.model(model.estimator)
        elif isinstance(model, Pipeline):
            self.text("pipeline", len(model.steps))
            for name, step in model.steps:
                self.text(name)
                self.value(step)
        elif is_skorch(model):
            self.text("skorch")
            self.type(type(model))
            self.value(dict(sorted(model.get_params(deep=False).items())))
            self.value({name: getattr(model, name, None) for name in ("module_", "criterion_")})
        else:
            self.attributes(model)

    def module(self, module: nn.Module) -> None:
        module = unwrap(module)
        if id(module) in self.seen:
            self.first_visit(module)
            return
        tensors: dict[int, str] = {}
        for name, child in module.named_modules():
            self.text("module", name)
            self.first_visit(child)
            self.type(type(child))
            self.text(child.extra_repr())
            for kind in ("_parameters", "_buffers"):
                for key, tensor in getattr(child, kind).items():
                    self.text(kind, key)
                    self.slot(tensor, f"{name}.{key}", tensors)
        # Attributes come after all parameters, so a second reference to a parameter (the flat
        # weights of an LSTM) is recognised.
        for name, child in module.named_modules():
            self.text("attributes", name)
            for key, value in sorted(vars(child).items()):
                if key in _HOOKS:
                    self.text(key)
                    self.value(list(value.values()))
                elif key not in _BOOKKEEPING and not _refers_to(value, tensors):
                    self.text(key)
                    self.value(value)

    def slot(self, tensor: Tensor | None, name: str, known: dict[int, str]) -> None:
        if tensor is None:
            self.text("none")
        elif id(tensor) in known:
            self.text("tied", known[id(tensor)])
        else:
            known[id(tensor)] = name
            self.text(type(tensor).__qualname__, tensor.requires_grad)
            if not isinstance(tensor, UninitializedParameter | UninitializedBuffer):
                hash_tensor(self.digest, tensor)

    def value(self, value: Any) -> None:
        if isinstance(value, _ATOMS):
            self.text(type(value).__name__, repr(value))
        elif isinstance(value, dict | list | tuple | set | frozenset):
            self.container(value)
        elif isinstance(value, Tensor):
            self.text("tensor")
            hash_tensor(self.digest, value)
        elif isinstance(value, np.ndarray | np.generic):
            self.array(np.asarray(value))
        elif isinstance(value, nn.Module | WrappedModel | Checkpoint) or is_estimator(value):
            self.model(value)
        elif isinstance(value, type):
            self.type(value)
        elif isinstance(value, types.ModuleType):
            self.library(value, ())
        elif isinstance(value, types.MethodType):
            self.container((value.__func__, value.__self__))
        elif isinstance(value, functools.partial):
            self.container((value.func, value.args, value.keywords))
        elif isinstance(value, types.FunctionType):
            self.function(value)
        elif isinstance(value, types.CodeType):
            self.code(value)
        elif isinstance(value, _LOCKS):
            self.text("lock")
        elif isinstance(value, types.BuiltinFunctionType):
            self.text("builtin", value.__module__, value.__qualname__)
            if value.__module__ and _is_users_own(value.__module__):
                self.lost.append(f"the compiled function {value.__qualname__}")
        elif hasattr(value, "__dict__") and _is_users_own(type(value).__module__):
            self.attributes(value)
        else:
            self.pickled(value)

    def container(self, value: Any) -> None:
        self.text(type(value).__name__, len(value))
        if id(value) in self.open:
            self.text("inside", self.open.index(id(value)))
            return
        if isinstance(value, set | frozenset):
            value = sorted(value, key=repr)
        self.open.append(id(value))
        for item in value.items() if isinstance(value, dict) else value:
            self.value(item)
        self.open.pop()

    def array(self, array: np.ndarray) -> None:
        self.text("array")
        if array.dtype.hasobject:
            self.value((str(array.dtype), array.tolist()))
        else:
            hash_array(self.digest, array)

    def attributes(self, obj: Any) -> None:
        self.type(type(obj))
        if self.first_visit(obj):
            self.container(dict(sorted(vars(obj).items())))

    def type(self, cls: type) -> None:
        self.text("type", cls.__module__, cls.__qualname__)
        if not self.first_visit(cls):
            return
        for base in cls.__mro__:
            # In a notebook, a user's class may be redefined under the same name.
            if not _is_users_own(base.__module__):
                continue
            for name, member in list(vars(base).items()):
                for place in ("__func__", "fget", "func"):  # methods, properties, cached ones
                    member = getattr(member, place, member)
                own = isinstance(member, types.FunctionType) or not name.startswith("_abc_")
                if isinstance(member, types.FunctionType) or (
                    own and not name.startswith("__") and not inspect.isdatadescriptor(member)
                ):
                    self.text(name)
                    self.value(member)

    def function(self, function: types.FunctionType) -> None:
        self.text("function", function.__module__, function.__qualname__)
        if not self.first_visit(function):
            return
        self.value(function.__defaults__)
        self.value(function.__kwdefaults__)
        for cell in function.__closure__ or ():
            try:
                self.value(cell.cell_contents)
            except ValueError:
                self.text("empty cell")
        self.code(function.__code__)
        if _is_users_own(function.__module__):
            self.names(function)

    def names(self, function: types.FunctionType) -> None:
        """What the code of a function names: globals, and modules that it imports itself."""
        names = _global_names(function.__code__)
        for name in names:
            if name in function.__globals__:
                self.text("global", name)
                found = function.__globals__[name]
                if isinstance(found, types.ModuleType):
                    self.library(found, names)
                else:
                    self.value(found)
            elif name in sys.modules:
                self.library(sys.modules[name], names)
            if name in _DYNAMIC:
                self.lost.append(f"{name} in {function.__qualname__}")

    def library(self, library: types.ModuleType, names: Iterable[str]) -> None:
        """A module: by name if it is installed, else what some code may use of it."""
        self.text("import", library.__name__)
        if not _is_users_own(library.__name__):
            return
        for name in names:
            if name in vars(library) and vars(library)[name] is not library:
                self.text("of", name)
                found = vars(library)[name]
                if isinstance(found, types.ModuleType):
                    if self.first_visit(found):
                        self.library(found, names)
                else:
                    self.value(found)

    def code(self, code: types.CodeType) -> None:
        self.text("code", code.co_code.hex(), code.co_names, code.co_varnames, code.co_freevars)
        self.value(code.co_consts)

    def pickled(self, value: Any) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                hashed = joblib.hash(value)
        except Exception:  # a pickler raises whatever the object raises
            if hasattr(value, "__dict__"):
                self.attributes(value)
            else:
                self.type(type(value))
                self.lost.append(f"an object of type {type(value).__qualname__}")
        else:
            self.type(type(value))
            self.text(hashed)


@functools.cache
def _is_users_own(module_name: str | None) -> bool:
    """Whether code can change without a change of its package's version."""
    if not module_name or module_name == "__main__":
        return True
    top = module_name.partition(".")[0]
    if top == "skgeo" or top in sys.stdlib_module_names or top == "builtins":
        return False
    path = getattr(sys.modules.get(module_name), "__file__", None) or ""
    return not {"site-packages", "dist-packages"} & set(Path(path).parts)


def _refers_to(value: Any, tensors: dict[int, str]) -> bool:
    """Whether an attribute only refers to parameters or buffers of the module."""
    if isinstance(value, list | tuple) and value:
        return all(_refers_to(item, tensors) for item in value)
    return id(value) in tensors


def _global_names(code: types.CodeType) -> list[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names.update(_global_names(constant))
    return sorted(names)
