r"""Fisher-Rao length and straightness of paths through a layer.

A polygon through representations is mapped through the rest of the network. The length of its image
in the output distributions is its length under the metric pulled back to the layer,
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
        At least two inputs. Their representations at `layer` are joined by straight segments.
    layer : str, optional
        Layer, a cut, in whose representation the segments are straight. None for the input itself.
    likelihood : str or Likelihood, default="auto"
        Distribution that the outputs parametrise, as in :func:`~skgeo.quotient.layer_spectra`,
        but "auto" has no y to read.
    rtol : float, default=1e-6
        Segments are halved until that adds at most this share to their length. Values below the
        square root of the machine epsilon of the dtype have no effect.
    device : str or torch.device, optional
        Where to compute; by default where the module is.

    Returns
    -------
    float
        Length of the path. It is at least the Fisher-Rao distance of the end points for any `rtol`,
        since every refinement is itself a polygon between them.

    Raises
    ------
    SkgeoError
        If there are fewer than two points, the layer is not a cut, or inputs that are indices
        differ along the path and would be joined by a straight line.

    Notes
    -----
    The length is a sum of Fisher-Rao distances between neighbours, with an error that falls with
    the square of the number of pieces. It takes a few hundred forward passes per segment.

    Examples
    --------
    For the identity with Gaussian outputs of unit variance it is the Euclidean length:

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
    """Ratio of the Fisher-Rao length of a path to the Fisher-Rao distance of its ends.

    Parameters
    ----------
    model : Module, WrappedModel, Checkpoint, scikit-learn or skorch model
        Not modified.
    path : array, Tensor or dict of shape (n_points, ...)
        At least two inputs. Their representations at `layer` are joined by straight segments.
    layer : str, optional
        Layer, a cut, in whose representation the segments are straight. None for the input itself.
    likelihood : str or Likelihood, default="auto"
        Distribution that the outputs parametrise, as in :func:`fisher_rao_length`.
    rtol : float, default=1e-6
        Relative precision of the length, as in :func:`fisher_rao_length`.
    device : str or torch.device, optional
        Where to compute; by default where the module is.

    Returns
    -------
    float
        At least 1, and 1 where the path at this layer is a geodesic of the output family. It has
        no unit, so layers can be compared.

    Raises
    ------
    SkgeoError
        If both ends have the same output distribution, so there is no ratio; and as for
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
        # Where the true ratio is one, the sum may round to below the distance.
        return max(1.0, _length(network, layer, rtol) / distance)


def _length(network: BoundNetwork, layer: str | None, rtol: float) -> float:
    if network.n_samples < 2:
        raise SkgeoError("The path holds one point; a path needs at least two points.")
    check_number("rtol", rtol, above=0, below=1)
    network.notice(network.outputs())
    along = _inputs_between(network) if layer is None else _layer_between(network, layer)
    rtol = max(rtol, torch.finfo(network.dtype).eps ** 0.5)
    return sum(
        _segment(lambda t, i=i: along(i, t), network.likelihood, rtol)  # type: ignore[misc]
        for i in range(network.n_samples - 1)
    )


def _segment(outputs: Callable[[Tensor], Tensor], likelihood: Likelihood, rtol: float) -> float:
    """Length of one segment, halved until it converges.

    outputs: function of positions in [0, 1].
    """

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
        f"{pieces} pieces, more than rtol={rtol:.1e}: the result is a lower bound."
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
    """Inputs at positions on the straight line between two samples, or one sample repeated.

    ends: two samples, or one with `single`.
    t: positions in [0, 1].
    Raises SkgeoError if the two differ in a tensor of indices.
    """
    # t (m,) -> (m, ...)

    def mix(tensor: Tensor) -> Tensor:
        if single or (not tensor.is_floating_point() and torch.equal(tensor[0], tensor[1])):
            return tensor[:1].expand(len(t), *tensor.shape[1:])
        if not tensor.is_floating_point():
            raise SkgeoError(
                "The two samples differ in integers, which are indices: there is no straight line "
                "between them. Name a layer after the embedding."
            )
        weights = t.to(tensor).reshape(-1, *[1] * (tensor.dim() - 1))
        return torch.lerp(tensor[:1], tensor[1:2], weights)

    if isinstance(ends, Tensor):
        return mix(ends)
    if isinstance(ends, dict):
        return {key: mix(tensor) for key, tensor in ends.items()}
    return tuple(mix(tensor) for tensor in ends)
