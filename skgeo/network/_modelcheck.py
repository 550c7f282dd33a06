"""Checks of a module before it is measured."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parameter import is_lazy

from skgeo._arguments import described
from skgeo.exceptions import NotAModelError, SkgeoError, warn
from skgeo.network._activation_reading import draws_in_training


def check_kind(module: object) -> nn.Module:
    """Raise an error for objects that are not modules, or whose tensors have no values."""
    if isinstance(module, type) and issubclass(module, nn.Module):
        raise NotAModelError(
            f"Got the class {module.__name__}; expected an instance of it. "
            f"Pass {module.__name__}(...) with its weights."
        )
    if not isinstance(module, nn.Module):
        raise NotAModelError(f"Got {described(module)}; expected a torch.nn.Module.")
    for name, child in module.named_modules():
        if isinstance(child, torch.jit.ScriptModule):
            where = f"its submodule {name!r} is" if name else "it is"
            raise NotAModelError(
                f"A module compiled by torch.jit cannot be measured: {where} a ScriptModule, "
                "whose layers accept no hooks. Pass the Python module it was compiled from."
            )
    for name, tensor in _named_tensors(module):
        if is_lazy(tensor):
            raise SkgeoError(
                f"{name!r} is not initialised: its layer is lazy and has not seen data. "
                "Run the module once on a batch of data before passing it."
            )
        if tensor.is_meta:
            raise SkgeoError(
                f"{name!r} is on the meta device, so it has a shape but no values. "
                "Load the weights first, for example with module.to_empty(device='cpu') and "
                "module.load_state_dict(...)."
            )
    return module


def check_finite(module: nn.Module) -> None:
    """Raise SkgeoError if a parameter or buffer is NaN or infinite.

    Minus infinity is accepted in buffers, which may be attention masks.
    """
    for name, tensor in _named_tensors(module):
        if not (tensor.is_floating_point() or tensor.is_complex()):
            continue
        bad = ~torch.isfinite(tensor.detach())
        if not isinstance(tensor, nn.Parameter) and not tensor.is_complex():
            bad &= tensor.detach() != -torch.inf
        if bad.any():
            raise SkgeoError(
                f"{name!r} has {int(bad.sum())} entries that are NaN or infinite "
                f"(of {tensor.numel()}); expected finite weights. Check whether training diverged."
            )


def check_real(module: nn.Module) -> None:
    """Raise SkgeoError if a parameter is complex."""
    for name, parameter in module.named_parameters():
        if parameter.is_complex():
            raise SkgeoError(
                f"Parameter {name!r} has dtype {parameter.dtype}; expected real weights. Write the "
                "network with real and imaginary parts as units of their own."
            )


def check_samples_apart(module: nn.Module) -> None:
    """Raise SkgeoError for BatchNorm without running statistics, whose outputs mix samples."""
    names = [
        name or type(child).__name__
        for name, child in module.named_modules()
        if isinstance(child, _BatchNorm)
        and child.running_mean is None
        and child.running_var is None
    ]
    if names:
        raise SkgeoError(
            f"BatchNorm without running statistics: {', '.join(names)}. Such a layer normalises by "
            "the batch it is given, also in eval mode, so the outputs of one sample depend on "
            "the others. Build it with track_running_stats=True and train, or use GroupNorm."
        )


def warn_train_mode(module: nn.Module) -> None:
    """Warn once if eval mode changes what the module computes."""
    names = [
        name or type(child).__name__
        for name, child in module.named_modules()
        if child.training and _depends_on_mode(child)
    ]
    if names:
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        warn(
            f"The module is in train mode and holds layers that behave differently there ({shown})."
            " It is measured in eval mode; call module.eval() before to silence this warning.",
            stacklevel=4,
        )


def _depends_on_mode(child: nn.Module) -> bool:
    if isinstance(child, (_BatchNorm, _InstanceNorm)):
        return child.running_mean is not None
    if isinstance(child, _DropoutNd):
        return child.p > 0
    if isinstance(child, (nn.MultiheadAttention, nn.RNNBase)):
        return child.dropout > 0
    return draws_in_training(child)


def _named_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()
