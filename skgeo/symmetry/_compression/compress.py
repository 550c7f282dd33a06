"""Networks with fewer units that compute the same function."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from skgeo._results import Result
from skgeo.data import as_samples
from skgeo.exceptions import SkgeoError
from skgeo.models import bare_model
from skgeo.network._activation import RELU
from skgeo.network._outputs import checked_outputs
from skgeo.network._running import running
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
from skgeo.symmetry._tolerance import FINE, is_coarse, resolve_tolerance, warn_merged


@dataclass(frozen=True, eq=False, repr=False)
class CompressionReport(Result):
    """A smaller network of the same function, and the domain on which they agree.

    Attributes
    ----------
    module : torch.nn.Module
        A new network of the same classes that shares no memory with the original.
    domain : {None, "box", "data"}
        Where both agree: everywhere, on the smallest box around the data, or on the data.
    layers : tuple of str
        Names of the hidden layers.
    widths_before, widths : tuple of int
        Number of units of each hidden layer, in the original and in the new network.
    units : tuple of Tensor, one per hidden layer
        int64; for each unit of the original network the unit of `module` that it became part of,
        -1 where it was removed, constant, or part of a linear part.
    optimal : bool
        Whether it is proved that no network of one hidden layer with fewer units agrees on the
        domain, up to the tolerance.
    error : float
        Largest difference of the outputs on the data and at random points of the domain, computed
        in float64 with the weights of both modules.
    error_outside : float
        The same at random points outside the domain; NaN for ``domain=None``.
    error_bound : float
        Bound on the difference of the outputs, to be multiplied by ``1 + |x|`` for
        ``domain=None``. For one hidden layer of ReLU it comes from the canonical form of the
        difference, for ``domain="data"`` it is `error`; NaN where no bound is known.
    tol : float
        Relative tolerance that was used.
    curve : tuple of WidthError
        For ``exact=False``: width and error, layer by layer.

    See Also
    --------
    skgeo.symmetry.compress : Makes it.
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

    def _line(self) -> str:
        before, after = (" ".join(map(str, w)) for w in (self.widths_before, self.widths))
        where = {None: "everywhere", "box": "on the box", "data": "on the data"}[self.domain]
        proof = ", the least possible" if self.optimal else ""
        return f"hidden units {before} -> {after}{proof}; error {self.error:.1e} {where}"

    def __str__(self) -> str:
        return self._line()


