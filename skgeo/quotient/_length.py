r"""Fisher-Rao length of paths through a layer, and how straight they are.

A polygon through representations is moved through the rest of the network; the length of its image
in output distributions is its length under the layer's pulled back metric,
:math:`\int \sqrt{\dot h^T G_l(h)\, \dot h}\, dt`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from skgeo._arguments import check_number
from skgeo.data import Inputs
from skgeo.exceptions import SkgeoError, warn
from skgeo.likelihood import Likelihood
from skgeo.linalg._threads import single_blas_thread
from skgeo.network._bound import BoundNetwork, bind
from skgeo.quotient._rows import LayerRows

_FIRST_PIECES = 16
_MOST_PIECES = 2**14
_BATCH = 256


def fisher_rao_length(
    model: Any,
    path: Any,
    *,
    layer: str | None = None,
    likelihood: str | Likelihood = "auto",
    rtol: float = 1e-6,
    device: str | torch.device | None = None,
) -> float:
    r"""Length of a path under the Fisher metric pulled back to a layer.

    Parameters
    ----------
    model : Module, WrappedModel, Checkpoint, scikit-learn or skorch model
        Not modified.
    path : array, Tensor or dict of shape (n_points, ...)
        Inputs, at least two. Their representations at `layer` are joined by straight segments.
    layer : str, optional
        Where the segments are straight: a layer that is a cut. None for the input itself.
    likelihood : str or Likelihood, default="auto"
        As in :func:`~skgeo.quotient.layer_spectra`; there is no y here.
    rtol : float, default=1e-6
        Segments are halved until that adds less than this share to their length. Below the root
        of the dtype's precision it has no effect.
    device : str or torch.device, optional
        Where to compute; by default where the module is.

    Returns
    -------
    float
        At least the Fisher-Rao distance of the end points, whatever `rtol` is: every refinement
        is itself a polygon between them.

    Raises
    ------
    SkgeoError
        For fewer than two points, a layer that is not a cut, or index inputs that differ along
        the path and are to be joined by a straight line.

    Notes
    -----
    A sum of Fisher-Rao distances between neighbours, with an error that falls with the square of
    the number of pieces; a few hundred forward passes a segment.

    Examples
    --------
    Under unit variance a linear network measures Euclidean length:

    >>> import torch
    >>> from skgeo.quotient import fisher_rao_length
    >>> net = torch.nn.Linear(2, 2, bias=False).double()
    >>> with torch.no_grad():
    ...     _ = net.weight.copy_(torch.eye(2))
    >>> path = [[0.0, 0.0], [3.0, 4.0], [3.0, 5.0]]
    >>> round(fisher_rao_length(net, path, likelihood="gaussian"), 9)
    6.0
    """
    with single_blas_thread():
        network = bind(model, path, likelihood=likelihood, parameters=None, device=device)
        return _length(network, layer, rtol)


def straightness(
    model: Any,
    path: Any,
    *,
    layer: str | None = None,
    likelihood: str | Likelihood = "auto",
    rtol: float = 1e-6,
    device: str | torch.device | None = None,
) -> float:
    """Fisher-Rao length of a path over the Fisher-Rao distance of its ends.

    Parameters
    ----------
    model, path, layer, likelihood, rtol, device
        As in :func:`fisher_rao_length`.

    Returns
    -------
    float
        At least 1; 1 where the straight path at this layer is a geodesic of the output family.
        Free of units, so that layers can be compared.

    Raises
    ------
    SkgeoError
        Where both ends have the same output distribution, so there is no ratio; and as for
        :func:`fisher_rao_length`.

    Examples
    --------
    >>> import torch
    >>> from skgeo.quotient import straightness
    >>> net = torch.nn.Linear(2, 2).double()
    >>> round(straightness(net, [[0.0, 0.0], [3.0, 4.0]], likelihood="gaussian"), 9)
    1.0
    """
    with single_blas_thread():
        network = bind(model, path, likelihood=likelihood, parameters=None, device=device)
        outputs = network.outputs()
        distance = float(network.likelihood.distance(outputs[:1], outputs[-1:]))
        scale = max(1.0, float(outputs.abs().max()))
        if not distance > 64 * torch.finfo(outputs.dtype).eps * scale:
            raise SkgeoError(
                "Both ends of the path have the same output distribution, up to rounding, so "
                "there is no distance to compare its length with. Choose other ends."
            )
        # The sum rounds where the true ratio is one.
        return max(1.0, _length(network, layer, rtol) / distance)


def _length(network: BoundNetwork, layer: str | None, rtol: float) -> float:
    if network.n_samples < 2:
        raise SkgeoError("A path needs at least two points; one was given.")
    check_number("rtol", rtol, above=0, below=1)
    network.notice(network.outputs())
    along = _inputs_between(network) if layer is None else _layer_between(network, layer)
    rtol = max(rtol, torch.finfo(network.dtype).eps ** 0.5)
    return sum(
        _segment(lambda t, i=i: along(i, t), network.likelihood, rtol)  # type: ignore[misc]
        for i in range(network.n_samples - 1)
    )


def _segment(outputs: Callable[[Tensor], Tensor], likelihood: Likelihood, rtol: float) -> float:
    """Length of one segment by halving; `outputs` gives those at positions t in [0, 1]."""

    def measured(z: Tensor) -> float:
        return float(likelihood.distance(z[:-1], z[1:]).sum())

    pieces = _FIRST_PIECES
    z = outputs(torch.linspace(0.0, 1.0, pieces + 1, dtype=torch.float64))
    length = measured(z)
    while pieces < _MOST_PIECES:
        between = outputs((torch.arange(pieces, dtype=torch.float64) + 0.5) / pieces)
        finer = z.new_empty((2 * pieces + 1, *z.shape[1:]))
        finer[::2], finer[1::2] = z, between
        pieces, z, before = 2 * pieces, finer, length
        length = measured(z)
        if length - before <= rtol * length:
            return length
    warn(
        f"The length of a segment still grew by {(length - before) / length:.1e} of itself at "
        f"{pieces} pieces, more than rtol={rtol:.1e}: it is a lower bound."
    )
    return length


def _in_batches(run: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([run(part) for part in torch.split(t, _BATCH)])


def _inputs_between(network: BoundNetwork) -> Callable[[int, Tensor], Tensor]:
    def outputs(index: int, t: Tensor) -> Tensor:
        ends = network.inputs(range(index, index + 2))
        return _in_batches(lambda part: network.sized(network.replica(between(ends, part))), t)

    return outputs


def _layer_between(network: BoundNetwork, layer: str) -> Callable[[int, Tensor], Tensor]:
    rows = LayerRows(network, [layer])
    (name,) = rows.names
    if not rows.layers[name].is_cut:
        raise SkgeoError(
            f"Layer {name!r} is not a cut: the outputs are not a function of its representation "
            "alone, so a path through it has no length. Choose a layer that all of the "
            "computation passes through."
        )
    points = rows.representations(name)

    def outputs(index: int, t: Tensor) -> Tensor:
        start, stop = points[index], points[index + 1]

        def run(part: Tensor) -> Tensor:
            first = network.inputs(range(index, index + 1))
            inputs = between(first, torch.zeros(len(part)), single=True)
            weights = part.to(start).unsqueeze(1)
            return network.sized(rows.tail(inputs, name)(torch.lerp(start, stop, weights)))

        return _in_batches(run, t)

    return outputs


def between(ends: Inputs, t: Tensor, *, single: bool = False) -> Inputs:
    """Inputs on the straight line between two samples, or one sample repeated.

    ends: two samples, or one where `single`.
    t: (m,), positions in [0, 1].
    Raises SkgeoError if the two differ in a tensor of indices.
    """

    def mix(tensor: Tensor) -> Tensor:
        if single or (not tensor.is_floating_point() and torch.equal(tensor[0], tensor[1])):
            return tensor[:1].expand(len(t), *tensor.shape[1:])
        if not tensor.is_floating_point():
            raise SkgeoError(
                "The two samples differ in integers, which are indices: there is no straight line "
                "between them. Name a layer behind the embedding."
            )
        weights = t.to(tensor).reshape(-1, *[1] * (tensor.dim() - 1))
        return torch.lerp(tensor[:1], tensor[1:2], weights)

    if isinstance(ends, Tensor):
        return mix(ends)
    if isinstance(ends, dict):
        return {key: mix(tensor) for key, tensor in ends.items()}
    return tuple(mix(tensor) for tensor in ends)
