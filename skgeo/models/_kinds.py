"""Which objects are models, and error messages for all others."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from typing import Any

import torch
from sklearn.base import BaseEstimator
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from torch import Tensor, nn

from skgeo.exceptions import NotAModelError, SkgeoError
from skgeo.models._checkpoint import Checkpoint
from skgeo.models._sklearn_models import SUPPORTED, check_supported
from skgeo.models._skorch_models import is_skorch
from skgeo.models._wrapped import WrappedModel

KINDS = (
    "a torch.nn.Module, a WrappedModel, a Checkpoint, a scikit-learn MLP or linear model, a "
    "skorch net, or a Pipeline that ends in one of the last two"
)


def is_model(obj: Any) -> bool:
    """Whether :func:`resolve_model` accepts `obj`, fitted or not."""
    try:
        check_model(obj)
    except NotAModelError:
        return False
    return True


def check_model(model: Any) -> None:
    """Raise :class:`NotAModelError`, with advice, unless `model` is a model."""
    if isinstance(model, WrappedModel | Checkpoint):
        return
    if isinstance(model, nn.Module):
        _check_module(model)
        return
    if not is_estimator(model):
        raise _not_a_model(model)
    core = last_step(model)
    if isinstance(core, nn.Module | WrappedModel | Checkpoint):
        raise NotAModelError(
            f"{type(model).__name__} ends in {type(core).__name__}, which cannot be a step of a "
            f"Pipeline. Transform X first and pass the module itself, or end the Pipeline in a "
            f"skorch net."
        )
    if not is_estimator(core):
        raise NotAModelError(
            f"{type(model).__name__} ends in {core!r}; expected {SUPPORTED}, or a skorch net."
        )
    if not is_skorch(core):
        check_supported(core)


def unwrap(module: nn.Module) -> nn.Module:
    """The module inside a compiled or data-parallel wrapper, which shares its parameters."""
    while True:
        inner = getattr(module, "_orig_mod", None)
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = module.module
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def has_embedding(module: nn.Module) -> bool:
    """Whether a module holds an embedding, so that integer inputs are indices."""
    return any(isinstance(child, nn.Embedding | nn.EmbeddingBag) for child in module.modules())


def is_estimator(obj: Any) -> bool:
    """Whether `obj` is an instance with scikit-learn's interface."""
    if inspect.isclass(obj):
        return False
    return isinstance(obj, BaseEstimator) or (hasattr(obj, "fit") and hasattr(obj, "get_params"))


def last_step(model: Any) -> Any:
    """The last estimator of nested Pipelines and FrozenEstimators."""
    while isinstance(model, Pipeline | FrozenEstimator):
        if isinstance(model, FrozenEstimator):
            model = model.estimator
        else:
            model = model.steps[-1][1] if model.steps else None
    return model


def check_parameters(module: nn.Module) -> None:
    """Raise SkgeoError if a parameter is uninitialised or on the meta device."""
    for name, parameter in module.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise SkgeoError(
                f"Parameter {name} of {type(module).__name__} has no shape yet: run one batch "
                f"through the module, so that its lazy layers are initialised."
            )
        if parameter.device.type == "meta":
            raise SkgeoError(
                f"Parameter {name} of {type(module).__name__} is on the meta device and holds no "
                f"values: load its weights first."
            )


def _check_module(module: nn.Module) -> None:
    name = type(module).__name__
    if isinstance(module, torch.jit.ScriptModule):
        raise NotAModelError(
            f"{name} is a TorchScript module, whose parameters cannot be replaced one by one. "
            f"Pass the torch.nn.Module that it was scripted or traced from."
        )
    if type(module).forward is nn.Module.forward and "forward" not in vars(module):
        raise NotAModelError(
            f"{name} has no forward method. Pass the module that uses it, or "
            f"WrappedModel(module, forward=f) with f(module, inputs)."
        )


def _not_a_model(obj: Any) -> NotAModelError:
    kind = type(obj).__name__
    if obj is None:
        given, advice = "None", f"Pass {KINDS}."
    elif inspect.isclass(obj):
        given, advice = f"The class {obj.__name__}", f"Pass an instance: {obj.__name__}(...)."
    elif isinstance(obj, Mapping) and any(isinstance(value, Tensor) for value in obj.values()):
        given = f"A state dict ({kind} of {len(obj)} tensors)"
        advice = (
            "Build the module, call module.load_state_dict(state) and pass the module; or pass "
            "Checkpoint(path, factory) for a state dict in a file."
        )
    elif isinstance(obj, str | os.PathLike):
        given = f"{os.fspath(obj)!r}"
        advice = (
            "For weights in a file pass Checkpoint(path, factory), where factory() builds the "
            "module they belong to."
        )
    elif isinstance(obj, torch.optim.Optimizer):
        given, advice = f"The optimizer {kind}", "Pass the module whose parameters it updates."
    elif isinstance(obj, list | tuple):
        given = f"A {kind} of {len(obj)}"
        advice = (
            "Pass a single model. To measure several, leave model=None and pass a list of "
            "(model, X) pairs to fit_transform."
        )
    elif isinstance(obj, Tensor):
        given, advice = "A tensor", f"Pass {KINDS}; data goes to fit."
    elif callable(obj):
        given = f"The function {getattr(obj, '__name__', kind)}"
        advice = (
            "Its parameters cannot be found. Pass the torch.nn.Module that holds "
            "them, or WrappedModel(module, forward=f) with f(module, inputs)."
        )
    else:
        given, advice = f"An object of type {kind}", f"Expected {KINDS}."
    return NotAModelError(f"{given} is not a model. {advice}")