def compress(
    model: Any,
    *,
    exact: bool = True,
    domain: Literal["box", "data"] | None = None,
    X: Any = None,
    tol: Any = "auto",
) -> CompressionReport:
    r"""Network with fewer hidden units that computes the same function.

    Units without outgoing weights are dropped, constant units are added to biases, and equal units
    are merged, layer by layer until nothing changes. Of linear layers without an activation between
    them, the inner width becomes the rank of their product. Where this is narrower, a layer of ReLU
    or leaky ReLU units is replaced by one unit per activation boundary and as few further units as
    its linear part needs. On a domain, units that are never active there are dropped too, and units
    that are always active are replaced by one per dimension of their common linear part.

    Parameters
    ----------
    model : Module, WrappedModel, Checkpoint, scikit-learn or skorch model
        A chain of linear layers and pointwise activations; only read.
    exact : bool, default=True
        If False, the report also has the curve of output error by width: units are removed
        greedily and the weights of the others refitted, so each error is an upper bound on the
        least possible one. Needs X.
    domain : {None, "box", "data"}, default=None
        Where the function stays the same: on all of :math:`\mathbb{R}^n`, on the smallest
        axis-parallel box around the samples, or on the samples only. The last two need X.
    X : array, Tensor, Dataset or DataLoader, default=None
        Samples of shape (N, ...).
    tol : "auto" or float, default="auto"
        Relative tolerance. "auto" is 1e-10 for float64 weights and 2e-6 for float32.

    Returns
    -------
    CompressionReport
        The new network, with widths, errors and a bound.

    Raises
    ------
    SkgeoError
        If the network is not such a chain, X is missing or does not fit, or the outputs differ on
        the domain by more than rounding explains.

    Warns
    -----
    GeometryWarning
        If `tol` is below the precision of the weights. In half precision, of the units that are
        removed at the tolerance "auto" and not at 1e-10, by layer and index.

    See Also
    --------
    skgeo.symmetry.minimal_width : Least width of one hidden layer of ReLU.

    Notes
    -----
    The result is exact up to `tol`. Trained networks are hardly ever degenerate and are returned
    unchanged, unless training makes them degenerate, as group lasso does. For one hidden layer of
    ReLU the result is the narrowest network if `optimal` is True; for one hidden layer of tanh it
    always is, on :math:`\mathbb{R}^n` [1]_. Layers of deeper networks are narrowed one at a time,
    which need not give the narrowest network. Finding the least width for a given error is
    NP-complete [2]_, so the curve of ``exact=False`` is a bound. A sweep over a layer costs
    :math:`O(d n k + d \log d)`.

    References
    ----------
    .. [1] H. J. Sussmann, "Uniqueness of the weights for minimal feedforward nets with a given
       input-output map", Neural Networks 5 (1992).
    .. [2] M. Farrugia-Roberts, "Computational complexity of detecting proximity to losslessly
       compressible neural network parameters", arXiv:2306.02834.

    Examples
    --------
    Two equal units, one without outgoing weights, and one that is constant:

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
    asked, tol = tol, resolve_tolerance(tol, torch.finfo(stack.dtype).eps)
    region = read_domain(stack, domain, inputs)
    found = reduce_stack(stack, region, tol=tol)
    if is_coarse(asked, tol):
        warn_merged(_merged_by(found, reduce_stack(stack, region, tol=FINE), stack), tol)
    module = stack.rebuild(found.weights, found.biases)
    shape = None if inputs is None else tuple(inputs.shape[1:])
    # Copies, since the evaluation converts modules to float64.
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


def _merged_by(coarse: Reduction, fine: Reduction, stack: Stack) -> list[str]:
    """Units that are units of their own in one reduction and not in the other, coarser one."""
    names = []
    for name, less, more in zip(stack.names, coarse.layers, fine.layers, strict=False):
        assert less.units is not None
        assert more.units is not None
        gone = _alone(more.units) & ~_alone(less.units)
        names += [f"{name}[{unit}]" for unit in gone.nonzero()[:, 0].tolist()]
    return names


def _alone(units: Tensor) -> Tensor:
    """Which units are the only ones that became part of their unit."""
    return (units >= 0) & (torch.bincount(units + 1, minlength=1)[units + 1] == 1)


def _read_inputs(stack: Stack, X: Any, *, needed: bool) -> Tensor | None:
    if X is None:
        if needed:
            raise SkgeoError("X is None, but a domain and exact=False need samples. Pass X.")
        return None
    inputs = as_samples(X, None).inputs
    n = stack.widths[0]
    if not isinstance(inputs, Tensor) or inputs[0].numel() != n:
        raise SkgeoError(
            f"X does not fit the network, which reads {n} numbers per sample, in one tensor."
        )
    return inputs.to("cpu", torch.float64)


def _evaluator(
    module: nn.Module,
    forward: Callable[[Any, Any], Any] | None,
    shape: tuple[int, ...] | None,
) -> Callable[[Tensor], Tensor]:
    """A function that runs a module in float64 on flat inputs (N, n)."""
    module = module.double().cpu().eval()

    def evaluate(points: Tensor) -> Tensor:
        inputs = points if shape is None else points.reshape(len(points), *shape)
        with torch.no_grad(), running(inputs):
            found = module(inputs) if forward is None else forward(module, inputs)
        return checked_outputs(found, len(points)).reshape(len(points), -1)

    return evaluate


def _bound(stack: Stack, found: Reduction, region: Domain, tol: float) -> float:
    """Bound on the difference of two one-hidden-layer ReLU networks on a domain."""
    if stack.activations != (RELU,):
        return float("nan")
    networks = []
    # Weights as the modules store them, in their own precision.
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
