"""Penalties on the geometry of a network, differentiable in its weights, for training loops.

They act on the module they are given, in the mode it is in, and their gradients reach its
parameters: that is what they are for. Buffers and hooks are left as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from skgeo.chain._penalty_products import (
    Forward,
    gaussian,
    live,
    orthonormal,
    outputs,
    prepared,
    pulled,
    pushed,
    recorded,
)
from skgeo.exceptions import NonSmoothWarning, SkgeoError, collect_warnings, warn
from skgeo.jacobian._directional import push
from skgeo.jacobian._patterns import activation_pattern
from skgeo.models import WrappedModel
from skgeo.network._replica import replica

Reduction = Literal["mean", "none"]


def jacobian_penalty(
    model: nn.Module | WrappedModel,
    x: Tensor,
    *,
    n_projections: int | None = None,
    generator: torch.Generator | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Squared Frobenius norm of the input-output Jacobian, for a training loss.

    Exactly, :math:`\|J\|_F^2 = \sum_k \|J^T e_k\|^2`. With `n_projections` = p,
    :math:`\frac{K}{p} \sum_{i \le p} \|J^T v_i\|^2` for p random orthonormal cotangents,
    drawn again for every sample: an unbiased estimate ([1]_), exact at p = K.

    Parameters
    ----------
    model : Module or WrappedModel
        In the mode it is in. Not copied: the gradient reaches its parameters.
    x : Tensor of shape (b, ...)
        Floating inputs.
    n_projections : int, optional
        By default the exact value, at one backward pass an output.
    generator : torch.Generator
        Needed with `n_projections`. Made once, before the loop, so that draws differ from step to
        step.
    reduction : {"mean", "none"}, default="mean"
        Mean over samples, or one value each.

    Returns
    -------
    Tensor
        A number, or of shape (b,), on a graph to the parameters.

    Raises
    ------
    SkgeoError
        For integer inputs, outputs without a graph, batch normalisation in train mode, or
        projections without a generator.

    Notes
    -----
    p (or K) backward passes that are themselves differentiated. Active dropout draws its own mask:
    the penalty is that of the thinned network.

    References
    ----------
    .. [1] J. Hoffman, D. Roberts and S. Yaida, "Robust learning with Jacobian regularization",
       arXiv:1908.02729 (2019).

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from skgeo.chain import jacobian_penalty
    >>> net = nn.Linear(2, 2)
    >>> _ = nn.init.constant_(net.weight, 2.0)
    >>> penalty = jacobian_penalty(net, torch.zeros(5, 2))
    >>> penalty.backward()
    >>> penalty.item(), net.weight.grad.tolist()
    (16.0, [[4.0, 4.0], [4.0, 4.0]])
    """
    module, forward = live(model)
    with recorded(module, x, forward) as (x, z):
        size, n_outputs = z.shape
        p = _count("n_projections", n_projections, n_outputs, generator)
        cotangents = orthonormal(size, p, n_outputs, n_projections, generator, z)
        rows = pulled(z, x, cotangents)
        return _reduced(module, n_outputs / p * rows.square().sum((1, 2)), reduction)


