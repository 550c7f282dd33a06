"""Reading an activation from a module, a call in a forward pass, or an operation of torch."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skgeo.network._activation import Activation, activation
from skgeo.network._activation_table import KINDS

# By class: the name, and the attributes that hold the options in the order of the table.
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
    # Nothing, in eval mode.
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
    """The activation that a module is in eval mode, with its options.

    module: hooks on it are not looked at.
    Returns: ``identity`` for what does nothing in eval mode. None for anything that does not act on
        every unit alone, or is not known.

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


# How calls are spelt: the row of the table, and its options in the order of the arguments.
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
    """The activation that a function call, or a method call of a tensor, applies.

    target: the function, or the method's name.
    Returns: None where the function is not one, or an option is computed by the network.

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
    """The activation of a call whose options come in this order."""
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


# Operations that torch's dispatcher sees.
_OPERATIONS = _CALLS | {
    "elu": ("elu", tuple(KINDS["elu"].defaults)),
    "log_sigmoid_forward": ("logsigmoid", ()),
}


def activation_operation(
    name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Activation | None:
    """The activation that an operation of the dispatcher applies, such as ``aten::hardtanh``.

    name: without namespace, overload and the underscore of an operation in place.
    args, kwargs: as the dispatcher has them.
    """
    if name == "_prelu_kernel":
        return activation("prelu", weight=tuple(args[1].detach().double().flatten().tolist()))
    if name == "rrelu_with_noise":
        return _rrelu_call((args[0], *args[2:]), kwargs)
    return _read(*_OPERATIONS[name], args, kwargs) if name in _OPERATIONS else None
