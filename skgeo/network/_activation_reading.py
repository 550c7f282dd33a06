"""Activations of modules, of calls in a forward pass, and of operations of torch."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skgeo.network._activation import Activation, activation
from skgeo.network._activation_table import KINDS

# By class: name and attributes with the options, in the order of the table.
_MODULES: dict[type[nn.Module], tuple[str, tuple[str, ...]]] = {
    nn.CELU: ("celu", ("alpha",)),
    nn.ELU: ("elu", ("alpha",)),
    nn.GELU: ("gelu", ("approximate",)),
    nn.Hardshrink: ("hardshrink", ("lambd",)),
    nn.Hardsigmoid: ("hardsigmoid", ()),
    nn.Hardswish: ("hardswish", ()),
    nn.Hardtanh: ("hardtanh", ("min_val", "max_val")),
    nn.LeakyReLU: ("leaky_relu", ("negative_slope",)),
    nn.LogSigmoid: ("logsigmoid", ()),
    nn.Mish: ("mish", ()),
    nn.ReLU: ("relu", ()),
    nn.ReLU6: ("relu6", ()),
    nn.SELU: ("selu", ()),
    nn.SiLU: ("silu", ()),
    nn.Sigmoid: ("sigmoid", ()),
    nn.Softplus: ("softplus", ("beta", "threshold")),
    nn.Softshrink: ("softshrink", ("lambd",)),
    nn.Softsign: ("softsign", ()),
    nn.Tanh: ("tanh", ()),
    nn.Tanhshrink: ("tanhshrink", ()),
    nn.Threshold: ("threshold", ("threshold", "value")),
    # The identity in eval mode.
    nn.Identity: ("identity", ()),
    nn.Dropout: ("identity", ()),
    nn.Dropout1d: ("identity", ()),
    nn.Dropout2d: ("identity", ()),
    nn.Dropout3d: ("identity", ()),
    nn.AlphaDropout: ("identity", ()),
    nn.FeatureAlphaDropout: ("identity", ()),
}


def torch_base(module: nn.Module) -> type[nn.Module] | None:
    """Class of ``torch.nn`` whose forward pass a module uses unchanged."""
    if "forward" in vars(module):
        return None
    forward = type(module).forward
    for kind in type(module).__mro__:
        if kind.__module__.startswith("torch.nn.") and getattr(kind, "forward", None) is forward:
            return kind
    return None


def read_activation(module: nn.Module) -> Activation | None:
    """Activation that a module computes in eval mode; None if it is not a known activation.

    Hooks of the module are ignored.

    >>> str(read_activation(nn.Softplus(beta=3))), read_activation(nn.Softmax(-1))
    ('softplus(beta=3)', None)
    """
    base = torch_base(module)
    if base is nn.PReLU:
        weight: Any = module.weight
        return activation("prelu", weight=tuple(weight.detach().double().flatten().tolist()))
    if base is nn.RReLU:
        lower, upper = float(module.lower), float(module.upper)  # type: ignore[arg-type]
        return activation("leaky_relu", negative_slope=(lower + upper) / 2)
    if base not in _MODULES:
        return None
    name, attributes = _MODULES[base]
    options = {key: getattr(module, key) for key in attributes}
    return activation(name, **options) if _are_numbers(options) else None


def _are_numbers(options: Mapping[str, Any]) -> bool:
    """Whether options are known, and not the result of a computation."""
    return all(isinstance(value, bool | int | float | str) for value in options.values())


# By name of a function: row of the table, and options in the order of the arguments.
_CALLS: dict[str, tuple[str, tuple[str, ...]]] = {
    **{name: (name, tuple(kind.defaults)) for name, kind in KINDS.items()},
    "elu": ("elu", ("alpha",)),
    "clip": ("clamp", ("min", "max")),
    "clamp_min": ("clamp", ("min",)),
    "clamp_max": ("clamp", ("max",)),
    "absolute": ("abs", ()),
    "expit": ("sigmoid", ()),
}
del _CALLS["identity"], _CALLS["prelu"]
_FUNCTIONS: dict[Any, str] = {
    getattr(home, spelt + end): spelt
    for spelt in _CALLS
    for end in ("", "_")
    for home in (torch, F, torch.special)
    if hasattr(home, spelt + end)
} | {abs: "abs", operator.abs: "abs"}
_METHODS = {
    spelt + end: spelt for spelt in _CALLS for end in ("", "_") if hasattr(Tensor, spelt + end)
}


def activation_call(
    target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, method: bool = False
) -> Activation | None:
    """Activation that a call of a function or a tensor method applies.

    target: the function, or the name of the method.
    Returns None if it is not an activation, or if the network computes an option.

    >>> str(activation_call(F.hardtanh, (torch.zeros(2), -6, 6), {}))
    'hardtanh(min_val=-6, max_val=6)'
    """
    if not method and target is F.rrelu:
        return _rrelu_call(args, kwargs)
    try:
        spelt = _METHODS.get(target) if method else _FUNCTIONS.get(target)
    except TypeError:  # not hashable
        return None
    return None if spelt is None else _read(*_CALLS[spelt], args, kwargs)


def _read(
    name: str, keys: tuple[str, ...], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Activation | None:
    """Activation of a call with options in this order."""
    given = dict(zip(keys, args[1:], strict=False)) | {k: kwargs[k] for k in keys if k in kwargs}
    options = {key: value for key, value in given.items() if value is not None}
    return activation(name, **options) if _are_numbers(options) else None


def _rrelu_call(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Activation | None:
    given = dict(zip(("lower", "upper", "training"), args[1:], strict=False)) | dict(kwargs)
    if given.get("training", False) is not False:
        return None
    ends = [given.get("lower", 1 / 8), given.get("upper", 1 / 3)]
    if not _are_numbers(dict(enumerate(ends))):  # type: ignore[arg-type]
        return None
    return activation("leaky_relu", negative_slope=(ends[0] + ends[1]) / 2)


# Operations of torch's dispatcher.
_OPERATIONS = _CALLS | {
    "elu": ("elu", tuple(KINDS["elu"].defaults)),
    "log_sigmoid_forward": ("logsigmoid", ()),
}


def activation_operation(
    name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Activation | None:
    """Activation that an operation of the dispatcher applies, such as ``aten::hardtanh``.

    name: without namespace, overload and the underscore of in-place operations.
    """
    if name == "_prelu_kernel":
        return activation("prelu", weight=tuple(args[1].detach().double().flatten().tolist()))
    if name == "rrelu_with_noise":
        return _rrelu_call((args[0], *args[2:]), kwargs)
    return _read(*_OPERATIONS[name], args, kwargs) if name in _OPERATIONS else None


def draws_in_training(module: nn.Module) -> bool:
    """Whether a module is an activation that is random in train mode, and fixed in eval mode."""
    return isinstance(module, nn.RReLU)
