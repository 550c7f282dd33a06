"""Penalties on the geometry of a network, differentiable in its weights, for training loops.

They act on the given module itself, in its current mode, and their gradients reach its parameters.
Buffers and hooks are not modified.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from skgeo._arguments import check_number, check_option
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
    drawn independently for every sample: an unbiased estimate ([1]_), exact at p = K, the number
    of outputs.

    Parameters
    ----------
    model : Module or WrappedModel
        Evaluated in its current mode. Not copied: the gradient reaches its parameters.
    x : Tensor of shape (b, ...)
        Floating inputs.
    n_projections : int, optional
        Number p of random cotangents. By default the exact value, at one backward pass per output.
    generator : torch.Generator, optional
        Required with `n_projections`. Create it once, before the loop: draws then differ from step
        to step.
    reduction : {"mean", "none"}, default="mean"
        Mean over samples, or one value per sample.

    Returns
    -------
    Tensor
        Scalar, or of shape (b,) for ``reduction="none"``, on a graph to the parameters.

    Raises
    ------
    SkgeoError
        If inputs are integers, outputs have no graph, batch normalisation is in train mode, or
        projections are asked for without a generator.

    Notes
    -----
    It takes p (or K) backward passes, which are themselves differentiated. Active dropout draws a
    mask of its own: the penalty is that of the network under this mask.

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
    :math:`m = \operatorname{tr} A / r`. It is zero where all r singular values are equal. With at
    most as many inputs as outputs, it is the squared isometry deviation; with more, the directions
    that the Jacobian necessarily loses are left out.

    Parameters
    ----------
    model : Module or WrappedModel
        Evaluated in its current mode. Not copied: the gradient reaches its parameters.
    x : Tensor of shape (b, ...)
        Floating inputs.
    scale : float, optional
        Take ``m = scale**2``: the singular values are then compared with `scale`, not only with
        each other.
    n_projections : int, optional
        Use :math:`V A V^T` for p random orthonormal rows V instead of A. Its mean is zero exactly
        where A is a multiple of I, but it is not an unbiased estimate of the penalty. It equals the
        penalty at p = r. At least 2 without `scale`, since one direction alone is always isometric.
    generator : torch.Generator, optional
        Required with `n_projections`, as in :func:`jacobian_penalty`.
    reduction : {"mean", "none"}, default="mean"
        Mean over samples, or one value per sample.

    Returns
    -------
    Tensor
        Scalar, or of shape (b,) for ``reduction="none"``, on a graph to the parameters.

    Raises
    ------
    SkgeoError
        As for :func:`jacobian_penalty`, and, without `scale`, if a Jacobian is zero.

    Notes
    -----
    It takes p (or r) backward passes, which are themselves differentiated, and twice as many with
    fewer inputs than outputs, where directions of the input are pushed forward.

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
    if scale is not None:
        check_number("scale", scale, above=0, also="None for any scale")
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
                "singular values have no ratio. Pass scale=...."
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
    the mean of :math:`\|D^2 f[u, v]\|^2` over this many pairs of independent Gaussian directions,
    an unbiased estimate. It is zero for affine maps.

    Parameters
    ----------
    model : Module or WrappedModel
        Evaluated in its current mode. Not copied: the gradient reaches its parameters.
    x : Tensor of shape (b, ...)
        Floating inputs.
    n_directions : int, optional
        Number of pairs of random directions. By default the exact value, which takes n (n + 1)/2
        second derivatives for n inputs.
    generator : torch.Generator, optional
        Required with `n_directions`, as in :func:`jacobian_penalty`.
    reduction : {"mean", "none"}, default="mean"
        Mean over samples, or one value per sample.

    Returns
    -------
    Tensor
        Scalar, or of shape (b,) for ``reduction="none"``, on a graph to the parameters.

    Raises
    ------
    SkgeoError
        As for :func:`jacobian_penalty`.

    Warns
    -----
    NonSmoothWarning
        If the network is piecewise linear: its second derivative is zero wherever it exists, so the
        penalty and its gradient are zero.

    Notes
    -----
    It takes three backward passes per second derivative, and that of the loss through all of them.
    Layer and instance normalisation are computed from elementary operations, since torch's kernels
    for them have no correct third derivative.

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
    """The requested number, or `most` for None.

    Raises SkgeoError if it is out of range or there is no generator for it.
    """
    if value is None:
        return most
    upper = "" if name == "n_directions" else f" to {most}"
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise SkgeoError(f"Got {name}={value!r}; expected None or an integer from {least}{upper}.")
    if upper and value > most:
        raise SkgeoError(
            f"Got {name}={value}; there are {most} directions; pass None for all of them."
        )
    if not isinstance(generator, torch.Generator):
        raise SkgeoError(
            f"With {name}={value}, the penalty draws at random, and draws must differ from step to "
            "step. Create torch.Generator().manual_seed(0) once, before the loop, and pass "
            "generator=...."
        )
    return value


def _reduced(module: nn.Module, values: Tensor, reduction: str) -> Tensor:
    check_option("reduction", reduction, ("mean", "none"))
    if not values.requires_grad:
        # A constant has a zero gradient, and the caller's backward pass must not fail.
        values = values + sum(0.0 * p.sum() for p in module.parameters() if p.requires_grad)
    return values.mean() if reduction == "mean" else values


def _warn_of_kinks(module: nn.Module, x: Tensor, forward: Forward | None) -> None:
    with collect_warnings():  # the module stays in the caller's mode on purpose
        pattern = activation_pattern(replica(module, forward=forward, parameters=None), x.detach())
    if pattern:
        warn(
            "The network is piecewise linear: its second derivative is zero between its kinks, so "
            "the curvature penalty and its gradient are zero. Use a smooth activation.",
            NonSmoothWarning,
            stacklevel=4,
        )