def isometry_penalty(
    model: nn.Module | WrappedModel,
    x: Tensor,
    *,
    scale: float | None = None,
    n_projections: int | None = None,
    generator: torch.Generator | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Distance of the Jacobian from a multiple of an isometry, for a training loss.

    Let A be the smaller of :math:`J J^T` and :math:`J^T J`, of size r, the lesser of the numbers of
    inputs and outputs. The penalty is :math:`\|A / m - I\|_F^2 / r` with
    :math:`m = \operatorname{tr} A / r`: zero where all r singular values are equal. It is the
    squared isometry deviation where there are no more inputs than outputs, and compares directions
    that survive where there are.

    Parameters
    ----------
    model, x, generator, reduction
        As in :func:`jacobian_penalty`.
    scale : float, optional
        Take ``m = scale**2``, so that the singular values have to be `scale` and not only equal.
    n_projections : int, optional
        Look at :math:`V A V^T` for p random orthonormal rows V instead of A: it is zero in mean
        exactly where A is a multiple of I, but no unbiased estimate of the penalty, which it meets
        at p = r. At least 2 where `scale` is not given: one direction alone is always isometric.

    Returns
    -------
    Tensor
        A number, or of shape (b,), on a graph to the parameters.

    Raises
    ------
    SkgeoError
        As for :func:`jacobian_penalty`, and for a Jacobian that is zero.

    Notes
    -----
    p (or r) backward passes that are differentiated; twice that where inputs are fewer than
    outputs, since then directions of the input are pushed forward.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from skgeo.chain import isometry_penalty
    >>> net = nn.Linear(2, 2, bias=False)
    >>> _ = nn.init.eye_(net.weight)
    >>> isometry_penalty(net, torch.zeros(5, 2)).item()
    0.0
    >>> isometry_penalty(net, torch.zeros(5, 2), scale=0.5).item()
    9.0
    """
    if scale is not None and not scale > 0:
        raise SkgeoError(f"scale={scale!r}: expected a positive number, or None for any.")
    module, forward = live(model)
    with recorded(module, x, forward) as (x, z):
        size, n_outputs = z.shape
        n_inputs = x[0].numel()
        side = min(n_inputs, n_outputs)
        p = _count("n_projections", n_projections, side, generator, 1 if scale or side < 2 else 2)
        if n_outputs <= n_inputs:
            directions = orthonormal(size, p, n_outputs, n_projections, generator, z)
            rows = pulled(z, x, directions)
        else:
            directions = orthonormal(size, p, n_inputs, n_projections, generator, z)
            rows = pushed(z, x, directions)
        gram = rows @ rows.mT  # (b, p, p)
        mean = gram.diagonal(dim1=1, dim2=2).mean(1)
        if scale is not None:
            mean = torch.full_like(mean, scale**2)
        elif not bool((mean > 0).all()):
            raise SkgeoError(
                f"The Jacobian is zero for sample {int((~(mean > 0)).nonzero()[0])}, so its "
                "singular values have no ratio. Give a scale=...."
            )
        off = gram / mean.reshape(-1, 1, 1) - torch.eye(p, dtype=gram.dtype, device=gram.device)
        return _reduced(module, off.square().sum((1, 2)) / p, reduction)


def curvature_penalty(
    model: nn.Module | WrappedModel,
    x: Tensor,
    *,
    n_directions: int | None = None,
    generator: torch.Generator | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Squared norm of the second derivative with respect to the input, for a training loss.

    Exactly, :math:`\|D^2 f\|_F^2 = \sum_{ij} \|\partial_i \partial_j f\|^2`. With `n_directions`,
    the mean of :math:`\|D^2 f[u, v]\|^2` over so many pairs of independent Gaussian directions, an
    unbiased estimate. Zero for affine maps.

    Parameters
    ----------
    model, x, generator, reduction
        As in :func:`jacobian_penalty`.
    n_directions : int, optional
        By default the exact value, which takes n (n + 1)/2 second derivatives for n inputs.

    Returns
    -------
    Tensor
        A number, or of shape (b,), on a graph to the parameters.

    Raises
    ------
    SkgeoError
        As for :func:`jacobian_penalty`.

    Warns
    -----
    NonSmoothWarning
        For a piecewise linear network, whose second derivative is zero wherever it has one: the
        penalty is zero and so is its gradient.

    Notes
    -----
    Three backward passes a second derivative, and the one of the loss through all of them. Layer
    and instance normalisation are computed from plain operations, as torch's kernels for them have
    no correct third derivative.

    Examples
    --------
    The second derivative of x^2 / 2 is 1:

    >>> import torch
    >>> from skgeo.chain import curvature_penalty
    >>> class Half(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.scale = torch.nn.Parameter(torch.tensor(0.5))
    ...     def forward(self, x):
    ...         return self.scale * x**2
    >>> curvature_penalty(Half(), torch.ones(4, 1)).item()
    1.0
    """
    module, forward = live(model)
    with prepared(module, x):
        size, n_inputs = len(x), x[0].numel()
        p = _count("n_directions", n_directions, n_inputs, generator)

        def run(flat: Tensor) -> Tensor:
            return outputs(module, flat.reshape(x.shape), forward)

        flat = x.detach().reshape(size, -1)
        total = x.new_zeros(size)
        if n_directions is None:
            eye = torch.eye(n_inputs, dtype=x.dtype, device=x.device)
            for i in range(n_inputs):
                for j in range(i, n_inputs):
                    squared = _second(run, flat, eye[i].expand_as(flat), eye[j].expand_as(flat))
                    total = total + (1 if i == j else 2) * squared
        for _ in range(p if n_directions is not None else 0):
            u, v = gaussian((2, size, n_inputs), generator, x)
            total = total + _second(run, flat, u, v) / p
    if not bool(total.any()):
        _warn_of_kinks(module, x, forward)
    return _reduced(module, total, reduction)


def _second(run: Callable[[Tensor], Tensor], x: Tensor, u: Tensor, v: Tensor) -> Tensor:
    return push(run, x, u, v, create_graph=True)[2].square().sum(1)


def _count(
    name: str, value: int | None, most: int, generator: torch.Generator | None, least: int = 1
) -> int:
    """The number asked for, checked, or all there are."""
    if value is None:
        return most
    upper = "" if name == "n_directions" else f" to {most}"
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise SkgeoError(f"{name}={value!r}: expected None or an integer from {least}{upper}.")
    if upper and value > most:
        raise SkgeoError(f"{name}={value}: there are {most} directions; pass None for all of them.")
    if not isinstance(generator, torch.Generator):
        raise SkgeoError(
            f"{name}={value} draws at random, and draws must differ from step to step: make a "
            "torch.Generator().manual_seed(0) once, before the loop, and pass generator=...."
        )
    return value


def _reduced(module: nn.Module, values: Tensor, reduction: str) -> Tensor:
    if reduction not in ("mean", "none"):
        raise SkgeoError(f"reduction={reduction!r}: expected 'mean' or 'none'.")
    if not values.requires_grad:
        # A constant: a zero gradient rather than an error in the caller's backward pass.
        values = values + sum(0.0 * p.sum() for p in module.parameters() if p.requires_grad)
    return values.mean() if reduction == "mean" else values


def _warn_of_kinks(module: nn.Module, x: Tensor, forward: Forward | None) -> None:
    with collect_warnings():  # the mode of the module is its owner's choice here
        pattern = activation_pattern(replica(module, forward=forward, parameters=None), x.detach())
    if pattern:
        warn(
            "The network is piecewise linear: its second derivative is zero between its kinks, so "
            "that the curvature penalty and its gradient are zero. Use a smooth activation.",
            NonSmoothWarning,
            stacklevel=4,
        )
