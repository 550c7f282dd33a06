"""Kinds of steps of a forward pass."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import is_parametrized

from skgeo.network._activation import Activation
from skgeo.network._activation_reading import activation_call, read_activation, torch_base


@dataclass(frozen=True)
class Step:
    """One step of a forward pass.

    Attributes
    ----------
    kind : str
        ``"linear"``, ``"conv"``, ``"embedding"``, ``"attention"``,
        ``"layernorm"``, ``"rmsnorm"``, ``"batchnorm"``, ``"activation"``, ``"flatten"``,
        ``"pool"``, ``"mean"``, ``"identity"``, ``"add"``, ``"select"`` (one item of several),
        ``"shape"``, or ``"other"``.
    what : str
        Name of an activation (``"relu"``, ``"leaky_relu"``, ``"tanh"``, ...); otherwise the class
        or function.
    activation : Activation or None
        The activation of a step of kind ``"activation"``.
    """

    kind: str
    what: str
    activation: Activation | None = None


_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_MAX_POOLS = (
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.MaxPool3d,
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d,
    nn.AdaptiveMaxPool3d,
)
_AVERAGE_POOLS = (
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AvgPool3d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d,
)
_KINDS: dict[type[nn.Module], str] = {
    nn.Linear: "linear",
    nn.Embedding: "embedding",
    nn.MultiheadAttention: "attention",
    nn.LayerNorm: "layernorm",
    nn.RMSNorm: "rmsnorm",
    nn.BatchNorm1d: "batchnorm",
    nn.BatchNorm2d: "batchnorm",
    nn.BatchNorm3d: "batchnorm",
    **dict.fromkeys(_CONVOLUTIONS, "conv"),
    **dict.fromkeys(_MAX_POOLS + _AVERAGE_POOLS, "pool"),
}
# Containers only call their items; all other modules of torch.nn are leaves.
_CONTAINERS = (
    nn.Sequential,
    nn.ModuleList,
    nn.ModuleDict,
    nn.ParameterList,
    nn.ParameterDict,
    nn.TransformerEncoder,
    nn.TransformerEncoderLayer,
)


def is_leaf(module: nn.Module) -> bool:
    """Whether a module is one step, instead of a composition of steps.

    True for the layers of ``torch.nn``, and for modules that cannot be traced: those with hooks or
    with weights that are computed from others.
    """
    if is_parametrized(module) or module._forward_hooks or module._forward_pre_hooks:
        return True
    base = torch_base(module)
    return base is not None and not issubclass(base, _CONTAINERS)


def describe_module(module: nn.Module) -> Step:
    """Step of a leaf module in eval mode; of kind ``"other"`` if it is not known."""
    base = torch_base(module)
    if module._forward_hooks or module._forward_pre_hooks:
        return Step("other", f"{type(module).__name__} with hooks")
    if base is None or is_parametrized(module):
        return Step("other", type(module).__name__)
    found = read_activation(module)
    if found is not None:
        if found.is_identity:
            return Step("identity", base.__name__)
        return Step("activation", found.name, found)
    if isinstance(module, nn.Flatten):
        rows = (module.start_dim, module.end_dim) == (1, -1)
        return Step("flatten" if rows else "other", "Flatten")
    kind = _KINDS.get(base, "other")
    if isinstance(module, _CONVOLUTIONS) and module.padding_mode != "zeros" and module.groups > 1:
        kind = "other"
    if kind == "batchnorm" and getattr(module, "running_mean", None) is None:
        kind = "other"
    return Step(kind, base.__name__)


def describe_call(
    target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, method: bool
) -> Step:
    """Step of a call of a function or a tensor method.

    target: the function, or with `method` the name of the method.
    """
    if method:
        name = str(target)
        plain = name.removesuffix("_")
    else:
        name = getattr(target, "__name__", str(target))
        plain = _FUNCTIONS.get(target, "")
    found = activation_call(target, args, kwargs, method=method)
    if found is not None:
        return (
            Step("identity", name) if found.is_identity else Step("activation", found.name, found)
        )
    if plain == "flatten":
        start = _option(args, kwargs, 1, "start_dim", 0)
        end = _option(args, kwargs, 2, "end_dim", -1)
        return Step("flatten" if (start, end) == (1, -1) else "other", name)
    if plain in ("view", "reshape"):
        return Step("flatten" if _keeps_samples(args) else "other", name)
    if plain == "add" and len(args) == 2 and not kwargs:
        return Step("add", name)
    if plain == "getitem":
        return Step("select", name)
    if plain == "size" or (target is getattr and len(args) > 1 and args[1] == "shape"):
        return Step("shape", name)
    if plain == "mean":
        return Step("mean", name)
    if plain in ("dropout", "alpha_dropout", "feature_alpha_dropout"):
        idle = _option(args, kwargs, 2, "training", True) is False
        return Step("identity" if idle else "other", name)
    if plain in _POOL_NAMES:
        return Step("pool", name)
    if plain in ("contiguous", "clone"):
        return Step("identity", name)
    return Step("other", name)


def rewritten(module: nn.Module) -> Callable[..., Any]:
    """Forward pass of a composition that can be traced on a placeholder.

    It is the module's own, except for the encoders of torch, whose control flow depends on shapes,
    masks and fused kernels; for them it is the plain formula without masks.
    """
    if isinstance(module, nn.TransformerEncoder):
        return lambda src: _encode(module, src)
    if isinstance(module, nn.TransformerEncoderLayer):
        return lambda src: _encode_layer(module, src)
    return module.forward


def _encode(encoder: nn.TransformerEncoder, x: Any) -> Any:
    for layer in encoder.layers:
        x = layer(x)
    return x if encoder.norm is None else encoder.norm(x)


def _encode_layer(layer: nn.TransformerEncoderLayer, x: Any) -> Any:
    def attend(h: Any) -> Any:
        return layer.dropout1(layer.self_attn(h, h, h)[0])

    def feed(h: Any) -> Any:
        activate: Any = layer.activation
        return layer.dropout2(layer.linear2(layer.dropout(activate(layer.linear1(h)))))

    if layer.norm_first:
        x = x + attend(layer.norm1(x))
        return x + feed(layer.norm2(x))
    x = layer.norm1(x + attend(x))
    return layer.norm2(x + feed(x))


_POOL_NAMES = {
    f"{adaptive}{mode}_pool{dimension}d"
    for adaptive in ("", "adaptive_")
    for mode in ("max", "avg")
    for dimension in (1, 2, 3)
}
# Keys are functions, since a user's function may have the same name as one of torch.
_FUNCTIONS: dict[Any, str] = {
    getattr(home, name): name.removesuffix("_")
    for home in (torch, F, torch._C._nn)
    for name in (
        *_POOL_NAMES,
        "flatten",
        "reshape",
        "mean",
        "add",
        "dropout",
        "alpha_dropout",
        "feature_alpha_dropout",
        "clone",
    )
    if hasattr(home, name)
} | {operator.add: "add", operator.iadd: "add", operator.getitem: "getitem", getattr: "getattr"}


def _option(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], place: int, name: str, default: Any
) -> Any:
    return args[place] if len(args) > place else kwargs.get(name, default)


def _keeps_samples(args: tuple[Any, ...]) -> bool:
    """Whether a new shape is (number of samples, -1)."""
    shape = args[1] if len(args) == 2 and isinstance(args[1], (tuple, list)) else args[1:]
    return len(shape) == 2 and shape[1] == -1 and not isinstance(shape[0], int)
