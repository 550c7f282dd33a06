"""Products with Jacobians of the user's own module, with graphs to its parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from skgeo._arguments import described
from skgeo.data._arrays import as_tensor, check_finite
from skgeo.exceptions import SkgeoError
from skgeo.jacobian._directional import plain_normalisation
from skgeo.models import WrappedModel
from skgeo.models._kinds import check_model
from skgeo.network._finite import check_outputs
from skgeo.network._modelcheck import check_finite as check_weights
from skgeo.network._modelcheck import check_kind
from skgeo.network._outputs import checked_outputs
from skgeo.network._running import running
from skgeo.network._switches import math_attention, no_fast_path

Forward = Callable[[Any, Any], Tensor]


def live(model: Any) -> tuple[nn.Module, Forward | None]:
    """The user's own module, and its forward function if it has one.

    Raises SkgeoError for a mask, which a penalty would pass by.
    """
    if not isinstance(model, WrappedModel):
        check_kind(model)
        check_model(model)
        check_weights(model)
        return model, None
    if model.mask is not None:
        raise SkgeoError(
            "The WrappedModel has a mask=, and penalties take every position of the outputs. "
            "Multiply the outputs by the mask in its forward function instead."
        )
    check_weights(model.module)
    return model.module, model.forward


@contextmanager
def prepared(module: nn.Module, x: Tensor) -> Iterator[None]:
    """Settings for second derivatives, and copies of the buffers, during a penalty.

    Raises SkgeoError if the module couples samples or x is not a batch of floating inputs.
    """
    coupling = [
        name or type(child).__name__
        for name, child in module.named_modules()
        if isinstance(child, _BatchNorm) and (child.training or child.running_mean is None)
    ]
    if coupling:
        raise SkgeoError(
            f"BatchNorm over the current batch ({', '.join(coupling)}) makes the outputs of one "
            "sample depend on the others, so no sample has a Jacobian of its own. Put these "
            "layers in eval mode for the penalty, or use GroupNorm."
        )
    if not isinstance(x, Tensor):
        raise SkgeoError(f"The inputs x are {described(x)}; expected a tensor of floating inputs.")
    x = as_tensor(x, "x")
    if not x.is_floating_point() or x.dim() == 0 or not x.numel():
        raise SkgeoError(
            f"The inputs x are {x.dtype} of shape {tuple(x.shape)}; expected a batch of floating "
            "inputs. Indices have no derivative: penalise the part of the network after the "
            "embedding."
        )
    check_finite(x, "x")
    held = [
        (child._buffers, key, buffer)
        for child in module.modules()
        for key, buffer in child._buffers.items()
        if buffer is not None
    ]
    with torch.enable_grad(), math_attention(), no_fast_path(), plain_normalisation():
        try:
            # A forward pass in train mode updates buffers; the penalty must not update them again.
            for buffers, key, buffer in held:
                buffers[key] = buffer.detach().clone()
            yield
        finally:
            for buffers, key, buffer in held:
                buffers[key] = buffer


@contextmanager
def recorded(
    module: nn.Module, x: Tensor, forward: Forward | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs that require a gradient, and the outputs computed from them."""
    # -> (b, ...), (b, K)
    with prepared(module, x):
        x = x.detach().clone().requires_grad_(True)
        yield x, outputs(module, x, forward)


def outputs(module: nn.Module, x: Tensor, forward: Forward | None) -> Tensor:
    """The checked outputs, with their graph."""
    # -> (b, K)
    given = x * 1  # the network may write to its input in place
    with running(x):
        found = module(given) if forward is None else forward(module, given)
    z = checked_outputs(found, len(x))
    check_outputs(z)
    if not z.requires_grad:
        raise SkgeoError(
            "The outputs have no graph, neither to the parameters nor to the inputs: the forward "
            "pass runs without gradients. Enable gradients in it."
        )
    return z.reshape(len(z), -1)


def pulled(z: Tensor, x: Tensor, cotangents: Tensor) -> Tensor:
    """``J^T v`` for each cotangent v."""
    # cotangents (b, p, K) -> (b, p, n)
    rows = [_gradient(z, x, cotangents[:, i]) for i in range(cotangents.shape[1])]
    return torch.stack(rows, dim=1).flatten(2)


def pushed(z: Tensor, x: Tensor, directions: Tensor) -> Tensor:
    """``J u`` for each direction u."""
    # directions (b, p, n) -> (b, p, K)
    dummy = torch.zeros_like(z, requires_grad=True)
    pulled = _gradient(z, x, dummy)
    if not pulled.requires_grad:
        return z.new_zeros((*directions.shape[:2], z.shape[1]))
    shaped = directions.reshape(*directions.shape[:2], *x.shape[1:])
    columns = [_gradient(pulled, dummy, shaped[:, i]) for i in range(shaped.shape[1])]
    return torch.stack(columns, dim=1)


def _gradient(value: Tensor, by: Tensor, cotangent: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(
        value, by, cotangent, create_graph=True, allow_unused=True, materialize_grads=True
    )
    return found


def orthonormal(
    size: int,
    count: int,
    dim: int,
    asked: int | None,
    generator: torch.Generator | None,
    like: Tensor,
) -> Tensor:
    """Random orthonormal rows for every sample, or all unit vectors if `asked` is None."""
    # -> (size, count, dim)
    if asked is None:
        return torch.eye(dim, dtype=like.dtype, device=like.device).expand(size, dim, dim)
    q: Tensor = torch.linalg.qr(gaussian((size, dim, count), generator, like)).Q
    return q.mT


def gaussian(shape: tuple[int, ...], generator: torch.Generator | None, like: Tensor) -> Tensor:
    assert generator is not None
    drawn = torch.randn(shape, generator=generator, dtype=torch.float64, device=generator.device)
    return drawn.to(like)
