"""Networks of fewer units that compute the same function."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from skgeo.data import as_samples
from skgeo.exceptions import SkgeoError
from skgeo.models import bare_model
from skgeo.network._activation import RELU
from skgeo.network._stack import Stack, read_stack
from skgeo.symmetry._compression.domains import Domain, read_domain
from skgeo.symmetry._compression.merging import fold_affine
from skgeo.symmetry._compression.reduction import (
    Reduction,
    check_same_function,
    hidden_layers_of,
    reduce_stack,
)
from skgeo.symmetry._compression.width_curve import WidthError, width_curve
from skgeo.symmetry._equivalence.hinge_equivalence import difference_network
from skgeo.symmetry._equivalence.hinges import hinge_form
from skgeo.symmetry._hidden_layer import HiddenLayer
from skgeo.symmetry._tolerance import resolve_tolerance


@dataclass(frozen=True, eq=False)
class CompressionReport:
    """A smaller network of the same function, and where it is the same.

    Attributes
    ----------
    module : torch.nn.Module
        New, of the classes of the network that was given; shares nothing with it.
    domain : {None, "box", "data"}
        Where the two agree: everywhere, on the smallest box around the data, or on the data.
    layers : tuple of str
        Modules whose outputs are hidden units.
    widths_before, widths : tuple of int
        Units in each.
    units : tuple of Tensor, one a hidden layer
        int64; for each unit of the given network the unit of `module` that it has become part of,
        -1 where it is gone, constant, or in a linear part.
    optimal : bool
        Whether it is proved that no network of one hidden layer with fewer units agrees on the
        domain, up to the tolerance.
    error : float
        Largest difference of the outputs, computed in float64 with the weights of both modules, on
        the data and on random points of the domain.
    error_outside : float
        The same at random points outside the domain; NaN for ``domain=None``.
    error_bound : float
        The difference is at most this, times ``1 + |x|`` for ``domain=None``: from the canonical
        form of the difference for one hidden layer of ReLU, from the data for ``domain="data"``;
        NaN where no bound is known.
    tol : float
    curve : tuple of WidthError
        For ``exact=False``: width against error, layer by layer.
    """

    module: nn.Module
    domain: Literal["box", "data"] | None
    layers: tuple[str, ...]
    widths_before: tuple[int, ...]
    widths: tuple[int, ...]
    units: tuple[Tensor, ...]
    optimal: bool
    error: float
    error_outside: float
    error_bound: float
    tol: float
    curve: tuple[WidthError, ...] = ()

    def __str__(self) -> str:
        before, after = (" ".join(map(str, w)) for w in (self.widths_before, self.widths))
        where = {None: "everywhere", "box": "on the box", "data": "on the data"}[self.domain]
        proof = ", the least possible" if self.optimal else ""
        return f"hidden units {before} -> {after}{proof}; error {self.error:.1e} {where}"


def compress(
    model: Any,
    *,
    exact: bool = True,
    domain: Literal["box", "data"] | None = None,
    X: Any = None,
    tol: Any = "auto",
) -> CompressionReport:
    r"""Take out the hidden units that a network does not need.

    Units that nothing reads, that are constant, or that equal others are dropped, folded into
    biases, or merged, layer by layer until nothing changes. A layer of ReLU units is rewritten
    altogether, one unit a boundary and as few more as its linear part takes, where that is
    narrower. On a domain, units that are never on there go as well, and those that are always on
    become one for each dimension of their common linear part.

    Parameters
    ----------
    model : Module, WrappedModel, Checkpoint, scikit-learn or skorch model
        A chain of linear layers and pointwise activations. Left as it is.
    exact : bool, default=True
        With False the curve of width against output error is given as well: units are taken away
        greedily, the rest refitted, so that each error is an upper bound on what is possible.
        Needs X.
    domain : {None, "box", "data"}, default=None
        Where the function is to stay the same: on all of :math:`\mathbb{R}^n`, on the smallest
        axis-parallel box around the samples, or on the samples alone. The last two need X.
    X : array, Tensor, Dataset or DataLoader, optional
    tol : "auto" or float, default="auto"
        Relative; 1e-10 for float64 weights and 2e-6 for float32.

    Returns
    -------
    CompressionReport

    Raises
    ------
    SkgeoError
        If the network is not such a chain, X is missing or does not fit, or the outputs turn out
        to differ on the domain by more than rounding explains.

    Notes
    -----
    Exact up to `tol`: trained networks are hardly ever degenerate, and come back as they are unless
    training has made them so, as group lasso does. For one hidden layer of ReLU the result is the
    narrowest network where `optimal` says so; for one of tanh always, on :math:`\mathbb{R}^n`
    [1]_; layers of deeper networks are narrowed one at a time, which need not find the narrowest.
    Without exactness the least width within an error is NP-complete to find [2]_, so that the
    curve is a bound. Costs, a sweep over a layer, :math:`O(d n k + d \log d)`.

    References
    ----------
    .. [1] H. J. Sussmann, "Uniqueness of the weights for minimal feedforward nets with a given
       input-output map", Neural Networks 5 (1992).
    .. [2] M. Farrugia-Roberts, "Computational complexity of detecting proximity to losslessly
       compressible neural network parameters", arXiv:2306.02834.

    Examples
    --------
    Twice the same unit, one that nothing reads, and one that is constant:

    >>> from torch import nn
    >>> net = nn.Sequential(nn.Linear(1, 4), nn.ReLU(), nn.Linear(4, 1)).double()
    >>> with torch.no_grad():
    ...     _ = net[0].weight.copy_(torch.tensor([[1.0], [2.0], [3.0], [0.0]]))
    ...     _ = net[0].bias.copy_(torch.tensor([1.0, 2.0, 1.0, 1.0]))
    ...     _ = net[2].weight.copy_(torch.tensor([[1.0, 1.0, 0.0, 5.0]]))
    >>> report = compress(net)
    >>> report.widths, report.units[0].tolist(), report.optimal
    ((1,), [0, 0, -1, -1], True)
    """
    resolved = bare_model(model)
    stack = read_stack(resolved)
    inputs = _read_inputs(stack, X, needed=domain is not None or not exact)
    tol = resolve_tolerance(tol, torch.finfo(stack.dtype).eps)
    region = read_domain(stack, domain, inputs)
    found = reduce_stack(stack, region, tol=tol)
    module = stack.rebuild(found.weights, found.biases)
    shape = None if inputs is None else tuple(inputs.shape[1:])
    # Not the module that is returned, which stays in its own dtype.
    pair = stack.rebuild(stack.weights, stack.biases), copy.deepcopy(module)
    first, second = (_evaluator(each, resolved.forward, shape) for each in pair)
    error = check_same_function(stack, found, region, first, second, tol)
    outside = region.outside()
    return CompressionReport(
        module=module,
        domain=domain,
        layers=stack.names[:-1],
        widths_before=stack.widths[1:-1],
        widths=found.widths,
        units=tuple(layer.units for layer in found.layers if layer.units is not None),
        optimal=found.optimal,
        error=error,
        error_outside=(
            float("nan")
            if outside is None
            else float((first(outside) - second(outside)).abs().max())
        ),
        error_bound=error if domain == "data" else _bound(stack, found, region, tol),
        tol=tol,
        curve=() if exact else width_curve(stack, region.samples),
    )


def _read_inputs(stack: Stack, X: Any, *, needed: bool) -> Tensor | None:
    if X is None:
        if needed:
            raise SkgeoError("X is None: a domain, or exact=False, needs samples. Pass X.")
        return None
    inputs = as_samples(X, None).inputs
    n = stack.widths[0]
    if not isinstance(inputs, Tensor) or inputs[0].numel() != n:
        raise SkgeoError(f"X does not fit: the network reads {n} numbers a sample, in one tensor.")
    return inputs.to("cpu", torch.float64)


def _evaluator(
    module: nn.Module,
    forward: Callable[[Any, Any], Any] | None,
    shape: tuple[int, ...] | None,
) -> Callable[[Tensor], Tensor]:
    """A module with the weights of its dtype, run in float64 on rows of numbers."""
    module = module.double().cpu().eval()

    def evaluate(points: Tensor) -> Tensor:
        inputs = points if shape is None else points.reshape(len(points), *shape)
        with torch.no_grad():
            found = module(inputs) if forward is None else forward(module, inputs)
        return found.reshape(len(points), -1)

    return evaluate


def _bound(stack: Stack, found: Reduction, region: Domain, tol: float) -> float:
    """Bound on the difference of two one-hidden-layer ReLU networks on a domain."""
    if stack.activations != (RELU,):
        return float("nan")
    networks = []
    # Weights as the modules hold them, in their own precision.
    (layer,) = found.layers
    rounded = replace(
        layer,
        weights=layer.weights.to(stack.dtype).double(),
        biases=layer.biases.to(stack.dtype).double(),
        outputs=layer.outputs.to(stack.dtype).double(),
        shift=layer.shift.to(stack.dtype).double(),
    )
    here = region.at([], [], 0)
    for layer in (*hidden_layers_of(stack), rounded):
        interval = here.interval(layer.weights, layer.biases) if region.kind else None
        rest, linear, _ = fold_affine(layer, interval=interval)
        networks.append(HiddenLayer(rest.weights, rest.biases, rest.outputs, rest.shift, linear))
    form = hinge_form(difference_network(*networks), tol=tol)
    reach = 1.0 + region.radius()
    weight = (form.jumps.abs() * form.offsets.abs().clamp(min=1)[:, None]).sum(0)
    bound = weight + torch.linalg.vector_norm(form.linear, dim=1) + form.constant.abs()
    for network in networks:
        sizes = torch.linalg.vector_norm(network.weights, dim=1) + network.biases.abs()
        bound = bound + form.spread * (network.outputs.abs() @ sizes)
    return float(bound.max()) * reach
